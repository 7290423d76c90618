//! Certificates of pods, with a signer that the test plays (KEP-4317).

use std::path::PathBuf;
use std::time::Duration;

use base::tls::Authority;
use client::Api;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;
use k8s_openapi::api::core::v1::{Event, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::testing::Cell;

fn pod(kind: &str) -> Value {
    let source = json!({"podCertificate": {"signerName": "example.com/a", "keyType": kind, "credentialBundlePath": "both.pem"}});
    let container = json!({"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    json!({"serviceAccountName": "robot", "containers": [container], "volumes": [{"name": "v", "projected": {"sources": [source]}}]})
}

fn file(cell: &Cell) -> PathBuf {
    cell.directory.path().join("kubelet/pods/uid-p/volumes/kubernetes.io~projected/v/both.pem")
}

async fn started() -> Cell {
    let cell = Cell::new();
    let account: ServiceAccount =
        serde_json::from_value(json!({"metadata": {"name": "robot", "namespace": "ns", "uid": "uid-robot"}})).unwrap();
    cell.fake.put(&account);
    cell.start().await;
    cell
}

fn requests(cell: &Cell) -> Api<PodCertificateRequest> {
    Api::namespaced(cell.fake.client(), "ns")
}

fn is_open(request: &PodCertificateRequest) -> bool {
    request.status.as_ref().is_none_or(|status| status.conditions.is_none())
}

/// Waits for a request that is open, other than these.
async fn asked(cell: &Cell, known: &[&PodCertificateRequest]) -> PodCertificateRequest {
    let mut found = None;
    let is_new = |request: &PodCertificateRequest| {
        is_open(request) && !known.iter().any(|known| known.metadata.uid == request.metadata.uid)
    };
    let wait = cell.fake.until::<PodCertificateRequest>(|all| {
        found = all.iter().find(|request| is_new(request)).cloned();
        found.is_some()
    });
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("nobody asks for a certificate");
    found.unwrap()
}

async fn answer(cell: &Cell, request: &PodCertificateRequest, kind: &str, more: Value) {
    let condition =
        json!({"type": kind, "status": "True", "reason": "Why", "message": "so", "lastTransitionTime": Timestamp::now()});
    let mut status = json!({"conditions": [condition]});
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let patch = Patch::Merge(json!({"status": status}));
    requests(cell).patch_status(request.metadata.name.as_deref().unwrap(), &PatchParams::default(), &patch).await.unwrap();
}

/// A chain, which is told apart by its authority, that is to be renewed at once and ends after so long.
fn issued(life: i64) -> (String, Value) {
    let chain = base::tls::clean_chain(Authority::in_memory("ca").unwrap().bundle()).unwrap();
    let (now, until) = (Timestamp::now(), Timestamp::now() + SignedDuration::from_secs(life));
    (chain.clone(), json!({"certificateChain": chain, "notBefore": now, "beginRefreshAt": now, "notAfter": until}))
}

async fn shows(cell: &Cell, chain: &str) -> String {
    let at = file(cell);
    let directory = at.parent().unwrap().to_owned();
    let mut watch = base::directory::Watch::new(&directory).unwrap();
    let wait = async {
        loop {
            let text = std::fs::read_to_string(&at).unwrap_or_default();
            if text.ends_with(chain) {
                return text;
            }
            watch.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the file is not written")
}

async fn told(cell: &Cell, reason: &str, words: &str) {
    let found = |events: &[Event]| {
        events.iter().any(|event| {
            event.reason.as_deref() == Some(reason) && event.message.as_ref().is_some_and(|text| text.contains(words))
        })
    };
    let told = tokio::time::timeout(Duration::from_secs(30), cell.fake.until::<Event>(found)).await;
    let all = cell.fake.all::<Event>();
    assert!(told.is_ok(), "{reason} {words}: {:?}", all.iter().map(|event| &event.message).collect::<Vec<_>>());
}

/// KEP-4317: "The pod does not start until certificates have been issued for each podCertificate projected volume source in its spec".
#[tokio::test]
async fn a_pod_waits_for_its_certificate() {
    let cell = started().await;
    cell.put("p", pod("ECDSAP384"));
    let first = asked(&cell, &[]).await;
    let spec = &first.spec;
    assert_eq!((spec.pod_uid.as_str(), spec.service_account_uid.as_str()), ("uid-p", "uid-robot"));
    assert_eq!((spec.node_name.as_str(), first.metadata.namespace.as_deref()), ("n1", Some("ns")));
    told(&cell, "FailedMount", "has no answer of its signer yet").await;
    assert!(!file(&cell).exists());
    let (chain, status) = issued(7200);
    answer(&cell, &first, "Issued", status).await;
    cell.ready("p").await;
    let text = shows(&cell, &chain).await;
    assert!(text.starts_with("-----BEGIN PRIVATE KEY-----"), "{text}");
}

/// Somebody removes a request before its signer answers; and KEP-4317: "The kubelet will begin trying to rotate the certificate at the time
/// indicated by the signer".
#[tokio::test]
async fn a_removed_request_is_made_again_and_a_certificate_renewed() {
    let cell = started().await;
    cell.put("p", pod("ED25519"));
    let first = asked(&cell, &[]).await;
    requests(&cell).delete(first.metadata.name.as_deref().unwrap(), &DeleteParams::default()).await.unwrap();
    let second = asked(&cell, &[&first]).await;
    assert_ne!(second.spec.stub_pkc_s10_request, first.spec.stub_pkc_s10_request, "another key");
    let (chain, status) = issued(20);
    answer(&cell, &second, "Issued", status).await;
    cell.ready("p").await;
    let before = shows(&cell, &chain).await;
    // It is to be renewed at once, which is no sooner than ten seconds later.
    let third = asked(&cell, &[&first, &second]).await;
    let (chain, status) = issued(7200);
    answer(&cell, &third, "Issued", status).await;
    let after = shows(&cell, &chain).await;
    let key = |text: &str| text.split_inclusive("-----END PRIVATE KEY-----").next().unwrap().to_owned();
    assert_ne!(key(&before), key(&after));
}

/// KEP-4317: "If the PodCertificateRequest is denied, the kubelet treats this as a fatal error and returns an error message from the volume setup".
#[tokio::test]
async fn a_denied_pod_is_told_so() {
    let cell = started().await;
    cell.put("p", pod("ECDSAP256"));
    let request = asked(&cell, &[]).await;
    answer(&cell, &request, "Denied", json!({})).await;
    told(&cell, "Denied", "was denied, reason=\"Why\", message=\"so\"").await;
    told(&cell, "FailedMount", "was denied, reason=\"Why\", message=\"so\"").await;
    assert_eq!(cell.fake.all::<PodCertificateRequest>().len(), 1, "it is not asked again");
}

#[tokio::test]
async fn keys_that_are_not_made_here_are_told_of() {
    let cell = started().await;
    cell.put("p", pod("RSA3072"));
    let words = "for volume \"v\" : key type \"RSA3072\" is not supported by this kubelet, which makes ECDSAP256, ECDSAP384, ECDSAP521, ED25519";
    told(&cell, "FailedMount", words).await;
    assert!(cell.fake.all::<PodCertificateRequest>().is_empty());
}

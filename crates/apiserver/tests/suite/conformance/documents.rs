//! What the server says about itself: discovery in both forms, version, OpenID Connect.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::{Value, json};

use super::{get, send};
use crate::server::{admin, start};

/// Conformance: [sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]
/// Conformance: [sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup [Conformance]
#[tokio::test]
async fn groups_and_their_resources() {
    let server = start(true).await;
    let api = &server.api;
    let groups = get(api, "/apis").await;
    for group in groups["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        assert_eq!(get(api, &format!("/apis/{name}")).await["preferredVersion"], group["preferredVersion"]);
        let versions = group["versions"].as_array().unwrap();
        assert!(versions.contains(&group["preferredVersion"]), "{group}");
        for version in versions {
            let full = version["groupVersion"].as_str().unwrap();
            assert_eq!(full, format!("{name}/{}", version["version"].as_str().unwrap()));
            let list = get(api, &format!("/apis/{full}")).await;
            assert_eq!((&list["groupVersion"], &list["kind"]), (&json!(full), &json!("APIResourceList")));
            let resources = list["resources"].as_array().unwrap();
            let whole = |r: &Value| r["name"].is_string() && r["kind"].is_string() && r["verbs"].is_array();
            assert!(!resources.is_empty() && resources.iter().all(whole), "{list}");
        }
    }
}

/// Every `group/version resource` of discovery in its first form.
async fn first_form(api: &apiserver::Api) -> BTreeSet<String> {
    let groups = get(api, "/apis").await;
    let versions = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["versions"].as_array().unwrap());
    let mut paths: Vec<_> = versions.map(|version| format!("/apis/{}", version["groupVersion"].as_str().unwrap())).collect();
    paths.push("/api/v1".to_owned());
    let mut found = BTreeSet::new();
    for path in paths {
        let list = get(api, &path).await;
        let names = list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap());
        found.extend(
            names.filter(|name| !name.contains('/')).map(|name| format!("{} {name}", list["groupVersion"].as_str().unwrap())),
        );
    }
    found
}

/// Every `group/version resource` of an aggregated document.
fn aggregated(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for group in document["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().map(|name| format!("{name}/")).unwrap_or_default();
        for version in group["versions"].as_array().unwrap() {
            let full = format!("{name}{}", version["version"].as_str().unwrap());
            let resources = version["resources"].as_array().unwrap().iter();
            found.extend(resources.map(|r| format!("{full} {}", r["resource"].as_str().unwrap())));
        }
    }
    found
}

/// What the conformance tests look for in the aggregated documents, of each group one.
const EXPECTED: &[&str] = &[
    "v1 namespaces",
    "admissionregistration.k8s.io/v1 validatingwebhookconfigurations",
    "apiextensions.k8s.io/v1 customresourcedefinitions",
    "apiregistration.k8s.io/v1 apiservices",
    "apps/v1 deployments",
    "authentication.k8s.io/v1 tokenreviews",
    "authorization.k8s.io/v1 selfsubjectaccessreviews",
    "autoscaling/v1 horizontalpodautoscalers",
    "autoscaling/v2 horizontalpodautoscalers",
    "batch/v1 jobs",
    "certificates.k8s.io/v1 certificatesigningrequests",
    "coordination.k8s.io/v1 leases",
    "discovery.k8s.io/v1 endpointslices",
    "events.k8s.io/v1 events",
    "networking.k8s.io/v1 ingresses",
    "node.k8s.io/v1 runtimeclasses",
    "policy/v1 poddisruptionbudgets",
    "scheduling.k8s.io/v1 priorityclasses",
    "storage.k8s.io/v1 csinodes",
];

/// Conformance: [sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface [Conformance]
/// Conformance: [sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers [Conformance]
#[tokio::test]
async fn both_forms_of_discovery_agree() {
    let server = start(true).await;
    let api = &server.api;
    let mut found = BTreeSet::new();
    for path in ["/apis", "/api"] {
        // What client-go sends: both versions of the aggregated form, then the first form.
        let form = |version: &str| format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let client = format!("{},{},application/json", form("v2"), form("v2beta1"));
        let answer = admin(api, &format!("GET {path}\naccept: {client}")).await;
        assert_eq!(answer.headers["content-type"], form("v2").as_str());
        for version in ["v2", "v2beta1"] {
            let accept = form(version);
            let answer = admin(api, &format!("GET {path}\naccept: {accept}")).await;
            if version == "v2" {
                assert_eq!((answer.code, &answer.json()["kind"]), (200, &json!("APIGroupDiscoveryList")));
                found.extend(aggregated(&answer.json()));
            }
        }
    }
    assert_eq!(found, first_form(api).await);
    let missing: Vec<_> = EXPECTED.iter().filter(|name| !found.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} of {found:?}");
}

/// Conformance: [sig-api-machinery] server version should find the server version [Conformance]
#[tokio::test]
async fn version() {
    let server = start(true).await;
    let version = get(&server.api, "/version").await;
    let number = |name: &str| version[name].as_str().unwrap().parse::<u32>().unwrap();
    assert_eq!((number("major"), number("minor")), (1, 36));
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36."), "{version}");
}

/// The pod of the conformance test verifies its own token with what these documents say; here the test does.
///
/// Conformance: [sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer [Conformance]
#[tokio::test]
async fn tokens_are_verified_by_the_issuers_documents() {
    let server = start(true).await;
    let api = &server.api;
    crate::server::namespace(api, "n").await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a"}});
    send(api, 201, "POST /api/v1/namespaces/n/serviceaccounts", &account).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["oidc"]}});
    let token = send(api, 201, "POST /api/v1/namespaces/n/serviceaccounts/a/token", &request).await;
    let token = token["status"]["token"].as_str().unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let decode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: Value = serde_json::from_slice(&decode(parts[0])).unwrap();
    let claims: Value = serde_json::from_slice(&decode(parts[1])).unwrap();

    let document = get(api, "/.well-known/openid-configuration").await;
    assert_eq!(document["issuer"], claims["iss"]);
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("system:serviceaccount:n:a"), &json!(["oidc"])));
    let keys = document["jwks_uri"].as_str().unwrap();
    let path = &keys[keys.find("/openid").unwrap()..];
    let keys = get(api, path).await;
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == header["kid"]).unwrap().clone();
    assert!(document["id_token_signing_alg_values_supported"].as_array().unwrap().contains(&key["alg"]));
    let coordinate = |name: &str| decode(key[name].as_str().unwrap());
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &decode(parts[2])).unwrap();
}

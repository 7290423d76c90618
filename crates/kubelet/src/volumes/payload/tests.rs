use super::*;
use crate::pod::testing::model;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::{Value, json};
use std::sync::Arc;

struct Fixed;

impl Objects for Fixed {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        let map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "Aw=="}});
        (name == "m").then(|| Arc::new(serde_json::from_value(map).unwrap()))
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        (name == "s").then(|| Arc::new(serde_json::from_value(json!({"data": {"k": "dg=="}})).unwrap()))
    }

    fn trust_bundles(&self) -> Arc<BTreeMap<String, ClusterTrustBundle>> {
        Arc::default()
    }
}

/// `path=text(mode)` of each file, or the error.
#[track_caller]
fn check(source: Value, expected: Result<&[&str], &str>) {
    let mut volume = source;
    volume["name"] = json!("v");
    let volume: Volume = serde_json::from_value(volume).unwrap();
    let model = model(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}));
    let tokens = BTreeMap::from([(("v".to_owned(), "token".to_owned()), "jwt".to_owned())]);
    let pair = Pair { key: "key.".to_owned(), chain: "chain.".to_owned() };
    let certificates = BTreeMap::from([(("v".to_owned(), 1), pair)]);
    let (objects, facts) = (&Fixed, &Facts::default());
    let sources = Sources { model: &model, objects, facts, tokens: &tokens, certificates: &certificates };
    let files = sources.files(&volume).unwrap().map(|files| {
        let show = |(path, file): (&String, &File)| format!("{path}={}({:o})", String::from_utf8_lossy(&file.data), file.mode);
        files.iter().map(show).collect::<Vec<_>>()
    });
    let expected = expected.map(|list| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).map_err(str::to_owned);
    assert_eq!(files, expected);
}

#[test]
fn config_maps_and_secrets() {
    check(json!({"configMap": {"name": "m"}}), Ok(&["a=1(644)", "b=2(644)", "c=\u{3}(644)"]));
    let items = json!([{"key": "b", "path": "x/y", "mode": 0o400}]);
    check(json!({"configMap": {"name": "m", "items": items}}), Ok(&["x/y=2(400)"]));
    check(json!({"configMap": {"name": "none"}}), Err("configmap \"none\" not found"));
    check(json!({"configMap": {"name": "none", "optional": true}}), Ok(&[]));
    let missing = json!([{"key": "z", "path": "z"}]);
    let error = "configmap references non-existent config key: z";
    check(json!({"configMap": {"name": "m", "items": missing}}), Err(error));
    check(json!({"secret": {"secretName": "s", "defaultMode": 0o600}}), Ok(&["k=v(600)"]));
}

#[test]
fn projections() {
    let sources = json!([
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": "m", "items": [{"key": "a", "path": "ca"}]}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}},
            {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "requests.cpu"}}]}}]);
    check(json!({"projected": {"sources": sources}}), Ok(&["ca=1(644)", "cpu=1(644)", "ns=n(644)", "token=jwt(644)"]));
    let trusted =
        |name: &str| json!({"projected": {"sources": [{"clusterTrustBundle": {"name": name, "path": "x", "optional": true}}]}});
    check(trusted("none"), Ok(&["x=(644)"]));
    let unsupported = json!([{}]);
    check(
        json!({"projected": {"sources": unsupported}}),
        Err("a projected source is of a kind that this kubelet does not support"),
    );
}

/// Upstream's `collectData` gathers what every source lacks, and its `CollectData` of the downward API likewise; the same is said once.
#[test]
fn all_that_is_missing_is_told() {
    let unknown = |path: &str| json!({"path": path, "resourceFieldRef": {"containerName": "gone", "resource": "requests.cpu"}});
    let downward =
        json!({"items": [unknown("x"), unknown("y"), {"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]});
    let absent = "container gone not found";
    check(json!({"downwardAPI": downward}), Err(absent));
    let sources = json!([{"configMap": {"name": "a"}}, {"secret": {"name": "b"}}, {"configMap": {"name": "a"}}, {"downwardAPI": downward},
        {"configMap": {"name": "m"}}, {"serviceAccountToken": {"path": "other"}}, {"secret": {"name": "c", "optional": true}}]);
    let expected = format!("[configmap \"a\" not found, secret \"b\" not found, {absent}, no token for other]");
    check(json!({"projected": {"sources": sources}}), Err(&expected));
}

/// API page "PodCertificateProjection": "The first PEM block is a PRIVATE KEY block", "The remaining blocks are CERTIFICATE blocks".
#[test]
fn certificates_are_shown_as_asked() {
    let source = |source: Value| json!({"projected": {"sources": [{"configMap": {"name": "m", "items": []}}, {"podCertificate": source}]}});
    let shown = |certificate: Value| source(certificate);
    let check = |certificate: Value, expected: &[&str]| {
        let all: Vec<&str> = ["a=1(644)", "b=2(644)", "c=\u{3}(644)"].iter().chain(expected).copied().collect();
        check(shown(certificate), Ok(&all));
    };
    check(json!({"signerName": "a/b", "keyType": "ED25519", "credentialBundlePath": "d"}), &["d=key.chain.(644)"]);
    let both = json!({"signerName": "a/b", "keyType": "ED25519", "keyPath": "x/key", "certificateChainPath": "x/chain"});
    check(both, &["x/chain=chain.(644)", "x/key=key.(644)"]);
    let first =
        json!({"projected": {"sources": [{"podCertificate": {"signerName": "a/b", "keyType": "ED25519", "keyPath": "k"}}]}});
    self::check(first, Err("the certificate is not issued yet"));
}

#[test]
fn a_token_is_for_the_user_and_the_group() {
    let private = |model: &Model| {
        let (objects, facts, tokens, certificates) = (&Fixed, &Facts::default(), &BTreeMap::new(), &BTreeMap::new());
        let sources = Sources { model, objects, facts, tokens, certificates };
        let mut files = Files::default();
        sources.private(&mut files, "token", "jwt", MODE).unwrap();
        let file = &files.files["token"];
        (file.mode, file.uid)
    };
    let check = |pod: Value, containers: &[Value], expected: (u32, Option<u32>)| {
        let container = |(index, context): (usize, &Value)| json!({"name": format!("c{index}"), "securityContext": context});
        let containers: Vec<Value> = containers.iter().enumerate().map(container).collect();
        let model = model(json!({"securityContext": pod, "containers": containers}));
        assert_eq!(private(&model), expected, "{pod}");
    };
    check(json!({}), &[json!({})], (0o644, None));
    check(json!({"runAsUser": 1000}), &[json!({})], (0o600, Some(1000)));
    check(json!({"fsGroup": 5}), &[json!({})], (0o600, None));
    check(json!({"fsGroup": 5, "runAsUser": 1000}), &[json!({})], (0o600, Some(1000)));
    check(json!({}), &[json!({"runAsUser": 1}), json!({"runAsUser": 1})], (0o600, Some(1)));
    check(json!({}), &[json!({"runAsUser": 1}), json!({"runAsUser": 2})], (0o644, None));
    check(json!({"fsGroup": 5}), &[json!({"runAsUser": 1}), json!({})], (0o600, None));
    // Who debugs the pod opens the token to nobody.
    let debugged =
        json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 1}}], "ephemeralContainers": [{"name": "e"}]});
    assert_eq!(private(&model(debugged)), (0o600, Some(1)));
}

#[test]
fn one_key_at_many_paths_is_not_more_than_a_volume_may_have() {
    let mut files = Files::default();
    let large = vec![0; 1 << 20];
    let data = Data::from([("k", large.as_slice())]);
    let items: Vec<_> = (0..65).map(|number| KeyToPath { key: "k".to_owned(), path: number.to_string(), mode: None }).collect();
    assert_eq!(files.pick("absent", &data, Some(&items[..64]), false, MODE), Ok(()));
    let refused = files.pick("absent", &data, Some(&items[64..]), false, MODE);
    assert_eq!(refused, Err("the files of the volume have more than 64 MiB".to_owned()));
}

/// What cannot be read keeps only those volumes from being made that show it.
#[test]
fn volumes_show_what_they_name() {
    let check = |source: Value, expected: [bool; 6]| {
        let volume: Volume = serde_json::from_value(source).unwrap();
        let named = |kind: fn(String) -> Subject| ["m", "s"].map(|name| kind(name.to_owned()));
        let [maps, secrets] = [named(Subject::ConfigMap), named(Subject::Secret)];
        let all = maps.into_iter().chain(secrets).chain([Subject::Both, Subject::TrustBundles]);
        assert_eq!(all.map(|what| shows(&volume, &what)).collect::<Vec<_>>(), expected, "{volume:?}");
    };
    check(json!({"name": "v", "configMap": {"name": "m"}}), [true, false, false, false, true, false]);
    check(json!({"name": "v", "secret": {"secretName": "s"}}), [false, false, false, true, true, false]);
    check(json!({"name": "v", "emptyDir": {}}), [false; 6]);
    let sources = json!([{"secret": {"name": "m"}}, {"clusterTrustBundle": {"path": "p"}}]);
    check(json!({"name": "v", "projected": {"sources": sources}}), [false, false, true, false, true, true]);
}

//! Images of a registry that asks for credentials (KEP-2535).
#![allow(clippy::unwrap_used)]

use base64::Engine;
use serde_json::json;
use testing::{Cluster, RegistryProxy};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const IMAGE: &str = "127.0.0.1:5001/busybox:1.36";
const PASSWORD: &str = "crew:aye";

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn pod(name: &str, policy: &str, secret: Option<&str>) -> String {
    let container = json!({"name": "main", "image": IMAGE, "imagePullPolicy": policy, "command": ["sleep", "100000"]});
    let secrets: Vec<_> = secret.iter().map(|name| json!({"name": name})).collect();
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "imagePullSecrets": secrets});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn secret(c: &Cluster, namespace: &str, name: &str, password: &str) {
    let config = json!({"auths": {"127.0.0.1:5001": {"auth": base64(password)}}});
    let data = json!({".dockerconfigjson": base64(&config.to_string())});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "metadata": {"name": name}, "data": data});
    c.k_with(&format!("-n {namespace} create -f -"), &secret.to_string());
}

/// Creates the pod and waits until its container waits for this reason, with a message that has this in it.
fn check_refused(c: &Cluster, namespace: &str, name: &str, (policy, secret): (&str, Option<&str>), (reason, text): (&str, &str)) {
    c.k_with(&format!("-n {namespace} create -f -"), &pod(name, policy, secret));
    let waiting = ".status.containerStatuses[0].state.waiting";
    c.k(&format!("-n {namespace} wait --for=jsonpath={{{waiting}.reason}}={reason} pod/{name} --timeout=60s"));
    c.told(&format!("-n {namespace} --field-selector involvedObject.name={name}"), &[text]);
}

fn check_runs(c: &Cluster, namespace: &str, name: &str, (policy, secret): (&str, Option<&str>)) {
    c.k_with(&format!("-n {namespace} create -f -"), &pod(name, policy, secret));
    c.k(&format!("-n {namespace} wait --for=condition=Ready pod/{name} --timeout=90s"));
}

/// KEP-2535: "ensure that the image is only used by pods with the credentials that it was pulled with", whether it is there or not, and whether
/// the kubelet was started anew.
#[test]
fn an_image_of_others_is_not_there() {
    let mut c = Cluster::start(KNARR);
    let registry = RegistryProxy::start("127.0.0.1:5001", Some(base64(PASSWORD)));
    c.k("create namespace own");
    c.k("create namespace other");
    secret(&c, "own", "crew", PASSWORD);
    secret(&c, "other", "wrong", "crew:nay");
    let denied = "needs credentials";
    check_refused(&c, "other", "early", ("IfNotPresent", None), ("ErrImagePull", denied));
    check_runs(&c, "own", "first", ("IfNotPresent", Some("crew")));
    assert!(!registry.asked().is_empty());

    check_refused(&c, "other", "without", ("IfNotPresent", None), ("ErrImagePull", denied));
    check_refused(&c, "other", "wrong", ("IfNotPresent", Some("wrong")), ("ErrImagePull", denied));
    let never = format!("Container image \"{IMAGE}\" is not present with pull policy of Never");
    check_refused(&c, "other", "never", ("Never", None), ("ErrImageNeverPull", &never));
    c.kill_server();
    c.start_server();
    check_refused(&c, "other", "later", ("IfNotPresent", None), ("ErrImagePull", denied));
    check_runs(&c, "own", "again", ("Never", Some("crew")));
    // The same credentials in a secret of its own.
    secret(&c, "other", "crew", PASSWORD);
    check_runs(&c, "other", "allowed", ("IfNotPresent", Some("crew")));
    assert_eq!(registry.asked(), [""; 0], "nobody has asked the registry again");
}

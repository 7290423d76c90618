//! Images of a registry that asks for credentials (KEP-2535).
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use serde_json::json;
use testing::Cluster;

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const IMAGE: &str = "127.0.0.1:5001/busybox:1.36";
const PASSWORD: &str = "crew:aye";

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// The images' registry, for those who know the password; counts what they ask for.
fn guard() -> Arc<AtomicUsize> {
    let (listener, asked) = (TcpListener::bind("127.0.0.1:5001").unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = asked.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let counter = counter.clone();
            std::thread::spawn(move || pass(client, &counter));
        }
    });
    asked
}

/// One request of one connection.
fn pass(mut client: TcpStream, asked: &AtomicUsize) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let (mut head, mut is_known) = (String::new(), false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let small = line.to_lowercase();
        is_known |= small.starts_with("authorization:") && line.trim_end().ends_with(&base64(PASSWORD));
        if line == "\r\n" {
            break;
        }
        if !small.starts_with("connection:") && !small.starts_with("authorization:") {
            head.push_str(&line);
        }
    }
    if !is_known {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"crew\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = client.write_all(refusal.as_bytes());
        return;
    }
    asked.fetch_add(1, Ordering::SeqCst);
    let mut registry = TcpStream::connect("127.0.0.1:5000").unwrap();
    registry.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = registry.read_to_end(&mut answer);
    let _ = client.write_all(&answer);
    let _ = client.shutdown(Shutdown::Write);
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
    let message =
        c.k(&format!("-n {namespace} get events --field-selector involvedObject.name={name} -o jsonpath={{.items[*].message}}"));
    assert!(message.contains(text), "{name}: {message}");
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
    let asked = guard();
    c.k("create namespace own");
    c.k("create namespace other");
    secret(&c, "own", "crew", PASSWORD);
    secret(&c, "other", "wrong", "crew:nay");
    let denied = "needs credentials";
    check_refused(&c, "other", "early", ("IfNotPresent", None), ("ErrImagePull", denied));
    check_runs(&c, "own", "first", ("IfNotPresent", Some("crew")));
    let pulled = asked.load(Ordering::SeqCst);
    assert!(pulled > 0);

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
    assert_eq!(asked.load(Ordering::SeqCst), pulled, "nobody has asked the registry again");
}

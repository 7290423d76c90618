//! Certificates of pods (KEP-4317), by the signer for clients of the API server and by one that somebody else wrote.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use testing::{Background, Cluster, Outcome, eventually, programs};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const SIGNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pod_certificates/signer.py");

const RIGHTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: robot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: robot, namespace: default}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: requests}
rules:
  - {apiGroups: [certificates.k8s.io], resources: [podcertificaterequests], verbs: [get, list, watch]}
  - {apiGroups: [certificates.k8s.io], resources: [podcertificaterequests/status], verbs: [update, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: requests}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: requests}
subjects:
  - {kind: User, apiGroup: rbac.authorization.k8s.io, name: harbour-master}
  - {kind: User, apiGroup: rbac.authorization.k8s.io, name: clerk}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: harbour}
rules:
  - {apiGroups: [certificates.k8s.io], resources: [signers], resourceNames: [example.com/harbour], verbs: [sign]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: harbour}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: harbour}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: harbour-master}]
"#;

fn pod(name: &str, node: &str, sources: &Value) -> String {
    let container = json!({"name": "main", "image": "127.0.0.1:5000/busybox:1.36", "command": ["sleep", "100000"],
        "volumeMounts": [{"name": "certs", "mountPath": "/certs"}]});
    let sources: Vec<Value> = sources.as_array().unwrap().iter().map(|source| json!({"podCertificate": source})).collect();
    let spec = json!({"serviceAccountName": "robot", "automountServiceAccountToken": false, "nodeName": node,
        "terminationGracePeriodSeconds": 0, "securityContext": {"runAsUser": 1000}, "containers": [container],
        "volumes": [{"name": "certs", "projected": {"sources": sources}}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn cat(c: &Cluster, pod: &str, file: &str) -> String {
    c.k(&format!("exec {pod} -- cat /certs/{file}"))
}

/// Writes a file of the test.
fn file(c: &Cluster, name: &str, text: &str) -> PathBuf {
    let path = c.scratch().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn openssl(line: &str) -> String {
    let outcome = Outcome::of(Command::new("openssl").args(line.split_whitespace()));
    assert_eq!(outcome.code, Some(0), "openssl {line}: {outcome:?}");
    outcome.stdout
}

/// The public keys of the key and of the certificate in a bundle are one.
fn check_bundle(c: &Cluster, bundle: &str) -> String {
    let path = file(c, "bundle.pem", bundle);
    let of = |command: &str| openssl(&format!("{command} -in {}", path.display()));
    assert_eq!(of("pkey -pubout"), of("x509 -noout -pubkey"));
    of("x509 -noout -text")
}

/// kubectl as the owner of a bundle, and nobody else.
fn as_owner(c: &Cluster, bundle: &str, line: &str) -> Outcome {
    let server = c.k("config view -o jsonpath={.clusters[0].cluster.server}");
    let trusted = file(c, "trusted.pem", &c.k("get configmap kube-root-ca.crt -o jsonpath={.data.ca\\.crt}"));
    let (own, none) = (file(c, "own.pem", bundle), file(c, "none.yaml", ""));
    let identity = format!(
        "--kubeconfig={} --server={server} --certificate-authority={} --client-certificate={own} --client-key={own}",
        none.display(),
        trusted.display(),
        own = own.display()
    );
    c.try_kubectl(&line.split_whitespace().chain(identity.split_whitespace()).collect::<Vec<_>>())
}

/// KEP-4317: the certificates of `kubernetes.io/kube-apiserver-client-pod` "have the same attributes provided by bound service account tokens".
#[test]
fn pods_are_clients_of_the_api_by_their_certificates() {
    let mut c = Cluster::start_nodes(KNARR, 2);
    c.k_with("apply -f -", RIGHTS);
    let signer = "kubernetes.io/kube-apiserver-client-pod";
    let sources = json!([
        {"signerName": signer, "keyType": "ED25519", "credentialBundlePath": "both.pem"},
        {"signerName": signer, "keyType": "ECDSAP384", "keyPath": "key.pem", "certificateChainPath": "chain.pem",
            "maxExpirationSeconds": 3600},
    ]);
    c.k_with("apply -f -", &pod("one", "n1", &sources));
    c.k("wait --for=condition=Ready pod/one --timeout=90s");

    let bundle = cat(&c, "one", "both.pem");
    let text = check_bundle(&c, &bundle);
    for part in ["ED25519", "TLS Web Client Authentication", "1.3.6.1.4.1.57683.1", "Issuer: CN = knarr-ca"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let split = format!("{}{}", cat(&c, "one", "key.pem"), cat(&c, "one", "chain.pem"));
    assert!(check_bundle(&c, &split).contains("P-384"));
    assert_eq!(c.k("exec one -- stat -L -c %a:%u /certs/both.pem /certs/key.pem"), "600:1000\n600:1000\n");

    for bundle in [&bundle, &split] {
        let outcome = as_owner(&c, bundle, "auth whoami -o json");
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let who: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let who = &who["status"]["userInfo"];
        assert_eq!(who["username"], "system:serviceaccount:default:robot");
        let extra =
            |key: &str| who["extra"][format!("authentication.kubernetes.io/{key}")][0].as_str().unwrap_or_default().to_owned();
        assert_eq!((extra("pod-name"), extra("node-name")), ("one".to_owned(), "n1".to_owned()));
        assert!(extra("credential-id").starts_with("X509SHA256="), "{who}");
    }
    assert_eq!(as_owner(&c, &bundle, "get pod one -o name").stdout, "pod/one\n");
    let refused = as_owner(&c, &bundle, "get secrets");
    assert!(
        refused.stderr.contains("User \"system:serviceaccount:default:robot\" cannot list resource \"secrets\""),
        "{refused:?}"
    );

    other_nodes_ask_in_vain(&c);

    // The next process has no key: it asks anew, and the container runs on.
    let before = cat(&c, "one", "both.pem");
    c.kill_server();
    c.start_server();
    let after = eventually("a new certificate", || {
        let now = c.try_kubectl(&["exec", "one", "--", "cat", "/certs/both.pem"]).stdout;
        (!now.is_empty() && now != before).then_some(now)
    });
    check_bundle(&c, &after);
    assert_eq!(as_owner(&c, &after, "get pod one -o name").stdout, "pod/one\n");
    assert_eq!(c.k("get pod one -o jsonpath={.status.containerStatuses[0].restartCount}"), "0");

    // KEP-4317: "once a pod is no longer running, all certificates that were issued to it become invalid".
    c.k("delete pod one --timeout=60s");
    let refused = as_owner(&c, &after, "get pod one -o name");
    assert!(refused.stderr.contains("Unauthorized") || refused.stderr.contains("must be logged in"), "{refused:?}");
}

/// KEP-4317: "The PodCertificateRequest must have been created by the user `system:node:foo`, where `foo` is the node named".
fn other_nodes_ask_in_vain(c: &Cluster) {
    let all: Value = serde_json::from_str(&c.k("get podcertificaterequests -o json")).unwrap();
    let mut request = all["items"][0].clone();
    request["metadata"] = json!({"generateName": "again-", "namespace": "default"});
    request.as_object_mut().unwrap().remove("status");
    let create = |node: &str, request: &Value| {
        c.try_k_with(&format!("--as system:node:{node} --as-group system:nodes create -f -"), &request.to_string())
    };
    let refused = create("n2", &request).stderr;
    assert!(refused.contains("which is not the requesting node \"n2\""), "{refused}");
    let mut lie = request.clone();
    (lie["spec"]["nodeName"], lie["spec"]["nodeUID"]) = (json!("n2"), json!(c.k("get node n2 -o jsonpath={.metadata.uid}")));
    let refused = create("n2", &lie).stderr;
    assert!(refused.contains("pod \"default/one\" is not running on node \"n2\""), "{refused}");
    assert_eq!(create("n1", &request).code, Some(0), "the node of the pod may");
    let list = |node: &str, of: &str| {
        let line = format!(
            "--as system:node:{node} --as-group system:nodes get podcertificaterequests -A --field-selector spec.nodeName={of}"
        );
        c.try_kubectl(&line.split_whitespace().collect::<Vec<_>>())
    };
    assert_eq!((list("n1", "n1").code, list("n2", "n2").code), (Some(0), Some(0)));
    let refused = list("n2", "n1").stderr;
    assert!(refused.contains("can only list/watch podcertificaterequests with spec.nodeName field selector"), "{refused}");
}

/// KEP-4317, "Make it easy to ship secure third-party signer implementations".
#[test]
fn other_signers_answer_for_themselves() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", RIGHTS);
    let node = c.k("get nodes -o jsonpath={.items[0].metadata.name}");
    let sources = json!([{"signerName": "example.com/harbour", "keyType": "ECDSAP256", "credentialBundlePath": "both.pem"}]);
    c.k_with("apply -f -", &pod("two", &node, &sources));
    c.told("--field-selector involvedObject.name=two", &["has no answer of its signer yet"]);
    let directory = c.scratch().join("harbour");
    fs::create_dir(&directory).unwrap();
    let sign = |user: &str| {
        let mut command = c.patient_command(&programs::python());
        Background::spawn(command.args(["-u", SIGNER, &directory.display().to_string(), "example.com/harbour", user]))
    };
    // Who writes statuses does not sign: the API asks for the verb "sign" on the signer.
    let refused = sign("clerk").line("refused");
    assert!(refused.contains("is not permitted to") && refused.contains("example.com/harbour"), "{refused}");
    let signer = sign("harbour-master");
    signer.line("signed");
    c.k("wait --for=condition=Ready pod/two --timeout=90s");
    let bundle = cat(&c, "two", "both.pem");
    assert!(check_bundle(&c, &bundle).contains("Issuer: CN = harbour"));
    let leaf = file(&c, "leaf.pem", &bundle);
    openssl(&format!("verify -CAfile {} {}", directory.join("ca.crt").display(), leaf.display()));
    // The API knows nobody of other signers.
    let refused = as_owner(&c, &bundle, "get pod two -o name");
    assert_ne!(refused.code, Some(0), "{refused:?}");
}

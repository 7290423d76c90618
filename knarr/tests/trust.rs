//! Whom pods trust: ClusterTrustBundles (KEP-3257).
#![allow(clippy::unwrap_used)]

use serde_json::json;
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

fn authority(name: &str) -> String {
    base::tls::Authority::in_memory(name).unwrap().bundle().to_owned()
}

/// "ClusterTrustBundle allows a pod to access the `.spec.trustBundle` field of ClusterTrustBundle objects in an auto-updating file" (API page),
/// and the authority of the API server is published as a bundle of `kubernetes.io/kube-apiserver-serving`.
#[test]
fn bundles_reach_pods() {
    let c = Cluster::start(KNARR);
    let bundle = |name: &str, signer: Option<&str>, text: &str| {
        let labels = json!({"live": "yes"});
        json!({"apiVersion": "certificates.k8s.io/v1beta1", "kind": "ClusterTrustBundle", "metadata": {"name": name, "labels": labels},
            "spec": {"signerName": signer, "trustBundle": text}})
        .to_string()
    };
    let (first, second, third) = (authority("first"), authority("second"), authority("third"));
    c.k_with("create -f -", &bundle("own", None, &first));
    c.k_with("create -f -", &bundle("example.com:ship:a", Some("example.com/ship"), &second));

    let all = json!({"matchLabels": {"live": "yes"}});
    let sources = json!([
        {"clusterTrustBundle": {"name": "own", "path": "own.pem"}},
        {"clusterTrustBundle": {"signerName": "example.com/ship", "labelSelector": all, "path": "ship.pem"}},
        {"clusterTrustBundle": {"signerName": "kubernetes.io/kube-apiserver-serving", "labelSelector": {}, "path": "api.pem"}},
        {"clusterTrustBundle": {"name": "none", "optional": true, "path": "none.pem"}},
    ]);
    let container = json!({"name": "main", "image": BUSYBOX, "command": ["sleep", "100000"],
        "volumeMounts": [{"name": "trust", "mountPath": "/trust"}]});
    let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container],
        "volumes": [{"name": "trust", "projected": {"sources": sources}}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trusts"}, "spec": spec});
    c.k_with("create -f -", &pod.to_string());
    c.k("wait --for=condition=Ready pod/trusts --timeout=60s");
    let file = |name: &str| c.k(&format!("exec trusts -- cat /trust/{name}.pem"));
    assert_eq!((file("own"), file("ship"), file("none")), (first.clone(), second.clone(), String::new()));
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
    assert_eq!(file("api"), c.k(&format!("exec trusts -- cat {token}")));

    // Another bundle of the signer, and other certificates.
    c.k_with("create -f -", &bundle("example.com:ship:b", Some("example.com/ship"), &third));
    c.k_with("replace -f -", &with_version(&c, "own", &bundle("own", None, &third)));
    eventually("the files follow", || (file("ship") == format!("{second}{third}") && file("own") == third).then_some(()));

    // A bundle of a signer is for who may attest for it.
    c.k("create clusterrole trusty --verb=create,get --resource=clustertrustbundles.certificates.k8s.io");
    c.k("create clusterrolebinding jane --clusterrole=trusty --user=jane");
    let create = |name: &str, signer| c.try_k_with("create --as jane -f -", &bundle(name, signer, &first));
    assert_eq!(create("hers", None).code, Some(0));
    let refused = create("example.com:ship:c", Some("example.com/ship"));
    assert!(refused.stderr.contains("user not permitted to attest for signerName"), "{refused:?}");

    // What is not there is waited for.
    let late = pod.to_string().replace("trusts", "late").replace(r#""own","#, r#""later","#);
    c.k_with("create -f -", &late);
    c.told("--field-selector involvedObject.name=late", &["clustertrustbundle \"later\" not found"]);
    c.k_with("create -f -", &bundle("later", None, &first));
    c.k("wait --for=condition=Ready pod/late --timeout=60s");
}

/// The object with the version that is there now.
fn with_version(c: &Cluster, name: &str, object: &str) -> String {
    let mut object: serde_json::Value = serde_json::from_str(object).unwrap();
    object["metadata"]["resourceVersion"] =
        c.k(&format!("get clustertrustbundle {name} -o jsonpath={{.metadata.resourceVersion}}")).into();
    object.to_string()
}

//! A kubelet asks for certificates of the pods that run on its node (KEP-4317): "compromising a single node only results in compromises of workloads
//! that have actually been scheduled onto that node". So signers need not look whether a request is true.

use apimachinery::meta;
use registry::{Operation, Request};
use serde_json::Value;

use super::{MIRROR, bound, text};
use crate::admission::find;

pub(super) async fn admit(a: &Request<'_>, node: &str) -> Result<(), String> {
    if a.operation != Operation::Create {
        return Err("unexpected operation".into());
    }
    if !a.subresource.is_empty() {
        return Err(format!("unexpected subresource {}", a.subresource));
    }
    let Some(request) = a.object() else { return Ok(()) };
    let named = |field: &str| text(request, &format!("/spec/{field}"));
    let found = Found {
        node: find(a, "", "nodes", "", named("nodeName")).await,
        pod: find(a, "", "pods", a.namespace, named("podName")).await,
        account: find(a, "", "serviceaccounts", a.namespace, named("serviceAccountName")).await,
    };
    found.check(request, a.namespace, node)
}

/// The objects that a request names.
struct Found {
    node: Option<Value>,
    pod: Option<Value>,
    account: Option<Value>,
}

impl Found {
    /// Whether what a request says is so.
    fn check(&self, request: &Value, namespace: &str, node: &str) -> Result<(), String> {
        let said = |field: &str| text(request, &format!("/spec/{field}"));
        if said("nodeName") != node {
            let said = said("nodeName");
            return Err(format!("PodCertificateRequest.Spec.NodeName={said:?}, which is not the requesting node {node:?}"));
        }
        let of = |field: &str| format!("\"{namespace}/{}\"", said(field));
        let gone = |what: &str, which: String| format!("{what} {which} named in the PodCertificateRequest does not exist");
        let is = |object: &Value, field: &str| meta::uid(object) == said(field);
        let own = self.node.as_ref().ok_or_else(|| gone("node", format!("{node:?}")))?;
        if !is(own, "nodeUID") {
            return Err(format!("PodCertificateRequest names node UID {:?}, which is not that of the node", said("nodeUID")));
        }
        let pod = self.pod.as_ref().ok_or_else(|| gone("pod", of("podName")))?;
        if !is(pod, "podUID") {
            return Err(format!(
                "PodCertificateRequest names UID {:?}, which is not that of pod {}",
                said("podUID"),
                of("podName")
            ));
        }
        if !bound(Some(pod), node) {
            return Err(format!("pod {} is not running on node {node:?} named in the PodCertificateRequest", of("podName")));
        }
        if meta::annotation(pod, MIRROR).is_some() {
            return Err(format!("pod {} is a mirror pod", of("podName")));
        }
        if !matches!(text(pod, "/status/phase"), "" | "Pending" | "Running") {
            return Err(format!("pod {} has ended", of("podName")));
        }
        if text(pod, "/spec/serviceAccountName") != said("serviceAccountName") {
            let (said, is) = (said("serviceAccountName"), text(pod, "/spec/serviceAccountName"));
            return Err(format!(
                "PodCertificateRequest names service account {said:?}, and pod {} runs as {is:?}",
                of("podName")
            ));
        }
        let account = self.account.as_ref().ok_or_else(|| gone("service account", of("serviceAccountName")))?;
        if !is(account, "serviceAccountUID") {
            let said = said("serviceAccountUID");
            return Err(format!("PodCertificateRequest names service account UID {said:?}, which is not that of the account"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// KEP-4317: "The namespace, pod name/UID, service account name/UID, and node name/UID must correspond to a real pod that currently exists in the
    /// cluster", "The pod should be scheduled onto the node named in the PodCertificateRequest", "in the Pending or Running phases", and "The
    /// PodCertificateRequest must have been created by the user `system:node:foo`".
    #[test]
    fn requests_are_for_pods_of_the_node() {
        let check = |pointer: &str, value: Value, expected: Result<(), &str>| {
            let mut world = json!({
                "request": {"spec": {"podName": "p", "podUID": "u1", "serviceAccountName": "a", "serviceAccountUID": "u2",
                    "nodeName": "n", "nodeUID": "u3"}},
                "pod": {"metadata": {"name": "p", "uid": "u1", "annotations": {}}, "spec": {"nodeName": "n", "serviceAccountName": "a"},
                    "status": {"phase": "Running"}},
                "account": {"metadata": {"uid": "u2"}},
                "node": {"metadata": {"uid": "u3"}},
            });
            if !pointer.is_empty() {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                world.pointer_mut(parent).unwrap()[key] = value;
            }
            let object = |name: &str| Some(world[name].clone()).filter(|object| !object.is_null());
            let found = Found { node: object("node"), pod: object("pod"), account: object("account") };
            assert_eq!(found.check(&world["request"], "ns", "n"), expected.map_err(str::to_owned), "{pointer}");
        };
        check("", Value::Null, Ok(()));
        check("/pod/status/phase", "Pending".into(), Ok(()));
        let other = "PodCertificateRequest.Spec.NodeName=\"m\", which is not the requesting node \"n\"";
        check("/request/spec/nodeName", "m".into(), Err(other));
        let uid = "PodCertificateRequest names node UID \"x\", which is not that of the node";
        check("/request/spec/nodeUID", "x".into(), Err(uid));
        check("/node", Value::Null, Err("node \"n\" named in the PodCertificateRequest does not exist"));
        check("/pod", Value::Null, Err("pod \"ns/p\" named in the PodCertificateRequest does not exist"));
        let uid = "PodCertificateRequest names UID \"u1\", which is not that of pod \"ns/p\"";
        check("/pod/metadata/uid", "new".into(), Err(uid));
        let elsewhere = "pod \"ns/p\" is not running on node \"n\" named in the PodCertificateRequest";
        check("/pod/spec/nodeName", "m".into(), Err(elsewhere));
        check("/pod/spec/nodeName", Value::Null, Err(elsewhere));
        check("/pod/metadata/annotations", json!({MIRROR: "x"}), Err("pod \"ns/p\" is a mirror pod"));
        check("/pod/status/phase", "Succeeded".into(), Err("pod \"ns/p\" has ended"));
        let account = "PodCertificateRequest names service account \"b\", and pod \"ns/p\" runs as \"a\"";
        check("/request/spec/serviceAccountName", "b".into(), Err(account));
        check("/account", Value::Null, Err("service account \"ns/a\" named in the PodCertificateRequest does not exist"));
        let uid = "PodCertificateRequest names service account UID \"u2\", which is not that of the account";
        check("/account/metadata/uid", "new".into(), Err(uid));
    }
}

//! NodeRestriction: a kubelet writes its own Node, its own pods and its own lease, and nothing that would let it act for
//! others.

mod certificates;

use std::sync::Arc;

use apimachinery::{Status, meta};
use async_trait::async_trait;
use base::tls::NODE_KEY;
use registry::{Admission, Operation, Request, User};
use serde_json::Value;

use super::certificates as signing;
use super::{find, forbidden, text};
use crate::authn::node_identity;
use crate::authz::{Attributes, Authorizer};

const MIRROR: &str = "kubernetes.io/config.mirror";
const OWNERS: &str = "/metadata/ownerReferences";
/// The signers of what nodes are certified for.
const KUBELET_SIGNERS: [&str; 2] = ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"];
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Of which objects a node writes only what is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restricted {
    Pods,
    Nodes,
    Claims,
    Accounts,
    Leases,
    CsiNodes,
    Slices,
    SigningRequests,
    PodCertificates,
}

impl Restricted {
    fn of(group: &str, plural: &str) -> Option<Self> {
        Some(match (group, plural) {
            ("", "pods") => Self::Pods,
            ("", "nodes") => Self::Nodes,
            ("", "persistentvolumeclaims") => Self::Claims,
            ("", "serviceaccounts") => Self::Accounts,
            ("coordination.k8s.io", "leases") => Self::Leases,
            ("storage.k8s.io", "csinodes") => Self::CsiNodes,
            ("resource.k8s.io", "resourceslices") => Self::Slices,
            ("certificates.k8s.io", "certificatesigningrequests") => Self::SigningRequests,
            ("certificates.k8s.io", "podcertificaterequests") => Self::PodCertificates,
            _ => return None,
        })
    }
}

pub(super) struct NodeRestriction(pub(super) Arc<Authorizer>);

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        node_identity(a.user).is_some()
    }

    /// A request for a token is looked at as the kubelet has sent it: the API server's audiences, which may be several, are put in later.
    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let is_token = Restricted::of(&a.resource.def.group, &a.resource.def.plural) == Some(Restricted::Accounts)
            && a.subresource == "token";
        match node_identity(a.user) {
            Some(node) if is_token => token(a, node, &self.0).await.map_err(|why| forbidden(a, why)),
            _ => Ok(()),
        }
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(node) = node_identity(a.user) else { return Ok(()) };
        if node.is_empty() {
            return Err(forbidden(a, format!("could not determine node from user {:?}", a.user.name)));
        }
        let Some(restricted) = Restricted::of(&a.resource.def.group, &a.resource.def.plural) else { return Ok(()) };
        let result = match restricted {
            Restricted::Pods => match a.subresource {
                "" => pod(a, node).await,
                "status" => pod_status(a.old, a.object(), node),
                "eviction" => evicted(a, node).await,
                sub if a.operation != Operation::Connect => {
                    Err(format!("unexpected pod subresource \"{sub}\", only 'status' and 'eviction' are allowed"))
                }
                _ => Ok(()),
            },
            Restricted::Nodes => own_node(a, node),
            Restricted::Claims => match (a.subresource, a.old, a.object()) {
                ("status", Some(old), Some(new)) => claim_status(old, new, node),
                ("status", ..) => Ok(()),
                _ => Err("may only update PVC status".to_owned()),
            },
            // See `mutate`.
            Restricted::Accounts => Ok(()),
            Restricted::Leases if a.namespace != "kube-node-lease" => {
                Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned())
            }
            Restricted::Leases => named_as_node(a, node, "node lease"),
            Restricted::CsiNodes => named_as_node(a, node, "CSINode"),
            Restricted::Slices => slice(a.operation, a.old, a.object(), node),
            Restricted::SigningRequests => signing_request(a, node),
            Restricted::PodCertificates => certificates::admit(a, node).await,
        };
        result.map_err(|why| forbidden(a, why))
    }
}

fn name<'a>(a: &'a Request<'_>) -> &'a str {
    if a.name.is_empty() { a.object().map(meta::name).unwrap_or_default() } else { a.name }
}

fn bound(pod: Option<&Value>, node: &str) -> bool {
    pod.is_some_and(|pod| text(pod, "/spec/nodeName") == node)
}

async fn pod(a: &Request<'_>, node: &str) -> Result<(), String> {
    match (a.operation, a.object()) {
        (Operation::Create, Some(pod)) => {
            let own = find(a, "", "nodes", "", node).await.unwrap_or_default();
            mirror_pod(pod, node, meta::uid(&own))
        }
        (Operation::Delete, _) if !bound(a.old, node) => {
            Err(format!("node \"{node}\" can only delete pods with spec.nodeName set to itself"))
        }
        (Operation::Update, _) => {
            Err(format!("unexpected operation \"UPDATE\", node \"{node}\" can only create and delete mirror pods"))
        }
        _ => Ok(()),
    }
}

/// A pod that a kubelet creates shows what runs there anyway. It refers to nothing, or its kubelet could read that.
fn mirror_pod(pod: &Value, node: &str, uid: &str) -> Result<(), String> {
    if meta::annotation(pod, MIRROR).is_none() {
        return Err(format!("pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"));
    }
    if text(pod, "/spec/nodeName") != node {
        return Err(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"));
    }
    let owners: Vec<&Value> = list(pod, "/metadata/ownerReferences").collect();
    let owner = match owners.as_slice() {
        [owner] if owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node => *owner,
        [] | [_] => return Err(format!("node \"{node}\" can only create pods with an owner reference set to itself")),
        _ => return Err(format!("node \"{node}\" can only create pods with a single owner reference set to itself")),
    };
    if owner["controller"] != true {
        return Err(format!("node \"{node}\" can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node \"{node}\" must not set blockOwnerDeletion on an owner reference"));
    }
    if owner["uid"] != uid {
        let given = text(owner, "/uid");
        return Err(format!("node {node} UID mismatch: expected {given} got {uid}"));
    }
    match pods::references::of_api(&pod["spec"]) {
        Some(what) => Err(format!("node \"{node}\" can not create pods that reference {what}")),
        None => Ok(()),
    }
}

fn pod_status(old: Option<&Value>, new: Option<&Value>, node: &str) -> Result<(), String> {
    if !bound(old, node) {
        return Err(format!("node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"));
    }
    let same = |pointer: &str| new.and_then(|new| new.pointer(pointer)) == old.and_then(|old| old.pointer(pointer));
    if !same("/metadata/labels") {
        return Err(format!("node \"{node}\" cannot update labels through pod status"));
    }
    if !same("/status/resourceClaimStatuses") {
        return Err(format!("node \"{node}\" cannot update resource claim statues"));
    }
    if !same("/status/extendedResourceClaimStatus") {
        return Err(format!("node \"{node}\" cannot update extended resource claim status"));
    }
    Ok(())
}

async fn evicted(a: &Request<'_>, node: &str) -> Result<(), String> {
    let pod = find(a, "", "pods", a.namespace, name(a)).await;
    if bound(pod.as_ref(), node) {
        Ok(())
    } else {
        Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
    }
}

/// A kubelet says of claims how large their volumes have become, and nothing else.
fn claim_status(old: &Value, new: &Value, node: &str) -> Result<(), String> {
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (part, keys) in [
            ("status", &["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"][..]),
            ("metadata", &["managedFields", "resourceVersion"][..]),
        ] {
            if let Some(map) = claim.get_mut(part).and_then(Value::as_object_mut) {
                keys.iter().for_each(|key| drop(map.remove(*key)));
            }
        }
        claim
    };
    if rest(old) == rest(new) {
        return Ok(());
    }
    Err(format!("node \"{node}\" is not allowed to update fields other than status.capacity and status.conditions"))
}

async fn token(a: &Request<'_>, node: &str, authorizer: &Authorizer) -> Result<(), String> {
    let Some(request) = a.object() else { return Ok(()) };
    let of = |key: &str| text(request, &format!("/spec/boundObjectRef/{key}"));
    if of("kind") != "Pod" || of("apiVersion") != "v1" || of("name").is_empty() {
        return Err("node requested token not bound to a pod".into());
    }
    if of("uid").is_empty() {
        return Err("node requested token with a pod binding without a uid".into());
    }
    let pod = find(a, "", "pods", a.namespace, of("name")).await;
    let pod = pod.ok_or_else(|| format!("pods \"{}\" not found", of("name")))?;
    if of("uid") != meta::uid(&pod) {
        let why = "does not match the UID in record. The object might have been deleted and then recreated";
        return Err(format!("the UID in the bound object reference ({}) {why}", of("uid")));
    }
    if !bound(Some(&pod), node) {
        return Err("node requested token bound to a pod scheduled on a different node".into());
    }
    let drivers = drivers_of(a, &pod).await;
    match audience(request, &pod, &drivers)? {
        None => Ok(()),
        Some(other) if may_ask_for(a, authorizer, other).await => Ok(()),
        Some(other) => {
            let why = format!("{} is not authorized to request tokens for this audience", a.user.name);
            Err(format!("audience \"{other}\" not found in pod spec volume, {why}"))
        }
    }
}

/// Whether the kubelet has been given the right to ask for tokens of the service account for an audience that no volume of its pod names: those
/// that image credential providers are shown (KEP-4412).
async fn may_ask_for(a: &Request<'_>, authorizer: &Authorizer, audience: &str) -> bool {
    let (namespace, name, verb) = (a.namespace, a.name, "request-serviceaccounts-token-audience");
    let base = Attributes::new(a.user);
    let asked = Attributes { verb, namespace, name, version: "*", resource: audience, is_resource: true, ..base };
    authorizer.allows(a.registry, &asked).await
}

/// The CSIDriver objects of a pod's volumes.
async fn drivers_of(a: &Request<'_>, pod: &Value) -> Vec<Value> {
    let mut names = std::collections::BTreeSet::new();
    for volume in list(pod, "/spec/volumes") {
        names.insert(text(volume, "/csi/driver").to_owned());
        let claim = match volume.get("ephemeral") {
            Some(_) => format!("{}-{}", meta::name(pod), text(volume, "/name")),
            None => text(volume, "/persistentVolumeClaim/claimName").to_owned(),
        };
        if claim.is_empty() {
            continue;
        }
        let claim = find(a, "", "persistentvolumeclaims", meta::namespace(pod), &claim).await.unwrap_or_default();
        let volume = find(a, "", "persistentvolumes", "", text(&claim, "/spec/volumeName")).await.unwrap_or_default();
        names.insert(text(&volume, "/spec/csi/driver").to_owned());
    }
    let mut drivers = Vec::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        drivers.extend(find(a, "storage.k8s.io", "csidrivers", "", name).await);
    }
    drivers
}

/// A kubelet asks for tokens only for the audiences that its pod's volumes name, or their drivers (KEP-4935). Another one is returned: for that it
/// needs a right of its own.
fn audience<'a>(request: &'a Value, pod: &Value, drivers: &[Value]) -> Result<Option<&'a str>, String> {
    let mut audiences = list(request, "/spec/audiences").filter_map(Value::as_str);
    let wanted = audiences.next().unwrap_or_default();
    if audiences.next().is_some() {
        return Err("node may only request 0 or 1 audiences".into());
    }
    let sources = list(pod, "/spec/volumes").flat_map(|volume| list(volume, "/projected/sources"));
    let mut tokens = sources.filter_map(|source| source.get("serviceAccountToken").filter(|token| token.is_object()));
    let mut asked = drivers.iter().flat_map(|driver| list(driver, "/spec/tokenRequests"));
    if tokens.any(|token| text(token, "/audience") == wanted) || asked.any(|token| text(token, "/audience") == wanted) {
        return Ok(None);
    }
    Ok(Some(wanted))
}

/// The devices that a kubelet publishes for a driver, or takes back, are those of its node (KEP-4381). One that is changed stays of its node,
/// since the field is immutable.
fn slice(operation: Operation, old: Option<&Value>, new: Option<&Value>, node: &str) -> Result<(), String> {
    let (what, slice) = match operation {
        Operation::Create => ("create", new),
        Operation::Delete => ("delete", old),
        _ => return Ok(()),
    };
    if slice.is_some_and(|slice| text(slice, "/spec/nodeName") == node) {
        return Ok(());
    }
    Err(format!("can only {what} ResourceSlice with the same NodeName as the requesting node"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn own_node(a: &Request<'_>, node: &str) -> Result<(), String> {
    if name(a) != node {
        return Err(format!("node \"{node}\" is not allowed to modify node \"{}\"", name(a)));
    }
    let Some(new) = a.object() else { return Ok(()) };
    let old = a.old.unwrap_or(&Value::Null);
    if a.operation == Operation::Update && old.pointer("/spec/taints") != new.pointer("/spec/taints") {
        return Err(format!("node \"{node}\" is not allowed to modify taints"));
    }
    // The garbage collector would delete a node whose owner is gone.
    if a.operation == Operation::Update && list(old, OWNERS).ne(list(new, OWNERS)) {
        return Err(format!("node \"{node}\" is not allowed to modify ownerReferences"));
    }
    if new.pointer("/spec/configSource") != old.pointer("/spec/configSource") {
        return Err(format!("node \"{node}\" is not allowed to set spec.configSource"));
    }
    // By its ranges other nodes send it packets: upstream's kubelets do not set them, and a controller gives them to nodes.
    if ["/spec/podCIDR", "/spec/podCIDRs"].iter().any(|field| set(new, field) != set(old, field)) {
        return Err(format!("node \"{node}\" is not allowed to set spec.podCIDRs"));
    }
    key(meta::annotation(old, NODE_KEY), meta::annotation(new, NODE_KEY), shown(a.user))
        .map_err(|why| format!("node \"{node}\" is not allowed to {why}"))?;
    let changed: Vec<&str> = changed_labels(old, new).filter(|label| forbidden_label(label)).collect();
    if changed.is_empty() { Ok(()) } else { Err(format!("is not allowed to modify labels: {}", changed.join(", "))) }
}

/// The value of a field, none for one that says nothing.
fn set<'a>(object: &'a Value, pointer: &str) -> Option<&'a Value> {
    object.pointer(pointer).filter(|value| !(value.is_null() || **value == *"" || value.as_array().is_some_and(Vec::is_empty)))
}

/// The key of the certificate that a node has shown; none in the server's process.
fn shown(user: &User) -> Option<&str> {
    user.extra.get(NODE_KEY)?.first().map(String::as_str)
}

/// A node says once by which key it has joined: with the one that it shows. Its name would be another machine's else.
fn key(old: Option<&str>, new: Option<&str>, shown: Option<&str>) -> Result<(), &'static str> {
    match (old, new) {
        (old, new) if old == new => Ok(()),
        (None, Some(new)) if shown.is_none_or(|shown| shown == new) => Ok(()),
        (None, _) => Err("join with a key that it has not shown"),
        (Some(_), _) => Err("change the key with which it has joined"),
    }
}

/// An object that is the node's has the node's name.
fn named_as_node(a: &Request<'_>, node: &str, kind: &str) -> Result<(), String> {
    if name(a) == node {
        return Ok(());
    }
    Err(format!("can only access {kind} with the same name as the requesting node"))
}

/// A node asks for its own certificates only: "must have a CN that is exactly the node's name".
fn signing_request(a: &Request<'_>, node: &str) -> Result<(), String> {
    let Some(object) = a.object().filter(|_| a.operation == Operation::Create) else { return Ok(()) };
    if !KUBELET_SIGNERS.contains(&text(object, "/spec/signerName")) {
        return Ok(());
    }
    let request = signing::read(text(object, "/spec/request"))?;
    if request.name == format!("system:node:{node}") {
        return Ok(());
    }
    Err(format!("can only create a node CSR with CN=system:node:{node}"))
}

fn changed_labels<'a>(old: &'a Value, new: &'a Value) -> impl Iterator<Item = &'a str> {
    let keys = |object: &'a Value| meta::labels(object).into_iter().flatten().map(|(key, _)| key.as_str());
    keys(new)
        .chain(keys(old).filter(move |key| meta::label(new, key).is_none()))
        .filter(move |key| meta::label(old, key) != meta::label(new, key))
}

/// Whether a node may not give itself the label, since it says something about it which pods rely on (NodeRestriction; upstream's kubelet refuses
/// it in `--node-labels`, too).
pub fn forbidden_label(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |suffix: &str| domain == suffix || domain.strip_suffix(suffix).is_some_and(|head| head.ends_with('.'));
    if within(RESTRICTED) {
        return true;
    }
    let allowed = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    ];
    (within("kubernetes.io") || within("k8s.io"))
        && !within("kubelet.kubernetes.io")
        && !within("node.kubernetes.io")
        && !allowed.contains(&label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_keeps_the_key_that_it_shows() {
        let check = |old: Option<&str>, new: Option<&str>, shown: Option<&str>, good: bool| {
            assert_eq!(key(old, new, shown).is_ok(), good, "{old:?} {new:?} {shown:?}");
        };
        check(None, None, Some("f00d"), true);
        check(None, Some("f00d"), Some("f00d"), true);
        check(None, Some("beef"), Some("f00d"), false);
        check(None, Some("none"), None, true);
        check(Some("f00d"), Some("f00d"), Some("f00d"), true);
        check(Some("f00d"), Some("beef"), Some("f00d"), false);
        check(Some("f00d"), Some("beef"), Some("beef"), false);
        check(Some("f00d"), None, Some("f00d"), false);
        check(Some("none"), Some("f00d"), None, false);
    }

    /// Upstream's v1.36 plugin has a rule for each of these (`Plugin.Admit`).
    #[test]
    fn upstreams_list() {
        let all = [
            ("", "pods", Restricted::Pods),
            ("", "nodes", Restricted::Nodes),
            ("", "persistentvolumeclaims", Restricted::Claims),
            ("", "serviceaccounts", Restricted::Accounts),
            ("coordination.k8s.io", "leases", Restricted::Leases),
            ("storage.k8s.io", "csinodes", Restricted::CsiNodes),
            ("resource.k8s.io", "resourceslices", Restricted::Slices),
            ("certificates.k8s.io", "certificatesigningrequests", Restricted::SigningRequests),
            ("certificates.k8s.io", "podcertificaterequests", Restricted::PodCertificates),
        ];
        for (group, plural, expected) in all {
            assert_eq!(Restricted::of(group, plural), Some(expected), "{plural}");
        }
        assert_eq!(Restricted::of("", "events"), None);
        assert_eq!(Restricted::of("example.com", "nodes"), None);
    }

    #[test]
    fn mirror_pods() {
        let check = |owner: Value, spec: Value, expected: Result<(), &str>| {
            let mut pod = json!({"metadata": {"annotations": {MIRROR: "x"}, "ownerReferences": [owner]}, "spec": spec});
            pod["spec"]["nodeName"] = "n".into();
            assert_eq!(mirror_pod(&pod, "n", "u1"), expected.map_err(|why| format!("node \"n\" {why}")), "{pod}");
        };
        let owner = || json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u1", "controller": true});
        check(owner(), json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), Ok(()));
        let none = "can only create pods with an owner reference set to itself";
        check(json!({"apiVersion": "v1", "kind": "Node", "name": "m", "uid": "u1", "controller": true}), json!({}), Err(none));
        let controller = "can only create pods with a controller owner reference set to itself";
        check(json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u1"}), json!({}), Err(controller));
        for (spec, what) in [
            (json!({"serviceAccountName": "a"}), "a service account"),
            (json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s"}}}]}]}), "secrets"),
            (json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]}), "secrets"),
            (json!({"imagePullSecrets": [{"name": "s"}]}), "secrets"),
            (json!({"volumes": [{"azureFile": {"secretName": "s"}}]}), "secrets"),
            (json!({"ephemeralContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "c"}}}]}]}), "configmaps"),
            (json!({"volumes": [{"projected": {"sources": [{"configMap": {"name": "c"}}]}}]}), "configmaps"),
            (json!({"volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}), "persistentvolumeclaims"),
            (json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]}), "a service account"),
            (json!({"resourceClaims": [{"name": "r"}]}), "resourceclaims"),
        ] {
            check(owner(), spec, Err(&format!("can not create pods that reference {what}")));
        }
    }

    /// KEP-4381 and KEP-5004: which claims a pod has, by which its kubelet may read them, is not for the kubelet to say.
    #[test]
    fn statuses_name_no_other_claims() {
        let pod = |node: &str, status: Value| json!({"spec": {"nodeName": node}, "status": status});
        let check = |old: Value, status: Value, expected: Result<(), &str>| {
            let new = pod("n", status);
            assert_eq!(pod_status(Some(&old), Some(&new), "n"), expected.map_err(|why| format!("node \"n\" {why}")), "{new}");
        };
        let claims = json!({"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "b"}],
            "extendedResourceClaimStatus": {"resourceClaimName": "c"}});
        let mut running = claims.clone();
        running["phase"] = "Running".into();
        check(pod("n", claims.clone()), running.clone(), Ok(()));
        let bound = "can only update pod status for pods with spec.nodeName set to itself";
        check(pod("m", claims.clone()), running.clone(), Err(bound));
        let mut other = running.clone();
        other["resourceClaimStatuses"][0]["resourceClaimName"] = "c".into();
        check(pod("n", claims.clone()), other, Err("cannot update resource claim statues"));
        for name in [json!("b"), json!(null)] {
            let mut other = running.clone();
            other["extendedResourceClaimStatus"]["resourceClaimName"] = name;
            check(pod("n", claims.clone()), other, Err("cannot update extended resource claim status"));
        }
    }

    /// KEP-4381: a kubelet creates and deletes the ResourceSlices of its node only.
    #[test]
    fn slices_are_of_the_node() {
        let of = |node: &str| json!({"spec": {"nodeName": node}});
        let check = |operation, old: Option<Value>, new: Option<Value>, good: bool| {
            assert_eq!(slice(operation, old.as_ref(), new.as_ref(), "n").is_ok(), good, "{operation:?} {old:?} {new:?}");
        };
        check(Operation::Create, None, Some(of("n")), true);
        check(Operation::Create, None, Some(of("m")), false);
        check(Operation::Create, None, Some(json!({"spec": {"allNodes": true}})), false);
        check(Operation::Delete, Some(of("n")), None, true);
        check(Operation::Delete, Some(of("m")), None, false);
        check(Operation::Update, Some(of("n")), Some(of("n")), true);
    }

    #[test]
    fn what_is_said_of_claims() {
        let old = json!({"metadata": {"name": "c"}, "spec": {"volumeName": "v"}, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        let check = |pointer: &str, value: Value, good: bool| {
            let mut new = old.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            new.pointer_mut(parent).unwrap()[key] = value;
            assert_eq!(claim_status(&old, &new, "n").is_ok(), good, "{pointer}");
        };
        check("/status/capacity", json!({"storage": "2Gi"}), true);
        check("/status/conditions", json!([]), true);
        check("/metadata/resourceVersion", json!("7"), true);
        check("/status/phase", json!("Lost"), false);
        check("/spec/volumeName", json!("w"), false);
        check("/metadata/labels", json!({"a": "b"}), false);
    }

    #[test]
    fn audiences() {
        let pod = json!({"spec": {"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}}]}});
        let plain = json!({"spec": {"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]}});
        let check = |pod: &Value, audiences: Value, good: bool| {
            let driver = json!({"spec": {"tokenRequests": [{"audience": "driver"}]}});
            assert_eq!(audience(&json!({"spec": {"audiences": audiences}}), pod, &[driver]) == Ok(None), good, "{audiences}");
        };
        check(&pod, json!(["vault"]), true);
        check(&pod, json!(["driver"]), true);
        check(&pod, json!([]), false);
        check(&pod, json!(["vault", "other"]), false);
        check(&plain, json!([]), true);
        check(&plain, json!(["vault"]), false);
        check(&json!({}), json!([]), false);
    }

    #[test]
    fn labels() {
        let check = |label: &str, expected: bool| assert_eq!(forbidden_label(label), expected, "{label}");
        check("node-restriction.kubernetes.io/fips", true);
        check("example.node-restriction.kubernetes.io/x", true);
        check("node-role.kubernetes.io/control-plane", true);
        check("kubernetes.io/hostname", false);
        check("node.kubernetes.io/anything", false);
        check("example.com/x", false);
        check("mykubernetes.io/x", false);
        let (old, new) =
            (json!({"metadata": {"labels": {"a": "1", "b": "1"}}}), json!({"metadata": {"labels": {"a": "2", "c": "1"}}}));
        assert_eq!(changed_labels(&old, &new).collect::<Vec<_>>(), ["a", "c", "b"]);
    }
}

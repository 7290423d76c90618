//! What the node that runs a pod must be able to do for the pod to be changed.

use apimachinery::status::Cause;
use apimachinery::{Status, meta};
use async_trait::async_trait;
use codec::Decode;
use k8s_openapi::api::core::v1::{Node, PodSpec};
use pods::resources::amounts;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::{find, forbidden, is, text};

/// PodResizeValidator: a resize that the node can never do is refused at once, not found infeasible later (KEP-1287).
pub(super) struct PodResizeValidator;

/// NodeDeclaredFeatureValidator: a change that needs what the node does not declare is refused (KEP-5328).
pub(super) struct NodeDeclaredFeatureValidator;

/// Old and new specification of a pod on a node that are not the same.
fn change(a: &Request<'_>) -> Option<(PodSpec, PodSpec)> {
    let (new, old) = (a.object()?, a.old?);
    let changes = !text(new, "/spec/nodeName").is_empty() && new.get("spec") != old.get("spec");
    changes.then(|| Some((pods::spec_of_value(old)?, pods::spec_of_value(new)?))).flatten()
}

async fn node(a: &Request<'_>, spec: &PodSpec) -> Result<Value, Status> {
    let name = spec.node_name.as_deref().unwrap_or_default();
    find(a, "", "nodes", "", name).await.ok_or_else(|| forbidden(a, format!("node {name:?} not found")))
}

fn refused(a: &Request<'_>, reason: &str, why: &str) -> Status {
    let mut status = forbidden(a, why);
    let cause = Cause { reason: reason.to_owned(), ..Cause::default() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

/// What a pod asks for more of than the node has.
fn too_much(spec: &PodSpec, node: &Node) -> Option<String> {
    let has = amounts(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
    let asked = pods::resources::pod_requests(spec);
    let amount = |of: &pods::resources::Amounts<'_>, name: &str| {
        let Some(amount) = of.get(name) else { return 0 };
        if name == "cpu" { amount.as_milli() } else { amount.as_i64() }
    };
    let more = ["cpu", "memory"].into_iter().filter_map(|name| {
        let (asked, has) = (amount(&asked, name), amount(&has, name));
        (asked > has).then(|| format!("{name}, requested: {asked}, allocatable: {has}"))
    });
    let more: Vec<_> = more.collect();
    (!more.is_empty()).then(|| format!("Node didn't have enough allocatable resources: {}", more.join("; ")))
}

#[async_trait]
impl Admission for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "pods") && a.subresource == "resize" && a.operation == Operation::Update
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some((_, new)) = change(a) else { return Ok(()) };
        let node = node(a, &new).await?;
        let typed = Node::from_tree(&node).map_err(super::failed)?;
        if let Some(why) = too_much(&new, &typed) {
            return Err(refused(a, "NodeCapacity", &why));
        }
        match meta::label(&node, "kubernetes.io/os").unwrap_or_default() {
            "linux" => Ok(()),
            os => {
                let why = format!("pod resize is only supported on linux nodes, node {:?} is {os:?}", meta::name(&node));
                Err(refused(a, "UnsupportedPlatform", &why))
            }
        }
    }
}

#[async_trait]
impl Admission for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "pods") && matches!(a.subresource, "" | "resize") && a.operation == Operation::Update
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some((old, new)) = change(a) else { return Ok(()) };
        let mut lacking = pods::features::to_change(&old, &new);
        if lacking.is_empty() {
            return Ok(());
        }
        let node = node(a, &new).await?;
        let declared = node.pointer("/status/declaredFeatures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        lacking.retain(|name| !declared.iter().any(|feature| feature == name));
        if lacking.is_empty() {
            return Ok(());
        }
        let lacking = lacking.join(", ");
        let why = format!("pod update requires features {lacking} which are not available on node {:?}", meta::name(&node));
        Err(forbidden(a, why))
    }
}

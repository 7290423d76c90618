//! Admission plugins, in upstream's order.

mod always_pull_images;
mod anti_affinity;
mod attributes;
mod authority;
mod certificates;
mod claim_status;
mod conditions;
mod configuration;
mod criteria;
mod current;
mod device_access;
mod event_rate;
mod extended_resources;
mod external_ips;
mod ingress_class;
mod limit_ranger;
mod namespace;
mod namespace_provision;
mod node_restriction;
mod node_selector;
mod owner_references;
mod pod_changes;
mod pod_security;
mod policies;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_class;
mod storage_protection;
mod taints;
mod toleration_restriction;
mod tolerations;
mod topology_labels;
mod webhooks;

use std::sync::Arc;

use apimachinery::status::Reason;
use apimachinery::{GroupResource, Status};
use registry::{Admission, Operation, Request};
use serde_json::Value;

use crate::authz::{Authorizer, EscalationCheck};
use crate::remote::Remotes;
pub(crate) use configuration::{Configuration, Error};
pub use node_restriction::forbidden_label;
pub(crate) use policies::status as policy_status;
pub use tolerations::Tolerations;

/// Plugins that work only where they are enabled.
const OPTIONAL: [&str; 9] = [
    "NamespaceAutoProvision",
    "LimitPodHardAntiAffinityTopology",
    "AlwaysPullImages",
    POD_NODE_SELECTOR,
    POD_TOLERATION_RESTRICTION,
    EVENT_RATE,
    "ExtendedResourceToleration",
    "OwnerReferencesPermissionEnforcement",
    "DenyServiceExternalIPs",
];
const EVENT_RATE: &str = "EventRateLimit";
const POD_NODE_SELECTOR: &str = "PodNodeSelector";
const POD_TOLERATION_RESTRICTION: &str = "PodTolerationRestriction";

/// Plugins of upstream that cannot be enabled, and why.
const LEFT_OUT: [(&str, &str); 7] = [
    ("AlwaysAdmit", "it does nothing, and upstream has deprecated it"),
    ("AlwaysDeny", "it refuses every request, and upstream has deprecated it"),
    ("NamespaceExists", "NamespaceLifecycle, which always works, refuses the same"),
    ("ImagePolicyWebhook", "a ValidatingWebhookConfiguration for pods does what it does"),
    ("PodGroupProtection", FEATURE),
    ("PodGroupWorkloadExists", FEATURE),
    ("JobValidation", FEATURE),
];
const FEATURE: &str = "it is of a feature that is off by default in this version";

/// The list of plugins. Order matters: mutation happens in it.
///
/// # Errors
/// One is to be enabled that there is not.
pub(crate) fn all(
    configuration: Configuration,
    of_lost_nodes: Tolerations,
    authorizer: &Arc<Authorizer>,
    remotes: &Arc<Remotes>,
) -> Result<Vec<Box<dyn Admission>>, Error> {
    let Configuration { pod_security, event_rate, node_selector, tolerations, limited, enabled } = configuration;
    let limits = event_rate.unwrap_or_default();
    let plugins: Vec<Box<dyn Admission>> = vec![
        Box::new(namespace_provision::NamespaceAutoProvision),
        Box::new(namespace::NamespaceLifecycle),
        Box::new(anti_affinity::LimitPodHardAntiAffinityTopology),
        Box::new(limit_ranger::LimitRanger),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction(authorizer.clone())),
        Box::new(taints::TaintNodesByCondition),
        Box::new(always_pull_images::AlwaysPullImages),
        Box::new(pod_security::PodSecurity(pod_security)),
        Box::new(node_selector::PodNodeSelector(node_selector)),
        Box::new(priority::Priority::new()),
        Box::new(tolerations::DefaultTolerationSeconds(of_lost_nodes)),
        Box::new(toleration_restriction::PodTolerationRestriction(tolerations)),
        Box::new(event_rate::EventRateLimit::new(limits)),
        Box::new(extended_resources::ExtendedResourceToleration),
        Box::new(storage_class::DefaultStorageClass),
        Box::new(storage_protection::StorageObjectInUseProtection),
        Box::new(owner_references::OwnerReferencesPermissionEnforcement(authorizer.clone())),
        Box::new(storage_class::PersistentVolumeClaimResize),
        Box::new(runtime_class::RuntimeClass),
        Box::new(certificates::CertificateApproval(authorizer.clone())),
        Box::new(certificates::CertificateSigning(authorizer.clone())),
        Box::new(certificates::ClusterTrustBundleAttest(authorizer.clone())),
        Box::new(certificates::CertificateSubjectRestriction),
        Box::new(ingress_class::DefaultIngressClass),
        Box::new(external_ips::DenyServiceExternalIps),
        Box::new(device_access::AdminAccess),
        Box::new(claim_status::ClaimStatus(authorizer.clone())),
        Box::new(topology_labels::PodTopologyLabels),
        Box::new(pod_changes::NodeDeclaredFeatureValidator),
        Box::new(pod_changes::PodResizeValidator),
        Box::new(EscalationCheck::new(authorizer.clone())),
        Box::new(policies::ParameterAccess(authorizer.clone())),
        Box::new(policies::MutatingAdmissionPolicy::new(authorizer.clone())),
        Box::new(webhooks::MutatingAdmissionWebhook::new(authorizer.clone(), remotes.clone())),
        Box::new(policies::ValidatingAdmissionPolicy::new(authorizer.clone())),
        Box::new(webhooks::ValidatingAdmissionWebhook::new(authorizer.clone(), remotes.clone())),
        Box::new(namespace::NamespaceStays),
        // Last: what is refused by others is not counted.
        Box::new(resource_quota::ResourceQuota(limited)),
    ];
    if let Some(unknown) = enabled.iter().find(|name| !plugins.iter().any(|plugin| plugin.name() == name.as_str())) {
        return Err(match LEFT_OUT.iter().find(|(name, _)| name == unknown) {
            Some((name, why)) => Error::LeftOut(name, why),
            None => Error::Unknown(unknown.clone()),
        });
    }
    let is_on = |name: &str| !OPTIONAL.contains(&name) || enabled.iter().any(|enabled| enabled == name);
    Ok(plugins.into_iter().filter(|plugin| is_on(plugin.name())).collect())
}

/// Whether the request creates a pod.
fn creates_pod(a: &Request<'_>) -> bool {
    is(a, "", "pods") && a.subresource.is_empty() && a.operation == Operation::Create
}

fn is(a: &Request<'_>, group: &str, plural: &str) -> bool {
    a.resource.def.group == group && a.resource.def.plural == plural
}

/// 403 for the object of the request.
fn forbidden(a: &Request<'_>, why: impl std::fmt::Display) -> Status {
    Status::forbidden(&a.resource.group_resource, shown_name(a.name, a.object()), why)
}

/// The name of an object in refusals, as upstream: that of the request, or the object's own, or what its name will begin with.
fn shown_name<'a>(asked: &'a str, object: Option<&'a Value>) -> &'a str {
    use apimachinery::meta;
    let of_object = object.into_iter().flat_map(|object| [meta::name(object), meta::get(object, "generateName")]);
    [asked].into_iter().chain(of_object).find(|name| !name.is_empty()).unwrap_or("Unknown")
}

/// 500 in the plugin's words: what upstream answers where a plugin fails in another way than by a Status.
fn failed(why: impl std::fmt::Display) -> Status {
    Status::new(500, Reason::Other("".into()), why.to_string())
}

/// The namespace of the request.
async fn namespace_of(a: &Request<'_>) -> Result<Value, Status> {
    let namespace = find(a, "", "namespaces", "", a.namespace).await;
    namespace.ok_or_else(|| Status::not_found(&GroupResource::new("", "namespaces"), a.namespace))
}

/// Another object, none when it does not exist.
async fn find(a: &Request<'_>, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Value> {
    let resource = a.registry.resource(group, "v1", plural)?;
    a.registry.get(&resource, namespace, name, None).await.ok().map(|entry| entry.value())
}

/// All objects of a kind.
async fn list(a: &Request<'_>, group: &str, plural: &str) -> Vec<Value> {
    let Some(resource) = a.registry.resource(group, "v1", plural) else { return Vec::new() };
    let all = a.registry.list(&resource, None, &registry::ListOptions::default()).await;
    all.map(|list| list.entries.iter().map(|entry| entry.value()).collect()).unwrap_or_default()
}

/// Of several objects the newest, and of those that are as old the first by name: which default class counts when there are several.
fn newest(objects: &[Value]) -> Option<&Value> {
    use apimachinery::meta;
    let newer =
        |object: &&Value| (std::cmp::Reverse(meta::get(object, "creationTimestamp").to_owned()), meta::name(object).to_owned());
    objects.iter().min_by_key(newer)
}

/// The list at a key, made when it is missing.
fn list_mut<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Vec<Value>> {
    let slot = object.as_object_mut()?.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if slot.is_null() {
        *slot = Value::Array(Vec::new());
    }
    slot.as_array_mut()
}

/// A text of the object, empty when it is missing.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Upstream's `extractResourceName`, as e2e tests see it: `pods "rsq-" is forbidden: error looking up service account ...`.
    #[test]
    fn refusals_name_what_has_no_name_yet() {
        let check = |asked: &str, metadata: Value, expected: &str| {
            assert_eq!(shown_name(asked, Some(&json!({"metadata": metadata}))), expected);
        };
        check("asked", json!({"name": "own"}), "asked");
        check("", json!({"name": "own", "generateName": "own-"}), "own");
        check("", json!({"generateName": "own-"}), "own-");
        check("", json!({}), "Unknown");
        assert_eq!((shown_name("", None), shown_name("a", None)), ("Unknown", "a"));
    }

    /// `--enable-admission-plugins` takes upstream's names; of those that cannot be enabled it says why.
    #[tokio::test]
    async fn what_cannot_be_enabled() {
        let (tasks, _failures) = base::tasks::Tasks::root();
        let remotes = Arc::new(Remotes::new(tasks, Arc::default()));
        let check = |name: &str, expected: Option<&str>| {
            let configuration = Configuration { enabled: vec![name.to_owned()], ..Configuration::default() };
            let plugins = all(configuration, Tolerations::default(), &Arc::default(), &remotes);
            assert_eq!(plugins.err().map(|error| error.to_string()).as_deref(), expected, "{name}");
        };
        for name in OPTIONAL.into_iter().chain(["NamespaceLifecycle", "ResourceQuota"]) {
            check(name, None);
        }
        check(
            "AlwaysAdmit",
            Some("the admission plugin AlwaysAdmit cannot be enabled: it does nothing, and upstream has deprecated it"),
        );
        let known = OPTIONAL.join(", ");
        check("Other", Some(&format!("there is no admission plugin \"Other\"; those that can be enabled are {known}")));
    }

    #[test]
    fn the_newest_of_several_defaults_counts() {
        let class = |name: &str, created: &str| json!({"metadata": {"name": name, "creationTimestamp": created}});
        let (old, b, a) =
            (class("old", "2026-01-01T00:00:00Z"), class("b", "2026-01-02T00:00:00Z"), class("a", "2026-01-02T00:00:00Z"));
        assert_eq!(newest(&[old.clone(), b, a.clone()]), Some(&a));
        assert_eq!(newest(std::slice::from_ref(&old)), Some(&old));
        assert_eq!(newest(&[]), None);
    }
}

//! APIServices of what this server itself serves: one for each group version, which says where it stands among others (upstream:
//! `autoregister_controller.go`, `controlplane/apiserver/aggregator.go`).

use std::collections::BTreeMap;

use registry::Catalog;
use serde_json::{Value, json};

/// Who keeps an APIService: `onstart` for those of the program, which may be deleted, `true` for those of custom resources.
pub(super) const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Upstream's places of groups, from the first to the last.
const GROUPS: [(&str, i64); 22] = [
    ("", 18_000),
    ("apiregistration.k8s.io", 17_900),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("admissionregistration.k8s.io", 16_700),
    ("apiextensions.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
    ("storagemigration.k8s.io", 15_800),
];
/// Of the group and the versions of custom resources.
const CUSTOM: (i64, i64) = (1000, 100);

/// Where a group of this server stands among all.
pub(crate) fn group_priority(group: &str) -> i64 {
    GROUPS.iter().find(|(name, _)| *name == group).map_or(CUSTOM.0, |(_, priority)| *priority)
}

/// Where a version of this server stands among those of its group.
pub(crate) fn local_priority(group: &str, version: &str, custom: bool) -> i64 {
    match (group, version) {
        _ if custom => CUSTOM.1,
        ("", _) => 1,
        ("autoscaling", "v2") => 30,
        (_, version) if version.contains("alpha") => 9,
        (_, version) if version.contains("beta") => 12,
        _ => 15,
    }
}

/// The APIServices of what is served, by name. Their specs are in the form in which they are stored, with which they are compared: what differs
/// would be written at each start, and a full disk refuses that.
pub(super) fn wanted(catalog: &Catalog) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for served in catalog.iter() {
        let (group, version, custom) = (&*served.def.group, &*served.def.version, served.is_custom());
        // The group of APIServices itself is nobody's to hand over. That of metrics is for whoever brings a server of it: Helm installs no chart over
        // an object that no release has made, so metrics-server's would be refused. Who only looks for the metrics looks into discovery, where they are.
        if matches!(group, "apiregistration.k8s.io" | "metrics.k8s.io") {
            continue;
        }
        let priorities = if custom { CUSTOM } else { (group_priority(group), local_priority(group, version, false)) };
        let name = format!("{version}.{group}");
        all.entry(name.clone()).or_insert_with(|| {
            let mut spec =
                json!({"service": null, "version": version, "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1});
            if !group.is_empty() {
                spec["group"] = group.into();
            }
            json!({"metadata": {"name": name, "labels": {MANAGED: if custom { "true" } else { "onstart" }}}, "spec": spec})
        });
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::bootstrap::context;
    use crate::testing::open;

    #[tokio::test]
    async fn what_is_wanted_is_as_it_is_stored() {
        let opened = open().await;
        let registry = &opened.registry;
        let resource = registry.resource("apiregistration.k8s.io", "v1", "apiservices").unwrap();
        let all = wanted(&registry.catalog());
        assert!(all.contains_key("v1.") && all.contains_key("v1.apps"));
        for (name, object) in all {
            let mut decoded = object.clone();
            resource.decode(&context(), "", &mut decoded).unwrap();
            let made = registry.create(&context(), &resource, "", None, decoded).await.unwrap();
            assert_eq!(made.value()["spec"], object["spec"], "{name}");
        }
    }
}

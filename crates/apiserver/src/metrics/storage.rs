//! What is stored, and which build this is.

use std::sync::Weak;

use base::metrics::{Page, Tell};
use registry::{Registry, Served};

use crate::version::{self, Build};

/// Tells one sample of a kind that has so many objects, and of so many bytes.
type Sample<'a> = &'a dyn Fn(&mut Tell<'_>, &Served, (usize, usize));

/// Tells of every kind how many objects there are, at each scrape.
pub(crate) fn observe(registry: Weak<Registry>) {
    let each = move |tell: &mut Tell<'_>, sample: Sample<'_>| {
        let Some(registry) = registry.upgrade() else { return };
        for resource in registry.catalog().iter() {
            if let Some(stored) = resource.stored() {
                sample(tell, resource, stored);
            }
        }
    };
    let count = each.clone();
    Page::Server.observe(
        "apiserver_storage_objects",
        "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind.",
        move |tell| {
            count(tell, &|tell, resource, (count, _)| {
                let def = &resource.def;
                let name = if def.group.is_empty() { def.plural.to_string() } else { format!("{}.{}", def.plural, def.group) };
                tell(&[("resource", &name)], count as f64);
            });
        },
    );
    let count = each.clone();
    Page::Server.observe(
        "apiserver_resource_objects",
        "Number of stored objects at the time of last check split by kind.",
        move |tell| {
            count(tell, &|tell, resource, (count, _)| {
                tell(&[("group", &resource.def.group), ("resource", &resource.def.plural)], count as f64);
            });
        },
    );
    Page::Server.observe(
        "apiserver_resource_size_estimate_bytes",
        "Estimated size of stored objects in database.",
        move |tell| {
            each(tell, &|tell, resource, (_, bytes)| {
                tell(&[("group", &resource.def.group), ("resource", &resource.def.plural)], bytes as f64);
            });
        },
    );
}

/// Tells which build this is, on the server's and the node's page.
pub(crate) fn build_info(build: &Build) {
    let document = serde_json::to_value(version::document(build)).unwrap_or_default();
    const LABELS: [(&str, &str); 9] = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let labels = LABELS.map(|(label, field)| (label, document[field].as_str().unwrap_or_default().to_owned()));
    for page in [Page::Server, Page::Node] {
        let labels = labels.clone();
        let help = "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.";
        page.observe("kubernetes_build_info", help, move |tell| {
            tell(&labels.each_ref().map(|(label, value)| (*label, value.as_str())), 1.0);
        });
    }
}

//! Which deprecated APIs were asked for, under upstream's name.

use std::sync::LazyLock;

use base::metrics::Page;
use kinds::KindDef;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Deprecated {
    group: String,
    version: String,
    resource: String,
    subresource: String,
    /// Empty: of what is deprecated here nothing is to be removed in a release that is known.
    removed_release: &'static str,
}

static ASKED: LazyLock<Family<Deprecated, Gauge>> = LazyLock::new(|| {
    Page::Server.register(
        "apiserver_requested_deprecated_apis",
        "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
        Family::default(),
    )
});

/// This kind, which is deprecated, was asked for. Also of custom resources the names are told, as upstream: there is one series for
/// each deprecated version.
pub(crate) fn asked(def: &KindDef, subresource: &str) {
    let label = Deprecated {
        group: def.group.to_string(),
        version: def.version.to_string(),
        resource: def.plural.to_string(),
        subresource: def.subresource(subresource).map_or_else(String::new, |sub| sub.name.to_owned()),
        removed_release: "",
    };
    ASKED.get_or_create(&label).set(1);
}

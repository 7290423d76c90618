//! Small questions about metadata that several controllers ask.

use apimachinery::labels;
use client::LabelSet;
use client::kube::Resource;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};

/// Labels of a cached object, for selectors.
pub(crate) struct Labels<'a>(pub(crate) &'a LabelSet);

impl labels::Labels for Labels<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        self.0.get(key)
    }
}

/// `at` as the API keeps times.
pub(crate) fn whole_seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The uid, empty when there is none.
pub(crate) fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

/// The name, empty when there is none.
pub(crate) fn name<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

/// The namespace, empty when there is none.
pub(crate) fn namespace<K: Resource>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

/// Whether the object is being deleted.
pub(crate) fn ends<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

/// One annotation.
pub(crate) fn annotation<'a, K: Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(key).map(String::as_str)
}

/// The owner that controls the object.
pub(crate) fn controller_of<K: Resource>(object: &K) -> Option<&OwnerReference> {
    object.meta().owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// The reference that makes `owner` the controller of what carries it.
pub(crate) fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

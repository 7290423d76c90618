//! Which numbers the pods of a set have. Pure.

use k8s_openapi::api::apps::v1::StatefulSet;

/// The first number of the set.
pub(super) fn start(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref()?.start).unwrap_or(0)
}

/// How many pods the set should have.
pub(super) fn replicas(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether the set should have a pod of that number.
pub(super) fn in_range(set: &StatefulSet, ordinal: i32) -> bool {
    let (start, number) = (i64::from(start(set)), i64::from(ordinal));
    start <= number && number < start + i64::from(replicas(set))
}

//! Resource versions are decimal numbers that grow with every write and compare across kinds
//! (KEP-5504, comparable resource version).

use kube::Resource;

/// The number in `version`; 0 when it is none.
pub fn parse(version: Option<&str>) -> u64 {
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// The resource version of `object`; 0 when it has none.
pub fn of<K: Resource>(object: &K) -> u64 {
    parse(object.meta().resource_version.as_deref())
}

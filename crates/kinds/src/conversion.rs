//! Second versions of a resource: one object, stored once, read and written through several group versions.
//!
//! Everything between the request and the stored bytes works on the version that the client uses; only the registry, where it
//! reads and writes bytes, converts.

use serde_json::Value;

use crate::def::GroupVersionKindRef;

/// How a served version and the stored one become each other. `apiVersion` and `kind` are set by the caller.
pub struct Conversion {
    /// The version that is stored.
    pub stored: GroupVersionKindRef<'static>,
    /// From the stored version.
    pub from_stored: fn(object: &mut Value),
    /// To the stored version.
    pub to_stored: fn(object: &mut Value),
    /// The stored version's name for a field of a field selector.
    pub stored_field: fn(field: &str) -> String,
}

//! Behaviour of single kinds that needs other objects, run in the write path just before the commit.

use std::any::Any;

use apimachinery::Status;
use async_trait::async_trait;
use kinds::KindDef;
use serde_json::Value;

use crate::Registry;
use crate::services::ServiceHook;

/// What a hook holds until the commit is done, such as an address that nobody else may take meanwhile.
pub(crate) type Hold = Box<dyn Any + Send>;

/// Behaviour before a commit.
#[async_trait]
pub(crate) trait Hook: Send + Sync {
    /// Completes or refuses the object. `old` is none for a creation.
    async fn before_write(&self, registry: &Registry, object: &mut Value, old: Option<&Value>) -> Result<Option<Hold>, Status>;
}

/// The hook of a kind, if it has one.
pub(crate) fn hook_for(def: &KindDef) -> Option<&'static dyn Hook> {
    match (def.group, def.kind) {
        ("", "Service") => Some(&ServiceHook),
        _ => None,
    }
}

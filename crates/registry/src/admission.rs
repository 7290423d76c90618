//! Admission: what may change or refuse a write after authorization and before validation and storage.

use apimachinery::Status;
use async_trait::async_trait;
use serde_json::Value;

use crate::{Registry, Resource, User};

/// What the request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object or a subresource.
    Update,
    /// A deletion.
    Delete,
    /// exec, attach, portforward, proxy.
    Connect,
}

/// A request as admission sees it.
pub struct Attributes<'a> {
    /// For looking up other objects.
    pub registry: &'a Registry,
    /// What it does.
    pub operation: Operation,
    /// To what kind.
    pub resource: &'a Resource,
    /// Subresource, empty for the object itself.
    pub subresource: &'a str,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Name, empty when it will be generated.
    pub name: &'a str,
    /// The new object, none for a deletion.
    pub object: Option<Value>,
    /// The stored object, none for a creation.
    pub old: Option<&'a Value>,
    /// Who.
    pub user: &'a User,
    /// Nothing will be written.
    pub dry_run: bool,
}

/// An admission plugin. The list of them is ordered; each is asked for every write.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses it.
    async fn mutate(&self, _attributes: &mut Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Refuses the object in its final form.
    async fn validate(&self, _attributes: &Attributes<'_>) -> Result<(), Status> {
        Ok(())
    }
}

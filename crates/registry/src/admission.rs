//! Admission: what may change or refuse a request after authorization, and what is held until its commit is done.

use std::any::Any;

use apimachinery::Status;
use async_trait::async_trait;
use serde_json::Value;

use crate::{Context, Registry, Served, User};

/// What the request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object or a sub-resource.
    Update,
    /// A deletion.
    Delete,
    /// exec, attach, portforward, proxy.
    Connect,
}

/// What a plugin keeps from others until the commit has succeeded or failed, such as an address. Dropping it releases it.
pub type Hold = Box<dyn Any + Send>;

/// A request as admission sees it (API page "Admission Controllers").
pub struct Request<'a> {
    /// For looking up other objects.
    pub registry: &'a Registry,
    /// What it does.
    pub operation: Operation,
    /// To what kind, in the version that was asked for.
    pub resource: &'a Served,
    /// Sub-resource, empty for the object itself.
    pub subresource: &'a str,
    /// Namespace, empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Name, empty when it will be generated.
    pub name: &'a str,
    /// The stored object, none for a creation.
    pub old: Option<&'a Value>,
    /// Who.
    pub user: &'a User,
    /// Nothing will be written.
    pub dry_run: bool,
    target: crate::pipeline::Target<'a>,
    object: Option<Value>,
    changed: bool,
}

impl<'a> Request<'a> {
    pub(crate) fn new(
        registry: &'a Registry,
        target: crate::pipeline::Target<'a>,
        operation: Operation,
        object: Option<Value>,
        old: Option<&'a Value>,
    ) -> Self {
        Self {
            registry,
            operation,
            resource: target.res,
            subresource: target.sub,
            namespace: target.namespace,
            name: target.name,
            old,
            user: &target.cx.user,
            dry_run: target.cx.dry_run,
            target,
            object,
            changed: false,
        }
    }

    /// The circumstances of the write.
    pub fn context(&self) -> &'a Context {
        self.target.cx
    }

    /// The new object, none for a deletion or a connection.
    pub fn object(&self) -> Option<&Value> {
        self.object.as_ref()
    }

    /// The new object, to change it: it is decoded, and gets its defaults, once more.
    pub fn object_mut(&mut self) -> Option<&mut Value> {
        self.changed = true;
        self.object.as_mut()
    }

    /// Whether a plugin has changed the object.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// The object as the plugins leave it.
    pub(crate) fn into_object(self) -> Option<Value> {
        self.object
    }
}

/// An admission plugin. The list of them is ordered.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Whether the request concerns this plugin. Requests that do not cost it nothing more.
    fn handles(&self, request: &Request<'_>) -> bool;

    /// Changes the object, or refuses the request.
    async fn mutate(&self, _request: &mut Request<'_>) -> Result<(), Status> {
        Ok(())
    }

    /// Gives a valid object what only one object may have, such as an address, and holds it until the commit is done.
    async fn reserve(&self, _request: &mut Request<'_>) -> Result<Option<Hold>, Status> {
        Ok(None)
    }

    /// Refuses the object in its final form.
    async fn validate(&self, _request: &Request<'_>) -> Result<(), Status> {
        Ok(())
    }
}

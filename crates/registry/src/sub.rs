//! Subresources with a body of their own kind.

mod eviction;
mod pods;
mod scale;
mod token;

use apimachinery::Status;
use kinds::{Action, Behaviour};
use serde_json::Value;

use crate::entry::object_path;
use crate::pipeline::{check_namespace, wipe_metadata};
use crate::scale as view;
use crate::target::{How, Target};
use crate::{Context, Registry, Served};

pub use token::TokenSubject;

impl Registry {
    /// Reads a subresource.
    pub async fn get_sub(&self, res: &Served, sub: &str, namespace: &str, name: &str) -> Result<Value, Status> {
        let entry = self.get(res, namespace, name, None).await?;
        match res.behaviour(sub) {
            Some(Behaviour::Scale) => view::show(&entry.value(), &res.def.scale),
            // It has been converted already.
            _ => Ok(entry.value()),
        }
    }

    /// Posts to a subresource that acts.
    pub async fn create_sub(
        &self,
        cx: &Context,
        res: &Served,
        sub: &str,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> Result<Value, Status> {
        check_namespace(&mut object, namespace)?;
        // The UID in a binding, and in a request for a token, is a condition.
        if !matches!(res.behaviour(sub), Some(Behaviour::Action(Action::Bind | Action::IssueToken))) {
            wipe_metadata(&mut object);
        }
        let target = Target { cx, res, sub, namespace, name, how: How::Plain, apart: false };
        match res.behaviour(sub) {
            Some(Behaviour::Action(Action::Bind)) => self.bind(target, &object).await,
            Some(Behaviour::Action(Action::Evict)) => self.evict(target, &object).await,
            Some(Behaviour::Action(Action::IssueToken)) => self.issue_token(target, object).await,
            _ => Err(Status::method_not_supported(&res.group_resource, "create")),
        }
    }

    /// The decoded object at that path.
    pub(crate) fn stored(&self, res: &Served, namespace: &str, name: &str) -> Result<Value, Status> {
        let entry = res.storage.cache.get(&object_path(namespace, name));
        entry.map(|entry| res.own_value(&entry)).ok_or_else(|| Status::not_found(&res.group_resource, name))
    }
}

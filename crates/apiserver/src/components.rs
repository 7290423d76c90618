//! ComponentStatus: the parts of the control plane under the names that upstream gives them, with the health that `/readyz` knows.

use apimachinery::Status;
use http::Response;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::{Inner, On};
use crate::health;
use crate::query::Query;
use crate::respond;

impl Inner {
    /// Reads one of them, or all.
    pub(crate) async fn components(&self, on: &On<'_>) -> Result<Response<Body>, Status> {
        let name = on.target.name;
        let objects = self.component_statuses().await;
        if name.is_empty() {
            let options = Query::parse(on.call.query).list_options(false)?;
            let list = self.registry.computed(on.resource, None, &options, objects)?;
            return Ok(respond::list(on.call.accept, on.resource, list, on.call.query).await);
        }
        let object = objects.into_iter().find(|object| object["metadata"]["name"] == name);
        self.show_computed(on, object.ok_or_else(|| Status::not_found(&on.resource.group_resource, name))?)
    }

    async fn component_statuses(&self) -> [Value; 3] {
        let gates = self.readiness.snapshot();
        let gate = |name| gates.get(name).cloned();
        [
            component("controller-manager", gate("controllers")),
            component("etcd-0", Some(health::store(self).await)),
            component("scheduler", gate("scheduler")),
        ]
    }
}

/// A component in this state. None when this server has none.
fn component(name: &str, state: Option<health::Outcome>) -> Value {
    let (status, message, error) = match state {
        Some(Ok(())) => ("True", "ok", String::new()),
        Some(Err(reason)) => ("False", "", reason),
        None => ("Unknown", "", "not a part of this server".to_owned()),
    };
    let mut condition = json!({"type": "Healthy", "status": status});
    for (field, text) in [("message", message), ("error", error.as_str())] {
        if !text.is_empty() {
            condition[field] = text.into();
        }
    }
    json!({"metadata": {"name": name}, "conditions": [condition]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        let check = |state, expected: Value| {
            let object = component("scheduler", state);
            assert_eq!((&object["metadata"]["name"], &object["conditions"][0]), (&json!("scheduler"), &expected));
        };
        check(Some(Ok(())), json!({"type": "Healthy", "status": "True", "message": "ok"}));
        check(Some(Err("starting".to_owned())), json!({"type": "Healthy", "status": "False", "error": "starting"}));
        check(None, json!({"type": "Healthy", "status": "Unknown", "error": "not a part of this server"}));
    }
}

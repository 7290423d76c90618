//! Connections through the API server: to kubelets for exec, attach, port-forward and logs, and to pods, services
//! and nodes for their proxy subresource.

mod backend;
pub(crate) mod client;
mod html;
mod kubelet;
mod links;
mod log_options;
pub(crate) mod outbound;
mod target;

use apimachinery::{Status, gvk};
use http::Response;
use kinds::{Connect, GroupVersionKindRef};
use serde_json::{Value, json};

use crate::body::{Body, RequestBody};
use crate::call::{Inner, On};
use crate::query::Query;
use crate::stages::Lasting;

pub use client::KubeletClient;
pub(crate) use target::runs_commands;

/// The options of a connection, which admission sees as its object. What is false or empty is left out, as in Go.
fn options((group, version, kind): GroupVersionKindRef<'_>, on: &On<'_>) -> Value {
    let query = Query::parse(on.call.query);
    let mut options = json!({"apiVersion": gvk::api_version(group, version), "kind": kind});
    for key in ["stdin", "stdout", "stderr", "tty"] {
        if query.flag(key) {
            options[key] = true.into();
        }
    }
    if let Some(container) = query.get("container").filter(|container| !container.is_empty()) {
        options["container"] = container.into();
    }
    let command: Vec<&str> = query.all("command").collect();
    if !command.is_empty() {
        options["command"] = command.into();
    }
    let ports: Vec<i64> = query.all("ports").flat_map(|ports| ports.split(',')).filter_map(|port| port.parse().ok()).collect();
    if !ports.is_empty() {
        options["ports"] = ports.into();
    }
    if !on.target.rest.is_empty() {
        options["path"] = on.target.rest.into();
    }
    options
}

impl Inner {
    /// Everything that streams.
    pub(crate) async fn connect(&self, on: &On<'_>, connect: Connect, body: RequestBody) -> Result<Response<Body>, Status> {
        on.call.keep(self.budgets.place(on.call.counted(), Lasting::Stream)?);
        if connect != Connect::Log {
            let target = &on.target;
            let options = on.resource.def.subresource(target.sub).and_then(|sub| sub.kind).map(|kind| options(kind, on));
            let object = (target.namespace, target.name);
            self.registry.connect(&on.plain_context(), on.resource, target.sub, object, options).await?;
        }
        match connect {
            Connect::Log => kubelet::log(self, on).await,
            Connect::Attach | Connect::Exec | Connect::PortForward => kubelet::stream(self, on, body).await,
            Connect::Proxy => target::proxy(self, on, body).await,
        }
    }
}

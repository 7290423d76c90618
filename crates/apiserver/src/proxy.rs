//! Connections through the API server: to kubelets for exec, attach, port-forward and logs, and to pods, services
//! and nodes for their proxy subresource.

mod backend;
pub(crate) mod client;
mod html;
mod kubelet;
mod links;
mod target;

use apimachinery::Status;
use http::Response;
use kinds::Connect;

use crate::body::{Body, RequestBody};
use crate::call::{Inner, On};

pub use client::KubeletClient;
pub(crate) use target::runs_commands;

impl Inner {
    /// Everything that streams.
    pub(crate) async fn connect(&self, on: &On<'_>, connect: Connect, body: RequestBody) -> Result<Response<Body>, Status> {
        if connect != Connect::Log {
            let target = &on.target;
            self.registry.connect(&on.plain_context(), on.resource, target.sub, target.namespace, target.name).await?;
        }
        match connect {
            Connect::Log => kubelet::log(self, on).await,
            Connect::Attach | Connect::Exec | Connect::PortForward => kubelet::stream(self, on, body).await,
            Connect::Proxy => target::proxy(self, on, body).await,
        }
    }
}

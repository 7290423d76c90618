//! Connections through the API server: to kubelets for exec, attach, port-forward and logs, and to pods, services
//! and nodes for their proxy subresource.

mod backend;
mod html;
mod kubelet;
mod links;
mod target;

use apimachinery::Status;
use http::{Method, Response};

use crate::api::Inner;
use crate::body::{Body, RequestBody};
use crate::resources::On;

pub use kubelet::KubeletClient;

impl Inner {
    /// Everything that streams.
    pub(crate) async fn connect(&self, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        let (sub, method) = (on.target.sub, &on.call.parts.method);
        let allowed = match sub {
            "log" => *method == Method::GET,
            "exec" | "attach" | "portforward" => matches!(*method, Method::GET | Method::POST),
            _ => true,
        };
        if on.target.name.is_empty() || !allowed {
            return Err(Status::method_not_allowed());
        }
        if sub != "log" {
            self.registry.connect(&on.plain_context(), on.resource, sub, on.target.namespace, on.target.name).await?;
        }
        match sub {
            "log" => kubelet::log(self, on).await,
            "exec" | "attach" | "portforward" => kubelet::stream(self, on, body).await,
            _ => target::proxy(self, on, body).await,
        }
    }
}

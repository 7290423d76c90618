//! How a tunnel begins.

use std::sync::Arc;

use apimachinery::Status;
use base::tasks::{OnFailure, Tasks};
use base::tls::Credential;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use hyper::upgrade::OnUpgrade;

use super::{NODE, PROTOCOL, Tunnels, calling};
use crate::body::Body;
use crate::call::{Call, Inner};
use crate::metrics::load::Ongoing;

/// The way of a request to somebody else.
pub(crate) struct Way<'a> {
    pub(crate) tasks: &'a Tasks,
    pub(crate) tunnels: &'a Tunnels,
    /// The user whose request it is; none for the server itself.
    pub(crate) user: Option<&'a str>,
    /// Held as long as what is sent.
    pub(crate) ongoing: Option<Arc<Ongoing>>,
}

/// Ends with the certificate of a node, never for one that is known without.
async fn certified(credential: Option<Arc<Credential>>) {
    match credential {
        Some(credential) => credential.ended().await,
        None => std::future::pending().await,
    }
}

impl Inner {
    /// By what the server itself reaches nodes and pods.
    pub(crate) fn way(&self) -> Way<'_> {
        Way { tasks: &self.tasks, tunnels: &self.tunnels, user: None, ongoing: None }
    }

    /// By what a request does.
    pub(crate) fn way_of<'a>(&'a self, call: &'a Call<'_>) -> Way<'a> {
        Way { user: call.counted(), ongoing: call.ongoing.clone(), ..self.way() }
    }

    /// Opens the tunnel of the node that asks.
    pub(crate) fn tunnel(&self, call: &Call<'_>) -> Result<Response<Body>, Status> {
        let of_node = call.user.name.strip_prefix(NODE).filter(|_| call.user.groups.iter().any(|group| group == "system:nodes"));
        let node = of_node.ok_or_else(|| Status::bad_request("only nodes open tunnels"))?.to_owned();
        let upgrades = call.parts.headers.get(UPGRADE).is_some_and(|protocol| protocol == PROTOCOL);
        let upgrade = call.parts.extensions.get::<OnUpgrade>().cloned().filter(|_| upgrades);
        let upgrade = upgrade.ok_or_else(|| Status::bad_request(format!("a tunnel is an upgrade to {PROTOCOL}")))?;
        let tunnels = self.tunnels.clone();
        let credential = call.parts.extensions.get::<Arc<Credential>>().cloned();
        self.tasks.spawn_until_cancelled("tunnel of a node", OnFailure::Log, async move {
            let (sender, connection) = calling().handshake(upgrade.await?).await?;
            let number = tunnels.opened(&node, sender);
            tracing::info!(node, "the node is reached by its tunnel");
            // The agent has a newer certificate by then, and opens another tunnel with it.
            let ended = tokio::select! {
                ended = connection => ended,
                () = certified(credential) => Ok(()),
            };
            tunnels.closed(&node, number);
            ended
        });
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
        Ok(response)
    }
}

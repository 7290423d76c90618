//! What other nodes are given of this node's images: see [`crate::sharing`].

use std::sync::Arc;

use base::tls::Peer;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Incoming;
use runtime::api::Error;
use tokio::sync::Semaphore;

use super::{Body, text};
use crate::context::Context;
use crate::images::is_open;
use crate::sharing::{LAYERS, PREFIX, SERVED, Sharing};

/// Most layers that are sent at a time: each keeps a disk and a thread busy. Who finds no place asks elsewhere.
pub(super) const PLACES: usize = 4;
/// Largest question, bytes.
const QUESTION: usize = LAYERS * 80;

/// What a node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// Which of some layers are here.
    Layers,
    /// A layer.
    Layer(String),
    /// The configuration of an imported image.
    Imported,
}

/// What a path below [`PREFIX`] asks for.
pub(super) fn question(words: &[&str]) -> Option<Question> {
    Some(match words {
        ["layers"] => Question::Layers,
        ["layers", id] => Question::Layer((*id).to_owned()),
        ["imported"] => Question::Imported,
        _ => return None,
    })
}

/// Whether the path is for nodes only.
pub(super) fn is_for_nodes(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    path.starts_with(PREFIX.trim_start_matches('/'))
}

/// Whether a client is a node of the cluster, by its certificate.
pub(super) fn is_node(peer: &Peer) -> bool {
    matches!(peer, Peer::User { name, groups, .. } if name.starts_with("system:node:") && groups.iter().any(|group| group == "system:nodes"))
}

/// What this node gives to others, and how many it serves.
pub(super) struct Serving {
    sharing: Sharing,
    places: Arc<Semaphore>,
}

impl Serving {
    pub(super) fn new(sharing: Sharing) -> Self {
        Self { sharing, places: Arc::new(Semaphore::new(PLACES)) }
    }

    /// Answers a node.
    pub(super) async fn answer(&self, cx: &Context, question: Question, request: Request<Incoming>) -> Response<Body> {
        let expected = if question == Question::Layers { Method::POST } else { Method::GET };
        if request.method() != expected {
            return text(StatusCode::METHOD_NOT_ALLOWED, format!("only {expected} is served"));
        }
        let answered = match question {
            Question::Layers => self.layers(request.into_body()).await,
            Question::Layer(id) => self.layer(&id).await,
            Question::Imported => self.imported(cx, request.uri().query().unwrap_or_default()).await,
        };
        answered.unwrap_or_else(|error| match error {
            Error::NotFound(_) => text(StatusCode::NOT_FOUND, error.to_string()),
            Error::InvalidImageName(_) => text(StatusCode::BAD_REQUEST, error.to_string()),
            error => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        })
    }

    async fn layers(&self, body: Incoming) -> Result<Response<Body>, Error> {
        if self.places.available_permits() == 0 {
            return Ok(busy());
        }
        let Ok(body) = Limited::new(body, QUESTION).collect().await else {
            return Ok(text(StatusCode::PAYLOAD_TOO_LARGE, "too many layers"));
        };
        let Ok(asked) = serde_json::from_slice::<Vec<String>>(&body.to_bytes()) else {
            return Ok(text(StatusCode::BAD_REQUEST, "a list of diff IDs is expected"));
        };
        let here = self.sharing.images.layers(asked).await?;
        let body = serde_json::to_vec(&here).map_err(|error| Error::Internal(error.to_string()))?;
        Ok(text(StatusCode::OK, body))
    }

    async fn layer(&self, id: &str) -> Result<Response<Body>, Error> {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Ok(busy()) };
        let stream = self.sharing.images.layer(id).await?;
        SERVED.inc();
        let pieces = stream.map(move |piece| {
            let _place = &place;
            piece.map(Frame::data)
        });
        Ok(Response::new(StreamBody::new(pieces).boxed_unsync()))
    }

    async fn imported(&self, cx: &Context, query: &str) -> Result<Response<Body>, Error> {
        let name = query.strip_prefix("name=").filter(|_| self.sharing.names).unwrap_or_default();
        let missing = || Error::NotFound(format!("image {name:?}"));
        if name.is_empty() {
            return Err(missing());
        }
        let (image, document) = self.sharing.images.imported(name).await?.ok_or_else(missing)?;
        // Other nodes get no image by its name that a pod here would have to show credentials for.
        if !is_open(cx, name, &image) {
            return Err(missing());
        }
        Ok(text(StatusCode::OK, document))
    }
}

fn busy() -> Response<Body> {
    text(StatusCode::SERVICE_UNAVAILABLE, Bytes::from_static(b"this node serves as many layers as it may"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_nodes() {
        let check = |path: &str, expected: bool| assert_eq!(is_for_nodes(path), expected, "{path}");
        check("/knarr/images/layers", true);
        check("//knarr/images/imported", true);
        check("/knarr/images/", true);
        check("/knarr/volumes/x", false);
        check("/pods", false);
    }

    #[test]
    fn nodes_have_certificates_of_nodes() {
        let check = |name: &str, groups: &[&str], expected: bool| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let peer =
                Peer::User { name: name.to_owned(), groups, uid: String::new(), credential: base::tls::Credential::default() };
            assert_eq!(is_node(&peer), expected, "{name}");
        };
        check("system:node:n2", &["system:nodes"], true);
        check("system:node:n2", &[], false);
        check("jane", &["system:nodes"], false);
        check("system:kube-apiserver", &["system:masters"], false);
        assert!(!is_node(&Peer::Anonymous));
        assert!(!is_node(&Peer::Invalid("expired".to_owned())));
    }
}

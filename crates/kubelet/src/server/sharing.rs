//! What other nodes are given of this node's images: see [`crate::sharing`].

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base::budgets::shares::{Share, Shares};
use base::tasks::{OnFailure, Tasks};
use base::tls::Peer;
use base::unread::Lent;
use bytes::Bytes;
use futures::StreamExt;
use http::{Extensions, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use runtime::api::Error;
use tokio_util::sync::CancellationToken;

use super::held::{Client, Held};
use super::{Body, text};
use crate::context::Context;
use crate::images::is_open;
use crate::sharing::{LAYERS, PREFIX, SERVED, Sharing};

/// Most layers that are sent at a time: each keeps a disk and a thread busy. Who finds no place asks elsewhere.
pub(super) const PLACES: usize = 4;
/// Of those, what one node has at most: as many as it asks for of one image (`PARALLEL_LAYERS`).
pub(super) const OF_NODE: usize = 3;
/// Bytes each second that a node has to take on the whole, after a while: who reads slower holds a place for too long.
const PACE: u64 = 64 << 10;
const GRACE: Duration = Duration::from_secs(60);
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

/// The name of a client that is a node of the cluster, by its certificate.
pub(super) fn node(peer: &Peer) -> Option<&str> {
    match peer {
        Peer::User { name, groups, .. } if groups.iter().any(|group| group == "system:nodes") => {
            name.starts_with("system:node:").then_some(name.as_str())
        }
        _ => None,
    }
}

/// What this node gives to others, and how many it serves.
pub(super) struct Serving {
    sharing: Sharing,
    places: Shares,
}

/// A node's place among those to whom layers are sent.
struct Sending {
    _place: Share,
    begun: Instant,
    bytes: AtomicU64,
}

impl Sending {
    /// Whether the node takes too little of it.
    fn is_slow(&self) -> bool {
        is_slow(self.begun.elapsed(), self.bytes.load(Ordering::Relaxed))
    }
}

fn is_slow(time: Duration, bytes: u64) -> bool {
    time > GRACE && bytes < (time - GRACE).as_secs() * PACE
}

impl Serving {
    pub(super) fn new(sharing: Sharing) -> Self {
        Self { sharing, places: Shares::of(None, OF_NODE, PLACES) }
    }

    /// Answers a node.
    pub(super) async fn answer(&self, cx: &Context, question: Question, request: Request<Lent>, tasks: &Tasks) -> Response<Body> {
        let expected = if question == Question::Layers { Method::POST } else { Method::GET };
        if request.method() != expected {
            return text(StatusCode::METHOD_NOT_ALLOWED, format!("only {expected} is served"));
        }
        let answered = match question {
            Question::Layers => self.layers(request.into_body()).await,
            Question::Layer(id) => self.layer(&id, request.extensions(), tasks).await,
            Question::Imported => self.imported(cx, request.uri().query().unwrap_or_default()).await,
        };
        answered.unwrap_or_else(|error| match error {
            Error::NotFound(_) => text(StatusCode::NOT_FOUND, error.to_string()),
            Error::InvalidImageName(_) => text(StatusCode::BAD_REQUEST, error.to_string()),
            error => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        })
    }

    async fn layers(&self, body: Lent) -> Result<Response<Body>, Error> {
        if self.places.is_exhausted() {
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

    async fn layer(&self, id: &str, whose: &Extensions, tasks: &Tasks) -> Result<Response<Body>, Error> {
        let (Some(Client::Other(node)), Some(held)) = (whose.get::<Client>(), whose.get::<Arc<Held>>()) else {
            return Ok(busy());
        };
        let Some(sending) = self.enter(node) else { return Ok(busy()) };
        let stream = self.sharing.images.layer(id).await?;
        SERVED.inc();
        watch(&sending, held.place.ended().clone(), tasks);
        let pieces = stream.map(move |piece| {
            let length = piece.as_ref().map_or(0, Bytes::len);
            sending.bytes.fetch_add(length as u64, Ordering::Relaxed);
            piece.map(Frame::data)
        });
        Ok(Response::new(StreamBody::new(pieces).boxed_unsync()))
    }

    /// A place for a layer of a node; none when there are none for it.
    fn enter(&self, node: &str) -> Option<Arc<Sending>> {
        let place = self.places.take(node)?;
        Some(Arc::new(Sending { _place: place, begun: Instant::now(), bytes: AtomicU64::new(0) }))
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

/// Ends a connection whose node takes too little of a layer.
fn watch(sending: &Arc<Sending>, end: CancellationToken, tasks: &Tasks) {
    let sending = Arc::downgrade(sending);
    tasks.spawn_until_cancelled("pace of a layer", OnFailure::Log, async move {
        loop {
            tokio::time::sleep(GRACE).await;
            match sending.upgrade() {
                Some(sending) if sending.is_slow() => end.cancel(),
                Some(_) => continue,
                None => {}
            }
            return Ok::<_, Infallible>(());
        }
    });
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
            assert_eq!(node(&peer), expected.then_some(name), "{name}");
        };
        check("system:node:n2", &["system:nodes"], true);
        check("system:node:n2", &[], false);
        check("jane", &["system:nodes"], false);
        check("system:kube-apiserver", &["system:masters"], false);
        assert_eq!(node(&Peer::Anonymous), None);
        assert_eq!(node(&Peer::Invalid("expired".to_owned())), None);
    }

    #[test]
    fn who_reads_slowly_is_slow_after_a_while() {
        let check = |seconds: u64, bytes: u64, expected: bool| {
            assert_eq!(is_slow(Duration::from_secs(seconds), bytes), expected, "{seconds} s, {bytes} bytes");
        };
        check(30, 0, false);
        check(60, 0, false);
        check(62, 0, true);
        check(70, 640 << 10, false);
        check(3660, 100 << 20, true);
        check(3660, 300 << 20, false);
    }
}

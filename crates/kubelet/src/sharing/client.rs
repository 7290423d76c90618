//! The side that asks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use client::Informers;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use runtime::{LayerStream, Outcome, PeerError};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::choose::{Candidate, candidates};
use super::{LAYERS, PREFIX, fetched};

/// Time to connect: a node that takes longer is dead, or no nearer than a registry.
const CONNECT: Duration = Duration::from_millis(40);
/// Time from there to the head of the answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a node is left alone that has failed.
const OUT: Duration = Duration::from_secs(300);
/// Time for the list of nodes to be complete, which it is but for the first moments of this node.
const SYNC: Duration = Duration::from_secs(1);
/// Largest configuration of an image, bytes.
const DOCUMENT: usize = 8 << 20;
/// Bytes of a digest in an answer, with quotes and comma.
const DIGEST: usize = 80;

/// The other nodes of the cluster. Nothing is kept of them but who has failed lately.
pub struct OtherNodes {
    informers: Informers,
    own: String,
    tls: Arc<rustls::ClientConfig>,
    tasks: Tasks,
    /// Images are looked for by name.
    names: bool,
    order: RandomState,
    out: Mutex<HashMap<String, Instant>>,
}

/// Why a node has not answered.
enum Failure {
    /// It is not there, or no node of the cluster yet.
    Away(String),
    /// It is there and makes others wait, or answers nonsense.
    Bad(String),
}

/// An answer, whose connection ends with the guard.
type Answer = (Response<Incoming>, DropGuard);

impl OtherNodes {
    /// For the node `own`, with informers that follow nodes anyway, and a certificate of the group `system:nodes`. `names` says whether images are
    /// looked for by name.
    pub fn new(informers: Informers, own: String, tls: rustls::ClientConfig, names: bool, tasks: Tasks) -> Self {
        Self { informers, own, tls: Arc::new(tls), tasks, names, order: RandomState::new(), out: Mutex::default() }
    }

    async fn candidates(&self, image: &str) -> Vec<Candidate> {
        let nodes = self.informers.of::<Node>();
        // Without a complete list those that are known are asked.
        let _ = tokio::time::timeout(SYNC, nodes.synced()).await;
        let now = Instant::now();
        let is_out = |name: &str| self.out.lock().get(name).is_some_and(|until| now < *until);
        // Another order for each image: otherwise all nodes would ask the same ones.
        candidates(&nodes.list(), (&self.own, image), is_out, |name| self.order.hash_one((name, image)))
    }

    /// Leaves the node alone for a while.
    fn put_out(&self, node: &str, why: &str) {
        tracing::warn!(node, why, "another node is not asked for images for a while");
        let now = Instant::now();
        let mut out = self.out.lock();
        out.retain(|_, until| now < *until);
        out.insert(node.to_owned(), now + OUT);
    }

    async fn ask(&self, node: &Candidate, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let stream = match tokio::time::timeout(CONNECT, TcpStream::connect(node.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Failure::Away(error.to_string())),
            Err(_) => return Err(Failure::Away(format!("no connection within {} ms", CONNECT.as_millis()))),
        };
        match tokio::time::timeout(ANSWER, self.ask_on(stream, node, request)).await {
            Ok(answered) => answered,
            Err(_) => Err(Failure::Bad(format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    async fn ask_on(&self, stream: TcpStream, node: &Candidate, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let away = |error: &dyn std::fmt::Display| Failure::Away(error.to_string());
        let name = ServerName::try_from(node.name.to_string()).map_err(|error| away(&error))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(|error| away(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| away(&error))?;
        let token = CancellationToken::new();
        let guard = token.clone().drop_guard();
        self.tasks.spawn_until_cancelled("connection to another node", OnFailure::Log, async move {
            // How it ends is told by the body.
            let _ = token.run_until_cancelled(connection).await;
            Ok::<_, Infallible>(())
        });
        let response = sender.send_request(request).await.map_err(|error| Failure::Bad(error.to_string()))?;
        Ok((response, guard))
    }

    /// Those of the layers that a node says it has.
    async fn layers_of(&self, node: &Candidate, layers: &[String]) -> Result<Vec<String>, Failure> {
        let layers = &layers[..layers.len().min(LAYERS)];
        let bad = |error: &dyn std::fmt::Display| Failure::Bad(error.to_string());
        let body = serde_json::to_vec(layers).map_err(|error| bad(&error))?;
        let request = Request::post(format!("{PREFIX}layers")).header(header::HOST, &*node.name).body(Full::new(body.into()));
        let (response, _guard) = self.ask(node, request.map_err(|error| bad(&error))?).await?;
        if response.status() != StatusCode::OK {
            return Ok(Vec::new());
        }
        let body = Limited::new(response.into_body(), layers.len() * DIGEST + 2).collect();
        let body = tokio::time::timeout(ANSWER, body).await.map_err(|error| bad(&error))?.map_err(|error| bad(&error))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| bad(&error))
    }

    /// What came of a question; who has made others wait is not asked again for a while.
    fn answered<T>(&self, node: &Candidate, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(answer) => Some(answer),
            Err(Failure::Away(why)) => {
                tracing::debug!(node = &*node.name, why, "another node cannot be asked for images");
                None
            }
            Err(Failure::Bad(why)) => {
                self.put_out(&node.name, &why);
                None
            }
        }
    }

    /// Asks for an image by name; none when the node has not imported it.
    async fn imported_on(&self, node: &Candidate, name: &str) -> Option<Answer> {
        let request = Request::get(format!("{PREFIX}imported?name={name}")).header(header::HOST, &*node.name);
        let request = request.body(Full::default()).ok()?;
        let (response, guard) = self.answered(node, self.ask(node, request).await)?;
        (response.status() == StatusCode::OK).then_some((response, guard))
    }
}

#[async_trait]
impl runtime::Peers for OtherNodes {
    async fn holders(&self, image: &str, layers: &[String]) -> Vec<Vec<Arc<str>>> {
        let nodes = self.candidates(image).await;
        let ask = |node| async move { (node, self.layers_of(node, layers).await) };
        let mut answers: FuturesUnordered<_> = nodes.iter().map(ask).collect();
        let mut holders = vec![Vec::new(); layers.len()];
        // The first to answer have the least to do: who is slower is not waited for once each layer is somewhere.
        while let Some((node, answer)) = answers.next().await {
            let here = self.answered(node, answer).unwrap_or_default();
            for (holders, layer) in holders.iter_mut().zip(layers) {
                if here.contains(layer) {
                    holders.push(node.name.clone());
                }
            }
            if holders.iter().all(|nodes| !nodes.is_empty()) {
                break;
            }
        }
        holders
    }

    async fn layer(&self, node: &str, diff_id: &str) -> Result<LayerStream, PeerError> {
        let away = || PeerError::Failed("it is not there any more".to_owned());
        let node = self.informers.of::<Node>().get(None, node).and_then(|node| Candidate::of(&node)).ok_or_else(away)?;
        let request = Request::get(format!("{PREFIX}layers/{diff_id}")).header(header::HOST, &*node.name).body(Full::default());
        let request = request.map_err(|error| PeerError::Failed(error.to_string()))?;
        let (response, guard) = self.ask(&node, request).await.map_err(|failure| match failure {
            Failure::Away(why) | Failure::Bad(why) => PeerError::Failed(why),
        })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => {
                fetched("refused");
                return Err(PeerError::Busy);
            }
            status => return Err(PeerError::Failed(format!("it answers {status}"))),
        }
        let pieces = BodyStream::new(response.into_body()).map(move |frame| {
            let _connected = &guard;
            frame.map(|frame| frame.into_data().unwrap_or_default()).map_err(io::Error::other)
        });
        Ok(pieces.boxed())
    }

    fn told(&self, node: &str, outcome: Outcome) {
        match outcome {
            Outcome::Taken => fetched("taken"),
            Outcome::Failed(why) => {
                fetched("failed");
                self.put_out(node, &why);
            }
        }
    }

    async fn imported(&self, name: &str) -> Option<(Arc<str>, Bytes)> {
        if !self.names {
            return None;
        }
        let nodes = self.candidates(name).await;
        let ask = |node| async move { Some((node, self.imported_on(node, name).await?)) };
        let (node, (response, _guard)) = {
            let mut answers: FuturesUnordered<_> = nodes.iter().map(ask).collect();
            loop {
                if let Some(found) = answers.next().await? {
                    break found;
                }
            }
        };
        let body = Limited::new(response.into_body(), DOCUMENT).collect();
        let read = tokio::time::timeout(ANSWER, body).await.map_err(|error| Failure::Bad(error.to_string()));
        let read = read.and_then(|read| read.map_err(|error| Failure::Bad(error.to_string())));
        Some((node.name.clone(), self.answered(node, read)?.to_bytes()))
    }
}

#[cfg(test)]
mod tests;

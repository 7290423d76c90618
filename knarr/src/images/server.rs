//! The node's side.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use base::listen::accepted;
use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::Engine;
use runtime::api::{Error, Runtime};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};

use super::node::NodeImages;
use super::{Arguments, EXPORT, Entry, IMPORT, LIST, NAME, PRUNE, PULL, REMOVE, pull};
use crate::private_socket;

/// Most requests at a time.
const CONNECTIONS: usize = 16;
/// Time for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest request without an archive, bytes.
const ARGUMENTS: usize = 64 << 10;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Serves at `socket` from now on.
pub(crate) fn start(socket: &Path, engine: Engine, kubelet: kubelet::Api, tasks: &Tasks) -> Result<()> {
    let listener = private_socket::bind(socket)?;
    let node = Arc::new(NodeImages::new(engine, kubelet));
    tasks.spawn_until_cancelled("images", OnFailure::Log, serve(listener, node, tasks.clone()));
    Ok(())
}

async fn serve(listener: UnixListener, node: Arc<NodeImages>, tasks: Tasks) -> Result<(), io::Error> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let (stream, _) = accepted(|| listener.accept()).await;
        let (node, group) = (node.clone(), tasks.clone());
        tasks.spawn_until_cancelled("connection of knarr image", OnFailure::Log, async move {
            if private_socket::is_ours(&stream) {
                connection(stream, node, &group).await;
            }
            drop(place);
            Ok::<_, Infallible>(())
        });
    }
}

async fn connection(stream: UnixStream, node: Arc<NodeImages>, tasks: &Tasks) {
    let service = service_fn(|request: Request<Incoming>| {
        let (node, tasks) = (node.clone(), tasks.clone());
        async move { Ok::<_, Infallible>(answer(request, node, &tasks).await.unwrap_or_else(|error| refusal(&error))) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of knarr image has ended");
    }
}

/// Why a request is not answered.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Runtime(#[from] Error),
    #[error("{0}")]
    Request(String),
}

fn refusal(failure: &Failure) -> Response<Body> {
    let status = match failure {
        Failure::Runtime(Error::NotFound(_)) => StatusCode::NOT_FOUND,
        Failure::Runtime(Error::InUse(_)) => StatusCode::CONFLICT,
        Failure::Runtime(Error::InvalidImageName(_) | Error::ImagePull(_) | Error::ImageNotFound(_)) => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Failure::Runtime(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Failure::Request(_) => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(whole(failure.to_string().into()));
    *response.status_mut() = status;
    response
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn document(value: &impl Serialize) -> Result<Response<Body>, Failure> {
    let bytes = serde_json::to_vec(value).map_err(|error| Failure::Request(error.to_string()))?;
    Ok(Response::new(whole(bytes.into())))
}

fn streamed(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response<Body> {
    Response::new(StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync())
}

fn received<T: Send + 'static>(mut channel: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    futures::stream::poll_fn(move |cx| channel.poll_recv(cx))
}

async fn answer(request: Request<Incoming>, node: Arc<NodeImages>, tasks: &Tasks) -> Result<Response<Body>, Failure> {
    if request.method() != Method::POST {
        return Err(Failure::Request("only POST is served".to_owned()));
    }
    let path = request.uri().path().to_owned();
    if path == IMPORT {
        return import(request, &node).await;
    }
    let arguments = Limited::new(request.into_body(), ARGUMENTS).collect().await;
    let arguments = arguments.map_err(|error| Failure::Request(error.to_string()))?.to_bytes();
    let arguments: Arguments = serde_json::from_slice(&arguments).map_err(|error| Failure::Request(error.to_string()))?;
    match path.as_str() {
        LIST => document(&entries(&node).await?),
        EXPORT => Ok(streamed(received(node.engine.export(arguments.images).await?))),
        PULL => Ok(streamed(received(pull::start(node, arguments, tasks)).map(Ok))),
        REMOVE => remove(&node, &arguments.images).await,
        PRUNE => prune(&node, arguments.all).await,
        _ => Err(Failure::Request(format!("{path} is not served"))),
    }
}

async fn entries(node: &NodeImages) -> Result<Vec<Entry>, Error> {
    let users = node.engine.image_users();
    Ok(node.engine.images().await?.into_iter().map(|image| Entry::new(image, &users)).collect())
}

async fn import(request: Request<Incoming>, node: &NodeImages) -> Result<Response<Body>, Failure> {
    let name = request.headers().get(NAME).map(|name| name.to_str().map(str::to_owned));
    let name = name.transpose().map_err(|_| Failure::Request(format!("{NAME} is not a name of an image")))?;
    let archive = BodyStream::new(request.into_body()).map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()));
    let images = node.engine.import(archive, name.as_deref()).await?;
    node.changed().await;
    let users = node.engine.image_users();
    document(&images.into_iter().map(|image| Entry::new(image, &users)).collect::<Vec<_>>())
}

/// Removes names or images, one after the other, up to the first that has to stay; tells the images that are gone.
async fn remove(node: &NodeImages, images: &[String]) -> Result<Response<Body>, Failure> {
    let mut gone = Vec::new();
    for image in images {
        gone.extend(node.engine.untag_image(image).await?.map(|image| Entry::new(image, &Default::default())));
    }
    node.changed().await;
    document(&gone)
}

async fn prune(node: &NodeImages, all: bool) -> Result<Response<Body>, Failure> {
    let mut gone = Vec::new();
    for entry in entries(node).await?.into_iter().filter(|entry| entry.pods.is_empty() && (all || entry.repo_tags.is_empty())) {
        match node.engine.remove_image(&entry.id).await {
            Ok(()) => gone.push(entry),
            // Somebody else was faster, with a container or with the removal.
            Err(Error::InUse(_) | Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    node.changed().await;
    document(&gone)
}

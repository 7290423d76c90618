//! The side of the command.

use std::io;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use base::tasks::{OnFailure, Tasks};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Arguments, EXPORT, Entry, Event, IMPORT, LIST, NAME, PRUNE, PULL, REMOVE};

/// Largest answer that is read whole, bytes.
const ANSWER: usize = 64 << 20;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A node whose images are meant.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    pub(crate) tasks: Tasks,
}

/// Whether the node has what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Missing(String);

impl Node {
    pub(crate) async fn list(&self) -> Result<Vec<Entry>> {
        self.ask(LIST, &Arguments::default()).await
    }

    pub(crate) async fn remove(&self, image: &str) -> Result<Vec<Entry>> {
        self.ask(REMOVE, &Arguments { images: vec![image.to_owned()], ..Arguments::default() }).await
    }

    pub(crate) async fn prune(&self, all: bool) -> Result<Vec<Entry>> {
        self.ask(PRUNE, &Arguments { all, ..Arguments::default() }).await
    }

    pub(crate) async fn import(
        &self,
        archive: impl Stream<Item = Bytes> + Send + 'static,
        name: Option<&str>,
    ) -> Result<Vec<Entry>> {
        use futures::StreamExt;
        let mut request = Request::post(IMPORT);
        if let Some(name) = name {
            request = request.header(NAME, name);
        }
        let body = StreamBody::new(archive.map(|piece| Ok(Frame::data(piece)))).boxed_unsync();
        read(self.send(request.body(body)?).await?).await
    }

    /// The pieces of an archive with these images.
    pub(crate) async fn export(&self, images: &[String]) -> Result<Incoming> {
        let response = self.post(EXPORT, &Arguments { images: images.to_vec(), ..Arguments::default() }).await?;
        Ok(response.into_body())
    }

    /// Pulls an image and tells how far it is.
    pub(crate) async fn pull(
        &self,
        image: &str,
        credentials: Option<(String, String)>,
        mut seen: impl FnMut(&Event),
    ) -> Result<Entry> {
        let arguments = Arguments { images: vec![image.to_owned()], credentials, ..Arguments::default() };
        let (mut body, mut left) = (self.post(PULL, &arguments).await?.into_body(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            left.extend_from_slice(&frame?.into_data().unwrap_or_default());
            while let Some(end) = left.iter().position(|byte| *byte == b'\n') {
                match serde_json::from_slice(&left.split_to(end + 1))? {
                    Event::Pulled(entry) => return Ok(entry),
                    Event::Failed(why) => bail!(why),
                    progress => seen(&progress),
                }
            }
        }
        bail!("the node has ended before the pull")
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, arguments: &Arguments) -> Result<T> {
        read(self.post(path, arguments).await?).await
    }

    async fn post(&self, path: &str, arguments: &Arguments) -> Result<Response<Incoming>> {
        let body = Full::new(Bytes::from(serde_json::to_vec(arguments)?)).map_err(|never| match never {}).boxed_unsync();
        self.send(Request::post(path).body(body)?).await
    }

    /// Sends a request; an answer that is a refusal is an error.
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .with_context(|| format!("{}: is a server or an agent running there, and are you root?", self.socket.display()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        self.tasks.spawn_until_cancelled("connection to the node", OnFailure::Log, async move {
            // Its end is told by the answer.
            let _ = connection.await;
            Ok::<_, std::convert::Infallible>(())
        });
        let response = sender.send_request(request).await.context("the node does not answer")?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let why = Limited::new(response.into_body(), ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
        let why = String::from_utf8_lossy(&why).into_owned();
        if status == StatusCode::NOT_FOUND {
            return Err(Missing(why).into());
        }
        bail!(why)
    }
}

async fn read<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T> {
    let bytes = Limited::new(response.into_body(), ANSWER).collect().await.map_err(anyhow::Error::from_boxed)?.to_bytes();
    Ok(serde_json::from_slice(&bytes)?)
}

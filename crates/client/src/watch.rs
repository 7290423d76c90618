//! One watch of a collection: all objects first, then what happens to them, for ever.
//!
//! Everything but the decoding of objects is the same code for all kinds, and an object is decoded straight from the bytes of its event,
//! without its managed fields: nobody who watches in this program asks for them.
//! (kube's watcher buffers each object in a generic tree first, and is compiled again for each kind.)

mod connection;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use codec::Decode;
use futures::{Stream, stream};
use kube::api::WatchParams;
use kube::core::Request;
use kube::{Client, Resource};
use serde::Deserialize;

use crate::{lean, resource_version};
use connection::Connection;

const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long until it is asked again whether a kind is served that was not: nothing tells.
const RETRY_MISSING: Duration = Duration::from_secs(60);
/// Seconds after which a server is to end the watch, so that a connection that died silently is noticed.
const TIMEOUT: u32 = 290;
/// Marks the bookmark that ends the initial objects (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What happened.
#[derive(Debug)]
pub enum Event<K> {
    /// All objects follow: at the start, and when history was lost.
    Init,
    /// An object that is there.
    InitApply(K),
    /// All objects that were there have come: those of this resource version.
    InitDone(u64),
    /// An object was created or changed.
    Apply(K),
    /// An object was deleted; its last state.
    Delete(K),
}

/// Why nothing comes at the moment. The watch goes on by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused, or was not reached.
    #[error("{}", crate::why(.0))]
    Request(#[from] kube::Error),
    /// The connection broke.
    #[error("the watch broke: {0}")]
    Broken(#[from] std::io::Error),
    /// The connection ended at once.
    #[error("the watch ended before anything came")]
    Ended,
    /// What came is no event, or no object of the kind.
    #[error("what came is no event of the watch: {0}")]
    Decode(#[from] serde_json::Error),
}

impl Error {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Request(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether the version asked for is one that the store has not reached.
    fn is_too_large(&self) -> bool {
        let Self::Request(kube::Error::Api(status)) = self else { return false };
        let mut causes = status.details.iter().flat_map(|details| &details.causes);
        causes.any(|cause| cause.reason == "ResourceVersionTooLarge")
    }

    /// Whether the API does not have the kind.
    pub fn is_missing(&self) -> bool {
        self.code() == Some(404)
    }
}

/// A watch of the objects of a collection.
pub struct Watch {
    client: Client,
    request: Request,
    params: WatchParams,
    metadata_only: bool,
    connection: Option<Connection>,
    /// The object or bookmark behind which a new connection goes on; none when it begins with all objects.
    last: Option<Bytes>,
    /// Whether the objects that come are those that were there.
    listing: bool,
    /// Whether nothing has come on this connection.
    idle: bool,
    /// How long the next connection waits.
    pause: Option<Duration>,
    retry: Duration,
}

/// An event as it came.
enum Raw {
    Init,
    InitDone(u64),
    Object(Type, Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Type {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// What is asked of a bookmark, and of an object that a watch goes on behind.
#[derive(Deserialize)]
struct Bookmark {
    metadata: Place,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    resource_version: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Watch {
    /// A watch of the collection at `path`; of the objects that a field selector picks, if `fields` is not empty.
    pub fn new(client: Client, path: impl Into<String>, fields: &str) -> Self {
        let params = WatchParams { timeout: Some(TIMEOUT), ..WatchParams::default() };
        Self {
            client,
            request: Request::new(path.into()),
            params: if fields.is_empty() { params } else { params.fields(fields) },
            metadata_only: false,
            connection: None,
            last: None,
            listing: true,
            idle: true,
            pause: None,
            retry: RETRY_MIN,
        }
    }

    /// All objects of a kind, in all namespaces.
    pub fn all<K: Resource<DynamicType = ()>>(client: Client, fields: &str) -> Self {
        Self::new(client, K::url_path(&(), None), fields)
    }

    /// Asks for the metadata of the objects only.
    pub fn metadata_only(mut self) -> Self {
        self.metadata_only = true;
        self
    }

    /// The events, for ever. After an error the watch waits, longer each time, and goes on where it was.
    pub fn events<K: Decode>(self) -> impl Stream<Item = Result<Event<K>, Error>> {
        stream::unfold(self, |mut watch| async move { Some((watch.next().await, watch)) })
    }

    /// The same events with the objects as the API sends them.
    pub fn encoded(self) -> impl Stream<Item = Result<Event<Bytes>, Error>> {
        stream::unfold(self, |mut watch| async move { Some((watch.next_encoded().await, watch)) })
    }

    async fn next<K: Decode>(&mut self) -> Result<Event<K>, Error> {
        // One object that cannot be read does not hold up the others: the connection stays.
        Ok(match self.next_encoded().await? {
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(lean::decode(&object)?),
            Event::InitDone(version) => Event::InitDone(version),
            Event::Apply(object) => Event::Apply(lean::decode(&object)?),
            Event::Delete(object) => Event::Delete(lean::decode(&object)?),
        })
    }

    async fn next_encoded(&mut self) -> Result<Event<Bytes>, Error> {
        let (kind, object) = match self.raw().await? {
            Raw::Init => return Ok(Event::Init),
            Raw::InitDone(version) => return Ok(Event::InitDone(version)),
            Raw::Object(kind, object) => (kind, object),
        };
        if !self.listing {
            self.last = Some(object.clone());
        }
        Ok(match kind {
            Type::Deleted => Event::Delete(object),
            _ if self.listing => Event::InitApply(object),
            _ => Event::Apply(object),
        })
    }

    /// The next event that says something, whatever connections it takes.
    async fn raw(&mut self) -> Result<Raw, Error> {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
        loop {
            let Some(connection) = &mut self.connection else {
                match self.connect().await {
                    Ok(true) => return Ok(Raw::Init),
                    Ok(false) => continue,
                    Err(error) => return Err(self.failed(error)),
                }
            };
            let (kind, object) = match connection.event().await {
                Ok(Some(event)) => event,
                // A server ends each watch after a while.
                Ok(None) if !std::mem::take(&mut self.idle) => {
                    self.connection = None;
                    continue;
                }
                Ok(None) => return Err(self.failed(Error::Ended)),
                Err(error) => return Err(self.failed(error)),
            };
            self.idle = false;
            self.retry = RETRY_MIN;
            match kind {
                Type::Bookmark => {
                    if let Some(version) = self.bookmark(object)? {
                        return Ok(Raw::InitDone(version));
                    }
                }
                Type::Error => {
                    let status: kube::core::Status = serde_json::from_slice(&object)?;
                    let error = kube::Error::Api(Box::new(status)).into();
                    return Err(self.failed(error));
                }
                kind => return Ok(Raw::Object(kind, object)),
            }
        }
    }

    /// Opens a connection. Whether it begins with all objects.
    async fn connect(&mut self) -> Result<bool, Error> {
        // Whoever has read an object has read its version: without one all objects come again.
        let version =
            self.last.as_deref().and_then(|last| serde_json::from_slice::<Bookmark>(last).ok()?.metadata.resource_version);
        let begins = version.is_none();
        let params = if begins { self.params.clone().initial_events() } else { self.params.clone() };
        let version = version.as_deref().unwrap_or_default();
        let request = match self.metadata_only {
            true => self.request.watch_metadata(&params, version),
            false => self.request.watch(&params, version),
        };
        let request = request.map_err(kube::Error::BuildRequest)?;
        self.connection = Some(Connection::open(&self.client, request).await?);
        self.listing = begins;
        self.idle = true;
        Ok(begins)
    }

    /// Notes how far the watch is. The version of the initial objects, if this was the end of them.
    fn bookmark(&mut self, object: Bytes) -> Result<Option<u64>, Error> {
        let Bookmark { metadata } = serde_json::from_slice(&object).map_err(|error| self.failed(error.into()))?;
        let version = resource_version::parse(metadata.resource_version.as_deref());
        let ends = metadata.annotations.is_some_and(|all| all.contains_key(INITIAL_EVENTS_END));
        if ends || !self.listing {
            self.last = Some(object);
        }
        let ended = self.listing && ends;
        self.listing &= !ends;
        Ok(ended.then_some(version))
    }

    /// Ends the connection and decides how long the next one waits. Where the place is gone (410), or is one that this store has not reached,
    /// as after a restoration, the next one starts with all objects.
    fn failed(&mut self, error: Error) -> Error {
        self.connection = None;
        if error.code() == Some(410) || error.is_too_large() {
            self.last = None;
        }
        self.pause = Some(if error.is_missing() { RETRY_MISSING } else { self.retry });
        self.retry = (self.retry * 2).min(RETRY_MAX);
        error
    }
}

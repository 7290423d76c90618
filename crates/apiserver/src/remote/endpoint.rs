//! One target, and the connections to it that are kept.

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use base::budgets::heavy;
use base::budgets::shares::Share as Place;
use base::connection;
use base::tasks::Tasks;
use base::tls::Resolver;
use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use registry::Registry;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::large::{Pool, Share};
use super::resolve::{self, Address};
use super::target::authority;
use super::{Error, HEADERS, Target, trust};
use crate::body::RequestBody;
use crate::tunnels::{Stream, Tunnels};

/// Connections that are kept for the next calls, and for how long.
const KEPT: usize = 25;
const KEPT_FOR: Duration = Duration::from_secs(90);
/// The head of an answer is no larger than this.
const HEAD: usize = 64 << 10;
/// Answers up to this size need no share of the memory for large ones.
const SMALL: usize = 64 << 10;
/// Large answers that are read at once, of all targets. An honest one of the largest size is there within its time.
static LARGE: LazyLock<Pool> = LazyLock::new(|| Pool::new(64 << 20, Duration::from_millis(500)));

/// How long a call may take, and how large its answer may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From looking up the target to the last byte of the answer.
    pub(crate) time: Duration,
    /// Of the answer's body.
    pub(crate) bytes: usize,
}

/// An answer whose body is to be read.
type Begun = (Address, Driven, Response<hyper::body::Incoming>);

/// What is called.
pub(crate) struct Endpoint {
    target: Target,
    identity: Option<Arc<Resolver>>,
    tls: OnceCell<Arc<ClientConfig>>,
    kept: Mutex<Vec<Kept<Driven>>>,
    /// Who reads a large answer: one at a time, so that no target has more than one share of the memory for them.
    large: Semaphore,
    /// Connections for requests whose bodies stream.
    pub(super) streams: Mutex<Vec<Kept<SendRequest<RequestBody>>>>,
    pub(super) tasks: Tasks,
    tunnels: Arc<Tunnels>,
}

/// A connection on which nothing is under way.
pub(super) struct Kept<S> {
    pub(super) address: Address,
    pub(super) sender: S,
    pub(super) since: Instant,
}

/// A new connection, with the place of the user for whom it was dialled.
pub(super) struct Dialled {
    pub(super) address: Address,
    pub(super) stream: TlsStream<Stream>,
    pub(super) place: Option<Place>,
}

/// What sends requests on a connection.
pub(super) trait Sender {
    /// Whether nothing can be sent any more.
    fn is_closed(&self) -> bool;
}

impl<B> Sender for SendRequest<B> {
    fn is_closed(&self) -> bool {
        self.is_closed()
    }
}

/// A connection that the calls drive themselves: with a task of its own a call would change between tasks, and often between threads, four
/// times. While nobody calls, nobody drives it: that its server has closed it is found out by the next call.
struct Driven {
    sender: SendRequest<Full<Bytes>>,
    /// None when it has ended.
    connection: Option<Pin<Box<Http1>>>,
}

type Http1 = http1::Connection<TokioIo<TlsStream<Stream>>, Full<Bytes>>;

impl Sender for Driven {
    fn is_closed(&self) -> bool {
        self.connection.is_none() || self.sender.is_closed()
    }
}

impl Driven {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<hyper::body::Incoming>> {
        let Self { sender, connection } = self;
        let exchange = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        drive(connection, exchange).await
    }
}

/// Does something on a connection, which goes on meanwhile.
async fn drive<T>(connection: &mut Option<Pin<Box<Http1>>>, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    if let Some(going) = connection {
        tokio::select! {
            biased;
            done = &mut work => return done,
            // Its end is told by the answer.
            _ = going => {}
        }
        *connection = None;
    }
    work.await
}

impl<S: Sender> Kept<S> {
    /// A kept connection to one of these addresses, the one that was used last. What is too old, or leads where nobody is any more,
    /// is closed.
    pub(super) fn take(kept: &Mutex<Vec<Self>>, addresses: &[Address]) -> Option<Self> {
        let mut kept = kept.lock();
        kept.retain(|one| !one.sender.is_closed() && one.since.elapsed() < KEPT_FOR && addresses.contains(&one.address));
        kept.pop()
    }

    /// Keeps it for the next call, from now on.
    pub(super) fn put(self, kept: &Mutex<Vec<Self>>) {
        let mut kept = kept.lock();
        if kept.len() < KEPT {
            kept.push(Self { since: Instant::now(), ..self });
        }
    }
}

impl Endpoint {
    pub(super) fn new(target: Target, identity: Option<Arc<Resolver>>, tasks: Tasks, tunnels: Arc<Tunnels>) -> Self {
        let (kept, streams) = (Mutex::default(), Mutex::default());
        Self { target, identity, tls: OnceCell::new(), kept, large: Semaphore::new(1), streams, tasks, tunnels }
    }

    /// What is called.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a request, whose URI is a path, and reads its answer, whatever its status. Work that asks has no place among the heavy ones
    /// meanwhile.
    pub(crate) async fn call(
        &self,
        registry: &Registry,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Response<Bytes>, Error> {
        heavy::released(self.ask(registry, request, limits)).await
    }

    async fn ask(
        &self,
        registry: &Registry,
        mut request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Response<Bytes>, Error> {
        if let Ok(host) = HeaderValue::try_from(self.target.authority()) {
            request.headers_mut().insert(HOST, host);
        }
        let end = tokio::time::Instant::now() + limits.time;
        let begun = tokio::time::timeout_at(end, self.exchange(registry, request)).await.unwrap_or(Err(Error::Timeout));
        let (address, mut sender, response) = begun?;
        let (parts, body) = response.into_parts();
        let read = drive(&mut sender.connection, read(body, limits.bytes, &self.large));
        let body = tokio::time::timeout_at(end, read).await.unwrap_or(Err(Error::Timeout));
        let body = body.map_err(|why| Error::Body { status: parts.status, why: Box::new(why) })?;
        // The connection is good for the next call.
        Kept { address, sender, since: Instant::now() }.put(&self.kept);
        Ok(Response::from_parts(parts, body))
    }

    /// A new connection, for what a user upgrades, with its place by a tunnel. Its time is the caller's to limit.
    pub(crate) async fn dial(
        &self,
        registry: &Registry,
        user: Option<&str>,
    ) -> Result<(TlsStream<Stream>, Option<Place>), Error> {
        let addresses = resolve::addresses(registry, &self.target.place).await?;
        let dialled = self.dial_one_of(addresses, user).await?;
        Ok((dialled.stream, dialled.place))
    }

    /// A place of a user by the tunnel of the node where an address is.
    pub(super) fn place(&self, address: &Address, user: Option<&str>) -> Result<Option<Place>, Error> {
        self.tunnels.place(address.node.as_deref(), user).map_err(|error| Error::Streams(error.to_string()))
    }

    /// The beginning of an answer, and the connection that it comes on.
    async fn exchange(&self, registry: &Registry, request: Request<Full<Bytes>>) -> Result<Begun, Error> {
        let addresses = resolve::addresses(registry, &self.target.place).await?;
        while let Some(mut kept) = Kept::take(&self.kept, &addresses) {
            // It may have been closed just now: what nobody has begun to answer is sent on another one.
            match kept.sender.send(request.clone()).await {
                Ok(response) => return Ok((kept.address, kept.sender, response)),
                Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                Err(error) => return Err(failure(&error)),
            }
        }
        let Dialled { address, stream, .. } = self.dial_one_of(addresses, None).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD)
            .max_headers(HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failure(&error))?;
        let mut sender = Driven { sender, connection: Some(Box::pin(connection)) };
        let response = sender.send(request).await.map_err(|error| failure(&error))?;
        Ok((address, sender, response))
    }

    /// Dials the addresses, from any of them on, until one answers. The user has a place by the tunnel before anything is asked of it: who never
    /// answers takes of the tunnel no more than who does. It is not the stream's, which may be kept for the requests of others.
    pub(super) async fn dial_one_of(&self, mut addresses: Vec<Address>, user: Option<&str>) -> Result<Dialled, Error> {
        let first = RandomState::new().hash_one(0) as usize % addresses.len().max(1);
        addresses.rotate_left(first);
        let mut failed = Error::Target("there is no address to dial".to_owned());
        for address in addresses {
            let place = match self.place(&address, user) {
                Ok(place) => place,
                // There may be room by the tunnel of another node.
                Err(crowded) => {
                    failed = crowded;
                    continue;
                }
            };
            match self.tunnels.connect(address.node.as_deref(), &address.host, address.port, None).await {
                Ok(stream) => return self.secure(stream).await.map(|stream| Dialled { address, stream, place }),
                Err(error) => {
                    failed = Error::Dial(connection::dial(&authority(&address.host, address.port), &error));
                }
            }
        }
        Err(failed)
    }

    async fn secure(&self, stream: Stream) -> Result<TlsStream<Stream>, Error> {
        let config = self.tls.get_or_try_init(|| trust::config(&self.target, self.identity.clone())).await?;
        let name = ServerName::try_from(self.target.server_name()).map_err(|error| Error::Tls(format!("tls: {error}")))?;
        TlsConnector::from(config.clone()).connect(name, stream).await.map_err(|error| Error::Tls(connection::why(&error)))
    }
}

/// The body, if it is not larger than `most`. `own` is the target's turn to send a large one.
async fn read(mut body: hyper::body::Incoming, most: usize, own: &Semaphore) -> Result<Bytes, Error> {
    let (mut bytes, mut large) = (BytesMut::new(), None::<(SemaphorePermit<'_>, Share<'_>)>);
    loop {
        let frame = match &large {
            None => body.frame().await,
            Some((_, share)) => tokio::select! {
                frame = body.frame() => frame,
                why = share.ended() => return Err(why),
            },
        };
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|error| failure(&error))?.into_data() else { continue };
        let size = bytes.len() + data.len();
        if size > most {
            return Err(Error::TooLarge(most));
        }
        if size > SMALL && large.is_none() {
            let turn = own.acquire().await.map_err(|_| Error::Crowded)?;
            large = Some((turn, LARGE.share()));
        }
        if let Some((_, share)) = large.as_ref().filter(|_| size > bytes.capacity()) {
            share.grow(size).await?;
            bytes.reserve(data.len());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// An error of HTTP with its cause.
pub(super) fn failure(error: &hyper::Error) -> Error {
    Error::Http(connection::why(error))
}

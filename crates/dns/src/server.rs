//! The server: sockets, concurrency limits, and the cluster state behind them.

mod places;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base::listen::accepted;
use base::readiness::Gate;
use base::tasks::{OnFailure, Tasks};
use client::{Informer, Informers, ServiceWatch};
use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Namespace;
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::batch::Batch;
use crate::core::{Answer, Room, Zone, ZoneError};
use crate::encode::encode;
use crate::forward::{Forwarder, Source, read_framed, write_framed};
use crate::known::Known;
use crate::message::{self, MAX_UDP, Request, answered, respond, udp_limit, udp_room};
use crate::metrics;
use crate::resolv::HostServers;
use crate::state::State;
use crate::wire;
use places::Places;

/// Forwarded questions under way at once, and those of one client among them; when there are more, the oldest of the client that has most is refused, so that
/// neither a dead upstream fills the memory nor one client keeps others from asking.
const FORWARDS: (usize, usize) = (1000, 500);
/// TCP connections at once, and those of one client among them.
const CONNECTIONS: (usize, usize) = (256, 32);
/// The longest message.
const LONGEST: usize = u16::MAX as usize;
/// How long an idle TCP connection is kept.
const IDLE: Duration = Duration::from_secs(10);

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The domain.
    #[error(transparent)]
    Zone(#[from] ZoneError),
    /// An address cannot be listened on.
    #[error("cluster DNS cannot listen on {address}: {source}; is the pod network up, and does another server have the port?")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// Who answers questions that are not about the cluster.
#[derive(Clone, Debug)]
pub enum Upstreams {
    /// The name servers in this file, usually /etc/resolv.conf; it is read again when it changes.
    File(PathBuf),
    /// These.
    Servers(Vec<SocketAddr>),
}

/// How the cluster DNS serves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses for UDP and TCP: the cluster DNS address with port 53.
    pub listen: Vec<SocketAddr>,
    /// The cluster domain, `cluster.local`.
    pub domain: String,
    /// For everything else.
    pub upstreams: Upstreams,
    /// Domains with name servers of their own.
    pub stub_domains: BTreeMap<String, Vec<SocketAddr>>,
}

/// The server with its sockets open.
pub struct Server {
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<TcpListener>,
    shared: Arc<Shared>,
}

struct Shared {
    zone: Zone,
    state: State,
    synced: AtomicBool,
    /// Grows with each change of what is answered.
    generation: AtomicU64,
    forwarder: Forwarder,
    forwards: Arc<Mutex<Places>>,
    places: Mutex<Places>,
    tasks: Tasks,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Udp,
    Tcp,
}

/// What can be said without asking anybody.
enum Outcome {
    Reply { response: Message, limit: usize, lasting: bool },
    Ask(Question),
    Nothing,
}

/// What somebody else knows.
struct Question {
    request: Box<Message>,
    kind: RecordType,
    name: Name,
    /// The answer so far, an alias whose target is `name`.
    alias: Option<Answer>,
}

impl Server {
    /// Opens the sockets. `tasks` will run everything that the server does.
    pub async fn bind(options: Options, tasks: Tasks) -> Result<Self, Error> {
        let zone = Zone::new(&options.domain)?;
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for address in &options.listen {
            let bind_error = |source| Error::Bind { address: *address, source };
            let listener = TcpListener::bind(address).await.map_err(bind_error)?;
            let same = listener.local_addr().map_err(bind_error)?;
            udp.push(Arc::new(UdpSocket::bind(same).await.map_err(bind_error)?));
            tcp.push(listener);
        }
        let source = match options.upstreams {
            Upstreams::Servers(servers) => Source::Fixed(servers),
            Upstreams::File(path) => Source::Host(HostServers::new(&path, options.listen)),
        };
        let mut stubs = Vec::new();
        for (domain, servers) in options.stub_domains {
            stubs.push((Zone::new(&domain)?.into_name(), servers));
        }
        let shared = Shared {
            zone,
            state: State::default(),
            synced: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            forwarder: Forwarder::new(stubs, source),
            forwards: Arc::new(Mutex::new(Places::new(FORWARDS.0, FORWARDS.1))),
            places: Mutex::new(Places::new(CONNECTIONS.0, CONNECTIONS.1)),
            tasks,
        };
        Ok(Self { udp, tcp, shared: Arc::new(shared) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Starts to serve. Ready when all services are known; until then questions about the cluster fail, which clients
    /// repeat, instead of being denied, which they believe.
    pub fn run(self, informers: &Informers, gate: Gate) {
        let tasks = self.shared.tasks.clone();
        let follow = follow(self.shared.clone(), ServiceWatch::new(informers), informers.of::<Namespace>(), gate);
        tasks.spawn_until_cancelled("dns records", OnFailure::Shutdown, follow);
        for socket in self.udp {
            tasks.spawn_until_cancelled("dns udp", OnFailure::Shutdown, serve_udp(self.shared.clone(), socket));
        }
        for listener in self.tcp {
            tasks.spawn_until_cancelled("dns tcp", OnFailure::Shutdown, serve_tcp(self.shared.clone(), listener));
        }
    }
}

async fn follow(
    shared: Arc<Shared>,
    mut watch: ServiceWatch,
    namespaces: Informer<Namespace>,
    gate: Gate,
) -> Result<(), Infallible> {
    let mut places = namespaces.changes();
    tokio::join!(watch.synced(), namespaces.synced());
    let (mut changed, mut place) = (watch.pending(), places.try_next_step());
    loop {
        let mut news = false;
        while let Some(step) = place.take() {
            let key = step.key();
            news |= shared.state.set_namespace(&key.name, namespaces.entry(key).is_some());
            place = places.try_next_step();
        }
        for key in changed {
            let (service, slices) = watch.get(&key);
            news |= shared.state.update(key.ns(), &key.name, service.as_deref(), &slices);
        }
        if !shared.synced.swap(true, Ordering::Release) {
            news = true;
            gate.ready();
        }
        // After the change: what was answered before it is forgotten now. Most changes, such as those of endpoints behind an address,
        // change no answer.
        if news {
            shared.generation.fetch_add(1, Ordering::AcqRel);
        }
        changed = tokio::select! {
            changed = watch.changed() => changed,
            step = places.next_step() => {
                place = Some(step);
                watch.pending()
            }
        };
    }
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) -> std::io::Result<()> {
    let (mut batch, mut known) = (Batch::at(socket.local_addr()?), Known::default());
    let requests = metrics::requests("udp", socket.local_addr()?);
    loop {
        socket.readable().await?;
        let came = match socket.try_io(Interest::READABLE, || batch.receive(socket.as_fd())) {
            Ok(came) => came,
            // Connection refused is an ICMP error for an earlier response: that client is gone.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => continue,
            Err(error) => return Err(error),
        };
        requests.inc_by(came as u64);
        known.renew(shared.generation.load(Ordering::Acquire));
        for place in 0..came {
            answer_udp(&shared, &socket, &mut known, &mut batch, place);
        }
        while batch.left() > 0 {
            match socket.try_io(Interest::WRITABLE, || batch.send(socket.as_fd())) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => socket.writable().await?,
                // A client that cannot be reached asks again or is gone.
                Err(_) => batch.skip(),
            }
        }
    }
}

/// Puts the answer to a datagram into the batch; what somebody else has to be asked for goes when it is there.
fn answer_udp(shared: &Arc<Shared>, socket: &Arc<UdpSocket>, known: &mut Known, batch: &mut Batch, place: usize) {
    let bytes = batch.message(place);
    if let Some(reply) = known.reply(bytes) {
        return batch.reply(place, |buffer| buffer.extend_from_slice(reply));
    }
    let reply = match shared.outcome(bytes, Transport::Udp) {
        Outcome::Nothing => None,
        Outcome::Reply { response, limit, lasting } => {
            let code = response.metadata.response_code;
            let reply = encode_counted(response, limit);
            if let Some(reply) = reply.as_ref().filter(|_| lasting) {
                known.keep(bytes, reply, metrics::responses(code));
            }
            reply
        }
        Outcome::Ask(question) => match shared.known(&question, bytes) {
            Some(reply) => reply,
            None => {
                if let Some(peer) = batch.peer(place) {
                    forward_udp(shared, socket, question, bytes, peer);
                }
                None
            }
        },
    };
    if let Some(reply) = reply {
        batch.reply(place, |buffer| buffer.extend_from_slice(&reply));
    }
}

/// Has somebody else answer a question, in a task of its own.
fn forward_udp(shared: &Arc<Shared>, socket: &Arc<UdpSocket>, question: Question, bytes: &[u8], peer: SocketAddr) {
    let place = Place::of(&shared.forwards, peer.ip());
    let (shared, socket, bytes) = (shared.clone(), socket.clone(), bytes.to_vec());
    shared.tasks.clone().spawn_until_cancelled("dns question", OnFailure::Log, async move {
        if let Some(reply) = shared.ask_in(place, question, &bytes, Transport::Udp).await {
            // A client that cannot be reached asks again or is gone.
            let _ = socket.send_to(&reply, peer).await;
        }
        Ok::<_, Infallible>(())
    });
}

/// A place of a client, until it is dropped.
struct Place {
    places: Arc<Mutex<Places>>,
    client: IpAddr,
    number: u64,
    ends: CancellationToken,
}

impl Place {
    fn of(places: &Arc<Mutex<Places>>, client: IpAddr) -> Self {
        let client = client.to_canonical();
        let (number, ends) = places.lock().enter(client);
        Self { places: places.clone(), client, number, ends }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().leave(self.client, self.number);
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) -> std::io::Result<()> {
    loop {
        let (stream, peer) = accepted(|| listener.accept()).await;
        let shared = shared.clone();
        let client = peer.ip().to_canonical();
        let (number, ends) = shared.places.lock().enter(client);
        shared.tasks.clone().spawn_until_cancelled("dns connection", OnFailure::Log, async move {
            // A connection that breaks is the client's to open again.
            let _ = ends.run_until_cancelled(shared.connection(stream, (client, number))).await;
            shared.places.lock().leave(client, number);
            Ok::<_, Infallible>(())
        });
    }
}

fn encode_counted(response: Message, limit: usize) -> Option<Vec<u8>> {
    metrics::responses(response.metadata.response_code).inc();
    encode(response, limit)
}

impl Shared {
    async fn connection(&self, mut stream: TcpStream, (client, number): (IpAddr, u64)) -> std::io::Result<()> {
        let requests = metrics::requests("tcp", stream.local_addr()?);
        loop {
            let bytes = tokio::time::timeout(IDLE, read_framed(&mut stream)).await??;
            requests.inc();
            self.places.lock().asked(client, number);
            let reply = match self.outcome(&bytes, Transport::Tcp) {
                Outcome::Nothing => return Ok(()),
                Outcome::Reply { response, .. } => encode_counted(response, LONGEST),
                Outcome::Ask(question) => self.ask_in(Place::of(&self.forwards, client), question, &bytes, Transport::Tcp).await,
            };
            let Some(reply) = reply else { return Ok(()) };
            tokio::time::timeout(IDLE, write_framed(&mut stream, &reply)).await??;
        }
    }

    fn outcome(&self, bytes: &[u8], transport: Transport) -> Outcome {
        let (request, query) = match message::parse(bytes) {
            Request::Question { message, query } => (message, query),
            Request::Refused(response) => return Outcome::Reply { response, limit: 512, lasting: false },
            Request::Ignored => return Outcome::Nothing,
        };
        let (kind, limit) = (query.query_type(), udp_limit(&request));
        if self.zone.contains(query.name()) && !self.synced.load(Ordering::Acquire) {
            return Outcome::Reply { response: respond(&request, ResponseCode::ServFail), limit, lasting: false };
        }
        let bytes = if transport == Transport::Tcp { LONGEST } else { limit };
        let room = Room::new(bytes, usize::from(request.metadata.id));
        let answer = self.zone.answer(query.name(), kind, &self.state, room);
        match answer.map(|mut answer| (answer.alias.take(), answer)) {
            None => Outcome::Ask(Question { name: query.name().to_lowercase(), kind, request, alias: None }),
            Some((Some(name), answer)) => Outcome::Ask(Question { name, kind, request, alias: Some(answer) }),
            Some((None, answer)) => {
                // Several addresses come in another order each time.
                let lasting = answer.answers.len() < 2;
                Outcome::Reply { response: answered(&request, answer), limit, lasting }
            }
        }
    }

    /// The reply that somebody else gave lately to the same question.
    fn known(&self, question: &Question, bytes: &[u8]) -> Option<Option<Vec<u8>>> {
        let reply = question.alias.is_none().then(|| self.forwarder.known(bytes, false))??;
        Some(self.passed_on(question, reply, Transport::Udp))
    }

    /// What another server has said, in the bytes that the client takes: not every server looks at what it is told of that.
    fn passed_on(&self, question: &Question, reply: Option<Vec<u8>>, transport: Transport) -> Option<Vec<u8>> {
        let room = if transport == Transport::Tcp { LONGEST } else { udp_room(&question.request) };
        let fits = |reply: Vec<u8>| if reply.len() <= room { Some(reply) } else { wire::cut(&reply, room) };
        let Some(reply) = reply.and_then(fits) else {
            return encode_counted(respond(&question.request, ResponseCode::ServFail), 512);
        };
        metrics::responses(metrics::code(&reply)).inc();
        Some(reply)
    }

    /// The same in a place, which somebody may have to leave before there is an answer.
    async fn ask_in(&self, place: Place, question: Question, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let refused = respond(&question.request, ResponseCode::Refused);
        match place.ends.run_until_cancelled(self.ask(question, bytes, transport)).await {
            Some(reply) => reply,
            None => encode_counted(refused, 512),
        }
    }

    /// Lets somebody else answer, or complete the answer.
    async fn ask(&self, question: Question, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let tcp = transport == Transport::Tcp;
        if question.alias.is_none() {
            let reply = self.forwarder.ask(&question.name, bytes, tcp).await;
            return self.passed_on(&question, reply, transport);
        }
        let Question { request, kind, name, alias } = question;
        let mut answer = alias?;
        let failed = |request| encode_counted(respond(request, ResponseCode::ServFail), 512);
        let Some(reply) = self.resolve(&name, kind, tcp).await else { return failed(&request) };
        match reply.metadata.response_code {
            // The code is that of the last name (RFC 6604, 3).
            code @ (ResponseCode::NoError | ResponseCode::NXDomain) => answer.code = code,
            _ => return failed(&request),
        }
        answer.answers.extend(reply.answers);
        let mut response = answered(&request, answer);
        response.metadata.truncation = reply.metadata.truncation;
        encode_counted(response, if tcp { LONGEST } else { udp_limit(&request) })
    }

    /// What others know of the target of an alias. What does not fit their datagrams is asked for by TCP: a client that is told of a part only asks again by
    /// TCP itself, and many do not.
    async fn resolve(&self, name: &Name, kind: RecordType, tcp: bool) -> Option<Message> {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name.clone(), kind));
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP);
        query.set_edns(edns);
        let (name, query) = (name.to_lowercase(), query.to_vec().ok()?);
        let read = |bytes: Option<Vec<u8>>| Message::from_vec(&bytes?).ok();
        let reply = read(self.forwarder.ask(&name, &query, tcp).await)?;
        if tcp || !reply.metadata.truncation {
            return Some(reply);
        }
        Some(read(self.forwarder.ask(&name, &query, true).await).unwrap_or(reply))
    }
}

//! Sessions that UDPRoutes forward: what comes from one address and port of a client goes to one endpoint, and what that answers goes back.
//!
//! Addresses can be forged, so a session has a place among many ([`Connections`]), and has
//! proved nothing until its client has said something after an answer: before that it makes room for others. A session moves to another
//! endpoint when its own has gone; it ends when both sides are silent, and with the port.

use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base::budgets::connections::{Connections, Limits, Place};
use base::budgets::descriptors;
use base::tasks::OnFailure;
use nix::sys::socket::{MsgFlags, send};
use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::balance::{Choice, Member};
use crate::gateway::streams::Port;
use crate::table::Route;
use crate::tunnel::Clock;
use crate::upstream::{Endpoint, Look, Upstream};

/// Most sessions at once. Each has a socket.
const MAX_SESSIONS: usize = 8192;
/// How long both sides of a session may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest datagram.
const MAX_LENGTH: usize = 65_535;
thread_local! {
    /// Where answers are read: room for the largest, once for each thread and not for each session, and never filled with zeros.
    static ANSWER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(MAX_LENGTH));
}

/// Datagrams that are taken from a socket before others have their turn.
const AT_ONCE: usize = 32;

/// The budget of sessions, of the descriptors that the process has.
pub(crate) fn sessions() -> Connections {
    let all = descriptors::share(descriptors::limit(), descriptors::percent::INGRESS_SESSIONS, MAX_SESSIONS);
    // Many clients may stand behind one address; one of them does not get all.
    let most = (all * 3 / 4).max(1);
    Connections::new("ingress_udp_sessions", Limits { all, unproven: most, unproven_of_peer: (all / 2).max(1), of_user: most })
}

/// Opens a port at an address.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Forwards datagrams until the port's end.
pub(super) async fn serve(shared: &Arc<Shared>, port: Port, sockets: Vec<UdpSocket>, end: &CancellationToken) {
    let listeners = sockets.into_iter().map(|socket| {
        let listener = Listener { shared: shared.clone(), port, socket, end: end.clone(), sessions: Mutex::default() };
        Arc::new(listener).serve()
    });
    futures::future::join_all(listeners).await;
}

/// One address of the port.
struct Listener {
    shared: Arc<Shared>,
    port: Port,
    socket: UdpSocket,
    end: CancellationToken,
    /// By the client's address.
    sessions: Mutex<HashMap<SocketAddr, Arc<Session>>>,
}

struct Session {
    backend: UdpSocket,
    upstream: Arc<Upstream>,
    endpoint: Arc<Endpoint>,
    /// What was true when it was last looked whether the session may stay.
    seen: ArcSwap<(Arc<Route>, Look)>,
    clock: Clock,
    place: Place,
    /// Cancelled when the client has another session.
    left: CancellationToken,
    answered: AtomicBool,
    proved: AtomicBool,
}

impl Listener {
    async fn serve(self: Arc<Self>) {
        let mut buffer = vec![0; MAX_LENGTH];
        loop {
            if let Err(error) = self.socket.readable().await {
                tracing::warn!(port = %self.port, %error, "a port of a Gateway cannot be read");
                return;
            }
            for _ in 0..AT_ONCE {
                match self.socket.try_recv_from(&mut buffer) {
                    Ok((length, client)) => self.forward(client, &buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // A client whose answer found nobody: it says nothing of others.
                    Err(error) => tracing::trace!(port = %self.port, %error, "datagram"),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Forwards a datagram. What cannot go anywhere is dropped, as the protocol allows.
    fn forward(self: &Arc<Self>, client: SocketAddr, datagram: &[u8]) {
        let table = self.shared.table.load();
        let Some(route) = table.stream(self.port) else { return };
        let known = self.sessions.lock().get(&client).cloned();
        let session = match known {
            Some(session) if session.stays(route) => session,
            other => {
                if let Some(old) = other {
                    self.forget(client, &old);
                    old.left.cancel();
                }
                match self.begin(client, route) {
                    Some(session) => session,
                    None => return,
                }
            }
        };
        session.clock.moved();
        if session.answered.load(Ordering::Relaxed) && !session.proved.swap(true, Ordering::Relaxed) {
            session.place.prove(&session.place.peer().to_string());
        }
        session.send(datagram);
    }

    /// Begins a session with an endpoint of the route, unless the client is a session itself.
    fn begin(self: &Arc<Self>, client: SocketAddr, route: &Arc<Route>) -> Option<Arc<Session>> {
        if self.shared.session_addresses.has(&client) {
            return None;
        }
        let upstream = route.chosen()?;
        let endpoint = upstream.choose(Choice::Any(route.policy.balance), &[])?;
        let place = self.shared.sessions.admit(client.ip())?;
        let connected = connect(endpoint.address).and_then(|backend| Ok((backend.local_addr()?, backend)));
        let (own, backend) = connected.inspect_err(|error| tracing::debug!(port = %self.port, %error, "no session")).ok()?;
        self.shared.session_addresses.add(own);
        let session = Arc::new(Session {
            backend,
            seen: ArcSwap::from_pointee((route.clone(), upstream.look())),
            upstream,
            endpoint,
            clock: Clock::new(),
            place,
            left: CancellationToken::new(),
            answered: AtomicBool::new(false),
            proved: AtomicBool::new(false),
        });
        self.sessions.lock().insert(client, session.clone());
        let (listener, answering) = (self.clone(), session.clone());
        self.shared.tasks.spawn_until_cancelled("session of a UDPRoute", OnFailure::Log, async move {
            tokio::select! {
                error = answering.answer(&listener.socket, client) => {
                    answering.endpoint.load().failed(Instant::now());
                    tracing::debug!(port = %listener.port, %error, "session ended");
                }
                () = answering.clock.silent_for(SILENCE) => {}
                () = answering.place.ended().cancelled() => {}
                () = listener.end.cancelled() => {}
                () = answering.left.cancelled() => {}
            }
            listener.forget(client, &answering);
            listener.shared.session_addresses.remove(&own);
            Ok::<_, Infallible>(())
        });
        Some(session)
    }

    fn forget(&self, client: SocketAddr, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock();
        if sessions.get(&client).is_some_and(|known| Arc::ptr_eq(known, session)) {
            sessions.remove(&client);
        }
    }
}

impl Session {
    /// Whether the session's endpoint is still one that the route leads to.
    fn stays(&self, route: &Arc<Route>) -> bool {
        let seen = self.seen.load();
        if Arc::ptr_eq(&seen.0, route) && seen.1.is_current(&self.upstream) {
            return true;
        }
        let look = self.upstream.look();
        let stays = route.leads_to(&self.upstream) && self.upstream.has(self.endpoint.id());
        if stays {
            self.seen.store(Arc::new((route.clone(), look)));
        }
        stays
    }

    /// Sends to the endpoint. Not by way of the runtime, which has not heard yet that a new socket can be written to. What the kernel has no
    /// room for is dropped; what cannot be sent is told by the next answer that is read.
    fn send(&self, datagram: &[u8]) {
        let _ = send(self.backend.as_raw_fd(), datagram, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }

    /// Takes answers back to the client until that is impossible.
    async fn answer(&self, socket: &UdpSocket, client: SocketAddr) -> io::Error {
        loop {
            if let Err(error) = self.backend.readable().await {
                return error;
            }
            if let Err(error) = self.take(socket, client) {
                return error;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes the answers that are there.
    fn take(&self, socket: &UdpSocket, client: SocketAddr) -> io::Result<()> {
        ANSWER.with_borrow_mut(|answer| {
            for _ in 0..AT_ONCE {
                answer.clear();
                match self.backend.try_recv_buf(answer) {
                    Ok(_) => {
                        self.clock.moved();
                        if !self.answered.swap(true, Ordering::Relaxed) {
                            self.endpoint.load().succeeded();
                        }
                        // What the kernel has no room for is dropped.
                        let _ = socket.try_send_to(answer, client);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })
    }
}

/// A socket whose other end is an endpoint, which alone is heard by it.
fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

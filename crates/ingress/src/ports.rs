//! Ports beside the two of ingress: each is opened when a listener of a Gateway asks for it, and closed when none does any more.
//!
//! What a port is for, and where what comes to it goes, the table says for each connection: a port that is for something else stays open. Connections that live go on whatever the table says later, also when the port
//! is closed.

mod tcp;
mod udp;

pub(crate) use udp::sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::budgets::connections::Connections;
use base::tasks::{OnFailure, Tasks};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::front::Front;
use crate::gateway::streams::{Port, Transport};
use crate::loops::SessionAddresses;
use crate::table::Table;

/// How often a port is tried that somebody else has: nothing tells when it is free.
const RETRY: Duration = Duration::from_secs(2);
/// What has become of ports and was not heard yet.
const QUEUE: usize = 64;

/// What all ports share.
pub(crate) struct Shared {
    pub(crate) table: Arc<ArcSwap<Table>>,
    /// Serves HTTP and TLS. Its connections and those of streams have the same places.
    pub(crate) front: Arc<Front>,
    /// The places of sessions over UDP.
    pub(crate) sessions: Connections,
    /// The addresses from which sessions over UDP speak with their endpoints.
    pub(crate) session_addresses: SessionAddresses,
    /// Where is listened.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) tasks: Tasks,
}

/// What has become of a port.
pub(crate) struct Told(Port, Result<(), String>);

/// The ports that are asked for.
pub(crate) struct Ports {
    shared: Arc<Shared>,
    asked: BTreeMap<Port, Asked>,
    sender: mpsc::Sender<Told>,
    receiver: mpsc::Receiver<Told>,
    open: watch::Sender<BTreeSet<Port>>,
}

struct Asked {
    end: CancellationToken,
    /// Whether it could be opened; none while nobody knows.
    outcome: Option<Result<(), String>>,
}

impl Ports {
    /// None yet. Those that are open are told to `open`.
    pub(crate) fn new(shared: Shared, open: watch::Sender<BTreeSet<Port>>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { shared: Arc::new(shared), asked: BTreeMap::new(), sender, receiver, open }
    }

    /// These ports are asked for, and no others.
    pub(crate) fn want(&mut self, ports: &BTreeSet<Port>) {
        let gone: Vec<_> = self.asked.extract_if(.., |port, _| !ports.contains(port)).collect();
        gone.iter().for_each(|(_, asked)| asked.end.cancel());
        for port in ports.iter().copied() {
            if !self.asked.contains_key(&port) {
                let end = self.shared.tasks.token().child_token();
                self.asked.insert(port, Asked { end: end.clone(), outcome: None });
                let (shared, sender) = (self.shared.clone(), self.sender.clone());
                self.shared.tasks.spawn("port of a Gateway", OnFailure::Log, async move {
                    end.clone().run_until_cancelled(serve(shared, port, end, sender)).await;
                    Ok::<_, Infallible>(())
                });
            }
        }
        if !gone.is_empty() {
            self.tell();
        }
    }

    /// What has become of a port next. To be given to [`Ports::take`].
    pub(crate) async fn next(&mut self) -> Told {
        match self.receiver.recv().await {
            Some(told) => told,
            // There is a sender here.
            None => std::future::pending().await,
        }
    }

    /// Notes what has become of a port.
    pub(crate) fn take(&mut self, Told(port, outcome): Told) {
        if let Some(asked) = self.asked.get_mut(&port) {
            asked.outcome = Some(outcome);
            self.tell();
        }
    }

    /// Whether a port could be opened; none while nobody knows.
    pub(crate) fn outcome(&self, port: Port) -> Option<Result<(), String>> {
        self.asked.get(&port)?.outcome.clone()
    }

    fn tell(&self) {
        let open: BTreeSet<Port> =
            self.asked.iter().filter(|(_, asked)| asked.outcome == Some(Ok(()))).map(|(port, _)| *port).collect();
        self.open.send_if_modified(|known| {
            let changed = *known != open;
            *known = open;
            changed
        });
    }
}

/// Serves a port until its end, or until nobody hears of it any more.
async fn serve(shared: Arc<Shared>, port: Port, end: CancellationToken, sender: mpsc::Sender<Told>) {
    match port.transport {
        Transport::Tcp => {
            let Some(listeners) = open(&shared, port, &sender, base::listen::Listener::bind).await else { return };
            tcp::serve(&shared, port, &listeners, &end).await;
        }
        Transport::Udp => {
            let Some(sockets) = open(&shared, port, &sender, udp::bind).await else { return };
            udp::serve(&shared, port, sockets, &end).await;
        }
    }
}

/// Opens a port at all addresses, however long it takes.
async fn open<T>(
    shared: &Shared,
    port: Port,
    sender: &mpsc::Sender<Told>,
    bind: fn(SocketAddr) -> io::Result<T>,
) -> Option<Vec<T>> {
    let mut open = Vec::new();
    let mut last = None;
    for address in &shared.addresses {
        open.push(loop {
            match bind(SocketAddr::new(*address, port.number)) {
                Ok(listener) => break listener,
                Err(error) if last == Some(error.kind()) => {}
                Err(error) => {
                    tracing::warn!(%address, %port, %error, "a port of a Gateway cannot be opened; it is tried again");
                    last = Some(error.kind());
                    sender.send(Told(port, Err(error.to_string()))).await.ok()?;
                }
            }
            tokio::time::sleep(RETRY).await;
        });
    }
    tracing::info!(%port, "a port of a Gateway is open");
    sender.send(Told(port, Ok(()))).await.ok()?;
    Some(open)
}

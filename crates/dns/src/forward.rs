//! Forwarding of questions that are not about the cluster.
//!
//! Messages pass through as they are but for their identifier, so that every record type and option works; those that are malformed do not, and those for
//! which a client has no room are cut (`wire`). Answers are kept for a while (`cache`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::cache::Cache;
use crate::resolv::HostServers;
use crate::wire::{self, question_end};

/// How often a question is sent, to one server after the other and to a single one again: a packet may have been lost.
const ATTEMPTS: usize = 3;
/// How long each attempt may take: resolvers of clients give up after five seconds, and hear before.
const TIMEOUT: Duration = Duration::from_millis(1300);
const MAX_MESSAGE: usize = 65_535;

/// Where questions go to.
pub(crate) struct Forwarder {
    /// Most specific domain first.
    stubs: Vec<(Name, Vec<SocketAddr>)>,
    host: Source,
    /// The server that answered last; the next question begins with it.
    preferred: AtomicUsize,
    cache: Mutex<Cache>,
}

/// Servers for everything that no stub domain has.
pub(crate) enum Source {
    Fixed(Vec<SocketAddr>),
    Host(HostServers),
}

impl Forwarder {
    pub(crate) fn new(mut stubs: Vec<(Name, Vec<SocketAddr>)>, host: Source) -> Self {
        stubs.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.num_labels()));
        Self { stubs, host, preferred: AtomicUsize::new(0), cache: Mutex::default() }
    }

    /// The reply to `query` if it is known already; None inside when it is known that nobody answers.
    pub(crate) fn known(&self, query: &[u8], tcp: bool) -> Option<Option<Vec<u8>>> {
        self.cache.lock().get(query, tcp, Instant::now())
    }

    /// The reply to `query` (a whole message that asks for `name`), from the first server that gives one.
    pub(crate) async fn ask(&self, name: &Name, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        if let Some(reply) = self.known(query, tcp) {
            return reply;
        }
        let reply = self.ask_servers(name, query, tcp).await;
        self.cache.lock().put(query, tcp, reply.as_deref(), Instant::now());
        reply
    }

    async fn ask_servers(&self, name: &Name, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        if let Some((_, servers)) = self.stubs.iter().find(|(domain, _)| domain.zone_of(name)) {
            return first_reply(servers, 0, query, tcp).await.map(|(_, reply)| reply);
        }
        let servers = match &self.host {
            Source::Fixed(servers) => servers.clone(),
            Source::Host(host) => host.servers(),
        };
        let start = self.preferred.load(Ordering::Relaxed);
        let (index, reply) = first_reply(&servers, start, query, tcp).await?;
        self.preferred.store(index, Ordering::Relaxed);
        Some(reply)
    }
}

async fn first_reply(servers: &[SocketAddr], start: usize, query: &[u8], tcp: bool) -> Option<(usize, Vec<u8>)> {
    for attempt in 0..ATTEMPTS {
        let index = (start + attempt).checked_rem(servers.len())?;
        let server = servers[index];
        let asked = async { if tcp { ask_tcp(server, query).await } else { ask_udp(server, query).await } };
        match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(reply)) => return Some((index, reply)),
            Ok(Err(error)) => tracing::debug!(%server, %error, "name server failed"),
            Err(_) => tracing::debug!(%server, "name server did not answer in time"),
        }
    }
    None
}

/// A fresh port and identifier for each question, so that answers are hard to forge (RFC 5452).
async fn ask_udp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let sent = with_id(query, Message::query().metadata.id);
    socket.send(&sent).await?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&buffer[..length], &sent) {
            return whole(with_id(&buffer[..length], id_of(query)));
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    let reply = read_framed(&mut stream).await?;
    if answers(&reply, query) { whole(reply) } else { Err(std::io::Error::other("the answer is for another question")) }
}

/// A reply, unless it is malformed: clients would wait for another one that does not come, or fall over it.
fn whole(reply: Vec<u8>) -> std::io::Result<Vec<u8>> {
    if wire::records(&reply).is_some() { Ok(reply) } else { Err(std::io::Error::other("the answer is malformed")) }
}

/// Writes a message with its length before it, as on TCP.
pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// Reads a message with its length before it.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn id_of(message: &[u8]) -> u16 {
    message.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    let mut message = message.to_vec();
    if let Some(bytes) = message.first_chunk_mut() {
        *bytes = id.to_be_bytes();
    }
    message
}

/// Whether `reply` is a response with the identifier and question of `query`. A reply that failed may omit the question.
fn answers(reply: &[u8], query: &[u8]) -> bool {
    let Some(question) = question(query) else { return false };
    let response = reply.len() >= 12 && reply[2] & 0x80 != 0 && reply[..2] == query[..2];
    let same = reply.get(12..12 + question.len()).is_some_and(|found| found.eq_ignore_ascii_case(question));
    response && (same || reply[4..6] == [0, 0])
}

/// The bytes of the first question: name, type and class.
fn question(message: &[u8]) -> Option<&[u8]> {
    message.get(12..question_end(message)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn forged_answers_are_not_taken() {
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x02bc\x00\x00\x01\x00\x01";
        let with = |at: usize, byte: u8| {
            let mut reply = query.to_vec();
            reply[2] = 0x81;
            reply[at] = byte;
            reply
        };
        assert!(answers(&with(2, 0x81), query));
        assert!(answers(&with(13, b'A'), query), "case may differ");
        assert!(!answers(&with(13, b'x'), query), "another name");
        assert!(!answers(&with(1, 0), query), "another identifier");
        assert!(!answers(&with(2, 1), query), "not a response");
        assert!(!answers(&with(18, 28), query), "another type");
        assert!(!answers(b"\x12\x34\x81", query));
        assert!(question(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fa").is_none());
    }
}

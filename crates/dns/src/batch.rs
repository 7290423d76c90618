//! Datagrams, many with one system call: at a busy socket the calls cost more than the answers.
//!
//! A batch has a place for each datagram that comes, and one for each that goes. Nothing is allocated for a single datagram once the
//! places have been used.

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};

/// Datagrams of a batch at most: with more the last of them waits longer, and the calls cost no less.
pub const MOST: usize = 32;
/// The longest datagram that is read whole. Questions are far shorter.
const LENGTH: usize = 2048;

type Headers = RefCell<MultiHeaders<SockaddrStorage>>;

thread_local! {
    // They hold pointers between their creation and their end, and so belong to a thread and not to a batch. The room for an address that
    // came is as long as the one that was there before: each family has its own.
    static RECEIVING: [Headers; 2] = [(); 2].map(|()| RefCell::new(MultiHeaders::preallocate(MOST, None)));
    static SENDING: Headers = RefCell::new(MultiHeaders::preallocate(MOST, None));
}

/// What came, and what goes.
pub struct Batch {
    v6: bool,
    room: Vec<u8>,
    received: Vec<(usize, Option<SockaddrStorage>)>,
    replies: Vec<Vec<u8>>,
    peers: Vec<Option<SockaddrStorage>>,
    /// How many of the replies have gone.
    gone: usize,
}

impl Batch {
    /// For a socket with this address.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            v6: address.is_ipv6(),
            room: vec![0; MOST * LENGTH],
            received: Vec::with_capacity(MOST),
            replies: Vec::new(),
            peers: Vec::with_capacity(MOST),
            gone: 0,
        }
    }

    /// Takes what has come, at most [`MOST`] datagrams, instead of what came before; replies that have not gone are forgotten. The call
    /// waits for the first of them when the socket does.
    ///
    /// # Errors
    /// As the system call says, [`std::io::ErrorKind::WouldBlock`] among them.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> std::io::Result<usize> {
        self.received.clear();
        self.peers.clear();
        self.gone = 0;
        let (room, received, family) = (&mut self.room, &mut self.received, usize::from(self.v6));
        RECEIVING.with(|headers| {
            let headers = &mut *headers[family].borrow_mut();
            let mut places: Vec<[IoSliceMut<'_>; 1]> = room.chunks_mut(LENGTH).map(|place| [IoSliceMut::new(place)]).collect();
            let found = recvmmsg(socket.as_raw_fd(), headers, places.iter_mut(), MsgFlags::MSG_WAITFORONE, None)?;
            received.extend(found.map(|message| (message.bytes, message.address)));
            Ok::<_, Errno>(())
        })?;
        Ok(self.received.len())
    }

    /// One of the datagrams that came.
    pub fn message(&self, place: usize) -> &[u8] {
        let length = self.received.get(place).map_or(0, |(length, _)| *length);
        self.room.get(place * LENGTH..place * LENGTH + length).unwrap_or_default()
    }

    /// Who has sent it.
    pub fn peer(&self, place: usize) -> Option<SocketAddr> {
        let peer = self.received.get(place)?.1?;
        let v4 = peer.as_sockaddr_in().map(|peer| SocketAddr::V4((*peer).into()));
        v4.or_else(|| peer.as_sockaddr_in6().map(|peer| SocketAddr::V6((*peer).into())))
    }

    /// Has a datagram sent to who has sent the one at `place`. `write` gets an empty buffer.
    pub fn reply(&mut self, place: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let peer = self.received.get(place).and_then(|(_, peer)| *peer);
        self.put(peer, write);
    }

    /// Has a datagram sent to whom the socket is connected to.
    pub fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.put(None, write);
    }

    fn put(&mut self, peer: Option<SockaddrStorage>, write: impl FnOnce(&mut Vec<u8>)) {
        let place = self.peers.len();
        if place == self.replies.len() {
            self.replies.push(Vec::new());
        }
        if let Some(reply) = self.replies.get_mut(place) {
            reply.clear();
            write(reply);
            self.peers.push(peer);
        }
    }

    /// How many have still to go.
    pub fn left(&self) -> usize {
        self.peers.len() - self.gone
    }

    /// Sends of those that have still to go as many as the socket takes, and the first of them or an error.
    ///
    /// # Errors
    /// As the system call says of the first.
    pub fn send(&mut self, socket: BorrowedFd<'_>) -> std::io::Result<()> {
        let replies = self.replies.iter().take(self.peers.len()).skip(self.gone).take(MOST);
        let slices: Vec<[IoSlice<'_>; 1]> = replies.map(|reply| [IoSlice::new(reply)]).collect();
        let peers = self.peers.get(self.gone..).unwrap_or_default();
        self.gone += SENDING.with_borrow_mut(|headers| {
            let sent = sendmmsg(socket.as_raw_fd(), headers, slices.iter(), peers, [], MsgFlags::empty())?;
            Ok::<_, Errno>(sent.count())
        })?;
        Ok(())
    }

    /// Leaves the first one out that has still to go.
    pub fn skip(&mut self) {
        self.gone = (self.gone + 1).min(self.peers.len());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn socket(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        socket
    }

    /// Everyone gets the answer to his own question, in as many batches as it takes.
    fn check(address: &str, count: usize) {
        let server = socket(address);
        let clients: Vec<UdpSocket> = (0..count).map(|_| socket(address)).collect();
        for (number, client) in clients.iter().enumerate() {
            client.connect(server.local_addr().unwrap()).unwrap();
            client.send(format!("question {number}").as_bytes()).unwrap();
        }
        let (mut batch, mut answered) = (Batch::at(server.local_addr().unwrap()), 0);
        while answered < count {
            let came = batch.receive(server.as_fd()).unwrap();
            assert!((1..=MOST).contains(&came));
            for place in 0..came {
                let question = batch.message(place).to_vec();
                assert_eq!(batch.peer(place).unwrap(), clients[answered].local_addr().unwrap());
                // Whoever sends an odd one gets none.
                if question.last().unwrap() % 2 == 0 {
                    batch.reply(place, |reply| reply.extend_from_slice(&[b"answer to ", &question[..]].concat()));
                }
                answered += 1;
            }
            while batch.left() > 0 {
                batch.send(server.as_fd()).unwrap();
            }
        }
        for (number, client) in clients.iter().enumerate().step_by(2) {
            let mut buffer = [0; 100];
            let length = client.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], format!("answer to question {number}").as_bytes());
        }
    }

    #[test]
    fn answers_reach_who_has_asked() {
        check("127.0.0.1:0", 1);
        check("127.0.0.1:0", 3 * MOST + 1);
        check("[::1]:0", 5);
        check("127.0.0.1:0", 2);
        check("[::1]:0", 2);
    }

    #[test]
    fn long_ones_are_cut_and_bad_ones_are_left_out() {
        let (server, client) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        client.connect(server.local_addr().unwrap()).unwrap();
        client.send(&[7; 3000]).unwrap();
        client.send(b"short").unwrap();
        let mut batch = Batch::at(server.local_addr().unwrap());
        while batch.received.len() < 2 {
            batch.receive(server.as_fd()).unwrap();
        }
        assert_eq!((batch.message(0).len(), batch.message(1), batch.message(2)), (LENGTH, &b"short"[..], &[][..]));
        // No datagram is that long.
        batch.reply(0, |reply| reply.resize(70_000, 0));
        batch.reply(1, |reply| reply.extend_from_slice(b"good"));
        assert!(batch.send(server.as_fd()).is_err());
        batch.skip();
        batch.send(server.as_fd()).unwrap();
        assert_eq!(batch.left(), 0);
        let mut buffer = [0; 100];
        assert_eq!(client.recv(&mut buffer).unwrap(), 4);
    }
}

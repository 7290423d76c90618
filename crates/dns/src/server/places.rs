//! Places for TCP connections and for questions that somebody else is asked: whoever takes many takes them from himself first (for connections: RFC 7766,
//! 6.2.2 and 6.2.3).

use std::collections::HashMap;
use std::net::IpAddr;

use tokio_util::sync::CancellationToken;

/// What is open by client; of each client what was silent longest comes first.
pub(super) struct Places {
    /// Places.
    most: usize,
    /// Those of one client among them.
    of_one: usize,
    clients: HashMap<IpAddr, Vec<(u64, CancellationToken)>>,
    total: usize,
    last: u64,
}

impl Places {
    /// All are free.
    pub(super) fn new(most: usize, of_one: usize) -> Self {
        Self { most, of_one, clients: HashMap::new(), total: 0, last: 0 }
    }

    /// A place for something new, and what tells it to end. When the client has its part, or all places are taken, what is silent longest makes room: of
    /// the client's own, or of the client that has most.
    pub(super) fn enter(&mut self, client: IpAddr) -> (u64, CancellationToken) {
        let own = self.clients.get(&client).map_or(0, Vec::len);
        if own >= self.of_one {
            self.end_one_of(client);
        } else if self.total >= self.most
            && let Some((most, _)) = self.clients.iter().max_by_key(|(_, connections)| connections.len())
        {
            self.end_one_of(*most);
        }
        self.last += 1;
        let token = CancellationToken::new();
        self.clients.entry(client).or_default().push((self.last, token.clone()));
        self.total += 1;
        (self.last, token)
    }

    /// The connection has asked something.
    pub(super) fn asked(&mut self, client: IpAddr, connection: u64) {
        if let Some(connections) = self.clients.get_mut(&client)
            && let Some(place) = connections.iter().position(|(number, _)| *number == connection)
        {
            connections[place..].rotate_left(1);
        }
    }

    /// The connection has ended.
    pub(super) fn leave(&mut self, client: IpAddr, connection: u64) {
        if let Some(connections) = self.clients.get_mut(&client) {
            let before = connections.len();
            connections.retain(|(number, _)| *number != connection);
            self.total -= before - connections.len();
            if connections.is_empty() {
                self.clients.remove(&client);
            }
        }
    }

    fn end_one_of(&mut self, client: IpAddr) {
        let silent = self.clients.get(&client).and_then(|connections| connections.first().cloned());
        if let Some((number, token)) = silent {
            token.cancel();
            self.leave(client, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 256;
    const OF_ONE: usize = 32;

    fn client(number: usize) -> IpAddr {
        IpAddr::from([10, 42, (number / 256) as u8, (number % 256) as u8])
    }

    #[test]
    fn who_has_many_makes_room() {
        let mut places = Places::new(MOST, OF_ONE);
        let greedy: Vec<_> = (0..OF_ONE + 1).map(|_| places.enter(client(1))).collect();
        assert!(greedy[0].1.is_cancelled(), "its own oldest");
        // The second was the silent one, until it asked.
        places.asked(client(1), greedy[1].0);
        let (_, quiet) = places.enter(client(2));
        drop(places.enter(client(1)));
        assert!(!greedy[1].1.is_cancelled() && greedy[2].1.is_cancelled());
        // All places are taken by others with one each: the one with most gives.
        let others: Vec<_> = (0..MOST - OF_ONE).map(|number| places.enter(client(100 + number))).collect();
        assert!(greedy[3].1.is_cancelled() && !quiet.is_cancelled());
        assert!(others.iter().all(|(_, token)| !token.is_cancelled()));
        assert_eq!(places.total, MOST);
    }

    #[test]
    fn places_are_given_back() {
        let mut places = Places::new(MOST, OF_ONE);
        let (number, token) = places.enter(client(1));
        places.leave(client(1), number);
        // One that was told to end leaves, too.
        places.leave(client(1), number);
        places.asked(client(1), number);
        assert!(!token.is_cancelled() && places.total == 0 && places.clients.is_empty());
    }
}

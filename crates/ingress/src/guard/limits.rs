//! How much one client may ask of one Ingress: requests at once, each second and each minute.
//!
//! Rates are leaky buckets, as nginx has them: a client may be so many requests ahead of its rate, and what is more is refused at once.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::policy::Limits;

/// Most clients that are counted. More at once are let pass: to refuse them would be what an attacker wants.
const CLIENTS: usize = 1 << 16;
/// How often those are forgotten that have nothing under way.
const SWEEP: Duration = Duration::from_secs(1);

/// The limits of one Ingress.
#[derive(Debug)]
pub struct Limiter {
    connections: Option<u32>,
    rates: Vec<Rate>,
    exempt: Vec<IpNet>,
    clients: Arc<Mutex<Clients>>,
}

#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    burst: f64,
}

#[derive(Debug, Default)]
struct Clients {
    known: HashMap<IpAddr, Client>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    active: u32,
    /// How far ahead of each rate, and when that was.
    excess: Vec<f64>,
    at: Instant,
}

/// A request under way.
#[derive(Debug)]
pub struct Permit(Option<(Arc<Mutex<Clients>>, IpAddr)>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((clients, address)) = self.0.take()
            && let Some(client) = clients.lock().known.get_mut(&address)
        {
            client.active = client.active.saturating_sub(1);
        }
    }
}

impl Limiter {
    /// With these limits.
    pub fn new(limits: &Limits) -> Self {
        let rate = |limit: Option<u32>, seconds: f64| {
            limit.map(|limit| Rate { per_second: f64::from(limit) / seconds, burst: f64::from(limit) * f64::from(limits.burst) })
        };
        let rates = [rate(limits.rps, 1.0), rate(limits.rpm, 60.0)].into_iter().flatten().collect();
        Self { connections: limits.connections, rates, exempt: limits.exempt.clone(), clients: Arc::default() }
    }

    /// A request of a client; none when it is one too many.
    pub fn enter(&self, client: IpAddr, now: Instant) -> Option<Permit> {
        let client = client.to_canonical();
        let unlimited = self.connections.is_none() && self.rates.is_empty();
        if unlimited || self.exempt.iter().any(|network| network.contains(&client)) {
            return Some(Permit(None));
        }
        let address = network(client);
        let mut clients = self.clients.lock();
        if clients.known.len() >= CLIENTS && !clients.known.contains_key(&address) && !self.sweep(&mut clients, now) {
            return Some(Permit(None));
        }
        let fresh = || Client { active: 0, excess: vec![-1.0; self.rates.len()], at: now };
        let client = clients.known.entry(address).or_insert_with(fresh);
        if self.connections.is_some_and(|most| client.active >= most) {
            return None;
        }
        let passed = now.saturating_duration_since(client.at).as_secs_f64();
        // The first request is on time; each that comes before its time is one ahead.
        let excess = |(rate, excess): (&Rate, &f64)| (excess - rate.per_second * passed).max(-1.0) + 1.0;
        let excess: Vec<f64> = self.rates.iter().zip(&client.excess).map(excess).collect();
        if self.rates.iter().zip(&excess).any(|(rate, excess)| *excess > rate.burst) {
            return None;
        }
        *client = Client { active: client.active + 1, excess, at: now };
        Some(Permit(Some((self.clients.clone(), address))))
    }

    /// Forgets clients that owe nothing. Whether there is room.
    fn sweep(&self, clients: &mut Clients, now: Instant) -> bool {
        if clients.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP) {
            clients.swept = Some(now);
            clients.known.retain(|_, client| {
                let passed = now.saturating_duration_since(client.at).as_secs_f64();
                let owes = self.rates.iter().zip(&client.excess).any(|(rate, excess)| excess - rate.per_second * passed > -1.0);
                client.active > 0 || owes
            });
        }
        clients.known.len() < CLIENTS
    }
}

/// The part of an address that one client has: whoever has an IPv6 address has 2^64 of them.
pub(crate) fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limits(rps: Option<u32>, connections: Option<u32>) -> Limits {
        Limits { rps, rpm: None, connections, burst: 2, exempt: vec!["10.9.0.0/16".parse().unwrap()] }
    }

    fn client(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn rates() {
        let (limiter, start) = (Limiter::new(&limits(Some(10), None)), Instant::now());
        let passed = |client, at: u64, count: usize| {
            (0..count).filter(|_| limiter.enter(client, start + Duration::from_millis(at)).is_some()).count()
        };
        assert_eq!(passed(client(1), 0, 100), 21, "one on time and twice the rate ahead");
        assert_eq!(passed(client(2), 0, 1), 1, "others have their own");
        assert_eq!(passed(client(1), 100, 5), 1);
        assert_eq!(passed(client(1), 1100, 50), 10);
        assert_eq!(passed(client(1), 60_000, 50), 21);
        assert_eq!(passed([10, 9, 0, 1].into(), 0, 100), 100, "exempt");
    }

    #[test]
    fn requests_at_once() {
        let (limiter, now) = (Limiter::new(&limits(None, Some(2))), Instant::now());
        let held: Vec<_> = (0..5).filter_map(|_| limiter.enter(client(1), now)).collect();
        assert_eq!(held.len(), 2);
        drop(held);
        assert!(limiter.enter(client(1), now).is_some());
        let six = |text: &str| limiter.enter(text.parse().unwrap(), now);
        let held = [six("2001:db8::1"), six("2001:db8::2"), six("2001:db8::3"), six("2001:db8:0:1::1")];
        assert_eq!(held.map(|permit| permit.is_some()), [true, true, false, true]);
    }

    #[test]
    fn clients_are_bounded() {
        let (limiter, start) = (Limiter::new(&limits(Some(1), None)), Instant::now());
        let enter = |n: u32, at: Instant| limiter.enter(IpAddr::V4(n.into()), at).is_some();
        assert!((0..CLIENTS as u32 + 10).all(|n| enter(n, start)));
        assert_eq!(limiter.clients.lock().known.len(), CLIENTS);
        assert!(enter(u32::MAX, start + Duration::from_secs(10)));
        assert_eq!(limiter.clients.lock().known.len(), 1);
    }
}

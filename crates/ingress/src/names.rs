//! Names of other machines, looked up as this machine does it: on a thread that waits for who is asked.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::LazyLock;
use std::time::Duration;

use base::budgets::Meter;
use parking_lot::Mutex;

/// Lookups at a time: each has a thread of those that wait for disks, too.
const ALL: usize = 16;
/// Lookups at a time for one namespace, whose names may be of servers that never answer.
const OF_ONE: usize = 4;
/// How long a request waits for a name.
const PATIENCE: Duration = Duration::from_secs(5);

static UNDER_WAY: LazyLock<(Meter, Mutex<HashMap<String, usize>>)> =
    LazyLock::new(|| (Meter::new("ingress_lookups", ALL), Mutex::default()));

/// A place among those who look up.
struct Place(String);

impl Place {
    fn take(namespace: &str) -> Option<Self> {
        let (meter, under_way) = &*UNDER_WAY;
        let mut under_way = under_way.lock();
        let own = under_way.get(namespace).copied().unwrap_or_default();
        if own >= OF_ONE || under_way.values().sum::<usize>() >= ALL {
            meter.refused();
            return None;
        }
        under_way.insert(namespace.to_owned(), own + 1);
        meter.taken();
        Some(Self(namespace.to_owned()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (meter, under_way) = &*UNDER_WAY;
        let mut under_way = under_way.lock();
        if let Some(own) = under_way.get_mut(&self.0) {
            *own -= 1;
            if *own == 0 {
                under_way.remove(&self.0);
            }
        }
        meter.left();
    }
}

/// The addresses of a name that somebody of this namespace has chosen; none where there are none, where nobody answers in five seconds, or
/// where too many names are being looked up.
pub(crate) async fn look_up(namespace: &str, name: String, port: u16) -> Vec<SocketAddr> {
    let Some(place) = Place::take(namespace) else { return Vec::new() };
    // The thread has the place for as long as it waits, also when nobody waits for it any more.
    let looking = tokio::task::spawn_blocking(move || {
        let found = (name.as_str(), port).to_socket_addrs();
        drop(place);
        found.map(Iterator::collect).unwrap_or_default()
    });
    tokio::time::timeout(PATIENCE, looking).await.ok().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_namespace_leaves_places_to_others() {
        let first: Vec<_> = std::iter::from_fn(|| Place::take("a")).collect();
        assert_eq!(first.len(), OF_ONE);
        assert!(Place::take("b").is_some());
        drop(first);
        let all: Vec<_> = (0..ALL + 5).filter_map(|number| Place::take(&format!("n{number}"))).collect();
        assert_eq!(all.len(), ALL);
        assert!(Place::take("b").is_none());
        drop(all);
        assert!(UNDER_WAY.1.lock().is_empty());
    }
}

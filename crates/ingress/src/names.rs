//! Names of other machines that Services of type ExternalName and questions to `auth-url` lead to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use base::lookup::Lookups;
use parking_lot::Mutex;

/// Lookups at a time for one namespace, whose names may be of servers that never answer.
const OF_ONE: usize = 4;
/// How long a request waits for a name.
const PATIENCE: Duration = Duration::from_secs(5);

static LOOKUPS: Lookups = Lookups::new(16);
/// Lookups under way, by namespace.
static UNDER_WAY: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

/// One of the lookups of a namespace.
struct Place(String);

impl Place {
    /// None when the namespace has as many as it may have.
    fn take(namespace: &str) -> Option<Self> {
        let mut under_way = UNDER_WAY.lock();
        let own = under_way.entry(namespace.to_owned()).or_default();
        if *own >= OF_ONE {
            return None;
        }
        *own += 1;
        Some(Self(namespace.to_owned()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut under_way = UNDER_WAY.lock();
        if let Some(own) = under_way.get_mut(&self.0) {
            *own -= 1;
            if *own == 0 {
                under_way.remove(&self.0);
            }
        }
    }
}

/// The addresses of a name that somebody of this namespace has chosen; empty where there are none, or nobody answers in five seconds. None where
/// nobody was asked, since the namespace has too many names looked up.
pub(crate) async fn look_up(namespace: &str, name: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let looking = LOOKUPS.addresses_holding(name, port, Place::take(namespace)?);
    Some(tokio::time::timeout(PATIENCE, looking).await.ok().and_then(Result::ok).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_namespace_leaves_lookups_to_others() {
        let first: Vec<_> = std::iter::from_fn(|| Place::take("a")).collect();
        assert_eq!(first.len(), OF_ONE);
        let other = Place::take("b");
        assert!(other.is_some() && Place::take("a").is_none());
        drop((first, other));
        assert!(UNDER_WAY.lock().is_empty());
    }
}

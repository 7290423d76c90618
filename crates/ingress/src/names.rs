//! Names of other machines that Services of type ExternalName and questions to `auth-url` lead to.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use base::budgets::shares::Shares;
use base::lookup::Lookups;

/// Lookups at a time for one namespace, whose names may be of servers that never answer.
const OF_ONE: usize = 4;
/// How long a request waits for a name.
const PATIENCE: Duration = Duration::from_secs(5);

static LOOKUPS: Lookups = Lookups::new(16);
/// Lookups under way, by namespace.
static UNDER_WAY: LazyLock<Shares> = LazyLock::new(|| Shares::metered("ingress_lookups", OF_ONE));

/// The addresses of a name that somebody of this namespace has chosen; empty where there are none, or nobody answers in five seconds. None where
/// nobody was asked, since the namespace has too many names looked up.
pub(crate) async fn look_up(namespace: &str, name: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let looking = LOOKUPS.addresses_holding(name, port, UNDER_WAY.take(namespace)?);
    Some(tokio::time::timeout(PATIENCE, looking).await.ok().and_then(Result::ok).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_namespace_leaves_lookups_to_others() {
        let first: Vec<_> = std::iter::from_fn(|| UNDER_WAY.take("a")).collect();
        assert_eq!(first.len(), OF_ONE);
        let other = UNDER_WAY.take("b");
        assert!(other.is_some() && UNDER_WAY.is_full("a"));
        drop((first, other));
        assert!(UNDER_WAY.is_empty());
    }
}

//! What a request must pass before a back end sees it. Pure, but for the clock that is handed in.

pub mod clients;
pub mod cors;
pub mod limits;
pub mod passwords;
pub mod turns;
pub(crate) mod words;

use std::net::IpAddr;

use crate::policy::Policy;

/// Whether a client's address may ask.
pub fn admits(policy: &Policy, client: IpAddr) -> bool {
    let client = client.to_canonical();
    let within = |networks: &[ipnet::IpNet]| networks.iter().any(|network| network.contains(&client));
    !within(&policy.deny) && (policy.allow.is_empty() || within(&policy.allow))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses() {
        let check = |allow: &[&str], deny: &[&str], client: &str, expected: bool| {
            let networks = |list: &[&str]| list.iter().map(|network| network.parse().unwrap()).collect();
            let policy = Policy { allow: networks(allow), deny: networks(deny), ..Policy::default() };
            assert_eq!(admits(&policy, client.parse().unwrap()), expected, "{allow:?} {deny:?} {client}");
        };
        check(&[], &[], "192.0.2.1", true);
        check(&["10.0.0.0/8"], &[], "10.1.2.3", true);
        check(&["10.0.0.0/8"], &[], "::ffff:10.1.2.3", true);
        check(&["10.0.0.0/8"], &[], "192.0.2.1", false);
        check(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false);
        check(&[], &["2001:db8::/32"], "2001:db8::1", false);
        check(&["10.0.0.0/8"], &[], "2001:db8::1", false);
    }
}

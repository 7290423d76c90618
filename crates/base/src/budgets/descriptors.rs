//! File descriptors: the limit of the process, and what part of it connections may take.

use std::io;
use std::sync::OnceLock;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What part of all descriptors each sort of connections may take, in percent. They stand together since one process has all of them.
pub mod percent {
    /// Connections of clients of the API server. Proxied ones need two more each, which are among [`STREAMS`].
    pub const API: usize = 30;
    /// Connections to others for users of the API.
    pub const STREAMS: usize = 15;
    /// Connections of clients of Ingress.
    pub const INGRESS: usize = 15;
    /// Connections to back ends for requests under way, and connections that are led on.
    pub const INGRESS_REQUESTS: usize = 15;
    /// Connections to back ends that nobody uses and that are kept.
    pub const INGRESS_KEPT: usize = 3;
    /// Copies of requests that are under way.
    pub const INGRESS_MIRRORS: usize = 2;
    /// Sessions of UDP, each with a socket.
    pub const INGRESS_SESSIONS: usize = 5;
    /// Connections of clients of the kubelet.
    pub const KUBELET: usize = 5;

    const ALL: usize = API + STREAMS + INGRESS + INGRESS_REQUESTS + INGRESS_KEPT + INGRESS_MIRRORS + INGRESS_SESSIONS + KUBELET;
    const _: () = assert!(ALL <= 90, "the store, shims and probes need descriptors, too");
}

/// More descriptors than this serve nobody.
const ENOUGH: u64 = 1 << 20;

static INHERITED: OnceLock<u64> = OnceLock::new();

/// Raises the limit to what the system allows, and returns it. Who starts other programs gives them [`inherited`] back: some
/// go through all descriptors that they might have, others use `select`.
///
/// # Errors
/// The system refuses. The limit is then as it was.
pub fn raise() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    INHERITED.get_or_init(|| soft);
    let wanted = hard.min(ENOUGH).max(soft);
    if wanted > soft {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(wanted)
}

/// Lowers the limit to what a parent that has raised its own was started with.
pub fn lower(soft: u64) {
    if let Ok((now, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Lowering is always allowed.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.min(now), hard);
    }
}

/// The limit with which the process was started.
pub fn inherited() -> Option<u64> {
    INHERITED.get().copied()
}

/// The limit now.
pub fn limit() -> usize {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(soft).unwrap_or(usize::MAX)
}

/// How many connections an endpoint may have at once that gets a part of all descriptors, in percent. What no endpoint gets is for
/// the store, shims, probes and what proxied connections need besides.
pub fn share(limit: usize, percent: usize, most: usize) -> usize {
    (limit.saturating_mul(percent) / 100).min(most).max(16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let check = |limit, percent, expected| assert_eq!(share(limit, percent, 16_384), expected);
        check(1024, 50, 512);
        check(1 << 20, 50, 16_384);
        check(10, 50, 16);
        check(usize::MAX, 50, 16_384);
    }
}

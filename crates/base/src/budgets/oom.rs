//! Whom the kernel kills first when memory is short: `oom_score_adj` of a process (proc(5)), from -1000, never, to 1000, first.
//!
//! Knarr goes last, then the shims of pods, then containers, the most important of which have -997 as everywhere in Kubernetes.

use std::{fs, io};

/// Of `knarr server` and `knarr agent`, as upstream's kubelet.
pub const SERVER: i32 = -999;

const FILE: &str = "/proc/self/oom_score_adj";
/// The highest that the kernel takes.
const HIGHEST: i32 = 1000;

/// The score of this process; 0 where it cannot be read.
pub fn current() -> i32 {
    fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Makes this process one of the last to be killed. A score that is lower already stays.
///
/// # Errors
/// Lowering a score takes `CAP_SYS_RESOURCE`, which some containers and virtual machines have taken away.
pub fn protect() -> io::Result<()> {
    if current() > SERVER { fs::write(FILE, SERVER.to_string()) } else { Ok(()) }
}

/// Lets this process, which has its score from its parent, be killed before that.
pub fn yield_to_parent() {
    // Raising is always allowed.
    let _ = fs::write(FILE, (current() + 1).min(HIGHEST).to_string());
}

/// The lowest score of a container that a child of this process starts: both are killed after it.
pub fn lowest_of_containers() -> i32 {
    (current() + 2).min(HIGHEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether this process may lower its score (`CAP_SYS_RESOURCE` is bit 24).
    fn may_lower() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() >> 24 & 1 == 1
    }

    #[test]
    fn the_server_goes_after_shims_and_those_after_containers() {
        let before = current();
        match protect() {
            Ok(()) => assert_eq!(current(), SERVER.min(before)),
            Err(error) => {
                assert!(!may_lower(), "{error}");
                assert_eq!(current(), before, "what cannot be lowered stays");
            }
        }
        let server = current();
        assert_eq!(lowest_of_containers(), server + 2);
        yield_to_parent();
        assert_eq!(current(), server + 1);
    }
}

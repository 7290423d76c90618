//! How an export is mounted: what its options mean, and which versions of the protocol are tried (nfs(5)).
//!
//! Programs that mount NFS settle the version and the address before the kernel sees the options; here this kubelet does. All other options are
//! the kernel's.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::mount::MsFlags;

use super::super::options::flags;

/// Versions that are tried where no option names one, the newest first. The kernel takes "4" for "4.0".
const ALL: &[&str] = &["4.2", "4.1", "4", "3"];
/// Those of version 4 in general.
const FOURTH: &[&str] = &["4.2", "4.1", "4"];
/// Begins of options that only version 3 has, whose exports a protocol of its own mounts.
const OF_THIRD: &[&str] = &["mountaddr=", "mountport=", "mountvers=", "mountproto=", "proto=udp", "udp"];
/// The kernel copies one page of options, and leaves out the rest without a word (mount(2)).
const LONGEST: usize = 4095;

/// The family of a server's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether an address is of this family.
    pub fn has(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// Why options are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name stands where the kernel wants an address.
    #[error("mount option mounthost is not supported: name the address by mountaddr")]
    MountHost,
    /// The kernel would leave out a part.
    #[error("mount options have more than {LONGEST} bytes")]
    TooLong,
}

/// Options of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What all file systems know.
    pub flags: MsFlags,
    /// Versions, in the order in which they are tried.
    pub versions: Vec<String>,
    /// The family that the option `proto` asks for.
    pub family: Option<Family>,
    /// Files are locked at the server, which version 3 has a protocol of its own for.
    pub locks: bool,
    /// What is left for the kernel.
    rest: Vec<String>,
}

impl Options {
    /// What the options of a volume mean.
    ///
    /// # Errors
    /// One of them is for programs that this kubelet does without.
    pub fn of(options: &[String]) -> Result<Self, Error> {
        let (flags, rest) = flags(options);
        let mut found = Self { flags, versions: Vec::new(), family: None, locks: true, rest: Vec::new() };
        let (mut version, mut minor, mut is_third) = (None, None, false);
        for option in rest.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            is_third |= OF_THIRD.iter().any(|begin| option == *begin || begin.ends_with('=') && option.starts_with(begin));
            match name {
                "vers" | "nfsvers" => version = Some(value.to_owned()),
                "v2" | "v3" | "v4" | "v4.0" | "v4.1" | "v4.2" => version = Some(name[1..].to_owned()),
                "minorversion" => minor = Some(value.to_owned()),
                "mounthost" => return Err(Error::MountHost),
                // The address is what the server's name stands for.
                "addr" => {}
                _ => found.rest.push(option.to_owned()),
            }
            match option {
                "lock" => found.locks = true,
                "nolock" | "local_lock=all" => found.locks = false,
                "proto=tcp" | "proto=udp" | "proto=rdma" => found.family = Some(Family::V4),
                "proto=tcp6" | "proto=udp6" | "proto=rdma6" => found.family = Some(Family::V6),
                _ => {}
            }
        }
        let all = |versions: &[&str]| versions.iter().map(|version| (*version).to_owned()).collect();
        found.versions = match (version.as_deref(), minor) {
            (None | Some("4"), Some(minor)) if minor != "0" => vec![format!("4.{minor}")],
            (None | Some("4"), Some(_)) | (Some("4.0"), _) => all(&["4"]),
            (Some("4"), None) => all(FOURTH),
            (Some(version), _) => vec![version.to_owned()],
            (None, None) if is_third => all(&["3"]),
            (None, None) => all(ALL),
        };
        Ok(found)
    }

    /// What the kernel gets for a version and an address of the server.
    ///
    /// # Errors
    /// It is more than the kernel takes.
    pub fn data(&self, version: &str, address: &IpAddr) -> Result<String, Error> {
        let mut parts = vec![format!("vers={version}"), format!("addr={address}")];
        let has = |begin: &str| self.rest.iter().any(|option| option.starts_with(begin));
        if version == "3" && !has("mountproto=") {
            // As the volume's own protocol, where that is named. The kernel would take UDP, which few servers offer any more.
            let by_udp = self.rest.iter().any(|option| ["udp", "proto=udp", "proto=udp6"].contains(&option.as_str()));
            let family = if address.is_ipv6() { "6" } else { "" };
            parts.push(format!("mountproto={}{family}", if by_udp { "udp" } else { "tcp" }));
        }
        parts.extend(self.rest.iter().cloned());
        let data = parts.join(",");
        if data.len() > LONGEST { Err(Error::TooLong) } else { Ok(data) }
    }
}

/// Tries the versions until one is there, as mount.nfs does. What is told is why the first one is not: where a server has no lower one, the
/// reason is there.
///
/// # Errors
/// Why the first is not there, or the first that fails for another reason than that it is not offered.
pub fn negotiate(versions: &[String], mut mount: impl FnMut(&str) -> Result<(), Errno>) -> Result<(), Errno> {
    let (mut first, mut is_only_third_left) = (None, false);
    for version in versions {
        if is_only_third_left && version != "3" {
            continue;
        }
        match mount(version) {
            Ok(()) => return Ok(()),
            // The server does not have it, or the kernel does not know it.
            Err(error @ (Errno::EPROTONOSUPPORT | Errno::EINVAL)) => first = first.or(Some(error)),
            // Some servers export a directory by version 3 alone, and say this of version 4.
            Err(error @ (Errno::ENOENT | Errno::EPERM)) if version != "3" => (first, is_only_third_left) = (Some(error), true),
            // What a server says of version 3 is not what has kept it from version 4.
            Err(error) => return Err(if version == "3" { first.unwrap_or(error) } else { error }),
        }
    }
    Err(first.unwrap_or(Errno::EPROTONOSUPPORT))
}

/// Tries the addresses of a server until one is good. Those that do not answer are passed over, and those where access is denied: a server may
/// know this node by its address of the other family alone.
///
/// # Errors
/// What the last one that was tried has said.
pub fn any_of<T>(addresses: &[T], mut mount: impl FnMut(&T) -> Result<(), Errno>) -> Result<(), Errno> {
    let mut last = Errno::EADDRNOTAVAIL;
    for address in addresses {
        match mount(address) {
            Err(error @ (Errno::ECONNREFUSED | Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ETIMEDOUT | Errno::EACCES)) => {
                last = error
            }
            other => return other,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<Options, Error> {
        Options::of(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn versions_are_those_of_the_options() {
        let check = |options: &[&str], expected: &[&str]| assert_eq!(of(options).unwrap().versions, expected, "{options:?}");
        check(&[], ALL);
        check(&["hard", "timeo=600"], ALL);
        check(&["vers=4"], FOURTH);
        check(&["v4"], FOURTH);
        check(&["nfsvers=4.1"], &["4.1"]);
        check(&["v4.2"], &["4.2"]);
        check(&["vers=4.0"], &["4"]);
        check(&["vers=4", "minorversion=1"], &["4.1"]);
        check(&["minorversion=0"], &["4"]);
        check(&["vers=3"], &["3"]);
        check(&["hard,nfsvers=3"], &["3"]);
        check(&["mountport=20048"], &["3"]);
        check(&["proto=udp"], &["3"]);
        check(&["vers=2"], &["2"]);
    }

    #[test]
    fn what_the_kernel_gets() {
        let check = |options: &[&str], version: &str, address: &str, expected: &str| {
            let data = of(options).unwrap().data(version, &address.parse().unwrap());
            assert_eq!(data.as_deref(), Ok(expected), "{options:?}");
        };
        check(&[], "4.2", "192.0.2.1", "vers=4.2,addr=192.0.2.1");
        let usual = ["nfsvers=4.1", "hard", "timeo=600,retrans=2", "port=2050", "noatime", "_netdev", "addr=192.0.2.9"];
        check(&usual, "4.1", "2001:db8::1", "vers=4.1,addr=2001:db8::1,hard,timeo=600,retrans=2,port=2050");
        check(&["nolock"], "3", "192.0.2.1", "vers=3,addr=192.0.2.1,mountproto=tcp,nolock");
        check(&["nolock"], "3", "2001:db8::1", "vers=3,addr=2001:db8::1,mountproto=tcp6,nolock");
        check(&["proto=udp"], "3", "192.0.2.1", "vers=3,addr=192.0.2.1,mountproto=udp,proto=udp");
        check(&["mountproto=udp"], "3", "192.0.2.1", "vers=3,addr=192.0.2.1,mountproto=udp");
        assert_eq!(of(&["ro", "noatime"]).unwrap().flags, MsFlags::MS_RDONLY | MsFlags::MS_NOATIME);
        assert_eq!(of(&["mounthost=a"]), Err(Error::MountHost));
        let long = of(&[&"x".repeat(LONGEST)]).unwrap().data("3", &"::1".parse().unwrap());
        assert_eq!(long, Err(Error::TooLong));
    }

    #[test]
    fn locks_and_families() {
        let check = |options: &[&str], locks: bool, family: Option<Family>| {
            let options = of(options).unwrap();
            assert_eq!((options.locks, options.family), (locks, family), "{options:?}");
        };
        check(&[], true, None);
        check(&["nolock", "tcp"], false, None);
        check(&["nolock", "lock", "proto=tcp"], true, Some(Family::V4));
        check(&["local_lock=all", "proto=tcp6"], false, Some(Family::V6));
        check(&["local_lock=flock"], true, None);
        assert!(Family::V6.has(&"::1".parse().unwrap()) && !Family::V4.has(&"::1".parse().unwrap()));
    }

    #[test]
    fn lower_versions_are_tried_where_higher_ones_are_not_offered() {
        let check = |answers: &[Result<(), Errno>], expected: Result<(), Errno>| {
            let versions: Vec<String> = ALL.iter().map(|version| (*version).to_owned()).collect();
            let mut left = answers.iter();
            assert_eq!(negotiate(&versions, |_| *left.next().unwrap()), expected, "{answers:?}");
            assert!(left.next().is_none(), "{answers:?}");
        };
        let (none, unknown, refused) = (Err(Errno::EPROTONOSUPPORT), Err(Errno::EINVAL), Err(Errno::ECONNREFUSED));
        check(&[Ok(())], Ok(()));
        check(&[none, unknown, Ok(())], Ok(()));
        check(&[none, none, none, Ok(())], Ok(()));
        check(&[none, none, none, refused], none);
        check(&[unknown, unknown, unknown, unknown], unknown);
        check(&[refused], refused);
        assert_eq!(negotiate(&["3".to_owned()], |_| refused), refused);
    }

    /// Of version 4 servers say so of what they export by version 3 alone, as mount.nfs knows.
    #[test]
    fn the_third_version_is_tried_where_the_fourth_shows_no_such_directory() {
        let check = |versions: &[&str], answers: &[(&str, Result<(), Errno>)], expected: Result<(), Errno>| {
            let versions: Vec<String> = versions.iter().map(|version| (*version).to_owned()).collect();
            let mut left = answers.iter();
            let mount = |version: &str| {
                let (of, answer) = left.next().unwrap();
                assert_eq!(*of, version, "{answers:?}");
                *answer
            };
            assert_eq!(negotiate(&versions, mount), expected, "{answers:?}");
            assert!(left.next().is_none(), "{answers:?}");
        };
        let (none, refused) = (Err(Errno::EPROTONOSUPPORT), Err(Errno::ECONNREFUSED));
        for other in [Err(Errno::ENOENT), Err(Errno::EPERM)] {
            check(ALL, &[("4.2", other), ("3", Ok(()))], Ok(()));
            check(ALL, &[("4.2", none), ("4.1", other), ("3", Ok(()))], Ok(()));
            check(ALL, &[("4.2", none), ("4.1", other), ("3", refused)], other);
            check(ALL, &[("4.2", other), ("3", none)], other);
            check(FOURTH, &[("4.2", other)], other);
            check(&["4.1"], &[("4.1", other)], other);
            check(&["3"], &[("3", other)], other);
        }
        check(ALL, &[("4.2", none), ("4.1", none), ("4", none), ("3", Err(Errno::ENOENT))], none);
        check(ALL, &[("4.2", Err(Errno::EACCES))], Err(Errno::EACCES));
    }

    #[test]
    fn other_addresses_are_tried_where_one_is_of_no_use() {
        let check = |answers: &[Result<(), Errno>], tried: usize, expected: Result<(), Errno>| {
            let mut count = 0;
            let mount = |answer: &Result<(), Errno>| {
                count += 1;
                *answer
            };
            assert_eq!(any_of(answers, mount), expected, "{answers:?}");
            assert_eq!(count, tried, "{answers:?}");
        };
        let (refused, denied, none) = (Err(Errno::ECONNREFUSED), Err(Errno::EACCES), Err(Errno::EPROTONOSUPPORT));
        check(&[Ok(()), refused], 1, Ok(()));
        check(&[refused, denied, Ok(())], 3, Ok(()));
        check(&[refused, denied], 2, denied);
        check(&[none, Ok(())], 1, none);
        check(&[], 0, Err(Errno::EADDRNOTAVAIL));
    }
}

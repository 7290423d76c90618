//! Addresses of this node's pods: handed out in turn, so that one that was released is used again last.
//!
//! A lease is a file named after its sandbox, written before the first interface is made and removed after the last
//! is gone. What a crash leaves behind is therefore always listed, and found by [`Ipam::leases`].

use base::files::{self, Outlives};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Attachment;
use super::cni::Added;

/// No address could be had, or the state on disk failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every address of the range is in use.
    #[error("no free address in {0}: delete pods or give the node a larger pod CIDR")]
    Exhausted(IpNet),
    /// A sandbox identifier that is no file name.
    #[error("sandbox id {0:?} is not usable as a file name")]
    BadId(String),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a sandbox has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// One address of each pod range, in the order of the ranges.
    pub addresses: Vec<IpAddr>,
    /// What it asked for: an interface that is made again gets it again.
    #[serde(flatten)]
    pub wanted: Attachment,
    /// Its interfaces were set up completely.
    pub attached: bool,
    /// What network plugins have made for it, if they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cni: Option<Added>,
}

/// The leases of a node.
#[derive(Debug)]
pub(super) struct Ipam {
    directory: PathBuf,
    ranges: Vec<IpNet>,
    leases: BTreeMap<String, Lease>,
    used: HashSet<IpAddr>,
    last: Vec<IpAddr>,
}

impl Ipam {
    /// Reads the leases in `directory`, which is made when missing. Leases outside `ranges` are kept: their pods still run.
    pub(super) fn load(directory: &Path, ranges: &[IpNet]) -> Result<Self, Error> {
        std::fs::create_dir_all(directory).map_err(file_error(directory))?;
        let mut leases = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(file_error(directory))? {
            let path = entry.map_err(file_error(directory))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if files::is_left_over(name) {
                std::fs::remove_file(&path).map_err(file_error(&path))?;
            }
            let Some(id) = name.strip_suffix(".lease") else { continue };
            let bytes = std::fs::read(&path).map_err(file_error(&path))?;
            match serde_json::from_slice::<Lease>(&bytes) {
                Ok(lease) => drop(leases.insert(id.to_owned(), lease)),
                // Only a crash of the machine leaves a torn file, and then the pod is gone too.
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "removing an unreadable lease");
                    std::fs::remove_file(&path).map_err(file_error(&path))?;
                }
            }
        }
        let used = leases.values().flat_map(|lease| lease.addresses.clone()).collect();
        let last = std::fs::read(directory.join("last")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Self { directory: directory.to_owned(), ranges: ranges.to_vec(), leases, used, last: last.unwrap_or_default() })
    }

    /// The lease of a sandbox, a new one when it has none.
    pub(super) fn acquire(&mut self, sandbox: &str, wanted: &Attachment) -> Result<Lease, Error> {
        if let Some(lease) = self.leases.get(sandbox) {
            return Ok(lease.clone());
        }
        let path = self.lease_path(sandbox)?;
        let addresses = self.ranges.iter().map(|range| self.next_free(*range)).collect::<Result<Vec<_>, _>>()?;
        let lease = Lease { addresses: addresses.clone(), wanted: wanted.clone(), attached: false, cni: None };
        self.write(&path, &lease, Outlives::Process)?;
        self.write(&self.directory.join("last"), &addresses, Outlives::Process)?;
        self.used.extend(&addresses);
        self.last = addresses;
        self.leases.insert(sandbox.to_owned(), lease.clone());
        Ok(lease)
    }

    /// Remembers what a sandbox has from others than this.
    pub(super) fn put(&mut self, sandbox: &str, lease: Lease) -> Result<(), Error> {
        // What plugins have made may outlive the machine, such as an address of a server of theirs: only the lease says what to take away.
        self.write(&self.lease_path(sandbox)?, &lease, Outlives::Machine)?;
        self.used.extend(&lease.addresses);
        self.leases.insert(sandbox.to_owned(), lease);
        Ok(())
    }

    /// Remembers that the sandbox is set up completely.
    pub(super) fn set_attached(&mut self, sandbox: &str) -> Result<(), Error> {
        let Some(lease) = self.leases.get_mut(sandbox) else { return Ok(()) };
        lease.attached = true;
        let lease = lease.clone();
        self.write(&self.lease_path(sandbox)?, &lease, Outlives::Process)
    }

    /// Gives the addresses of a sandbox back. No error when it has none.
    pub(super) fn release(&mut self, sandbox: &str) -> Result<(), Error> {
        let path = self.lease_path(sandbox)?;
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(Error::File { path, source }),
            _ => (),
        }
        for address in self.leases.remove(sandbox).map(|lease| lease.addresses).unwrap_or_default() {
            self.used.remove(&address);
        }
        Ok(())
    }

    /// Every sandbox with its lease.
    pub(super) fn leases(&self) -> &BTreeMap<String, Lease> {
        &self.leases
    }

    fn next_free(&self, range: IpNet) -> Result<IpAddr, Error> {
        let bits = range.max_prefix_len() - range.prefix_len();
        // A range of 2^64 addresses is searched no further than a node can have pods.
        let size = 1u128 << bits.min(32);
        let base = to_number(range.network());
        // The first address is the network, the second the gateway, the last of IPv4 the broadcast address.
        let end = if range.addr().is_ipv4() { size.saturating_sub(1) } else { size };
        let start = self
            .last
            .iter()
            .find(|last| range.contains(*last))
            .map_or(2, |last| to_number(*last).saturating_sub(base).saturating_add(1));
        (start..end)
            .chain(2..start.min(end))
            .map(|offset| to_address(base + offset, range.addr().is_ipv4()))
            .find(|address| !self.used.contains(address))
            .ok_or(Error::Exhausted(range))
    }

    fn lease_path(&self, sandbox: &str) -> Result<PathBuf, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if sandbox.is_empty() || sandbox.len() > 200 || !sandbox.chars().all(plain) || sandbox.starts_with('.') {
            return Err(Error::BadId(sandbox.to_owned()));
        }
        Ok(self.directory.join(format!("{sandbox}.lease")))
    }

    /// Addresses need not outlive the machine's uptime, only the process.
    fn write(&self, path: &Path, value: &impl Serialize, outlives: Outlives) -> Result<(), Error> {
        let written = serde_json::to_vec(value).map_err(io::Error::from);
        written.and_then(|bytes| files::replace(path, &bytes, outlives)).map_err(file_error(path))
    }
}

/// The address that the bridge has in a pod range: the first.
pub fn gateway(range: IpNet) -> IpAddr {
    to_address(to_number(range.network()) + 1, range.addr().is_ipv4())
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn to_address(number: u128, v4: bool) -> IpAddr {
    if v4 { IpAddr::V4((number as u32).into()) } else { IpAddr::V6(number.into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;
    use crate::pod::Bandwidth;

    fn open(directory: &Path) -> Ipam {
        Ipam::load(directory, &["10.42.3.0/29".parse().unwrap(), "fd00:3::/64".parse().unwrap()]).unwrap()
    }

    /// The last bytes of the addresses that `sandbox` gets.
    fn check(ipam: &mut Ipam, sandbox: &str, expected: &[&str]) {
        let addresses = ipam.acquire(sandbox, &Attachment::default()).unwrap().addresses;
        assert_eq!(addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn addresses_are_used_again_last_and_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut ipam = open(directory.path());
        check(&mut ipam, "a", &["10.42.3.2", "fd00:3::2"]);
        check(&mut ipam, "b", &["10.42.3.3", "fd00:3::3"]);
        check(&mut ipam, "a", &["10.42.3.2", "fd00:3::2"]);
        ipam.release("a").unwrap();
        ipam.release("a").unwrap();
        let mut ipam = open(directory.path());
        assert_eq!(ipam.leases().keys().collect::<Vec<_>>(), ["b"]);
        check(&mut ipam, "c", &["10.42.3.4", "fd00:3::4"]);
        check(&mut ipam, "d", &["10.42.3.5", "fd00:3::5"]);
        check(&mut ipam, "e", &["10.42.3.6", "fd00:3::6"]);
        check(&mut ipam, "f", &["10.42.3.2", "fd00:3::7"]);
        assert!(matches!(ipam.acquire("g", &Attachment::default()), Err(Error::Exhausted(_))));
        assert!(matches!(ipam.acquire("../g", &Attachment::default()), Err(Error::BadId(_))));
    }

    #[test]
    fn a_torn_lease_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x.lease"), "").unwrap();
        std::fs::write(directory.path().join(".killed.lease.next"), "").unwrap();
        assert!(open(directory.path()).leases().is_empty());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(!directory.path().join("x.lease").exists());
    }

    /// What a sandbox asked for outlives the process, field by field; leases of earlier versions are read.
    #[test]
    fn a_lease_keeps_what_was_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = json!({"pod": {"namespace": "n", "name": "p", "uid": "u"}, "bandwidth": {"ingress": 5, "egress": null},
            "ports": [{"protocol": "Tcp", "container_port": 80, "host_port": 8080, "host_ip": "10.0.0.1"}], "sysctls": {"net/a": "1"}});
        let wanted: Attachment = serde_json::from_value(wanted).unwrap();
        let made = open(directory.path()).acquire("a", &wanted).unwrap();
        assert_eq!(made.wanted, wanted);
        let earlier =
            json!({"addresses": ["10.42.3.9"], "ports": serde_json::to_value(&wanted.ports).unwrap(), "attached": true});
        std::fs::write(directory.path().join("old.lease"), earlier.to_string()).unwrap();
        let ipam = open(directory.path());
        assert_eq!(ipam.leases()["a"], made);
        let kept = &ipam.leases()["old"];
        assert_eq!((&kept.wanted.ports, kept.wanted.bandwidth, kept.attached), (&wanted.ports, Bandwidth::default(), true));
    }
}

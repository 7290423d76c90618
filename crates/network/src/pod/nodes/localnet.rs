//! Node ports at 127.0.0.1 that lead to pods of other nodes by any link of the machine: the kernel sends and takes nothing for a loopback address by a
//! link without `route_localnet`.
//!
//! What neighbours send to loopback addresses by such a link is dropped by the table (`features/guards.rs`), so the setting must not outlive it: it goes
//! with the ways to other nodes. The links that had it before, for whatever reason, keep it: which ones are ours is written down before they are set.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use super::super::{Error, IpamError, Options, sysctl};
use crate::pod::rtnl::Links;

/// In the directory of the network: names of links that were set, one a line.
const RECORD: &str = "localnet";

fn record(options: &Options) -> PathBuf {
    options.directory.join(RECORD)
}

fn key(link: &str) -> String {
    format!("net/ipv4/conf/{link}/route_localnet")
}

fn is_set(link: &str) -> bool {
    sysctl::is(&key(link), "1")
}

fn recorded(options: &Options) -> io::Result<BTreeSet<String>> {
    match std::fs::read_to_string(record(options)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        text => Ok(text?.lines().map(str::to_owned).collect()),
    }
}

/// Sets the links by which routes lead to other nodes.
pub(super) fn let_out(options: &Options, links: &mut Links) -> Result<(), Error> {
    let new: Vec<String> = links.gateway_links()?.into_iter().filter(|link| !is_set(link)).collect();
    // Set for all links, it is set for each.
    if new.is_empty() || is_set("all") {
        return Ok(());
    }
    let file = |source| IpamError::File { path: record(options), source };
    let all: BTreeSet<String> = recorded(options).map_err(file)?.into_iter().chain(new.iter().cloned()).collect();
    let text: String = all.iter().map(|link| format!("{link}\n")).collect();
    base::files::replace_private(&record(options), text.as_bytes()).map_err(file)?;
    for link in new {
        sysctl::set(key(&link), "1")?;
    }
    Ok(())
}

/// Takes back what [`let_out`] has set, also in an earlier process.
pub(super) fn take_back(options: &Options) -> Result<(), Error> {
    let file = |source| IpamError::File { path: record(options), source };
    let links = recorded(options).map_err(file)?;
    for link in &links {
        sysctl::set_if_there(&key(link), "0")?;
    }
    match links.is_empty() {
        true => Ok(()),
        false => Ok(base::files::remove(&record(options)).map_err(file)?),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::routes;
    use super::*;
    use crate::pod::open_links;

    #[test]
    fn links_to_other_nodes_are_set_as_long_as_routes_lead_there() {
        let alone = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
            let directory = tempfile::tempdir().unwrap();
            let options = Options::new(directory.path(), vec!["10.42.0.0/24".parse().unwrap()], Vec::new());
            let mut links = open_links().unwrap();
            for (number, name) in ["used", "set", "other", "six"].into_iter().enumerate() {
                links.make_bridge(name, [2, 0, 0, 0, 0, 1], 1500).unwrap();
                links.up(name).unwrap();
                let link = links.link(name).unwrap().unwrap().index;
                links.add_address(link, format!("192.0.{number}.1").parse().unwrap(), 24).unwrap();
                links.add_address(link, format!("fd0{number}::1").parse().unwrap(), 64).unwrap();
            }
            sysctl::set(key("set"), "1").unwrap();
            let set = || ["used", "set", "other", "six"].into_iter().filter(|name| is_set(name)).collect::<Vec<_>>();
            let ways = [("10.42.1.0/24", "192.0.0.2"), ("10.42.2.0/24", "192.0.1.2"), ("fd42:0:0:1::/64", "fd03::2")];
            for (range, gateway) in ways {
                assert!(links.add_gateway(range.parse().unwrap(), gateway.parse().unwrap()).unwrap(), "{range}");
            }
            // The program may be killed at any time.
            for _ in 0..2 {
                let_out(&options, &mut links).unwrap();
                assert_eq!(set(), ["used", "set"]);
            }
            routes::remove(&mut links).unwrap();
            for _ in 0..2 {
                take_back(&options).unwrap();
                assert_eq!(set(), ["set"]);
            }
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        });
        alone.join().unwrap();
    }
}

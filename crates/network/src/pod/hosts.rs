//! Several hosts on one machine: network namespaces on one bridge, which reach the outside through the machine.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::rtnl::Links;
use super::{Error, open_links, sysctl};
pub use crate::netns::within;
use crate::nft::Family;

/// How long prefixes of addresses the hosts of a wire share.
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;
/// The machine's own address on the wire.
const MACHINE: u8 = 254;

/// The families of addresses that hosts have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Families {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
    /// Both, IPv4 first.
    Both,
}

/// A bridge to which hosts are connected, and its addresses.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The bridge's name, at most 12 characters: the hosts' ends are named after it.
    pub bridge: String,
    /// The first three parts of its addresses of IPv4, of which those of IPv6 are made.
    pub network: [u8; 3],
    /// The families of its addresses.
    pub families: Families,
}

impl Wire {
    /// The first network of 172.30.0.0/16 of which this machine has no address.
    pub fn free(bridge: &str, families: Families) -> Result<Self, Error> {
        let own = crate::nft::machine::addresses();
        let on = |part: u8, address: &IpAddr| match address {
            IpAddr::V4(v4) => v4.octets()[..3] == [172, 30, part],
            v6 => *v6 == address_v6([172, 30, part], MACHINE),
        };
        let is_free = |part: &u8| !own.iter().any(|address| on(*part, address));
        let part = (0..=u8::MAX).find(is_free).ok_or_else(|| Error::Options("172.30.0.0/16 is used up".to_owned()))?;
        Ok(Self { bridge: bridge.to_owned(), network: [172, 30, part], families })
    }

    /// The address by which the host of this number is known.
    pub fn address(&self, number: u8) -> IpAddr {
        self.addresses(number)[0].addr()
    }

    /// The addresses of the host of this number, one of each family, with the prefixes of the wire.
    pub fn addresses(&self, number: u8) -> Vec<IpNet> {
        let [a, b, c] = self.network;
        let v4 = IpNet::new_assert(IpAddr::from([a, b, c, number]), PREFIX_V4);
        let v6 = IpNet::new_assert(address_v6(self.network, number), PREFIX_V6);
        match self.families {
            Families::V4 => vec![v4],
            Families::V6 => vec![v6],
            Families::Both => vec![v4, v6],
        }
    }

    /// Makes the bridge, by which the machine reaches the hosts, and lets the hosts reach the outside.
    pub fn set_up(&self) -> Result<(), Error> {
        let mut links = open_links()?;
        let [a, b, c] = self.network;
        links.make_bridge(&self.bridge, [0x0a, 0x5a, a, b, c, MACHINE], 1500)?;
        let index = links.link(&self.bridge)?.ok_or_else(|| Error::NoBridge(self.bridge.clone()))?.index;
        let addresses = self.addresses(MACHINE);
        for address in &addresses {
            links.add_address(index, address.addr(), address.prefix_len())?;
        }
        if self.families != Families::V6 {
            sysctl::set("net/ipv4/ip_forward".to_owned(), "1")?;
        }
        if self.families != Families::V4 {
            sysctl::keep_router_advertisements(&[&self.bridge])?;
            sysctl::set("net/ipv6/conf/all/forwarding".to_owned(), "1")?;
        }
        crate::nft::outside::masquerade(&self.bridge, &addresses)?;
        Ok(())
    }

    /// Makes a host: a namespace at `path`, with the address of its number.
    pub fn add_host(&self, number: u8, path: &Path) -> Result<(), Error> {
        make_namespace(path).map_err(|source| namespace(path, source))?;
        let name = format!("{}-{number}", self.bridge);
        let mut links = open_links()?;
        let bridge = links.link(&self.bridge)?.ok_or_else(|| Error::NoBridge(self.bridge.clone()))?.index;
        let file = File::open(path).map_err(|source| namespace(path, source))?;
        let [a, b, c] = self.network;
        links.delete(&name)?;
        links.connect(&name, bridge, &file, [0x0a, 0x5a, a, b, c, number])?;
        let mut inside = Links::open_in(path).map_err(|source| namespace(path, source))?;
        inside.up("lo")?;
        inside.up("eth0")?;
        let eth0 = inside.link("eth0")?.ok_or_else(|| Error::Options("eth0 is gone from the host".to_owned()))?;
        for (own, machine) in self.addresses(number).into_iter().zip(self.addresses(MACHINE)) {
            inside.add_address(eth0.index, own.addr(), own.prefix_len())?;
            let all = IpNet::new_assert(Family::of(own.addr()).unspecified(), 0);
            inside.add_route(eth0.index, all, Some(machine.addr()), None)?;
        }
        Ok(())
    }

    /// Cuts a host off from the others, or connects it again.
    pub fn plug(&self, number: u8, is_in: bool) -> Result<(), Error> {
        let (name, mut links) = (format!("{}-{number}", self.bridge), open_links()?);
        if is_in {
            links.up(&name)?
        } else {
            links.down(&name)?
        }
        Ok(())
    }

    /// Removes a host, and no fault where there is none.
    pub fn remove_host(&self, number: u8, path: &Path) -> Result<(), Error> {
        // The kernel ends a namespace, and with it this end of the wire, when it comes to it and nobody is in there any more.
        open_links()?.delete(&format!("{}-{number}", self.bridge))?;
        remove_namespace(path).map_err(|source| namespace(path, source))
    }

    /// Removes the bridge and what it let out.
    pub fn remove(&self) -> Result<(), Error> {
        open_links()?.delete(&self.bridge)?;
        crate::nft::table::delete(&self.bridge)?;
        Ok(())
    }
}

/// An address of IPv6 whose parts read like those of IPv4: `fd30:172:30:C::NUMBER`.
fn address_v6([a, b, c]: [u8; 3], number: u8) -> IpAddr {
    let digits = |part: u8| u16::from_str_radix(&part.to_string(), 16).unwrap_or_default();
    IpAddr::V6(Ipv6Addr::new(0xfd30, digits(a), digits(b), digits(c), 0, 0, 0, digits(number)))
}

/// Where `ip netns` has its names.
const NAMES: &str = "/run/netns";

fn namespace(path: &Path, source: io::Error) -> Error {
    Error::Namespace { path: path.to_owned(), source }
}

/// Makes a network namespace that lives as long as its file.
fn make_namespace(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
        if directory == Path::new(NAMES) {
            share(directory)?;
        }
    }
    File::create(path)?;
    let target = path.to_owned();
    // Only a thread that ends right away may leave its namespace.
    let made = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Path::new("/proc/thread-self/ns/net");
        nix::mount::mount(Some(own), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
    });
    made.join().unwrap_or(Err(Errno::EIO)).map_err(Into::into)
}

/// Makes the directory of names a shared mount, as `ip netns add` does before the first one: it would mount the directory over what is in it, and our
/// namespaces could not be reached by their names any more.
fn share(directory: &Path) -> io::Result<()> {
    let none = None::<&str>;
    let shared = || nix::mount::mount(none, directory, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    match shared() {
        // It is no mount yet.
        Err(Errno::EINVAL) => {
            nix::mount::mount(Some(directory), directory, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
            Ok(shared()?)
        }
        other => Ok(other?),
    }
}

/// Removes the namespace at `path`, once nothing is left in it.
fn remove_namespace(path: &Path) -> io::Result<()> {
    match nix::mount::umount2(path, MntFlags::MNT_DETACH) {
        Err(errno) if errno != Errno::EINVAL && errno != Errno::ENOENT => return Err(errno.into()),
        _ => {}
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where namespaces have names, which `ip netns` knows, too.
pub fn namespace_path(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    /// Two hosts reach each other and the machine, and leave nothing.
    #[test]
    fn hosts_are_on_one_wire() {
        for families in [Families::V4, Families::V6, Families::Both] {
            are_on_one_wire(families);
        }
    }

    #[test]
    fn addresses_read_alike() {
        let wire = Wire { bridge: "kd".into(), network: [172, 30, 7], families: Families::Both };
        let texts: Vec<String> = wire.addresses(254).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["172.30.7.254/24", "fd30:172:30:7::254/64"]);
    }

    fn are_on_one_wire(families: Families) {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().to_owned();
        let machine = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("root");
            let wire = Wire::free("kdt", families).unwrap();
            wire.set_up().unwrap();
            let path = |number: u8| directory.join(number.to_string());
            for number in [1, 2] {
                wire.add_host(number, &path(number)).unwrap();
            }
            let listen = |address: IpAddr| TcpListener::bind((address, 1234)).unwrap();
            let (one, two) = (wire.address(1), wire.address(2));
            let listener = within(&path(1), move || listen(one)).unwrap();
            let from_host = within(&path(2), move || TcpStream::connect((one, 1234)).map(drop)).unwrap();
            from_host.unwrap();
            listener.accept().unwrap();
            TcpStream::connect((one, 1234)).unwrap();
            let peer = listener.accept().unwrap().1.ip();
            assert_eq!(peer, wire.address(MACHINE));
            assert_ne!(one, two);
            drop(listener);
            // Somebody is still in there.
            let stays = File::open(path(1)).unwrap();
            for number in [1, 2] {
                wire.remove_host(number, &path(number)).unwrap();
                wire.remove_host(number, &path(number)).unwrap();
                assert!(open_links().unwrap().link(&format!("kdt-{number}")).unwrap().is_none());
            }
            drop(stays);
            wire.remove().unwrap();
            wire.remove().unwrap();
            assert!(open_links().unwrap().link("kdt").unwrap().is_none());
        });
        machine.join().unwrap();
    }
}

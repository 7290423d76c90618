//! The pod network of one node: a bridge, an address and a veth pair for each sandbox, host ports.
//!
//! A pod's address has the full prefix length and its only route leads to the bridge's address. So also packets
//! between pods of one node pass the host's IP layer, where services are translated in both directions, whether or
//! not the kernel passes bridged packets to netfilter.
//!
//! Cluster addresses that the node serves itself ([`Options::local_addresses`], the cluster DNS address) are put on
//! the bridge: pods and host processes reach them before any Service or endpoint exists.

pub mod addresses;
pub mod cni;
mod contribution;
mod devices;
mod gone;
pub mod hosts;
mod ipam;
pub mod nodes;
mod options;
mod owner;
mod rtnl;
mod sysctl;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use ipam::{Error as IpamError, Lease, gateway};
pub use nodes::Backend;
pub use options::Options;
pub use owner::check as check_owner;
pub use sysctl::Error as SysctlError;

use crate::netlink;
use crate::nft::Family;
use crate::nft::claims::Refused;
use crate::nft::contents::Fragment;
use crate::nft::element::Protocol;
use crate::nft::table::{self, Table};
use contribution::{contribution, owner};
use devices::{delete_port, find_mtu, mac_of, open_links, set_up_bridge, shape, veth_name};
use gone::Gone;
use ipam::Ipam;
use rtnl::{Links, Mac, Veth};

/// The network of a sandbox or of the node could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that cannot work.
    #[error("{0}")]
    Options(String),
    /// Addresses.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// Links, addresses, routes.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Network plugins.
    #[error(transparent)]
    Cni(#[from] cni::Error),
    /// Kernel settings.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// Those of a pod's devices.
    #[error("sysctl {key}={value}: {source}")]
    Setting {
        /// Its file below `/proc/sys`.
        key: String,
        /// What it was to be.
        value: String,
        /// Why it is not.
        source: io::Error,
    },
    /// Host ports.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// The network namespace cannot be entered.
    #[error("network namespace {}: {source}", path.display())]
    Namespace {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not limit rates.
    #[error(
        "the pod's bandwidth cannot be limited: {0}; the kernel needs CONFIG_NET_SCH_TBF, and for what pods send CONFIG_IFB, \
         CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED"
    )]
    Bandwidth(#[source] netlink::Error),
    /// The bridge vanished.
    #[error("bridge {0} is gone: restart the node agent to set it up again")]
    NoBridge(String),
    /// The device between nodes vanished.
    #[error("the link {0} is gone: restart the node agent to set it up again")]
    NoOverlay(String),
    /// The kernel encrypts nothing.
    #[error("this kernel makes no WireGuard device: {0}; load the module (modprobe wireguard), or choose another --pod-network")]
    NoWireguard(#[source] netlink::Error),
    /// Two nodes cannot share a network namespace.
    #[error(
        "the network of this machine ({bridge}) is that of another node, whose addresses are kept in {}: end that node and its pods \
         first (knarr killall with its data directory), or run this one in a network namespace of its own", directory.display()
    )]
    Taken {
        /// The bridge that both would have.
        bridge: String,
        /// The directory of the node that has it.
        directory: PathBuf,
    },
    /// A node runs with the directory.
    #[error("a node runs that keeps its addresses in {}: stop it first", .0.display())]
    InUse(PathBuf),
    /// The process stops.
    #[error("the process is shutting down")]
    Stopped,
}

/// A port on the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the node.
    pub host_port: u16,
    /// Address on the node, all when none or unspecified.
    pub host_ip: Option<IpAddr>,
}

/// How much a pod may send and receive, bits a second; none is as much as the links carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// What the pod receives.
    pub ingress: Option<u64>,
    /// What the pod sends.
    pub egress: Option<u64>,
}

/// What a sandbox asks of the network besides addresses. Its lease keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Whose it is, for network plugins.
    #[serde(default)]
    pub pod: cni::Pod,
    /// Ports of the node that lead to it.
    pub ports: Vec<HostPort>,
    /// Its share of the links.
    #[serde(default)]
    pub bandwidth: Bandwidth,
    /// Kernel settings of its devices: values by their files below `/proc/sys`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
}

/// The pod network of this node. Cheap to clone.
#[derive(Clone)]
pub struct PodNetwork(Arc<Inner>);

struct Inner {
    options: Options,
    mtu: u32,
    bridge_mac: Mac,
    table: Table,
    ipam: Mutex<Ipam>,
    gone: Gone,
    /// Tells others that this node runs.
    _held: owner::Held,
}

impl PodNetwork {
    /// Sets up bridge, addresses, kernel settings and the table; takes over what an earlier process left.
    pub async fn start(options: Options) -> Result<Self, Error> {
        blocking(move || Self::start_blocking(options)).await
    }

    /// The table, for the service proxy.
    pub fn table(&self) -> &Table {
        &self.0.table
    }

    /// What leads to other nodes; none where there are none. The node's name says which of the nodes it is.
    pub fn nodes(&self, name: &str) -> Option<nodes::Nodes> {
        let Inner { options, mtu, table, .. } = &*self.0;
        options.node_ip.map(|address| nodes::Nodes::new(options, address, *mtu, name, table.clone()))
    }

    /// By which others know this node; none where nothing is encrypted.
    pub async fn public_key(&self) -> Result<Option<nodes::PublicKey>, Error> {
        let inner = self.0.clone();
        let is_known = inner.options.backend == Backend::WireGuard;
        blocking(move || Ok(if is_known { nodes::wireguard::device::public_key(&inner.options.wireguard)? } else { None })).await
    }

    /// The options with which it was started.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Connects the network namespace at `netns` and returns the pod's addresses, one of each family. Idempotent.
    pub async fn attach(&self, sandbox: &str, netns: &Path, wanted: &Attachment) -> Result<Vec<IpAddr>, Error> {
        self.0.gone.remove(sandbox);
        if self.0.options.backend == Backend::Cni {
            return self.attach_by_plugins(sandbox, netns, wanted).await;
        }
        let (inner, sandbox, netns, wanted) = (self.0.clone(), sandbox.to_owned(), netns.to_owned(), wanted.clone());
        blocking(move || inner.attach(&sandbox, &netns, &wanted)).await
    }

    /// Releases everything that the sandbox has, also when its namespace is gone. Idempotent. What cannot be released now, as network plugins fail, is tried again
    /// ([`Self::release_gone`]), also if nobody else asks: whoever detaches a sandbox wants it no more.
    pub async fn detach(&self, sandbox: &str) -> Result<(), Error> {
        let released = self.release(sandbox).await;
        match &released {
            Ok(()) => self.0.gone.remove(sandbox),
            Err(_) => self.0.gone.add(sandbox, Instant::now(), true),
        }
        released
    }

    async fn release(&self, sandbox: &str) -> Result<(), Error> {
        let lease = self.0.ipam.lock().leases().get(sandbox).cloned();
        if let Some(added) = lease.and_then(|lease| lease.cni) {
            self.0.options.cni.delete(sandbox, &added).await?;
        }
        let (inner, sandbox) = (self.0.clone(), sandbox.to_owned());
        blocking(move || inner.detach(&sandbox)).await
    }

    /// The same as [`Self::attach`] by whoever the pod network is left to.
    async fn attach_by_plugins(&self, sandbox: &str, netns: &Path, wanted: &Attachment) -> Result<Vec<IpAddr>, Error> {
        let plugins = &self.0.options.cni;
        let lease = self.0.ipam.lock().leases().get(sandbox).cloned();
        match lease {
            Some(lease) if lease.attached => return Ok(lease.addresses),
            Some(Lease { cni: Some(begun), .. }) => plugins.delete(sandbox, &begun).await?,
            _ => {}
        }
        let mut added = plugins.begin(netns, wanted)?;
        let lease = |addresses, attached, added: &cni::Added| Lease {
            addresses,
            wanted: wanted.clone(),
            attached,
            cni: Some(added.clone()),
        };
        let (inner, path, id, begun) = (self.0.clone(), netns.to_owned(), sandbox.to_owned(), lease(Vec::new(), false, &added));
        blocking(move || {
            inner.ipam.lock().put(&id, begun)?;
            let inside = Links::open_in(&path).map_err(|source| Error::Namespace { path, source });
            Ok(inside?.up("lo")?)
        })
        .await?;
        let addresses = plugins.add(sandbox, &mut added).await?;
        let (inner, id, lease) = (self.0.clone(), sandbox.to_owned(), lease(addresses.clone(), true, &added));
        let netns = netns.to_owned();
        blocking(move || {
            sysctl::set_in(&netns, &lease.wanted.sysctls)?;
            inner.table.replace([(owner(&id), contribution(&id, &lease))])?;
            Ok(inner.ipam.lock().put(&id, lease)?)
        })
        .await?;
        Ok(addresses)
    }

    /// Releases what sandboxes have that are no longer there, and connects those anew whose interface is gone; `live` are the sandboxes
    /// with their network namespaces. What network plugins have to take away is left to [`Self::release_gone`]. Returns how many are gone.
    pub async fn reconcile(&self, live: &BTreeMap<String, PathBuf>) -> Result<usize, Error> {
        let (kept, gone): (Vec<_>, Vec<_>) = self.leases().into_iter().partition(|(id, _)| live.contains_key(id));
        for (sandbox, lease) in &gone {
            tracing::info!(%sandbox, "releasing the addresses of a sandbox that is gone");
            // Plugins may take minutes, and there may be many such sandboxes.
            if lease.cni.is_some() {
                self.0.gone.add(sandbox, Instant::now(), false);
            } else if let Err(error) = self.detach(sandbox).await {
                tracing::warn!(%sandbox, %error, "what a sandbox that is gone has of the network cannot be released");
            }
        }
        for (sandbox, lease) in kept.into_iter().filter(|(_, lease)| lease.attached) {
            // One pod that cannot be connected is no reason to cut off the others.
            if let Some(netns) = live.get(&sandbox)
                && let Err(error) = self.attach(&sandbox, netns, &lease.wanted).await
            {
                tracing::warn!(%sandbox, %error, "a pod cannot be connected to the network again");
            }
        }
        Ok(gone.len())
    }

    /// The host ports of a sandbox that somebody else has. It gets them when they are given up.
    pub fn refused(&self, sandbox: &str) -> Vec<Refused> {
        self.0.table.refused(&owner(sandbox))
    }

    /// The lease of each sandbox.
    pub fn leases(&self) -> BTreeMap<String, Lease> {
        self.0.ipam.lock().leases().clone()
    }

    fn start_blocking(options: Options) -> Result<Self, Error> {
        options.check()?;
        let ipam = Ipam::load(&owner::leases(&options.directory), &options.pod_cidrs)?;
        let mut links = open_links()?;
        let mtu = find_mtu(&options, &mut links)?;
        let bridge_mac = mac_of(gateway(options.pod_cidrs[0]));
        let held = owner::claim(&options, &mut links, |links| Ok(links.make_bridge(&options.bridge, bridge_mac, mtu)?))?;
        set_up_bridge(&options, &mut links)?;
        if let Some(address) = options.node_ip {
            nodes::set_up(&options, &mut links, address, mtu)?;
        }
        let table = Table::open(&options.table, options.config(), &options.holders)?;
        sysctl::keep_half_closed()?;
        crate::nft::host::warn(&table.families(), &options.bridge);
        let ports = ipam.leases().iter().map(|(sandbox, lease)| (owner(sandbox), contribution(sandbox, lease)));
        // A pod that the kernel takes nothing of keeps no other from its ports.
        for ((owner, _), error) in
            table.replace_what_can(ports.collect(), table::Patience::Left).map_err(table::Error::Refused)?
        {
            tracing::error!(owner, %error, "the kernel refuses the host ports of a pod, going on without them");
        }
        Ok(Self(Arc::new(Inner { options, mtu, bridge_mac, table, ipam: Mutex::new(ipam), gone: Gone::default(), _held: held })))
    }
}

/// Deletes the bridge, the veth pairs on it, the device to other nodes, the table and the leases of this cluster. Idempotent. When the
/// network of this namespace is that of another node, it stays, and the directory of that node is returned.
pub async fn teardown(options: Options) -> Result<Option<PathBuf>, Error> {
    blocking(move || owner::release(&options)).await
}

impl Inner {
    fn attach(&self, sandbox: &str, netns: &Path, wanted: &Attachment) -> Result<Vec<IpAddr>, Error> {
        let lease = self.ipam.lock().acquire(sandbox, wanted)?;
        let mut links = open_links()?;
        let name = veth_name(sandbox);
        let bridge = links.link(&self.options.bridge)?;
        let bridge = bridge.ok_or_else(|| Error::NoBridge(self.options.bridge.clone()))?.index;
        // What plugins have made is theirs.
        let is_theirs = lease.cni.is_some();
        if lease.attached && (is_theirs || links.link(&name)?.is_some_and(|link| link.master == Some(bridge))) {
            return Ok(lease.addresses);
        }
        if lease.attached {
            tracing::warn!(%sandbox, port = %name, "the interface of a pod is gone, making it again");
        }
        delete_port(&mut links, sandbox)?;
        let namespace_error = |source| Error::Namespace { path: netns.to_owned(), source };
        let file = std::fs::File::open(netns).map_err(namespace_error)?;
        let mac = lease.mac();
        let isolated = !sysctl::is("net/bridge/bridge-nf-call-iptables", "1");
        links.make_veth(&Veth { name: &name, alias: sandbox, bridge, netns: file.as_fd(), mac, mtu: self.mtu, isolated })?;
        shape(&mut links, sandbox, lease.wanted.bandwidth)?;
        for address in &lease.addresses {
            links.add_neighbour(bridge, *address, mac)?;
        }
        let mut inside = Links::open_in(netns).map_err(namespace_error)?;
        let mut events = rtnl::link_events().map_err(namespace_error)?;
        self.set_up_pod(&mut inside, &lease.addresses)?;
        // Whoever takes the device away takes them, too.
        sysctl::set_in(netns, &lease.wanted.sysctls)?;
        self.table.replace([(owner(sandbox), contribution(sandbox, &lease))])?;
        if !links.wait_forwarding(&mut events, &name, &self.options.bridge)? {
            tracing::warn!(%sandbox, port = %name, "the bridge port does not forward yet, going on");
        }
        self.ipam.lock().set_attached(sandbox)?;
        Ok(lease.addresses)
    }

    fn set_up_pod(&self, inside: &mut Links, addresses: &[IpAddr]) -> Result<(), Error> {
        inside.up("lo")?;
        inside.up("eth0")?;
        let eth0 = inside.link("eth0")?.ok_or_else(|| Error::Options("eth0 is gone from the pod".to_owned()))?;
        for address in addresses {
            let Some(range) = self.options.pod_cidrs.iter().find(|range| range.contains(address)) else { continue };
            let gateway = gateway(*range);
            inside.add_neighbour(eth0.index, gateway, self.bridge_mac)?;
            inside.add_address(eth0.index, *address, range.max_prefix_len())?;
            inside.add_route(eth0.index, IpNet::from(gateway), None, None)?;
            inside.add_route(eth0.index, IpNet::new_assert(Family::of(gateway).unspecified(), 0), Some(gateway), None)?;
        }
        Ok(())
    }

    fn detach(&self, sandbox: &str) -> Result<(), Error> {
        self.table.replace([(owner(sandbox), Fragment::default())])?;
        let mut links = open_links()?;
        delete_port(&mut links, sandbox)?;
        let lease = self.ipam.lock().leases().get(sandbox).cloned();
        let addresses = lease.map(|lease| lease.addresses).unwrap_or_default();
        if let Some(bridge) = links.link(&self.options.bridge)? {
            for address in addresses {
                links.delete_neighbour(bridge.index, address)?;
            }
        }
        // Last: as long as the lease is there, a crash leaves something to reconcile.
        self.ipam.lock().release(sandbox)?;
        Ok(())
    }
}

impl Lease {
    /// The hardware address of the pod's end.
    fn mac(&self) -> Mac {
        self.addresses.first().map_or([0x0a, 0x58, 0, 0, 0, 1], |address| mac_of(*address))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopped)?
}

//! The table in the kernel and the state that it holds.

mod kept;
mod refusal;
mod stale;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::sync::Notify;

use super::batch::{self, Op, Rule};
use super::claims::{Programs, Refused, Taken, World};
use super::contents::{Change, Contents, Delta};
use super::element::Key;
use super::features::{self, Config, translation};
use super::watch::Watch;
use super::{Family, expr::Expr, machine};
use crate::netlink::{self, Socket};
pub use refusal::{Patience, Refusal, Settled};
use stale::Stale;

/// The rules could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netfilter netlink socket cannot be opened.
    #[error("cannot open a netfilter netlink socket: {0}; the kernel needs CONFIG_NF_TABLES and the process CAP_NET_ADMIN")]
    Open(#[source] io::Error),
    /// A part of nf_tables is missing.
    #[error("the kernel refuses a rule with {feature}: enable {option} (as a module or built in): {source}")]
    Missing {
        /// What was tried.
        feature: &'static str,
        /// The kernel configuration option.
        option: &'static str,
        /// The kernel's answer.
        source: netlink::Error,
    },
    /// A batch was refused.
    #[error("table {table}: {source}")]
    Batch {
        /// The table's name.
        table: String,
        /// The kernel's answer.
        source: netlink::Error,
    },
    /// Changes were refused; none of them is in force.
    #[error("table {}: {}", .0.table, .0.source)]
    Refused(Box<Refusal>),
}

struct Metrics {
    changes: Counter,
    replacements: Counter,
    elements: Gauge,
    seconds: Histogram,
    last: Gauge<f64, AtomicU64>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    changes: base::metrics::Page::Node.register(
        "knarr_network_nft_element_changes",
        "Map elements added or removed",
        Counter::default(),
    ),
    replacements: base::metrics::Page::Node.register(
        "knarr_network_nft_replacements",
        "Whole-table replacements",
        Counter::default(),
    ),
    elements: base::metrics::Page::Node.register("knarr_network_nft_elements", "Map elements in the table", Gauge::default()),
    // kube-proxy's names: dashboards and alerts go by them.
    seconds: base::metrics::Page::Node.register(
        "kubeproxy_sync_proxy_rules_duration_seconds",
        "SyncProxyRules latency in seconds",
        Histogram::new(exponential_buckets(0.001, 2.0, 15)),
    ),
    last: base::metrics::Page::Node.register(
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "The last time proxy rules were successfully synced",
        Gauge::default(),
    ),
});

/// The cluster's table on this node, in the network namespace in which it was opened. Cheap to clone. Calls block for
/// some milliseconds.
#[derive(Clone)]
pub struct Table(Arc<Mutex<Inner>>);

/// Those whose contributions must be known before the table of an earlier process is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The service proxy.
    Services,
    /// Network policies.
    Policies,
    /// Who knows the other nodes.
    Nodes,
}

struct Inner {
    name: String,
    config: Config,
    families: Vec<Family>,
    socket: Socket,
    contents: Contents,
    /// Claims were decided.
    decided: Arc<Notify>,
    /// The kernel holds exactly `contents`.
    clean: bool,
    /// Flows that may go elsewhere than the kernel's rules lead.
    stale: Stale,
    /// A table of an earlier process still serves; it is replaced when all that it served is known again.
    held: BTreeSet<Holder>,
}

impl Table {
    /// Opens the table `name` for the families of the pod ranges. A table that an earlier process left keeps serving until
    /// each of `holders` has called [`Table::release`]; without holders it is replaced at once.
    pub fn open(name: &str, config: Config, holders: &[Holder]) -> Result<Self, Error> {
        let mut families: Vec<Family> = config.pod_cidrs.iter().map(|cidr| Family::of(cidr.addr())).collect();
        families.sort_unstable();
        families.dedup();
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(Error::Open)?;
        if let Err(error) = try_out(&mut socket, name, Family::Bridge, sample(&config, Family::Bridge)) {
            tracing::warn!(
                %error,
                "the kernel filters no frames (CONFIG_NF_TABLES_BRIDGE): pods of this node can send with each other's addresses"
            );
        } else {
            families.push(Family::Bridge);
        }
        let mut contents = Contents::default();
        contents.replace([("features".to_owned(), features::fixed(&config, &families))], &World::default());
        let mut inner = Inner {
            name: name.to_owned(),
            config,
            families,
            socket,
            contents,
            decided: Arc::default(),
            clean: false,
            // What has changed while there was no process is not known.
            stale: Stale::All,
            held: BTreeSet::new(),
        };
        inner.probe()?;
        if !holders.is_empty() && inner.exists()? {
            inner.held.extend(holders);
        }
        inner.flush()?;
        Ok(Self(Arc::new(Mutex::new(inner))))
    }

    /// Replaces what each owner contributes, of all or, when the kernel refuses it, of none: what each had contributed stays in force, and what is wanted is
    /// given back. UDP flows that go elsewhere than the table leads then are forgotten.
    pub fn replace(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), Error> {
        let mut inner = self.0.lock();
        inner.replace(changes.into_iter().collect(), Patience::Left).map_err(Error::Refused)?;
        drop(inner);
        self.forget_stale();
        Ok(())
    }

    /// Tells one who listens that claims were decided.
    pub fn decided(&self) -> Arc<Notify> {
        self.0.lock().decided.clone()
    }

    /// To whom each of these load balancers, which lead to these programs, has lost a place, claimed or not.
    pub fn lost(&self, asked: &[(String, Key, Programs)]) -> Vec<Option<Taken>> {
        let inner = self.0.lock();
        let world = inner.world();
        asked.iter().map(|(owner, key, programs)| inner.contents.lost(owner, *key, programs, &world)).collect()
    }

    /// Whether somebody claims a port that a program of the host has: only looking tells when it ends.
    pub fn waits_for_programs(&self) -> bool {
        self.0.lock().contents.waits_for_programs()
    }

    /// Gives ports that programs of the host had to those who wait for them. Returns the owners whose claims are there.
    pub fn look_again(&self) -> Result<BTreeSet<Arc<str>>, Error> {
        let mut inner = self.0.lock();
        let world = inner.world();
        let (deltas, owners) = inner.contents.look_again(&world);
        inner.apply(deltas)?;
        drop(inner);
        self.forget_stale();
        Ok(owners)
    }

    /// Lets go of a held table: when nobody holds it any more, the kernel holds what the owners want.
    pub fn release(&self, holder: Holder) -> Result<(), Error> {
        let mut inner = self.0.lock();
        inner.held.remove(&holder);
        inner.flush()?;
        drop(inner);
        self.forget_stale();
        Ok(())
    }

    /// [`Self::release`], for tasks that wait for nothing themselves. None when the process ends.
    pub async fn let_go(&self, holder: Holder) -> Option<Result<(), Error>> {
        let table = self.clone();
        tokio::task::spawn_blocking(move || table.release(holder)).await.ok()
    }

    /// Tells from now on when others delete of the table.
    pub fn watch(&self) -> io::Result<Watch> {
        let inner = self.0.lock();
        Watch::new(&inner.name, inner.socket.address()?)
    }

    /// Makes the kernel hold the wanted state again, whatever others have done.
    pub fn put_back(&self) -> Result<(), Error> {
        let mut inner = self.0.lock();
        inner.clean = false;
        inner.flush()
    }

    /// Sets the size of the buffer that requests must fit into.
    #[cfg(test)]
    pub(crate) fn limit_requests(&self, bytes: usize) {
        self.0.lock().socket.limit(nix::sys::socket::sockopt::SndBuf, bytes);
    }

    /// Whether the kernel has the table.
    pub fn is_there(&self) -> Result<bool, Error> {
        self.0.lock().exists()
    }

    /// The places that an owner claims and has not got.
    pub fn refused(&self, owner: &str) -> Vec<Refused> {
        self.0.lock().contents.refused(owner)
    }

    /// The families of addresses that have a table.
    pub fn families(&self) -> Vec<Family> {
        self.0.lock().families.iter().copied().filter(|family| *family != Family::Bridge).collect()
    }
}

/// Deletes the table `name` of every family. No error when there is none.
pub fn delete(name: &str) -> Result<(), Error> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).map_err(Error::Open)?;
    for family in [Family::V4, Family::V6, Family::Bridge] {
        match send(&mut socket, name, &[(family, vec![Op::DelTable])]) {
            // A kernel without the family has no table of it either.
            Err(source) if !matches!(source.errno(), Some(Errno::ENOENT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)) => {
                return Err(Error::Batch { table: name.to_owned(), source });
            }
            _ => (),
        }
    }
    Ok(())
}

pub(super) fn send(socket: &mut Socket, table: &str, ops: &[(Family, Vec<Op>)]) -> Result<(), netlink::Error> {
    let last = u32::MAX;
    let buffer = batch::encode(table, ops, last);
    let started = Instant::now();
    let result = socket.exchange("nf_tables batch", &buffer, last, |_| ());
    METRICS.seconds.observe(started.elapsed().as_secs_f64());
    if result.is_ok() {
        METRICS.last.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
    if let Err(netlink::Error::Kernel { seq, errno, .. }) = &result {
        let refused = ops.iter().flat_map(|(_, ops)| ops).nth(*seq as usize);
        tracing::debug!(table, %errno, ?refused, "nf_tables batch refused");
    }
    result
}

impl Inner {
    /// What claims are decided by, besides each other.
    fn world(&self) -> World {
        World { local: machine::addresses(), service_cidrs: self.config.service_cidrs.clone(), listeners: machine::listeners() }
    }

    fn fragments(&self, owners: &[String]) -> Vec<Change> {
        owners.iter().map(|owner| (owner.clone(), self.contents.fragment_of(owner))).collect()
    }

    /// Replaces what the owners contribute. Returns what each had contributed, and whether the kernel takes what it wants.
    fn take(&mut self, changes: Vec<Change>, owners: &[String]) -> (Vec<Change>, Result<(), netlink::Error>) {
        let world = if self.contents.has_claims(&changes) {
            self.decided.notify_one();
            self.world()
        } else {
            World::default()
        };
        let (deltas, before) = self.contents.displace(changes, &world);
        // The table is not written while an earlier one is held: what will replace it is tried before it counts on it.
        let tried = if self.held.is_empty() { Ok(()) } else { self.try_alone(&self.fragments(owners)) };
        if tried.is_ok() {
            self.lend(owners, &deltas);
        }
        (before, tried.and_then(|()| self.send_deltas(deltas)))
    }

    fn apply(&mut self, deltas: BTreeMap<Family, Delta>) -> Result<(), Error> {
        self.send_deltas(deltas).map_err(|source| Error::Batch { table: self.name.clone(), source })
    }

    fn send_deltas(&mut self, deltas: BTreeMap<Family, Delta>) -> Result<(), netlink::Error> {
        for (family, delta) in &deltas {
            self.stale.extend(translation::turned(*family, delta));
        }
        if !self.clean || !self.held.is_empty() {
            return self.write_anew();
        }
        let changed: usize = deltas.values().map(Delta::len).sum();
        let mut deltas: Vec<(Family, Delta)> =
            deltas.into_iter().filter(|(family, delta)| self.families.contains(family) && !delta.is_empty()).collect();
        if deltas.is_empty() {
            return Ok(());
        }
        METRICS.changes.inc_by(changed as u64);
        METRICS.elements.set(self.contents.len() as i64);
        let ranges: Vec<_> = deltas.iter_mut().map(|(family, delta)| (*family, delta.take_ranges())).collect();
        let rest = deltas.into_iter().map(|(family, delta)| (family, delta.ops())).collect();
        for ops in [ranges, rest] {
            if ops.iter().all(|(_, ops)| ops.is_empty()) {
                continue;
            }
            if let Err(error) = send(&mut self.socket, &self.name, &ops) {
                // Somebody else changed our table, or flushed the rule set: put back what belongs there.
                tracing::warn!(table = %self.name, %error, "the table in the kernel is not as we left it, replacing it");
                self.clean = false;
                return self.write_anew();
            }
        }
        Ok(())
    }

    /// Makes the kernel hold the wanted state.
    fn flush(&mut self) -> Result<(), Error> {
        self.write_anew().map_err(|source| Error::Batch { table: self.name.clone(), source })
    }

    /// The same, by one batch that replaces the table.
    fn write_anew(&mut self) -> Result<(), netlink::Error> {
        if self.clean || !self.held.is_empty() {
            return Ok(());
        }
        let mut contents = self.contents.everything();
        let comment = || Some("Knarr pod network and services".to_owned());
        let ops: Vec<_> = self
            .families
            .iter()
            .map(|family| {
                let mut ops = vec![Op::NewTable { comment: comment() }, Op::DelTable, Op::NewTable { comment: comment() }];
                ops.extend(contents.remove(family).unwrap_or_default().ops());
                (*family, ops)
            })
            .collect();
        METRICS.replacements.inc();
        METRICS.elements.set(self.contents.len() as i64);
        send(&mut self.socket, &self.name, &ops)?;
        self.clean = true;
        Ok(())
    }

    /// Whether the kernel has the table in every family.
    fn exists(&mut self) -> Result<bool, Error> {
        for family in &self.families {
            let fixed = [family.protocol(), 0, 0, 0];
            let request = (10 << 8 | 1, 0); // NFT_MSG_GETTABLE
            match self.socket.request("look for the table", request, &fixed, |b| b.string(1, &self.name)) {
                Ok(()) => (),
                Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(false),
                Err(source) => return Err(Error::Batch { table: self.name.clone(), source }),
            }
        }
        Ok(true)
    }

    /// Tries every kind of expression in a table that is deleted by the same batch, to name what the kernel lacks.
    fn probe(&mut self) -> Result<(), Error> {
        for family in self.families.clone() {
            let whole = sample(&self.config, family);
            let Err(error) = try_out(&mut self.socket, &self.name, family, whole) else { continue };
            for (feature, option, exprs) in features() {
                let chain = "probe".to_owned();
                let new_chain = Op::NewChain { name: chain.clone(), hook: None };
                let ops = vec![new_chain, Op::NewRule { chain, rule: Rule::new(exprs) }];
                if let Err(source) = try_out(&mut self.socket, &self.name, family, ops) {
                    return Err(Error::Missing { feature, option, source });
                }
            }
            return Err(Error::Batch { table: self.name.clone(), source: error });
        }
        Ok(())
    }
}

/// Everything that the table of a family may have.
fn sample(config: &Config, family: Family) -> Vec<Op> {
    let mut sample = Contents::default();
    let mut deltas = sample.replace([("sample".to_owned(), features::samples(config, family))], &World::default());
    deltas.remove(&family).unwrap_or_default().ops()
}

/// Tries operations in a table that is deleted by the same batch.
fn try_out(socket: &mut Socket, name: &str, family: Family, ops: Vec<Op>) -> Result<(), netlink::Error> {
    let ops = [vec![Op::NewTable { comment: None }], ops, vec![Op::DelTable]].concat();
    send(socket, &format!("{name}-probe"), &[(family, ops)])
}

/// Expressions that a kernel may lack, each with the option that brings it.
fn features() -> Vec<(&'static str, &'static str, Vec<Expr>)> {
    use super::expr::Refusal;
    vec![
        ("numgen", "CONFIG_NFT_NUMGEN", vec![Expr::Random { reg: 0, modulus: 2, offset: 0 }]),
        ("fib", "CONFIG_NFT_FIB_IPV4 and CONFIG_NFT_FIB_IPV6", vec![Expr::AddressType { source: true, reg: 0 }]),
        ("ct", "CONFIG_NFT_CT", vec![Expr::Connection { what: super::expr::Connection::Status, reg: 0 }]),
        ("reject", "CONFIG_NFT_REJECT", vec![Expr::Reject(Refusal::TcpReset)]),
    ]
}

#[cfg(test)]
mod tests;

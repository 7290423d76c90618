//! Memory of NUMA nodes that containers have for themselves (KEP-1769, the memory manager's policy `Static`).
//!
//! Memory and huge pages of guaranteed pods' containers come from as few NUMA nodes as can be, and the containers use no others. All other
//! containers use what is left of any node. Nothing is moved: where a container has its memory is decided before it is made.
//!
//! | module | what |
//! |---|---|
//! | [`machine`] | what the NUMA nodes have |
//! | [`reservation`] | what of it is reserved, pure |
//! | [`blocks`] | who has what, pure |

pub mod blocks;
pub mod machine;
pub mod reservation;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::affinity::{self, Hint, Mask};
use crate::holdings::{self, Ledger};
use crate::named::named;
use crate::resources::{self, HUGE_PAGES};
use crate::spec::{Member, Model};
use crate::units;
use blocks::{Block, Blocks, Claim, Record, Refusal, Stale};
use machine::Nodes;
use reservation::{Reservation, ReservationError};

/// File in the kubelet's directory that says who has what.
const FILE: &str = "memory_manager_state";
/// Name of the policy there.
const STATIC: &str = "Static";
/// Bytes by resource.
pub type Amounts = BTreeMap<String, u64>;

/// Name of the resource that is no huge page.
pub const MEMORY: &str = "memory";

named! {
    /// Who gets memory of NUMA nodes for itself.
    pub enum Policy {
        /// Nobody.
        #[default]
        None = "None",
        /// Containers of guaranteed pods.
        Static = STATIC,
    }
}

/// Why memory cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What the nodes have is not known.
    #[error("the kernel does not tell of the memory of NUMA nodes: {0}")]
    Machine(io::Error),
    /// What is reserved does not fit.
    #[error(transparent)]
    Reservation(#[from] ReservationError),
    /// There are too many sets of them.
    #[error("this machine has {0} NUMA nodes, and no more than {most} are supported", most = affinity::NODES)]
    Nodes(usize),
    /// What is written down does not fit.
    #[error("{0}: drain the node and remove {1}")]
    Stale(Box<Stale>, PathBuf),
    /// The policy has changed.
    #[error("the policy {now:?} differs from {then:?}, by which memory was given: drain the node and remove {file}")]
    OtherPolicy {
        /// As the options say.
        now: &'static str,
        /// As is written down.
        then: String,
        /// Where.
        file: PathBuf,
    },
    /// The file cannot be used.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

/// The memory of this node's NUMA nodes.
#[derive(Default)]
pub struct Memory(Option<Ledger<Blocks>>);

impl Memory {
    /// Reads who has what. `kept` is the memory that pods do not get of the machine, all NUMA nodes together. Blocking.
    ///
    /// # Errors
    /// The options do not fit the machine, or what was done before.
    pub fn open(policy: Policy, data_dir: &Path, reserved: &Reservation, kept: i64) -> Result<Self, Error> {
        if policy == Policy::Static {
            let nodes = machine::read(Path::new(machine::SYSTEM)).map_err(Error::Machine)?;
            return Self::with(nodes, data_dir, reserved, kept);
        }
        let path = data_dir.join(FILE);
        let record = holdings::read::<Record>(&path).map_err(|error| Error::File(path.clone(), error))?;
        match record {
            Some(Record { policy_name: then, .. }) if then != policy.name() => {
                Err(Error::OtherPolicy { now: policy.name(), then, file: path })
            }
            _ => Ok(Self(None)),
        }
    }

    /// The policy `Static` on a machine with these NUMA nodes. Blocking.
    fn with(nodes: Nodes, data_dir: &Path, reserved: &Reservation, kept: i64) -> Result<Self, Error> {
        if nodes.len() > affinity::NODES {
            return Err(Error::Nodes(nodes.len()));
        }
        reserved.check(&nodes, kept)?;
        let path = data_dir.join(FILE);
        let mut blocks = Blocks::new(&nodes, reserved);
        let record = holdings::read::<Record>(&path).map_err(|error| Error::File(path.clone(), error))?;
        match record {
            Some(Record { policy_name: then, .. }) if then != STATIC => {
                return Err(Error::OtherPolicy { now: STATIC, then, file: path });
            }
            Some(record) => blocks.restore(record).map_err(|stale| Error::Stale(Box::new(stale), path.clone()))?,
            None => {}
        }
        Ok(Self(Some(Ledger::new(path, blocks))))
    }

    /// Whether containers may have memory for themselves.
    pub fn is_static(&self) -> bool {
        self.0.is_some()
    }

    /// What a container gets for itself, bytes by resource; nothing where the pod has figures of its own.
    pub fn wanted(&self, model: &Model, member: &Member) -> Amounts {
        if self.0.is_none() || !resources::may_have_own(model, member) {
            return Amounts::new();
        }
        let requests = member.spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let own = requests.into_iter().flatten().filter(|(name, _)| *name == MEMORY || name.starts_with(HUGE_PAGES));
        let sized = own.map(|(name, amount)| (name.clone(), u64::try_from(units::whole(amount)).unwrap_or(0)));
        sized.filter(|(_, size)| *size > 0).collect()
    }

    /// From which NUMA nodes a container could get so much of each resource; none where it has no wish, or where there is nothing for it,
    /// which is said when it asks for it.
    pub fn hints(&self, claim: &Claim<'_>) -> Vec<(String, Vec<Hint>)> {
        let Some(own) = self.0.as_ref().filter(|_| !claim.amounts.is_empty()) else { return Vec::new() };
        let hints = own.lock().hints(claim);
        if hints.is_empty() {
            return Vec::new();
        }
        claim.amounts.keys().map(|name| (name.clone(), hints.clone())).collect()
    }

    /// Gives a container its memory; whether it did not have it already. It is its own after [`Self::settle`]. `is_strict`: only nodes that
    /// would be preferred will do.
    ///
    /// # Errors
    /// There is not as much.
    pub async fn give(&self, claim: &Claim<'_>, affinity: Option<Mask>, is_strict: bool) -> Result<bool, Error> {
        let Some(own) = self.0.as_ref().filter(|_| !claim.amounts.is_empty()) else { return Ok(false) };
        Ok(own.give(|blocks| blocks.give(claim, affinity, is_strict)).await?)
    }

    /// Writes down who has what.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn settle(&self) -> Result<(), Error> {
        let Some(own) = &self.0 else { return Ok(()) };
        let _one = own.settling().await;
        own.write().await.map_err(|error| Error::File(own.path().to_owned(), error))
    }

    /// The NUMA nodes of which a container may use memory, as the kernel writes them; none where nobody says.
    pub fn nodes_of(&self, uid: &str, container: &str) -> Option<String> {
        let nodes: BTreeSet<u32> = self.of(uid, container).into_iter().flat_map(|block| block.numa_affinity).collect();
        (!nodes.is_empty()).then(|| crate::cpus::set::CpuSet(nodes).to_string())
    }

    /// What a container has for itself.
    pub fn of(&self, uid: &str, container: &str) -> Vec<Block> {
        self.0.as_ref().map(|own| own.lock().of(uid, container).to_vec()).unwrap_or_default()
    }

    /// The pods that have some.
    pub fn pods(&self) -> Vec<String> {
        self.0.as_ref().map(Ledger::pods).unwrap_or_default()
    }

    /// What containers can get, each NUMA node's by itself.
    pub fn allocatable(&self) -> Vec<Block> {
        self.0.as_ref().map(|own| own.lock().allocatable()).unwrap_or_default()
    }

    /// Changes when a pod has given its memory back; none when no pod that has some is on its way out.
    pub fn leaving(&self) -> Option<watch::Receiver<()>> {
        self.0.as_ref()?.leaving()
    }

    /// A pod is on its way out: who needs what it has waits for that.
    pub fn leave(&self, uid: &str) {
        if let Some(own) = &self.0 {
            own.leave(uid);
        }
    }

    /// Takes back what a pod has. Idempotent.
    pub async fn release(&self, uid: &str) {
        let Some(own) = &self.0 else { return };
        if own.release(uid)
            && let Err(error) = self.settle().await
        {
            tracing::warn!(uid, %error, "the memory of a pod is free, and that is not written down");
        }
    }
}

#[cfg(test)]
mod tests;

//! Processors that containers have for themselves (docs "Control CPU Management Policies on the Node", the policy `static`).
//!
//! Containers of guaranteed pods that ask for whole processors get them alone; all others share the rest. When that changes, the containers
//! that run are moved before the next one starts.
//!
//! | module | what |
//! |---|---|
//! | [`options`] | options of the policy, pure |
//! | [`set`] | sets of processors as texts, pure |
//! | [`topology`] | cores, sockets and NUMA nodes |
//! | [`take`] | which processors are taken, pure |
//! | [`pools`] | who has which, pure |

mod distribute;
pub mod options;
pub mod pools;
pub mod set;
pub mod take;
pub mod topology;

use std::io;
use std::path::{Path, PathBuf};

use runtime::api::{ContainerState, Resources, Runtime};
use tokio::sync::watch;

use crate::affinity::{Hint, Mask};
use crate::holdings::{self, Ledger};
use crate::named::named;
use crate::resources;
use crate::spec::{Member, Model};
use crate::units;
use options::Options;
use pools::{Pools, Record, Refusal, Stale};
use set::CpuSet;
use topology::Topology;

/// File in the kubelet's directory that says who has which.
const FILE: &str = "cpu_manager_state";
/// Name of the policy there.
const STATIC: &str = "static";
/// Where the kernel tells of the machine.
pub const SYSTEM: &str = "/sys/devices/system";

named! {
    /// Who gets processors for itself.
    pub enum Policy {
        /// Nobody.
        #[default]
        None = "none",
        /// Containers of guaranteed pods that ask for whole ones.
        Static = STATIC,
    }
}

/// Why processors cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// They are not there.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Where they are is not known.
    #[error("the kernel does not tell of the processors: {0}")]
    Topology(io::Error),
    /// The operating system would have none.
    #[error(
        "the policy static needs processors that are reserved: say how many with --system-reserved or --kube-reserved, or which with --reserved-cpus"
    )]
    NothingReserved,
    /// There are no such processors.
    #[error("the processors {0} of --reserved-cpus are not all there: this machine has {1}")]
    NotThere(CpuSet, CpuSet),
    /// They are of another policy.
    #[error("None policy: received unsupported options={0}")]
    Options(String),
    /// What is written down does not fit.
    #[error("{0}: drain the node and remove {1}")]
    Stale(Stale, PathBuf),
    /// The policy has changed.
    #[error("the policy {now:?} differs from {then:?}, by which processors were given: drain the node and remove {file}")]
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
    /// Containers that run cannot be moved.
    #[error("containers cannot be moved to other processors: {0}")]
    Runtime(#[from] runtime::api::Error),
}

/// The processors of this node.
#[derive(Default)]
pub struct Cpus(Option<Ledger<Pools>>);

impl Cpus {
    /// Reads who has which. `reserved` are those that no container gets for itself: these, or so many thousandths. Blocking.
    ///
    /// # Errors
    /// The options do not fit the machine, or what was done before.
    pub fn open(policy: Policy, options: Options, data_dir: &Path, reserved: Result<&CpuSet, i64>) -> Result<Self, Error> {
        let path = data_dir.join(FILE);
        let record = holdings::read::<Record>(&path).map_err(|error| Error::File(path.clone(), error))?;
        let then = record.as_ref().map(|record| record.policy_name.clone());
        let differs = |now: &'static str| Error::OtherPolicy { now, then: then.clone().unwrap_or_default(), file: path.clone() };
        if policy == Policy::None {
            if options != Options::default() {
                return Err(Error::Options(options.names().collect::<Vec<_>>().join(",")));
            }
            return if record.is_some_and(|record| record.policy_name != "none") { Err(differs("none")) } else { Ok(Self(None)) };
        }
        let topology = Topology::read(Path::new(SYSTEM)).map_err(Error::Topology)?;
        let reserved = match reserved {
            Ok(set) if set.0.is_subset(&topology.all().0) => set.clone(),
            Ok(set) => return Err(Error::NotThere(set.clone(), topology.all())),
            Err(milli) => {
                let count = usize::try_from(milli.max(0)).unwrap_or(0).div_ceil(1000);
                take::take(&topology, &topology.all(), count, false).map_err(Refusal::from)?
            }
        };
        if reserved.is_empty() {
            return Err(Error::NothingReserved);
        }
        let mut pools = Pools::new(topology, reserved, options);
        match record {
            Some(record) if record.policy_name != STATIC => return Err(differs(STATIC)),
            Some(record) => pools.restore(record).map_err(|stale| Error::Stale(stale, path.clone()))?,
            None => {}
        }
        Ok(Self(Some(Ledger::new(path, pools))))
    }

    /// Whether containers may have processors for themselves.
    pub fn is_static(&self) -> bool {
        self.0.is_some()
    }

    /// How many processors a container gets for itself; none where the pod has figures of its own.
    pub fn wanted(&self, model: &Model, member: &Member) -> usize {
        if self.0.is_none() || !resources::may_have_own(model, member) {
            return 0;
        }
        let requests = member.spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let milli = units::milli_of(requests, "cpu");
        if milli % 1000 == 0 { usize::try_from(milli / 1000).unwrap_or(0) } else { 0 }
    }

    /// From which NUMA nodes a container could get so many; none where it has no wish.
    pub fn hints(&self, uid: &str, container: &str, count: usize, reusable: &CpuSet) -> Option<Vec<Hint>> {
        let pools = self.0.as_ref().filter(|_| count > 0)?.lock();
        Some(pools.hints(pools.of(uid, container), reusable, count))
    }

    /// Gives a container its processors; whether it did not have them already. They are its own after [`Self::settle`].
    ///
    /// # Errors
    /// There are not as many.
    pub async fn give(&self, model: &Model, member: &Member, affinity: Option<Mask>, reusable: &CpuSet) -> Result<bool, Error> {
        let (Some(own), count) = (&self.0, self.wanted(model, member)) else { return Ok(false) };
        if count == 0 {
            return Ok(false);
        }
        Ok(own.give(|pools| pools.give((model.uid(), &member.spec.name), count, affinity, reusable)).await?)
    }

    /// Writes down who has which, and moves the containers that share the rest.
    ///
    /// # Errors
    /// It cannot be written, or containers cannot be moved.
    pub async fn settle(&self, runtime: &dyn Runtime) -> Result<(), Error> {
        let Some(own) = &self.0 else { return Ok(()) };
        let _one = own.settling().await;
        own.write().await.map_err(|error| Error::File(own.path().to_owned(), error))?;
        let (sandboxes, containers) = tokio::try_join!(runtime.sandboxes(), runtime.containers(None))?;
        for container in containers.iter().filter(|container| container.state != ContainerState::Exited) {
            let Some(sandbox) = sandboxes.iter().find(|sandbox| sandbox.id == container.sandbox) else { continue };
            let cpus = self.of(&sandbox.pod.uid, &container.name).unwrap_or_default();
            move_one(runtime, &container.id, &cpus).await?;
        }
        Ok(())
    }

    /// The processors that a container runs on, as a text; none where nobody says.
    pub fn of(&self, uid: &str, container: &str) -> Option<String> {
        let pools = self.0.as_ref()?.lock();
        Some(pools.of(uid, container).unwrap_or(&pools.shared).to_string())
    }

    /// What a container has for itself.
    pub fn exclusive(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.0.as_ref()?.lock().of(uid, container).cloned()
    }

    /// Whether a container of the pod has processors for itself.
    pub fn has_exclusive(&self, uid: &str) -> bool {
        self.0.as_ref().is_some_and(|own| own.pods().iter().any(|pod| pod == uid))
    }

    /// The pods that have some.
    pub fn pods(&self) -> Vec<String> {
        self.0.as_ref().map(Ledger::pods).unwrap_or_default()
    }

    /// Those that containers can get.
    pub fn allocatable(&self) -> CpuSet {
        self.0.as_ref().map(|own| own.lock().allocatable()).unwrap_or_default()
    }

    /// Limits of a container that is about to start. Who has processors for itself is not held back on them, as upstream
    /// (`DisableCPUQuotaWithExclusiveCPUs`).
    pub fn confine(&self, limits: &mut Resources, uid: &str, container: &str) {
        limits.cpus = self.of(uid, container);
        if self.exclusive(uid, container).is_some() {
            (limits.cpu_quota, limits.cpu_period) = (None, None);
        }
    }

    /// A container has been made with these processors, and does not run yet: others may have been given away meanwhile.
    ///
    /// # Errors
    /// It cannot be moved.
    pub async fn check(
        &self,
        runtime: &dyn Runtime,
        uid: &str,
        name: &str,
        id: &str,
        made: Option<&str>,
    ) -> Result<(), runtime::api::Error> {
        match self.of(uid, name) {
            Some(cpus) if made != Some(&cpus) => move_one(runtime, id, &cpus).await,
            _ => Ok(()),
        }
    }

    /// Changes when a pod has given its processors back; none when no pod that has some is on its way out.
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
    pub async fn release(&self, runtime: &dyn Runtime, uid: &str) {
        let Some(own) = &self.0 else { return };
        if own.release(uid)
            && let Err(error) = self.settle(runtime).await
        {
            tracing::warn!(uid, %error, "the processors of a pod are free, and not all know of that");
        }
    }
}

/// Moves a container, unless it is gone.
async fn move_one(runtime: &dyn Runtime, id: &str, cpus: &str) -> Result<(), runtime::api::Error> {
    match runtime.pin_container(id, cpus).await {
        Err(runtime::api::Error::NotFound(_)) => Ok(()),
        moved => moved,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::pod::testing::model;
    use serde_json::{Value, json};

    fn of_machine(policy: Policy, directory: &Path) -> Result<Cpus, String> {
        Cpus::open(policy, Options::default(), directory, Err(1000)).map_err(|error| error.to_string())
    }

    /// Upstream's static policy: "containers in Guaranteed pods with integer CPU requests".
    #[test]
    fn whole_processors_of_guaranteed_pods_are_exclusive() {
        let directory = tempfile::tempdir().unwrap();
        let cpus = of_machine(Policy::Static, directory.path()).unwrap();
        let check = |cpu: &str, memory: Option<&str>, extra: Value, expected: usize| {
            let mut amounts = json!({"cpu": cpu});
            amounts.as_object_mut().unwrap().extend(memory.map(|memory| ("memory".to_owned(), json!(memory))));
            let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": amounts, "limits": amounts}}]});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let model = model(spec);
            assert_eq!(cpus.wanted(&model, &model.members[0]), expected, "{cpu}");
        };
        check("2", Some("1Gi"), json!({}), 2);
        check("2000m", Some("1Gi"), json!({}), 2);
        check("1500m", Some("1Gi"), json!({}), 0);
        check("2", None, json!({}), 0);
        check("2", Some("1Gi"), json!({"resources": {"limits": {"cpu": "2"}}}), 0);
    }

    #[tokio::test]
    async fn another_policy_is_refused_while_something_is_written_down() {
        let directory = tempfile::tempdir().unwrap();
        let cpus = of_machine(Policy::Static, directory.path()).unwrap();
        assert!(of_machine(Policy::None, directory.path()).is_ok());
        let own = cpus.0.as_ref().unwrap();
        own.write().await.unwrap();
        assert!(of_machine(Policy::Static, directory.path()).is_ok());
        let refused = of_machine(Policy::None, directory.path()).err().unwrap();
        let file = own.path().display();
        assert_eq!(
            refused,
            format!(
                "the policy \"none\" differs from \"static\", by which processors were given: drain the node and remove {file}"
            )
        );
        let nothing = Cpus::open(Policy::Static, Options::default(), directory.path(), Err(0)).err().unwrap();
        assert!(matches!(nothing, Error::NothingReserved), "{nothing}");
        let absent = "8000".parse::<CpuSet>().unwrap();
        assert!(matches!(
            Cpus::open(Policy::Static, Options::default(), directory.path(), Ok(&absent)),
            Err(Error::NotThere(..))
        ));
        let options = Options { full_cores: true, ..Options::default() };
        let refused = Cpus::open(Policy::None, options, &directory.path().join("none"), Err(1000)).err().unwrap();
        assert_eq!(refused.to_string(), "None policy: received unsupported options=full-pcpus-only");
        fs::write(own.path(), "{").unwrap();
        assert!(matches!(Cpus::open(Policy::Static, Options::default(), directory.path(), Err(1000)), Err(Error::File(..))));
    }
}

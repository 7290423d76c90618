//! What is kept of a node from pods, and when pods must go: options by the names of upstream's kubelet.

use std::time::Duration;

use clap::Args;
use kubelet::affinity;
use kubelet::allocatable::{Reserved, ReservedError};
use kubelet::cpus::{self, set::CpuSet};
use kubelet::eviction::{Settings, SettingsError, Texts};
use kubelet::numa::{
    self,
    reservation::{Reservation, ReservationError},
};
use kubelet::options::Alignment;

use super::{duration, key_value};

/// What a node keeps for itself.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Pressure {
    /// What pods do not get of the node because the operating system needs it: cpu=500m,memory=1Gi,ephemeral-storage=5Gi,pid=1000.
    #[arg(long, value_delimiter = ',', value_parser = key_value)]
    system_reserved: Vec<(String, String)>,
    /// What pods do not get because Knarr needs it; a sixteenth of memory by default, from 64Mi to 256Mi, and 1000 process ids.
    #[arg(long, value_delimiter = ',', value_parser = key_value)]
    kube_reserved: Option<Vec<(String, String)>>,
    /// Which processors are reserved, in the place of as many as --system-reserved and --kube-reserved say: 0-1,8.
    #[arg(long, value_name = "CPUS")]
    reserved_cpus: Option<CpuSet>,
    /// Who gets processors for itself: none, or static (containers of guaranteed pods that ask for whole ones).
    #[arg(long, value_name = "POLICY", default_value = "none")]
    cpu_manager_policy: cpus::Policy,
    /// How the policy static gives processors: full-pcpus-only=true (whole cores), strict-cpu-reservation=true (no container runs on reserved ones),
    /// distribute-cpus-across-numa=true (evenly where one NUMA node is not enough), prefer-align-cpus-by-uncorecache=true (from few caches).
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    cpu_manager_policy_options: Vec<cpus::options::Setting>,
    /// Who gets memory and huge pages of NUMA nodes for itself: None, or Static (containers of guaranteed pods).
    #[arg(long, value_name = "POLICY", default_value = "None")]
    memory_manager_policy: numa::Policy,
    /// Of which NUMA nodes comes the memory that pods do not get, for --memory-manager-policy Static: 0:memory=1Gi;1:memory=512Mi.
    #[arg(long, value_name = "AMOUNTS")]
    reserved_memory: Vec<Reservation>,
    /// Whether a container gets its processors, memory and devices from the same NUMA nodes: none, best-effort, restricted (pods are refused when
    /// that cannot be as well as it might) or single-numa-node.
    #[arg(long, value_name = "POLICY", default_value = "none")]
    topology_manager_policy: affinity::Policy,
    /// What is from the same NUMA nodes: container (each by itself) or pod.
    #[arg(long, value_name = "SCOPE", default_value = "container")]
    topology_manager_scope: affinity::Scope,
    /// How the policy chooses NUMA nodes: prefer-closest-numa-nodes=true (of sets that are as large the one whose nodes are closest).
    #[arg(long, value_delimiter = ',', value_name = "KEY=VALUE")]
    topology_manager_policy_options: Vec<affinity::options::Setting>,
    /// Below what pods are evicted at once; memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,
    /// imagefs.available<15%,imagefs.inodesFree<5%,pid.available<5% by default, where 1Gi of a disk is always enough.
    #[arg(long)]
    eviction_hard: Option<String>,
    /// Below what pods are evicted after a grace period.
    #[arg(long)]
    eviction_soft: Option<String>,
    /// That grace period: memory.available=1m30s.
    #[arg(long)]
    eviction_soft_grace_period: Option<String>,
    /// How much more than its threshold must be free before no more pods are evicted: nodefs.available=500Mi.
    #[arg(long)]
    eviction_minimum_reclaim: Option<String>,
    /// How long the node says that something is short after it was so last; 5m by default.
    #[arg(long, value_parser = duration)]
    eviction_pressure_transition_period: Option<Duration>,
    /// Seconds that a pod has at most to end when it is evicted for a soft threshold.
    #[arg(long, default_value_t = 0)]
    eviction_max_pod_grace_period: u64,
}

fn reserved(amounts: &[(String, String)]) -> Result<Reserved, ReservedError> {
    Reserved::parse(amounts.iter().map(|(name, amount)| (name.as_str(), amount.as_str())))
}

impl Pressure {
    /// What is reserved for the system.
    pub(crate) fn system_reserved(&self) -> Result<Reserved, ReservedError> {
        reserved(&self.system_reserved)
    }

    /// What is reserved for Knarr, where somebody says.
    pub(crate) fn kube_reserved(&self) -> Result<Option<Reserved>, ReservedError> {
        self.kube_reserved.as_deref().map(reserved).transpose()
    }

    /// Which processors are reserved, where somebody says.
    pub(crate) fn reserved_cpus(&self) -> Option<CpuSet> {
        self.reserved_cpus.clone().filter(|cpus| !cpus.is_empty())
    }

    /// Who gets processors for itself.
    pub(crate) fn cpu_manager(&self) -> cpus::Policy {
        self.cpu_manager_policy
    }

    /// How processors are given.
    pub(crate) fn cpu_options(&self) -> cpus::options::Options {
        cpus::options::Options::of(&self.cpu_manager_policy_options)
    }

    /// Who gets memory of NUMA nodes for itself.
    pub(crate) fn memory_manager(&self) -> numa::Policy {
        self.memory_manager_policy
    }

    /// Of which NUMA nodes comes the memory that pods do not get.
    pub(crate) fn reserved_memory(&self) -> Result<Reservation, ReservationError> {
        Reservation::all(&self.reserved_memory)
    }

    /// Whether containers get their parts from the same NUMA nodes.
    pub(crate) fn affinity(&self) -> Alignment {
        let options = affinity::options::Options::of(&self.topology_manager_policy_options);
        Alignment { policy: self.topology_manager_policy, scope: self.topology_manager_scope, options }
    }

    /// When pods are evicted.
    pub(crate) fn eviction(&self) -> Result<Settings, SettingsError> {
        let texts = Texts {
            hard: self.eviction_hard.as_deref(),
            soft: self.eviction_soft.as_deref(),
            soft_grace: self.eviction_soft_grace_period.as_deref(),
            minimum_reclaim: self.eviction_minimum_reclaim.as_deref(),
        };
        let most = Duration::from_secs(self.eviction_max_pod_grace_period);
        Settings::parse(&texts, self.eviction_pressure_transition_period, most)
    }
}

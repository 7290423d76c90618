//! A pod gets its processors, memory and devices before it is admitted, container by container.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

use tokio::sync::watch;

use super::{Mask, Misaligned, Nodes, Policy, Scope, Wishes, lists};
use crate::context::Context;
use crate::cpus::{pools::Refusal as PoolsRefusal, set::CpuSet};
use crate::devices::Reusable;
use crate::numa::{Amounts, blocks::Claim};
use crate::spec::{Member, Model, Role};

/// Why a pod does not get what it asks for.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Misaligned(#[from] Misaligned),
    #[error(transparent)]
    Cores(PoolsRefusal),
    #[error("Allocate failed due to {0}, which is unexpected")]
    Cpus(crate::cpus::Error),
    #[error("Allocate failed due to {0}, which is unexpected")]
    Memory(#[from] crate::numa::Error),
    #[error("Allocate failed due to {0}, which is unexpected")]
    Devices(#[from] crate::devices::AllocationError),
}

impl From<crate::cpus::Error> for Refused {
    fn from(error: crate::cpus::Error) -> Self {
        match error {
            crate::cpus::Error::Refused(refusal) if refusal.is_of_cores() => Self::Cores(refusal),
            error => Self::Cpus(error),
        }
    }
}

/// What init containers that end have had: those that come after them get it first.
#[derive(Default)]
struct PassedOn {
    cpus: CpuSet,
    devices: Reusable,
}

/// Gives a pod its processors, memory and devices; what it has already it keeps.
///
/// # Errors
/// Status reason and message of a pod that does not get them. Then it has nothing.
pub async fn admit(cx: &Context, model: &Model) -> Result<(), (String, String)> {
    if !cx.cpus.is_static() && !cx.memory.is_static() && cx.devices.are_unused() {
        return Ok(());
    }
    match give(cx, model).await {
        Ok(()) => Ok(()),
        Err(refused) => {
            cx.give_back(model.uid()).await;
            let reason = match &refused {
                Refused::Misaligned(_) => "TopologyAffinityError",
                Refused::Cores(_) => "SMTAlignmentError",
                Refused::Cpus(_) | Refused::Memory(_) | Refused::Devices(_) => "UnexpectedAdmissionError",
            };
            Err((reason.to_owned(), refused.to_string()))
        }
    }
}

async fn give(cx: &Context, model: &Model) -> Result<(), Refused> {
    let (mut passed, mut has_devices, mut has_cpus, mut has_memory) = (PassedOn::default(), false, false, false);
    let options = &cx.options.affinity;
    let distances = options.options.closest.then_some(&cx.machine.numa_distances);
    let nodes = Nodes { all: Mask::of(&cx.machine.numa_nodes), distances };
    let of_pod = match (options.policy, options.scope) {
        (Policy::None, _) | (_, Scope::Container) => None,
        (_, Scope::Pod) => Some(decide(cx, nodes, || of_pod(cx, model)).await?),
    };
    let is_strict = matches!(options.policy, Policy::Restricted | Policy::SingleNumaNode);
    for member in lasting_or_init(model) {
        let affinity = match of_pod {
            Some(affinity) => affinity,
            None if options.policy == Policy::None => None,
            None => decide(cx, nodes, || of_container(cx, model, member, &passed)).await?,
        };
        has_cpus |= cx.cpus.give(model, member, affinity, &passed.cpus).await?;
        let (amounts, init) = (cx.memory.wanted(model, member), init(model));
        has_memory |= cx.memory.give(&claim(model, Some(member), &amounts, &init), affinity, is_strict).await?;
        has_devices |= cx.devices.give(model, member, affinity, &passed.devices).await?;
        pass_on(cx, model, member, &mut passed);
    }
    if has_cpus {
        cx.cpus.settle(cx.runtime().as_ref()).await?;
    }
    if has_memory {
        cx.memory.settle().await?;
    }
    if has_devices {
        cx.devices.settle().await?;
    }
    Ok(())
}

/// The containers that something is given to: all but those for debugging.
fn lasting_or_init(model: &Model) -> impl Iterator<Item = &Member> {
    model.members.iter().filter(|member| member.role != Role::Ephemeral)
}

/// The pod's init containers that end.
fn init(model: &Model) -> Vec<&str> {
    model.members.iter().filter(|member| member.role == Role::Init).map(|member| member.spec.name.as_str()).collect()
}

/// What a container, or the whole pod, asks for of the memory of NUMA nodes.
fn claim<'a>(model: &'a Model, member: Option<&'a Member>, amounts: &'a Amounts, init: &'a [&'a str]) -> Claim<'a> {
    Claim { uid: model.uid(), container: member.map(|member| member.spec.name.as_str()), amounts, init }
}

/// What the policy says of wishes; as long as pods are on their way out that have something of their own, a refusal is none yet.
async fn decide(cx: &Context, nodes: Nodes<'_>, wishes: impl Fn() -> Wishes) -> Result<Option<Mask>, Misaligned> {
    loop {
        // Before the wishes: what is given back after them counts the next time.
        let leaving = [cx.cpus.leaving(), cx.memory.leaving(), cx.devices.leaving()];
        match cx.options.affinity.policy.decide(nodes, &lists(wishes())) {
            Err(_) if leaving.iter().any(Option::is_some) => {
                futures::future::select_all(leaving.into_iter().flatten().map(|released| Box::pin(given_back(released)))).await;
            }
            decided => return decided,
        }
    }
}

/// Waits until a pod has given back what it had.
async fn given_back(mut released: watch::Receiver<()>) {
    // An error would mean that this kubelet is no more.
    drop(released.changed().await);
}

/// What one container wishes for.
fn of_container(cx: &Context, model: &Model, member: &Member, passed: &PassedOn) -> Wishes {
    let mut wishes = cx.devices.wishes(
        model.uid(),
        &member.spec.name,
        cx.devices.wanted(model, member),
        &passed.devices,
        &cx.machine.numa_nodes,
    );
    let count = cx.cpus.wanted(model, member);
    wishes
        .extend(cx.cpus.hints(model.uid(), &member.spec.name, count, &passed.cpus).map(|hints| ("cpu".to_owned(), Some(hints))));
    let (amounts, init) = (cx.memory.wanted(model, member), init(model));
    let hints = cx.memory.hints(&claim(model, Some(member), &amounts, &init));
    wishes.extend(hints.into_iter().map(|(name, hints)| (name, Some(hints))));
    wishes
}

/// What all containers wish for together: as much as they have at a time.
fn of_pod(cx: &Context, model: &Model) -> Wishes {
    let wanted = at_a_time(model, |member| cx.devices.wanted(model, member)).into_iter().collect();
    // No container has this name: nothing is given yet.
    let mut wishes = cx.devices.wishes(model.uid(), "", wanted, &Reusable::new(), &cx.machine.numa_nodes);
    let cpus = at_a_time(model, |member| [((), cx.cpus.wanted(model, member))]);
    let hints = cx.cpus.hints(model.uid(), "", cpus.get(&()).copied().unwrap_or(0), &CpuSet::default());
    wishes.extend(hints.map(|hints| ("cpu".to_owned(), Some(hints))));
    let amounts = at_a_time(model, |member| cx.memory.wanted(model, member));
    let hints = cx.memory.hints(&claim(model, None, &amounts, &[]));
    wishes.extend(hints.into_iter().map(|(name, hints)| (name, Some(hints))));
    wishes
}

/// The most that a pod has of each resource at a time: an init container that ends has its own beside those of the sidecars before it.
fn at_a_time<K: Ord, N, W>(model: &Model, wanted: impl Fn(&Member) -> W) -> BTreeMap<K, N>
where
    N: Ord + Copy + Default + Add<Output = N>,
    W: IntoIterator<Item = (K, N)>,
{
    let mut all: BTreeMap<K, (N, N)> = BTreeMap::new();
    for member in lasting_or_init(model) {
        for (resource, amount) in wanted(member) {
            let (lasting, most) = all.entry(resource).or_default();
            match member.role {
                Role::Init => *most = (*most).max(amount + *lasting),
                _ => *lasting = *lasting + amount,
            }
        }
    }
    all.into_iter().map(|(resource, (lasting, most))| (resource, lasting.max(most))).collect()
}

/// What init containers that end have had is used again; what others have is theirs.
fn pass_on(cx: &Context, model: &Model, member: &Member, passed: &mut PassedOn) {
    let cpus = cx.cpus.exclusive(model.uid(), &member.spec.name).unwrap_or_default();
    passed.cpus = match member.role {
        Role::Init => passed.cpus.union(&cpus),
        _ => passed.cpus.difference(&cpus),
    };
    for (resource, held) in cx.devices.of_container(model.uid(), &member.spec.name) {
        let devices: &mut BTreeSet<String> = passed.devices.entry(resource).or_default();
        match member.role {
            Role::Init => devices.extend(held),
            _ => devices.retain(|id| !held.contains(id)),
        }
    }
}

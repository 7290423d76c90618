//! A pod gets its processors and devices before it is admitted, container by container.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::{Mask, Misaligned, Policy, Scope, Wishes, lists};
use crate::context::Context;
use crate::cpus::set::CpuSet;
use crate::devices::Reusable;
use crate::spec::{Member, Model, Role};

/// Why a pod does not get what it asks for.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Misaligned(#[from] Misaligned),
    #[error("Allocate failed due to {0}, which is unexpected")]
    Cpus(#[from] crate::cpus::Error),
    #[error("Allocate failed due to {0}, which is unexpected")]
    Devices(#[from] crate::devices::AllocationError),
}

/// What init containers that end have had: those that come after them get it first.
#[derive(Default)]
struct PassedOn {
    cpus: CpuSet,
    devices: Reusable,
}

/// Gives a pod its processors and devices; what it has already it keeps.
///
/// # Errors
/// Status reason and message of a pod that does not get them. Then it has nothing.
pub async fn admit(cx: &Context, model: &Model) -> Result<(), (String, String)> {
    if !cx.cpus.is_static() && cx.devices.are_unused() {
        return Ok(());
    }
    match give(cx, model).await {
        Ok(()) => Ok(()),
        Err(refused) => {
            cx.give_back(model.uid()).await;
            let reason = match &refused {
                Refused::Misaligned(_) => "TopologyAffinityError",
                Refused::Cpus(_) | Refused::Devices(_) => "UnexpectedAdmissionError",
            };
            Err((reason.to_owned(), refused.to_string()))
        }
    }
}

async fn give(cx: &Context, model: &Model) -> Result<(), Refused> {
    let (mut passed, mut has_devices, mut has_cpus) = (PassedOn::default(), false, false);
    let options = &cx.options.affinity;
    let nodes = Mask::of(&cx.machine.numa_nodes);
    let of_pod = match (options.policy, options.scope) {
        (Policy::None, _) | (_, Scope::Container) => None,
        (_, Scope::Pod) => Some(decide(cx, nodes, || of_pod(cx, model)).await?),
    };
    for member in model.members.iter().filter(|member| member.role != Role::Ephemeral) {
        let affinity = match of_pod {
            Some(affinity) => affinity,
            None if options.policy == Policy::None => None,
            None => decide(cx, nodes, || of_container(cx, model, member, &passed)).await?,
        };
        has_cpus |= cx.cpus.give(model, member, affinity, &passed.cpus).await?;
        has_devices |= cx.devices.give(model, member, affinity, &passed.devices).await?;
        pass_on(cx, model, member, &mut passed);
    }
    if has_cpus {
        cx.cpus.settle(cx.runtime().as_ref()).await?;
    }
    if has_devices {
        cx.devices.settle().await?;
    }
    Ok(())
}

/// What the policy says of wishes; as long as pods are on their way out that have something of their own, a refusal is none yet.
async fn decide(cx: &Context, nodes: Mask, wishes: impl Fn() -> Wishes) -> Result<Option<Mask>, Misaligned> {
    loop {
        // Before the wishes: what is given back after them counts the next time.
        let (cpus, devices) = (cx.cpus.leaving(), cx.devices.leaving());
        match cx.options.affinity.policy.decide(nodes, &lists(wishes())) {
            Err(_) if cpus.is_some() || devices.is_some() => {
                tokio::select! {
                    () = given_back(cpus) => {}
                    () = given_back(devices) => {}
                }
            }
            decided => return decided,
        }
    }
}

/// Waits until a pod has given back what it had; for ever when none will.
async fn given_back(released: Option<watch::Receiver<()>>) {
    match released {
        // An error would mean that this kubelet is no more.
        Some(mut released) => drop(released.changed().await),
        None => std::future::pending().await,
    }
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
    wishes
}

/// What all containers wish for together: as much as they have at a time.
fn of_pod(cx: &Context, model: &Model) -> Wishes {
    let mut devices: std::collections::BTreeMap<String, (usize, usize)> = Default::default();
    let (mut cpus, mut of_init) = (0, 0);
    for member in model.members.iter().filter(|member| member.role != Role::Ephemeral) {
        let count = cx.cpus.wanted(model, member);
        match member.role {
            Role::Init => of_init = of_init.max(count + cpus),
            _ => cpus += count,
        }
        for (resource, count) in cx.devices.wanted(model, member) {
            let (lasting, most) = devices.entry(resource).or_default();
            match member.role {
                Role::Init => *most = (*most).max(count + *lasting),
                _ => *lasting += count,
            }
        }
    }
    let wanted = devices.into_iter().map(|(resource, (lasting, most))| (resource, lasting.max(most))).collect();
    // No container has this name: nothing is given yet.
    let mut wishes = cx.devices.wishes(model.uid(), "", wanted, &Reusable::new(), &cx.machine.numa_nodes);
    let hints = cx.cpus.hints(model.uid(), "", cpus.max(of_init), &CpuSet::default());
    wishes.extend(hints.map(|hints| ("cpu".to_owned(), Some(hints))));
    wishes
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

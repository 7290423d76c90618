//! Who has memory of which NUMA nodes for itself. Pure.
//!
//! Only what containers have is kept; what the nodes have left follows from it. A node gives memory either to containers that need no other
//! node, or to those of one group of nodes: who fits into one node would otherwise find it filled by who does not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machine::Nodes;
use super::reservation::Reservation;
use super::{Amounts, MEMORY, STATIC};
use crate::affinity::{Hint, Mask, hints};
use crate::holdings::{self, Parts, Wait};

/// What of one resource a container has, in the fields of upstream's `memory_manager_state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// The NUMA nodes, of all of them together.
    pub numa_affinity: Vec<u32>,
    /// The resource.
    #[serde(rename = "type")]
    pub resource: String,
    /// Bytes.
    pub size: u64,
}

/// A resource of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    total: u64,
    system_reserved: u64,
    allocatable: u64,
    reserved: u64,
    free: u64,
}

/// A node, with what is given of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    number_of_assignments: u32,
    memory_map: BTreeMap<String, Table>,
    /// The node itself, or the group of nodes that it gives memory with.
    cells: Vec<u32>,
}

/// What containers have.
type Entries = holdings::Entries<Vec<Block>>;

/// What is written down, in the fields of upstream's `memory_manager_state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) policy_name: String,
    #[serde(default)]
    machine_state: BTreeMap<u32, Node>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: Entries,
}

/// Why what is written down cannot be gone on with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pod: {pod}, container: {container}: the NUMA nodes {nodes:?} do not have {size} of {resource} beside what others have of them"
)]
pub struct Stale {
    pod: String,
    container: String,
    nodes: Vec<u32>,
    resource: String,
    size: u64,
}

/// Why a container does not get its memory, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No nodes have as much.
    #[error("[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available")]
    NoNodes,
    /// Those that do are more than would be needed were all free.
    #[error("[memorymanager] failed to find the default preferred hint")]
    NotPreferred,
    /// The nodes of the other resources do not have as much, nor do they with others.
    #[error("[memorymanager] failed to find NUMA nodes to extend the current topology hint")]
    NotExtended,
    /// They do with others, and these are more than would be needed were all free.
    #[error("[memorymanager] failed to find the extended preferred hint")]
    ExtendedNotPreferred,
    /// Nodes of which one container uses one cannot be used by another together.
    #[error("[memorymanager] preferred hint violates NUMA node allocation")]
    Mixed,
    /// There will be as much when pods have ended that are on their way out.
    #[error("memory is not free before pods have ended that are on their way out")]
    Later,
}

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The pod.
    pub uid: &'a str,
    /// The container; none is the whole pod.
    pub container: Option<&'a str>,
    /// What it asks for.
    pub amounts: &'a Amounts,
    /// The pod's init containers that end: what they have is used again.
    pub init: &'a [&'a str],
}

/// The memory of the nodes.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// The nodes as they are before anything is given of them.
    machine: BTreeMap<u32, Node>,
    held: holdings::Held<Vec<Block>>,
}

impl Node {
    fn new(number: u32, amounts: &Amounts, reserved: &Reservation) -> Self {
        // What is set apart as huge pages is no other memory.
        let huge: u64 = amounts.iter().filter(|(name, _)| *name != MEMORY).map(|(_, bytes)| bytes).sum();
        let table = |(name, total): (&String, &u64)| {
            let system_reserved = reserved.of(number, name);
            let apart = if name == MEMORY { huge } else { 0 };
            let allocatable = total.saturating_sub(system_reserved).saturating_sub(apart);
            (name.clone(), Table { total: *total, system_reserved, allocatable, reserved: 0, free: allocatable })
        };
        Self { number_of_assignments: 0, memory_map: amounts.iter().map(table).collect(), cells: vec![number] }
    }

    fn table(&self, resource: &str) -> Table {
        self.memory_map.get(resource).copied().unwrap_or_default()
    }

    fn is_in_group(&self) -> bool {
        self.cells.len() > 1
    }
}

/// The nodes of a set, in order.
fn members(mask: Mask) -> Vec<u32> {
    (0..u64::BITS).filter(|node| mask.has(*node)).collect()
}

/// Takes a block from its nodes, first those with the lowest numbers; the bytes that they do not have.
fn place(nodes: &mut BTreeMap<u32, Node>, block: &Block) -> u64 {
    let mut missing = block.size;
    for number in &block.numa_affinity {
        let Some(node) = nodes.get_mut(number) else { continue };
        node.number_of_assignments += 1;
        node.cells.clone_from(&block.numa_affinity);
        let Some(table) = node.memory_map.get_mut(&block.resource) else { continue };
        let taken = table.free.min(missing);
        table.free -= taken;
        table.reserved += taken;
        missing -= taken;
    }
    missing
}

fn blocks_of<'a>(held: &'a Entries, uid: &str, container: &str) -> &'a [Block] {
    held.get(uid).and_then(|containers| containers.get(container)).map(Vec::as_slice).unwrap_or_default()
}

/// Bytes that init containers of a claim's pod have of these nodes.
fn reusable(held: &Entries, claim: &Claim<'_>, mask: Mask, resource: &str) -> u64 {
    let nodes = members(mask);
    let blocks = claim.init.iter().flat_map(|name| blocks_of(held, claim.uid, name));
    blocks.filter(|block| block.resource == resource && block.numa_affinity == nodes).map(|block| block.size).sum()
}

impl Blocks {
    /// A machine of which nothing is given.
    pub(super) fn new(nodes: &Nodes, reserved: &Reservation) -> Self {
        let node = |(number, amounts): (&u32, &Amounts)| (*number, Node::new(*number, amounts, reserved));
        Self { machine: nodes.iter().map(node).collect(), held: holdings::Held::default() }
    }

    /// Goes on with what was written down, if the machine still has it. Upstream also refuses when the machine has more than it had.
    pub(super) fn restore(&mut self, record: Record) -> Result<(), Stale> {
        let mut nodes = self.machine.clone();
        for (pod, containers) in &record.entries {
            for (container, block) in containers.iter().flat_map(|(name, blocks)| blocks.iter().map(move |block| (name, block))) {
                if !block.numa_affinity.iter().all(|node| nodes.contains_key(node)) || place(&mut nodes, block) > 0 {
                    return Err(Stale {
                        pod: pod.clone(),
                        container: container.clone(),
                        nodes: block.numa_affinity.clone(),
                        resource: block.resource.clone(),
                        size: block.size,
                    });
                }
            }
        }
        self.held = record.entries.into();
        Ok(())
    }

    /// The nodes without what is held of them.
    fn state(&self, held: &Entries) -> BTreeMap<u32, Node> {
        let mut nodes = self.machine.clone();
        for block in held.values().flat_map(BTreeMap::values).flatten() {
            place(&mut nodes, block);
        }
        nodes
    }

    /// What a container has for itself.
    pub(super) fn of(&self, uid: &str, container: &str) -> &[Block] {
        blocks_of(self.held.entries(), uid, container)
    }

    /// What containers can get, each node's by itself.
    pub(super) fn allocatable(&self) -> Vec<Block> {
        let of_node = |(number, node): (&u32, &Node)| {
            let some = node.memory_map.iter().filter(|(_, table)| table.allocatable > 0);
            let block = |(name, table): (&String, &Table)| Block {
                numa_affinity: vec![*number],
                resource: name.clone(),
                size: table.allocatable,
            };
            some.map(block).collect::<Vec<_>>()
        };
        self.machine.iter().flat_map(of_node).collect()
    }

    /// Where all of a claim could be had: the same for each of its resources.
    pub(super) fn hints(&self, claim: &Claim<'_>) -> Vec<Hint> {
        let known = match claim.container {
            Some(container) => self.of(claim.uid, container).first(),
            None => self.held.entries().get(claim.uid).and_then(|containers| containers.values().flatten().next()),
        };
        match known {
            Some(block) => {
                let mask = Mask::of(&block.numa_affinity.iter().copied().collect());
                vec![Hint { mask: Some(mask), preferred: true }]
            }
            None => self.possible(self.held.entries(), claim),
        }
    }

    fn possible(&self, held: &Entries, claim: &Claim<'_>) -> Vec<Hint> {
        let nodes = self.state(held);
        let has = |mask: Mask, amount: fn(&Table) -> u64, more: &dyn Fn(&str) -> u64| {
            claim.amounts.iter().all(|(resource, wanted)| {
                let of = members(mask).into_iter().filter_map(|node| nodes.get(&node)).map(|node| amount(&node.table(resource)));
                of.sum::<u64>() + more(resource) >= *wanted
            })
        };
        let total = |mask: Mask| usize::from(has(mask, |table| table.allocatable, &|_| 0));
        let free = |mask: Mask| {
            let may = is_usable(&nodes, mask) && has(mask, |table| table.free, &|name| reusable(held, claim, mask, name));
            Some(usize::from(may))
        };
        hints(&self.machine.keys().copied().collect(), 1, total, free)
    }

    /// The nodes that a claim gets its memory from.
    fn choose(&self, held: &Entries, claim: &Claim<'_>, affinity: Option<Mask>, is_strict: bool) -> Result<Mask, Refusal> {
        let here = Mask::of(&self.machine.keys().copied().collect());
        let possible = self.possible(held, claim);
        // Hints are in the order of the numbers of nodes: of equally good ones it is that of the lower nodes.
        let best = |within: Mask| {
            let around = possible.iter().filter_map(|hint| Some((hint.mask?, hint.preferred)));
            let around = around.filter(|(mask, _)| mask.0 & within.0 == within.0);
            around.min_by_key(|(mask, preferred)| (!preferred, mask.count()))
        };
        let Some(wanted) = affinity.map(|mask| Mask(mask.0 & here.0)).filter(|mask| mask.count() > 0) else {
            let (mask, preferred) = best(Mask(0)).ok_or(Refusal::NoNodes)?;
            return if is_strict && !preferred { Err(Refusal::NotPreferred) } else { Ok(mask) };
        };
        if possible.iter().any(|hint| hint.mask == Some(wanted)) {
            return Ok(wanted);
        }
        let (mask, preferred) = match best(wanted) {
            Some(found) => found,
            None if !is_usable(&self.state(held), wanted) => return Err(Refusal::Mixed),
            None => return Err(Refusal::NotExtended),
        };
        if is_strict && !preferred { Err(Refusal::ExtendedNotPreferred) } else { Ok(mask) }
    }

    /// Gives a container what it asks for, from the NUMA nodes of `affinity` if they have it. Whether that is news. `is_strict`: only nodes
    /// that are preferred will do.
    pub(super) fn give(&mut self, claim: &Claim<'_>, affinity: Option<Mask>, is_strict: bool) -> Result<bool, Refusal> {
        let container = claim.container.unwrap_or_default();
        if !self.of(claim.uid, container).is_empty() {
            return Ok(false);
        }
        let mask = self.choose(self.held.entries(), claim, affinity, is_strict).map_err(|refusal| {
            let later = self.held.staying();
            let waits = later.is_some_and(|later| self.choose(&later, claim, affinity, is_strict).is_ok());
            if waits { Refusal::Later } else { refusal }
        })?;
        let numa_affinity = members(mask);
        let block = |(resource, size): (&String, &u64)| Block {
            numa_affinity: numa_affinity.clone(),
            resource: resource.clone(),
            size: *size,
        };
        let blocks: Vec<Block> = claim.amounts.iter().map(block).collect();
        let containers = self.held.of_pod_mut(claim.uid);
        for block in &blocks {
            pass_on(containers, claim.init, block);
        }
        containers.insert(container.to_owned(), blocks);
        Ok(true)
    }
}

impl Parts for Blocks {
    type Part = Vec<Block>;
    type Record = Record;

    fn held(&mut self) -> &mut holdings::Held<Vec<Block>> {
        &mut self.held
    }

    fn record(&self) -> Record {
        let entries = self.held.entries();
        Record { policy_name: STATIC.to_owned(), machine_state: self.state(entries), entries: entries.clone() }
    }

    fn release(&mut self, uid: &str) -> bool {
        self.held.release(uid).is_some()
    }
}

impl Wait for Refusal {
    fn is_for_leaving(&self) -> bool {
        *self == Self::Later
    }
}

/// Whether nothing is given of these nodes in another way: of each by itself, or of another group.
fn is_usable(nodes: &BTreeMap<u32, Node>, mask: Mask) -> bool {
    let wanted = members(mask);
    wanted.iter().filter_map(|number| nodes.get(number)).all(|node| match wanted.len() {
        1 => !node.is_in_group(),
        _ => node.number_of_assignments == 0 || node.cells == wanted,
    })
}

/// What a container gets that init containers have had is no longer theirs.
fn pass_on(containers: &mut BTreeMap<String, Vec<Block>>, init: &[&str], block: &Block) {
    let mut size = block.size;
    for name in init {
        for old in containers.get_mut(*name).into_iter().flatten() {
            if old.resource == block.resource && old.numa_affinity == block.numa_affinity {
                let taken = old.size.min(size);
                old.size -= taken;
                size -= taken;
            }
        }
    }
}

#[cfg(test)]
mod tests;

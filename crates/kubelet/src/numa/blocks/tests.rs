use serde_json::json;

use super::*;

const GIB: u64 = 1 << 30;

/// Nodes of 4 GiB each with 1 GiB of huge pages, 1 GiB of the first reserved: 2 GiB are free of it, 3 GiB of each other.
fn machine(nodes: u32) -> Blocks {
    let node = || Amounts::from([(MEMORY.to_owned(), 4 * GIB), ("hugepages-1Gi".to_owned(), GIB)]);
    Blocks::new(&(0..nodes).map(|number| (number, node())).collect(), &"0:memory=1Gi".parse().unwrap())
}

fn gibs(memory: u64) -> Amounts {
    Amounts::from([(MEMORY.to_owned(), memory * GIB)])
}

fn claim<'a>(uid: &'a str, amounts: &'a Amounts) -> Claim<'a> {
    Claim { uid, container: Some("c"), amounts, init: &[] }
}

/// Gives so many GiB, and says from which nodes.
fn give(blocks: &mut Blocks, uid: &str, memory: u64, affinity: Option<u64>, is_strict: bool) -> Result<Vec<u32>, Refusal> {
    let amounts = gibs(memory);
    blocks.give(&claim(uid, &amounts), affinity.map(Mask), is_strict)?;
    Ok(blocks.of(uid, "c")[0].numa_affinity.clone())
}

fn shown(blocks: &Blocks, amounts: &Amounts) -> Vec<(u64, bool)> {
    let hints = blocks.hints(&claim("new", amounts)).into_iter();
    hints.map(|hint| (hint.mask.unwrap().0, hint.preferred)).collect()
}

/// Upstream's `calculateHints`: preferred is what needs as few nodes as the machine would allow.
#[test]
fn hints_say_where_as_much_is_free() {
    let mut blocks = machine(2);
    assert_eq!(shown(&blocks, &gibs(2)), [(1, true), (2, true), (3, false)]);
    assert_eq!(shown(&blocks, &gibs(3)), [(2, true), (3, false)]);
    assert_eq!(shown(&blocks, &gibs(5)), [(3, true)]);
    assert_eq!(shown(&blocks, &gibs(6)), []);
    // All of a container's resources are there, or none is.
    let huge = Amounts::from([(MEMORY.to_owned(), GIB), ("hugepages-1Gi".to_owned(), 2 * GIB)]);
    assert_eq!(shown(&blocks, &huge), [(3, true)]);
    assert_eq!(shown(&blocks, &Amounts::from([("hugepages-2Mi".to_owned(), 1)])), []);
    // What is used alone is not used together.
    give(&mut blocks, "a", 2, None, false).unwrap();
    assert_eq!(shown(&blocks, &gibs(2)), [(2, true)]);
    assert_eq!(shown(&blocks, &gibs(4)), []);
    // Who has memory wishes for what it has.
    assert_eq!(blocks.hints(&claim("a", &gibs(2))), [Hint { mask: Some(Mask(1)), preferred: true }]);
    let amounts = gibs(2);
    let whole = Claim { container: None, ..claim("a", &amounts) };
    assert_eq!(blocks.hints(&whole), [Hint { mask: Some(Mask(1)), preferred: true }]);
}

/// KEP-1769: "single-NUMA" and "multi-NUMA" allocations are not mixed on a node, and groups of nodes do not overlap.
#[test]
fn a_node_is_of_one_group() {
    let mut blocks = machine(4);
    assert_eq!(give(&mut blocks, "a", 5, None, false), Ok(vec![0, 1]));
    assert_eq!(shown(&blocks, &gibs(1)), [(4, true), (8, true), (12, false)]);
    assert_eq!(shown(&blocks, &gibs(4)), [(12, true)], "of the first group nothing is left");
    assert_eq!(give(&mut blocks, "b", 3, None, false), Ok(vec![2]));
    assert_eq!(shown(&blocks, &gibs(4)), []);
    assert_eq!(give(&mut blocks, "c", 4, None, false), Err(Refusal::NoNodes));
    blocks.held().leave("b");
    assert_eq!(give(&mut blocks, "c", 4, None, false), Err(Refusal::Later));
    assert!(blocks.release("b") && !blocks.release("b") && !blocks.held().has_leaving());
    assert_eq!(give(&mut blocks, "c", 4, None, false), Ok(vec![2, 3]));
    // Those of one group share it.
    assert_eq!(give(&mut blocks, "d", 2, None, false), Ok(vec![2, 3]));
    assert!(blocks.release("c"));
    assert_eq!(give(&mut blocks, "e", 2, None, false), Ok(vec![2, 3]), "the group lasts as long as somebody uses it");
    assert!(blocks.release("d") && blocks.release("e"));
    assert_eq!(give(&mut blocks, "f", 2, None, false), Ok(vec![2]));
}

/// Upstream's `Allocate` with a hint of the topology manager: taken as it is, extended to what suffices, or refused.
#[test]
fn the_nodes_of_the_other_resources_come_first() {
    let check = |before: &[(u64, u64)], memory, affinity, is_strict, expected: Result<&[u32], Refusal>| {
        let mut blocks = machine(4);
        for (index, (memory, mask)) in before.iter().enumerate() {
            give(&mut blocks, &index.to_string(), *memory, Some(*mask), false).unwrap();
        }
        assert_eq!(give(&mut blocks, "new", memory, Some(affinity), is_strict), expected.map(<[u32]>::to_vec));
    };
    check(&[], 1, 4, true, Ok(&[2]));
    check(&[], 1, 12, false, Ok(&[2, 3]));
    check(&[], 4, 4, true, Ok(&[0, 2]));
    check(&[(1, 1)], 4, 4, true, Ok(&[1, 2]));
    check(&[(3, 4)], 3, 4, false, Err(Refusal::NotExtended));
    // With what it would need of free nodes.
    check(&[(2, 1), (1, 2), (1, 8)], 3, 8, true, Err(Refusal::NotExtended));
    // The node is of a group: who comes to it uses the group.
    check(&[(4, 3)], 1, 1, false, Ok(&[0, 1]));
    check(&[(4, 3)], 1, 1, true, Err(Refusal::ExtendedNotPreferred));
    check(&[(1, 1)], 1, 3, false, Err(Refusal::Mixed));
    // Nodes without memory are no wish.
    check(&[], 1, 1 << 9, true, Ok(&[0]));
    check(&[(1, 1), (3, 2), (3, 4), (3, 8)], 2, 0, true, Err(Refusal::NoNodes));
}

#[test]
fn more_nodes_than_needed_are_not_taken_where_that_is_refused() {
    let mut blocks = machine(3);
    for (uid, node) in [("a", 2), ("b", 4)] {
        give(&mut blocks, uid, 1, Some(node), false).unwrap();
        assert!(blocks.release(uid));
    }
    // Only both nodes of the group have two, and any one would have had them.
    give(&mut blocks, "a", 4, Some(6), false).unwrap();
    give(&mut blocks, "b", 1, Some(1), false).unwrap();
    assert_eq!(give(&mut blocks, "c", 2, None, true), Err(Refusal::NotPreferred));
    assert_eq!(give(&mut blocks, "c", 2, None, false), Ok(vec![1, 2]));
}

/// Upstream's `updateInitContainersMemoryBlocks`: what init containers have had is used again, and counts once.
#[test]
fn memory_of_init_containers_is_used_again() {
    let mut blocks = machine(1);
    let held = |blocks: &Blocks, name: &str| blocks.of("a", name).first().map(|block| block.size / GIB);
    let mut next = |name: &str, memory: u64| {
        let (amounts, init) = (gibs(memory), ["first", "second"]);
        let claim = Claim { container: Some(name), init: &init, ..claim("a", &amounts) };
        let given = blocks.give(&claim, None, true);
        (given, [held(&blocks, "first"), held(&blocks, "second")])
    };
    assert_eq!(next("first", 1), (Ok(true), [Some(1), None]));
    assert_eq!(next("first", 1), (Ok(false), [Some(1), None]), "it has it already");
    assert_eq!(next("second", 2), (Ok(true), [Some(0), Some(2)]));
    assert_eq!(next("main", 1), (Ok(true), [Some(0), Some(1)]));
    assert_eq!(next("other", 2).0, Err(Refusal::NoNodes));
    assert_eq!(next("other", 1), (Ok(true), [Some(0), Some(0)]));
    let node = &blocks.state(blocks.held.entries())[&0];
    assert_eq!(node.table(MEMORY).free, 0);
    assert!(blocks.release("a"));
    assert_eq!(blocks.state(blocks.held.entries()), blocks.machine);
}

#[test]
fn the_file_is_upstreams() {
    let mut blocks = machine(1);
    give(&mut blocks, "a", 1, None, false).unwrap();
    let table = |total: u64, system_reserved: u64, reserved: u64, free: u64| {
        let allocatable = reserved + free;
        json!({"total": total * GIB, "systemReserved": system_reserved * GIB, "allocatable": allocatable * GIB,
            "reserved": reserved * GIB, "free": free * GIB})
    };
    let expected = json!({
        "policyName": "Static",
        "machineState": {"0": {
            "numberOfAssignments": 1,
            "memoryMap": {"memory": table(4, 1, 1, 1), "hugepages-1Gi": table(1, 0, 0, 1)},
            "cells": [0],
        }},
        "entries": {"a": {"c": [{"numaAffinity": [0], "type": "memory", "size": GIB}]}},
    });
    assert_eq!(serde_json::to_value(blocks.record()).unwrap(), expected);
    let mut again = machine(1);
    again.restore(serde_json::from_value(expected).unwrap()).unwrap();
    assert_eq!(again.of("a", "c"), blocks.of("a", "c"));
}

#[test]
fn what_is_written_down_must_fit_the_machine() {
    let check = |blocks: &[(u32, &str, u64)], expected: Option<&str>| {
        let block =
            |(node, resource, size): &(u32, &str, u64)| json!([{"numaAffinity": [node], "type": resource, "size": size * GIB}]);
        let entries: serde_json::Map<_, _> =
            blocks.iter().enumerate().map(|(index, entry)| (index.to_string(), json!({"c": block(entry)}))).collect();
        let record = serde_json::from_value(json!({"policyName": "Static", "entries": entries})).unwrap();
        assert_eq!(machine(2).restore(record).err().map(|error| error.to_string()).as_deref(), expected);
    };
    check(&[(0, "memory", 2), (1, "memory", 1), (1, "memory", 2)], None);
    let few = "pod: 1, container: c: the NUMA nodes [0] do not have 2147483648 of memory beside what others have of them";
    check(&[(0, "memory", 1), (0, "memory", 2)], Some(few));
    let gone = "pod: 0, container: c: the NUMA nodes [2] do not have 1073741824 of memory beside what others have of them";
    check(&[(2, "memory", 1)], Some(gone));
    let pages =
        "pod: 0, container: c: the NUMA nodes [0] do not have 1073741824 of hugepages-2Mi beside what others have of them";
    check(&[(0, "hugepages-2Mi", 1)], Some(pages));
}

#[test]
fn what_can_be_had_is_told_of_each_node() {
    let told: Vec<_> =
        machine(2).allocatable().into_iter().map(|block| (block.numa_affinity, block.resource, block.size / GIB)).collect();
    let of = |node, name: &str, gibs| (vec![node], name.to_owned(), gibs);
    let expected = [of(0, "hugepages-1Gi", 1), of(0, MEMORY, 2), of(1, "hugepages-1Gi", 1), of(1, MEMORY, 3)];
    assert_eq!(told, expected);
}

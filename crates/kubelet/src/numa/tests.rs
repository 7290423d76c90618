use std::path::Path;

use super::*;
use crate::pod::testing::model;
use serde_json::{Value, json};

const GIB: u64 = 1 << 30;

/// A machine of two nodes of 4 GiB, of which pods do not get 1 GiB of the first.
fn of_machine(directory: &Path) -> Result<Memory, String> {
    let node = || Amounts::from([(MEMORY.to_owned(), 4 * GIB)]);
    let reserved = "0:memory=1Gi".parse().unwrap();
    Memory::with(Nodes::from([(0, node()), (1, node())]), directory, &reserved, 1 << 30).map_err(|error| error.to_string())
}

/// KEP-1769: memory and huge pages are guaranteed "for pods in the Guaranteed QoS class"; pods with figures of their own are left out.
#[test]
fn memory_of_guaranteed_pods_is_exclusive() {
    let directory = tempfile::tempdir().unwrap();
    let memory = of_machine(directory.path()).unwrap();
    let check = |amounts: Value, extra: Value, expected: &[(&str, u64)]| {
        let mut spec = json!({"containers": [{"name": "c", "resources": {"requests": amounts, "limits": amounts}}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let model = model(spec);
        let expected: Amounts = expected.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        assert_eq!(memory.wanted(&model, &model.members[0]), expected, "{amounts}");
        assert_eq!(Memory::default().wanted(&model, &model.members[0]), Amounts::new());
    };
    check(json!({"cpu": "100m", "memory": "1Gi"}), json!({}), &[("memory", GIB)]);
    let huge = json!({"cpu": "100m", "memory": "1Gi", "hugepages-2Mi": "4Mi", "hugepages-1Gi": "0"});
    check(huge, json!({}), &[("memory", GIB), ("hugepages-2Mi", 4 << 20)]);
    check(json!({"memory": "1Gi"}), json!({}), &[]);
    check(json!({"cpu": "1", "memory": "1Gi"}), json!({"resources": {"limits": {"cpu": "2"}}}), &[]);
}

#[tokio::test]
async fn what_is_given_is_known_to_the_next_kubelet() {
    let directory = tempfile::tempdir().unwrap();
    let amounts = Amounts::from([(MEMORY.to_owned(), 4 * GIB)]);
    let claim = |uid| Claim { uid, container: Some("c"), amounts: &amounts, init: &[] };
    let memory = of_machine(directory.path()).unwrap();
    assert!(memory.give(&claim("a"), None, false).await.unwrap());
    memory.settle().await.unwrap();
    assert_eq!((memory.nodes_of("a", "c").as_deref(), memory.nodes_of("b", "c")), (Some("1"), None));

    let again = of_machine(directory.path()).unwrap();
    assert_eq!(again.nodes_of("a", "c").as_deref(), Some("1"));
    let refused = again.give(&claim("b"), None, false).await.unwrap_err().to_string();
    assert_eq!(refused, "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available");
    assert_eq!(again.hints(&claim("b")), [], "what it is refused for is said when it asks");

    let reserved = Reservation::default();
    let refused = Memory::open(Policy::None, directory.path(), &reserved, 0).err().unwrap().to_string();
    let file = directory.path().join(FILE);
    let differs = "the policy \"None\" differs from \"Static\", by which memory was given";
    assert_eq!(refused, format!("{differs}: drain the node and remove {}", file.display()));

    // Who comes while memory is on its way back waits for it.
    again.leave("a");
    let heir = claim("b");
    let (given, ()) = tokio::join!(again.give(&heir, None, false), again.release("a"));
    assert!(given.unwrap());
    assert_eq!(again.pods(), ["b"]);
    std::fs::write(&file, "{").unwrap();
    assert!(of_machine(directory.path()).is_err());
}

#[test]
fn a_machine_with_too_many_nodes_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let nodes: Nodes = (0..9).map(|node| (node, Amounts::from([(MEMORY.to_owned(), GIB)]))).collect();
    let refused = Memory::with(nodes, directory.path(), &"0:memory=1Gi".parse().unwrap(), 1 << 30).err().unwrap();
    assert_eq!(refused.to_string(), "this machine has 9 NUMA nodes, and no more than 8 are supported");
}

#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

const ADDED: &str = "2026-01-01T00:00:00Z";

fn slice(name: &str, generation: i64, taints: Value) -> ResourceSlice {
    slice_of("n", name, generation, taints)
}

fn slice_of(node: &str, name: &str, generation: i64, taints: Value) -> ResourceSlice {
    object(json!({"metadata": {"name": name}, "spec": {"driver": "d", "nodeName": node,
        "pool": {"name": "p", "generation": generation, "resourceSliceCount": 1},
        "devices": [{"name": "x", "taints": taints}, {"name": "y"}]}}))
}

fn of_zone(zone: &str, name: &str, generation: i64, taints: Value) -> ResourceSlice {
    let mut slice = slice(name, generation, taints);
    let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
    slice.spec.node_name = None;
    slice.spec.node_selector = Some(serde_json::from_value(json!({"nodeSelectorTerms": [term]})).unwrap());
    slice
}

fn taint(effect: &str) -> Value {
    json!([{"key": "k", "value": "v", "effect": effect, "timeAdded": ADDED}])
}

fn claim(device: &str, tolerations: Value) -> ResourceClaim {
    let result = json!({"request": "r", "driver": "d", "pool": "p", "device": device, "tolerations": tolerations});
    let status = json!({"allocation": {"devices": {"results": [result]}}, "reservedFor": [claims::consumer("p", "u")]});
    object(json!({"metadata": {"namespace": "a", "name": "c", "uid": "c"}, "spec": {}, "status": status}))
}

/// KEP-5055: "NoExecute: ... evict any already-running pods that do not tolerate the device taint"; `tolerationSeconds` "represents the period of
/// time the toleration tolerates the taint. By default, it is not set, which means tolerate the taint forever".
#[test]
fn claims_are_evicted_when_tolerations_end() {
    let check = |device: &str, slices: &[ResourceSlice], tolerations: Value, expected: Option<i64>| {
        let slices: Vec<_> = slices.iter().cloned().map(Arc::new).collect();
        let labels = Some([("zone".to_owned(), "z".to_owned())].into());
        let slices = slices::on_node(&slices, Place { name: "n", labels: &labels });
        let due = plan::eviction(&claim(device, tolerations.clone()), &HashMap::from([("d/p".to_owned(), slices)]));
        let added: Timestamp = ADDED.parse().unwrap();
        assert_eq!(due.map(|due| due.duration_since(added).as_secs()), expected, "{device} {tolerations}");
    };
    let tainted = |effect: &str| [slice("s", 1, taint(effect))];
    let tolerates =
        |seconds: Value| json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
    check("x", &tainted("NoExecute"), json!([]), Some(0));
    check("y", &tainted("NoExecute"), json!([]), None);
    check("x", &tainted("NoSchedule"), json!([]), None);
    check("x", &tainted("NoExecute"), json!([tolerates(json!(null))]), None);
    check("x", &tainted("NoExecute"), json!([tolerates(json!(300))]), Some(300));
    check("x", &tainted("NoExecute"), json!([tolerates(json!(300)), tolerates(json!(60))]), Some(60));
    check("x", &tainted("NoExecute"), json!([tolerates(json!(-5))]), Some(0));
    check("x", &tainted("NoExecute"), json!([{"operator": "Exists"}]), None);
    check("x", &tainted("NoExecute"), json!([{"key": "k", "operator": "Equal", "value": "w", "effect": "NoExecute"}]), Some(0));
    // A later generation has replaced the slice that had the taint.
    check("x", &[slice("s", 1, taint("NoExecute")), slice("t", 2, json!([]))], json!([]), None);
    // What another node publishes under the pool's name neither evicts nor keeps from it.
    check("x", &[slice("s", 1, json!([])), slice_of("m", "t", 2, taint("NoExecute"))], json!([]), None);
    check("x", &[slice("s", 1, taint("NoExecute")), slice_of("m", "t", 2, json!([]))], json!([]), Some(0));
    // As little does what is published for the nodes of another zone.
    check("x", &[slice("s", 1, json!([])), of_zone("y", "t", 2, taint("NoExecute"))], json!([]), None);
    check("x", &[slice("s", 1, taint("NoExecute")), of_zone("y", "t", 2, json!([]))], json!([]), Some(0));
    check("x", &[slice("s", 1, json!([])), of_zone("z", "t", 2, taint("NoExecute"))], json!([]), Some(0));
}

fn pod(world: &World) {
    pod_of(world, "p", "n", "c");
}

fn pod_of(world: &World, name: &str, node: &str, claim: &str) {
    world.fake.put::<Pod>(&object(json!({"metadata": {"namespace": "a", "name": name, "uid": "u"},
        "spec": {"nodeName": node, "containers": [], "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}]}})));
}

/// A pod that has to go, of another pool. Until it has, the pod that was there before is looked at, too.
async fn until_another_has_gone(world: &World) {
    let mut other = claim("x", json!([]));
    (other.metadata.name, other.metadata.uid) = (Some("other".to_owned()), Some("other".to_owned()));
    let status = other.status.get_or_insert_default();
    status.reserved_for = Some(vec![claims::consumer("z", "u")]);
    let results = status.allocation.as_mut().unwrap().devices.as_mut().unwrap().results.as_mut().unwrap();
    results[0].pool = "other".to_owned();
    world.fake.put(&other);
    let mut slice = slice_of("m", "other", 1, taint("NoExecute"));
    slice.spec.pool.name = "other".to_owned();
    world.fake.put(&slice);
    pod_of(world, "z", "m", "other");
    let name = |pod: &Pod| pod.metadata.name.clone();
    world.fake.until::<Pod>(|pods| !pods.iter().any(|pod| name(pod).as_deref() == Some("z"))).await;
    assert_eq!(world.fake.all::<Pod>().iter().map(name).collect::<Vec<_>>(), [Some("p".to_owned())]);
}

async fn event(world: &World, text: &str) {
    let told = |event: &k8s_openapi::api::core::v1::Event| {
        event.message.as_deref() == Some(text) && event.reason.as_deref() == Some(EVENT)
    };
    world.fake.until::<k8s_openapi::api::core::v1::Event>(|events| events.iter().any(told)).await;
}

/// KEP-5055: an eviction that is due later is cancelled, which an event tells, when the taint goes before.
#[tokio::test]
async fn what_is_due_later_is_cancelled() {
    let world = World::new();
    pod(&world);
    let long = json!([{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1_000_000_000}]);
    world.fake.put::<ResourceClaim>(&claim("x", long));
    world.fake.put::<ResourceSlice>(&slice("s", 1, taint("NoExecute")));
    let options = world.options();
    let controller = DeviceTaints::new(&options.informers);
    controller.pods.synced().await;
    controller.claims.synced().await;
    controller.slices.synced().await;
    let client = world.fake.client();
    let events = client::events::Recorder::new(client.clone(), "test", "", &world.tasks);
    let (cx, key) = (Cx { client, events, clock: world.clock.clone() }, Key::namespaced("a", "p"));
    assert_eq!(controller.reconcile(&cx, &key).await.unwrap(), Action::Done);
    controller.tainted.0.lock().insert("d/p".to_owned(), 1);
    assert!(matches!(controller.reconcile(&cx, &key).await.unwrap(), Action::After(_)));
    controller.tainted.0.lock().clear();
    assert_eq!(controller.reconcile(&cx, &key).await.unwrap(), Action::Done);
    event(&world, "Cancelling deletion").await;
    assert_eq!(world.fake.all::<Pod>().len(), 1);
}

/// KEP-5055: a device's taint with the effect NoExecute evicts the pods that use it.
#[tokio::test]
async fn pods_go_from_tainted_devices() {
    let world = World::new();
    pod(&world);
    world.fake.put::<ResourceClaim>(&claim("x", json!([])));
    world.fake.put::<ResourceSlice>(&slice("s", 1, json!([])));
    world.start(&["device-taint-eviction"]);
    world.readiness.wait(&["controllers"]).await;
    until_another_has_gone(&world).await;
    world.fake.put::<ResourceSlice>(&slice("s", 1, taint("NoExecute")));
    world.fake.until::<Pod>(<[_]>::is_empty).await;
    event(&world, "Marking for deletion").await;
}

/// For which nodes a slice is may follow from their labels: a node that comes to have them has the slice's taints.
#[tokio::test]
async fn pods_go_when_a_tainted_slice_comes_to_be_for_their_node() {
    let world = World::new();
    pod(&world);
    let node = |zone: &str| object::<Node>(json!({"metadata": {"name": "n", "labels": {"zone": zone}}}));
    world.fake.put::<Node>(&node("y"));
    world.fake.put::<ResourceClaim>(&claim("x", json!([])));
    world.fake.put::<ResourceSlice>(&of_zone("z", "s", 1, taint("NoExecute")));
    world.start(&["device-taint-eviction"]);
    world.readiness.wait(&["controllers"]).await;
    until_another_has_gone(&world).await;
    world.fake.put::<Node>(&node("z"));
    world.fake.until::<Pod>(<[_]>::is_empty).await;
}

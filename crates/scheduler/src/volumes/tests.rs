#![allow(clippy::unwrap_used)]

use base::tasks::Tasks;
use client::fake::Fake;
use serde_json::{Value, json};

use super::*;
use crate::attempt::Attempt;
use crate::cluster::Cluster;
use crate::cycle::Chooser;
use crate::framework::{Plugin, Verdict};
use crate::plugins::limits::NodeVolumeLimits;
use crate::testing::{node, pod};

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn claim(name: &str, annotations: Value, class: &str, volume: &str, status: &str) -> PersistentVolumeClaim {
    let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": class, "volumeName": volume,
        "resources": {"requests": {"storage": "1Gi"}}});
    object(
        json!({"metadata": {"namespace": "a", "name": name, "uid": name, "annotations": annotations}, "spec": spec, "status": {"phase": status}}),
    )
}

fn exclusive(mut claim: PersistentVolumeClaim) -> PersistentVolumeClaim {
    claim.spec.as_mut().unwrap().access_modes = Some(vec!["ReadWriteOncePod".to_owned()]);
    claim
}

/// A volume that is on one node.
fn volume(name: &str, node: &str, claim: Option<&str>, phase: &str) -> PersistentVolume {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
    let reference = claim.map(|claim| json!({"namespace": "a", "name": claim, "uid": claim}));
    object(json!({"metadata": {"name": name}, "status": {"phase": phase}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "hand", "claimRef": reference,
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}))
}

fn class(name: &str, provisioner: &str, mode: &str) -> StorageClass {
    object(json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode}))
}

/// Two nodes, n and m, and what there is of storage.
async fn cluster() -> (Cluster, Tasks) {
    let fake = Fake::default();
    let bound = || json!({rules::BIND_COMPLETED: "yes"});
    for one in [
        claim("bound", bound(), "hand", "used", "Bound"),
        claim("astray", bound(), "hand", "gone", "Bound"),
        claim("lost", bound(), "hand", "gone", "Lost"),
        exclusive(claim("single", bound(), "hand", "used", "Bound")),
        claim("now", json!({}), "now", "", "Pending"),
        claim("hand", json!({}), "hand", "", "Pending"),
        claim("second", json!({}), "hand", "", "Pending"),
        claim("later", json!({}), "later", "", "Pending"),
        claim("chosen", json!({rules::SELECTED_NODE: "m"}), "later", "", "Pending"),
    ] {
        fake.put(&one);
    }
    fake.put(&volume("used", "n", Some("bound"), "Bound"));
    fake.put(&volume("free", "m", None, "Available"));
    fake.put(&class("now", "p", "Immediate"));
    for name in ["first", "other"] {
        fake.put(&claim(name, bound(), "hand", name, "Bound"));
        fake.put::<PersistentVolume>(&object(json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "a", "name": name, "uid": name}, "csi": {"driver": "p", "volumeHandle": name}}})));
    }
    for (name, zone) in [("zoned", "b__c"), ("far", "d")] {
        fake.put(&claim(name, bound(), "hand", name, "Bound"));
        let meta = json!({"name": name, "labels": {"topology.kubernetes.io/zone": zone}});
        fake.put::<PersistentVolume>(&object(json!({"metadata": meta, "spec": {"capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "a", "name": name, "uid": name}}})));
    }
    let one = json!([{"name": "p", "nodeID": "n", "allocatable": {"count": 1}}]);
    for name in ["n", "o"] {
        fake.put::<CSINode>(&object(json!({"metadata": {"name": name}, "spec": {"drivers": one}})));
    }
    fake.put::<CSINode>(&object(json!({"metadata": {"name": "m"}, "spec": {"drivers": [{"name": "p", "nodeID": "m"}]}})));
    for (name, driver, volume, node) in
        [("a", "p", "first", "m"), ("b", "p", "gone", "m"), ("c", "p", "other", "o"), ("d", "q", "first", "o")]
    {
        let spec = json!({"attacher": driver, "nodeName": node, "source": {"persistentVolumeName": volume}});
        fake.put::<VolumeAttachment>(&object(json!({"metadata": {"name": name}, "spec": spec})));
    }
    fake.put(&class("hand", rules::NO_PROVISIONER, "WaitForFirstConsumer"));
    fake.put(&class("later", "p", "WaitForFirstConsumer"));
    let (tasks, _failures) = Tasks::root();
    let informers = Informers::new(fake.client(), tasks.clone());
    let volumes = Volumes::new(&informers);
    volumes.claims.synced().await;
    volumes.volumes.synced().await;
    volumes.classes.synced().await;
    volumes.nodes.synced().await;
    informers.of::<VolumeAttachment>().synced().await;
    let mut cluster = Cluster::default();
    cluster.set_node(&node("n", json!({})));
    cluster.set_node(&node("m", json!({})));
    cluster.volumes = volumes;
    (cluster, tasks)
}

fn at<'a>(cluster: &'a Cluster, node: &str) -> Place<'a> {
    let node = cluster.node(node).unwrap();
    Place { name: &node.name, labels: &node.labels }
}

fn using(claims: &[&str]) -> PodInfo {
    let source = |claim: &&str| match claim.strip_prefix("own:") {
        Some(volume) => json!({"name": volume, "ephemeral": {}}),
        None => json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}}),
    };
    let volumes: Vec<Value> = claims.iter().map(source).collect();
    PodInfo::new(Arc::new(pod("p", json!({"volumes": volumes}))))
}

#[tokio::test]
async fn nodes_for_pods_with_claims() {
    let (mut cluster, _tasks) = cluster().await;
    let mut check = |claims: &[&str], expected: &str| {
        let chosen = Chooser::default().choose(&using(claims), &mut cluster, &Attempt::default());
        let chosen = chosen.unwrap_or_else(|error| error.to_string());
        assert_eq!(chosen, expected, "{claims:?}");
    };
    check(&["bound"], "n");
    check(&["hand"], "m");
    check(&["chosen"], "m");
    check(
        &["bound", "hand"],
        "0/2 nodes are available: 1 node(s) didn't find available persistent volumes to bind, 1 node(s) didn't match PersistentVolume's node affinity.",
    );
    check(&["astray"], "0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).");
    check(&["now", "bound"], "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.");
    check(&["none"], "0/2 nodes are available: persistentvolumeclaim \"none\" not found.");
    check(&["lost"], "0/2 nodes are available: persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"gone\".");
    let waits = "0/2 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\".";
    check(&["own:v"], waits);
}

#[tokio::test]
async fn a_claim_for_one_pod() {
    let (mut cluster, _tasks) = cluster().await;
    let choose = |cluster: &mut Cluster| {
        let chosen = Chooser::default().choose(&using(&["single"]), cluster, &Attempt::default());
        chosen.unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(choose(&mut cluster), "n");
    let mut other = pod("other", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "single"}}]}));
    cluster.place(Arc::new(PodInfo::new(Arc::new(other.clone()))), "n");
    let text = "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
    assert_eq!(choose(&mut cluster), text);
    cluster.remove_pod("other");
    other.metadata.namespace = Some("b".to_owned());
    cluster.place(Arc::new(PodInfo::new(Arc::new(other))), "n");
    assert_eq!(choose(&mut cluster), "n");
}

/// KEP-554: "the number of volumes attached to a node" stays within what its CSINode object says.
#[tokio::test]
async fn volumes_that_a_node_can_have() {
    let (mut cluster, _tasks) = cluster().await;
    let other = pod("other", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "other"}}]}));
    cluster.place(Arc::new(PodInfo::new(Arc::new(other))), "n");
    let check = |claims: &[&str], node: &str, expected: Verdict| {
        let (pod, attempt) = (using(claims), Attempt::default());
        let filter = NodeVolumeLimits.filter(&pod, &cluster, &attempt);
        let verdict = filter.map_or(Verdict::Fits, |filter| filter.check(cluster.node(node).unwrap(), &mut Vec::new()));
        assert_eq!(verdict, expected, "{claims:?} on {node}");
    };
    check(&["first"], "n", Verdict::Occupied);
    check(&["later"], "n", Verdict::Occupied);
    check(&["first"], "m", Verdict::Fits);
    check(&["other"], "n", Verdict::Fits);
    check(&["bound"], "n", Verdict::Fits);
    cluster.remove_pod("other");
    let check = |claims: &[&str], expected: Verdict| {
        let (pod, attempt) = (using(claims), Attempt::default());
        let filter = NodeVolumeLimits.filter(&pod, &cluster, &attempt).unwrap();
        assert_eq!(filter.check(cluster.node("n").unwrap(), &mut Vec::new()), expected, "{claims:?}");
    };
    check(&["first"], Verdict::Fits);
    check(&["first", "other"], Verdict::Occupied);
}

/// Upstream, csi.go, getNodeVolumeAttachmentInfo: what is attached still counts, whether a pod there uses it or not, and once.
#[tokio::test]
async fn volumes_that_are_attached_still() {
    let (mut cluster, _tasks) = cluster().await;
    cluster.set_node(&node("o", json!({})));
    let check = |cluster: &Cluster, claims: &[&str], expected: Verdict| {
        let (pod, attempt) = (using(claims), Attempt::default());
        let filter = NodeVolumeLimits.filter(&pod, cluster, &attempt).unwrap();
        assert_eq!(filter.check(cluster.node("o").unwrap(), &mut Vec::new()), expected, "{claims:?}");
    };
    check(&cluster, &["first"], Verdict::Occupied);
    check(&cluster, &["later"], Verdict::Occupied);
    check(&cluster, &["other"], Verdict::Fits);
    let other = pod("other", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "other"}}]}));
    cluster.place(Arc::new(PodInfo::new(Arc::new(other))), "o");
    check(&cluster, &["first"], Verdict::Occupied);
    check(&cluster, &["other"], Verdict::Fits);
}

/// For each node only the drivers are looked at that serve the pod's own volumes.
#[tokio::test]
async fn other_drivers_volumes_are_left_out() {
    let (cluster, _tasks) = cluster().await;
    let volumes = &cluster.volumes;
    let of = |driver: &str| volumes.attached_to("o", |other| other == driver).collect::<Vec<_>>();
    assert_eq!(of("p"), [("p".to_owned(), "other".to_owned())]);
    // The volume is p's; who has attached it is another one.
    assert_eq!(of("q"), [("q".to_owned(), "first".to_owned())]);
    assert_eq!(of("r"), []);
    for (claim, volume) in [("first", "first"), ("later", "a/later")] {
        let driver = |name: &str| volumes.of_driver("a", claim, |driver| driver == name);
        assert_eq!((driver("p"), driver("q")), (Some(("p".to_owned(), volume.to_owned())), None), "{claim}");
    }
}

#[tokio::test]
async fn what_is_done_before_the_pod_is_bound() {
    let (cluster, _tasks) = cluster().await;
    let check = |claims: &[&str], node: &str, expected: Result<&str, &'static str>| {
        let found = cluster.volumes.claims_of(&using(claims)).unwrap_or_default();
        let steps = cluster.volumes.steps(&found, at(&cluster, node));
        let shown = steps.map(|steps| {
            let name = |claim: &PersistentVolumeClaim| claim.metadata.name.clone().unwrap();
            let show = |step: &Step| match step {
                Step::Take(volume, claim) => format!("{} takes {}", name(claim), volume.metadata.name.clone().unwrap()),
                Step::Provision(claim) => format!("{} is provisioned", name(claim)),
            };
            steps.iter().map(show).collect::<Vec<_>>().join(", ")
        });
        assert_eq!(shown.as_deref().map_err(|error| *error), expected, "{claims:?} on {node}");
    };
    check(&["bound"], "n", Ok(""));
    check(&["later"], "n", Ok("later is provisioned"));
    check(&["hand", "later"], "m", Ok("hand takes free, later is provisioned"));
    check(&["hand"], "n", Err(BIND_CONFLICT));
    check(&["chosen"], "n", Err(BIND_CONFLICT));
    check(&["bound"], "m", Err(NODE_CONFLICT));
    // One volume is not for two.
    check(&["hand", "second"], "m", Err(BIND_CONFLICT));
    check(&["hand", "hand"], "m", Ok("hand takes free"));
}

/// Two nodes, n and m, and what a driver says of the room for volumes of the class "later".
async fn with_capacities(driver: Value, capacities: &[Value]) -> (Cluster, Tasks) {
    let fake = Fake::default();
    fake.put(&claim("later", json!({}), "later", "", "Pending"));
    fake.put(&claim("chosen", json!({rules::SELECTED_NODE: "m"}), "later", "", "Pending"));
    fake.put(&class("later", "p", "WaitForFirstConsumer"));
    fake.put::<CSIDriver>(&object(json!({"metadata": {"name": "p"}, "spec": driver})));
    for (index, capacity) in capacities.iter().enumerate() {
        let mut capacity = capacity.clone();
        capacity["metadata"] = json!({"namespace": "drivers", "name": format!("c{index}")});
        fake.put::<CSIStorageCapacity>(&object(capacity));
    }
    let (tasks, _failures) = Tasks::root();
    let informers = Informers::new(fake.client(), tasks.clone());
    let volumes = Volumes::new(&informers);
    informers.of::<PersistentVolumeClaim>().synced().await;
    informers.of::<StorageClass>().synced().await;
    informers.of::<CSIDriver>().synced().await;
    informers.of::<CSIStorageCapacity>().synced().await;
    let mut cluster = Cluster::default();
    cluster.set_node(&node("n", json!({})));
    cluster.set_node(&node("m", json!({})));
    cluster.volumes = volumes;
    (cluster, tasks)
}

/// KEP-1472 and Kubernetes documentation, "Storage Capacity": "the scheduler will only consider nodes for the Pod which have enough storage
/// available to them".
#[tokio::test]
async fn new_volumes_need_room() {
    let check = async |driver: Value, capacities: &[Value], claim: &str, expected: &str| {
        let (mut cluster, _tasks) = with_capacities(driver, capacities).await;
        let chosen = Chooser::default().choose(&using(&[claim]), &mut cluster, &Attempt::default());
        assert_eq!(chosen.unwrap_or_else(|error| error.to_string()), expected, "{claim}: {capacities:?}");
    };
    let tells = || json!({"storageCapacity": true});
    let on = |node: &str| json!({"matchLabels": {"kubernetes.io/hostname": node}});
    let capacity = |node: &str, class: &str, capacity: &str, largest: Value| json!({"nodeTopology": on(node), "storageClassName": class, "capacity": capacity, "maximumVolumeSize": largest});
    let none = "0/2 nodes are available: 2 node(s) did not have enough free storage.";
    check(tells(), &[], "later", none).await;
    check(tells(), &[capacity("m", "later", "1Gi", Value::Null)], "later", "m").await;
    let small = capacity("n", "later", "1023Mi", Value::Null);
    check(tells(), &[small.clone(), capacity("m", "later", "2Gi", Value::Null)], "later", "m").await;
    check(tells(), &[small, capacity("m", "other", "2Gi", Value::Null)], "later", none).await;
    check(tells(), &[capacity("m", "later", "9Gi", json!("1Mi")), capacity("n", "later", "1Mi", json!("1Gi"))], "later", "n")
        .await;
    let nowhere = json!({"storageClassName": "later", "capacity": "2Gi"});
    check(tells(), &[nowhere], "later", none).await;
    let everywhere = json!({"storageClassName": "later", "capacity": "2Gi", "nodeTopology": {}});
    check(tells(), &[everywhere], "chosen", "m").await;
    let taken = "0/2 nodes are available: 1 node(s) did not have enough free storage, 1 node(s) didn't find available persistent volumes to bind.";
    check(tells(), &[capacity("n", "later", "2Gi", Value::Null)], "chosen", taken).await;
    check(json!({}), &[], "chosen", "m").await;
}

#[tokio::test]
async fn volumes_with_zones() {
    let (mut cluster, _tasks) = cluster().await;
    cluster.set_node(&node("n", json!({"labels": {"topology.kubernetes.io/zone": "a"}})));
    cluster.set_node(&node("m", json!({"labels": {"topology.kubernetes.io/zone": "b"}})));
    let mut choose = |claim: &str| {
        let chosen = Chooser::default().choose(&using(&[claim]), &mut cluster, &Attempt::default());
        chosen.unwrap_or_else(|error| error.to_string())
    };
    assert_eq!(choose("zoned"), "m");
    assert_eq!(choose("far"), "0/2 nodes are available: 2 node(s) had no available volume zone.");
}

#[test]
fn topologies_of_classes() {
    let check = |terms: Value, expected: bool| {
        let class = json!({"metadata": {"name": "c"}, "provisioner": "p", "allowedTopologies": terms});
        let mut cluster = Cluster::default();
        cluster.set_node(&node("n", json!({"labels": {"zone": "a"}})));
        let class: StorageClass = serde_json::from_value(class).unwrap();
        assert_eq!(allows(&class, at(&cluster, "n")), expected, "{terms}");
    };
    let one = |key: &str, values: Value| json!({"matchLabelExpressions": [{"key": key, "values": values}]});
    check(json!(null), true);
    check(json!([one("zone", json!(["a", "b"]))]), true);
    check(json!([one("zone", json!(["b"]))]), false);
    check(json!([one("other", json!(["a"])), one("zone", json!(["a"]))]), true);
}

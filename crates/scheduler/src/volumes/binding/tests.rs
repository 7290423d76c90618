#![allow(clippy::unwrap_used)]

use base::tasks::Tasks;
use client::Informers;
use client::fake::Fake;
use serde_json::Value;

use super::*;
use crate::waiting::Waiting;

/// A claim that has the volume, with the name of a node.
fn claim(name: &str, volume: &str, node: &str) -> PersistentVolumeClaim {
    let mut annotations = json!({});
    let mut status = json!({"phase": "Pending"});
    if !node.is_empty() {
        annotations[rules::SELECTED_NODE] = json!(node);
    }
    if !volume.is_empty() {
        annotations[rules::BIND_COMPLETED] = json!("yes");
        status = json!({"phase": "Bound"});
    }
    let metadata = json!({"namespace": "a", "name": name, "uid": name, "annotations": annotations});
    let claim = json!({"metadata": metadata, "spec": {"volumeName": volume}, "status": status});
    serde_json::from_value(claim).unwrap()
}

/// A volume on a node, for a claim.
fn volume(name: &str, node: &str, claim: Option<&str>) -> PersistentVolume {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
    let reference = claim.map_or(Value::Null, |claim| json!({"namespace": "a", "name": claim, "uid": claim}));
    let spec = json!({"claimRef": reference, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

/// Upstream, binder.go, checkBindings, case by case.
#[tokio::test]
async fn what_claims_wait_for() {
    let fake = Fake::default();
    for (name, volume, node) in [
        ("has", "here", "n"),
        ("astray", "there", "n"),
        ("early", "unseen", "n"),
        ("asked", "", "n"),
        ("refused", "", ""),
        ("moved", "", "m"),
        ("taking", "", ""),
    ] {
        fake.put(&claim(name, volume, node));
    }
    for (name, node, claim) in
        [("here", "n", Some("has")), ("there", "m", Some("astray")), ("taken", "n", Some("taking")), ("free", "n", None)]
    {
        fake.put(&volume(name, node, claim));
    }
    let (tasks, _failures) = Tasks::root();
    let informers = Informers::new(fake.client(), tasks.clone());
    let (claims, volumes) = (informers.of::<PersistentVolumeClaim>(), informers.of::<PersistentVolume>());
    claims.synced().await;
    volumes.synced().await;
    let labels = Some([("kubernetes.io/hostname".to_owned(), "n".to_owned())].into());
    let cache = Cache { claims, waiting: Waiting::default() };
    let bindings = Bindings { steps: Vec::new(), cache, volumes, node: "n".to_owned(), labels };
    let check = |name: &str, uid: &str, by: By, expected: Result<bool, &str>| {
        let open = Open { key: Key::namespaced("a", name), uid: Some(uid.to_owned()), by };
        let found = bindings.all_bound(&[open]).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{name}");
    };
    // All that is cached has been written before, or what has been written is not cached yet.
    let (before, later) = (0, u64::MAX);
    let volume = |name: &str, version: u64| By::Volume(name.to_owned(), version);
    let failed = |name: &str| format!("provisioning failed for PVC {name:?}");
    let elsewhere = "pv \"there\" node affinity doesn't match node \"n\": no matching NodeSelectorTerms";
    check("has", "has", By::Provisioner(before), Ok(true));
    check("astray", "astray", By::Provisioner(before), Err(elsewhere));
    check("early", "early", By::Provisioner(before), Ok(false));
    check("asked", "asked", By::Provisioner(before), Ok(false));
    check("refused", "refused", By::Provisioner(before), Err(&failed("refused")));
    check("refused", "refused", By::Provisioner(later), Ok(false));
    check("moved", "moved", By::Provisioner(before), Err(&failed("moved")));
    let gone = |name: &str| format!("failed to check provisioning pvc: could not find v1.PersistentVolumeClaim \"a/{name}\"");
    check("none", "none", By::Provisioner(later), Err(&gone("none")));
    check("has", "another", By::Provisioner(before), Err(&gone("has")));
    check("has", "has", volume("here", before), Ok(true));
    check("taking", "taking", volume("taken", before), Ok(false));
    check("taking", "taking", volume("free", before), Err("ClaimRef got reset for pv \"free\""));
    check("taking", "taking", volume("free", later), Ok(false));
    check("taking", "taking", volume("deleted", later), Err("ClaimRef got reset for pv \"deleted\""));
}

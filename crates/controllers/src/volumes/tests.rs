#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

fn claim(annotations: Value, spec: Value) -> PersistentVolumeClaim {
    let mut whole = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(json!({"metadata": {"namespace": "a", "name": "data", "uid": "u", "annotations": annotations}, "spec": whole}))
}

/// `claim` is the name and the uid of the claim that it names.
fn volume(name: &str, claim: Option<(&str, &str)>, annotations: Value, spec: Value, phase: &str) -> Arc<PersistentVolume> {
    let reference = claim.map(|(name, uid)| json!({"namespace": "a", "name": name, "uid": uid}));
    let mut whole =
        json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "claimRef": reference, "storageClassName": ""});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    Arc::new(object(json!({"metadata": {"name": name, "annotations": annotations}, "spec": whole, "status": {"phase": phase}})))
}

fn class(name: &str, provisioner: &str, mode: &str) -> Arc<StorageClass> {
    Arc::new(object(json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode})))
}

fn show(plan: ForClaim) -> String {
    match plan {
        ForClaim::Pend(None) => "pend".to_owned(),
        ForClaim::Pend(Some(notice)) => format!("pend {}: {}", notice.reason, notice.message),
        ForClaim::Classify(class) => format!("class {class}"),
        ForClaim::Ask(provisioner) => format!("ask {provisioner}"),
        ForClaim::Bind(volume) => format!("bind {}", meta::name(volume.as_ref())),
        ForClaim::Lose(notice) => format!("lose {}", notice.reason),
    }
}

#[track_caller]
fn check(
    claim: &PersistentVolumeClaim,
    volumes: Vec<Arc<PersistentVolume>>,
    class: Option<Arc<StorageClass>>,
    default: Option<&str>,
    expected: &str,
) {
    let named = volumes.iter().find(|volume| meta::name(volume.as_ref()) == volumes::volume_of(claim)).cloned();
    let observed = Observed { claim, volumes, named, class, default: default.map(str::to_owned), unscheduled: &Vec::new };
    assert_eq!(show(plan::for_claim(&observed)), expected);
}

fn free(name: &str) -> Arc<PersistentVolume> {
    volume(name, None, json!({}), json!({}), "Available")
}

#[test]
fn a_claim_without_a_volume() {
    let nobody = json!({});
    let none = || claim(nobody.clone(), json!({"storageClassName": ""}));
    check(&none(), vec![free("v")], None, Some("fast"), "bind v");
    let open = claim(nobody.clone(), json!({}));
    check(&open, vec![], None, Some("fast"), "class fast");
    check(&open, vec![free("v")], None, Some("fast"), "bind v");
    let text = "pend FailedBinding: no persistent volumes available for this claim and no storage class is set";
    check(&none(), vec![], None, Some("fast"), text);
    check(&open, vec![], None, None, text);
    let fast = || claim(nobody.clone(), json!({"storageClassName": "fast"}));
    check(&fast(), vec![], None, None, "pend ProvisioningFailed: storageclass.storage.k8s.io \"fast\" not found");
    check(&fast(), vec![], Some(class("fast", "p", "Immediate")), None, "ask p");
    let waiting = "pend WaitForFirstConsumer: waiting for first consumer to be created before binding";
    check(&fast(), vec![], Some(class("fast", "p", "WaitForFirstConsumer")), None, waiting);
    let selected = claim(json!({volumes::SELECTED_NODE: "n"}), json!({"storageClassName": "fast"}));
    check(&selected, vec![], Some(class("fast", "p", "WaitForFirstConsumer")), None, "ask p");
    let people = Some(class("fast", volumes::NO_PROVISIONER, "Immediate"));
    check(&fast(), vec![], people, None, "pend ProvisioningFailed: no volume plugin matched");
    // What a provisioner has made for it.
    let made = volume("made", Some(("data", "u")), json!({}), json!({"storageClassName": "fast"}), "Pending");
    check(&selected, vec![made], Some(class("fast", "p", "WaitForFirstConsumer")), None, "bind made");
}

#[test]
fn a_claim_that_names_a_volume() {
    let named = claim(json!({}), json!({"storageClassName": "", "volumeName": "v"}));
    check(&named, vec![], None, None, "pend");
    check(&named, vec![free("v")], None, None, "bind v");
    let small = volume("v", None, json!({}), json!({"capacity": {"storage": "1Mi"}}), "Available");
    check(
        &named,
        vec![small],
        None,
        None,
        "pend VolumeMismatch: Cannot bind to requested volume \"v\": requested PV is too small",
    );
    let theirs = volume("v", Some(("other", "o")), json!({}), json!({}), "Bound");
    check(&named, vec![theirs.clone()], None, None, "pend FailedBinding: volume \"v\" already bound to a different claim.");
    let bound = claim(json!({BIND_COMPLETED: YES}), json!({"volumeName": "v"}));
    check(&bound, vec![volume("v", Some(("data", "u")), json!({}), json!({}), "Bound")], None, None, "bind v");
    check(&bound, vec![], None, None, "lose ClaimLost");
    check(&bound, vec![theirs], None, None, "lose ClaimMisbound");
}

#[test]
fn a_volume_follows_its_claim() {
    let check = |volume: &PersistentVolume, claim: &OfClaim, expected: &str| {
        let shown = match plan::for_volume(volume, claim) {
            ForVolume::Nothing => "nothing".to_owned(),
            ForVolume::Phase(phase) => phase.to_owned(),
            ForVolume::Fail(notice) => notice.reason.to_owned(),
            ForVolume::Unbind => "unbind".to_owned(),
        };
        assert_eq!(shown, expected);
    };
    let there = |name: &str| OfClaim::There(Arc::new(claim(json!({}), json!({"volumeName": name}))));
    let used = |phase: &str, spec: Value, annotations: Value| volume("v", Some(("data", "u")), annotations, spec, phase);
    let policy = |policy: &str| json!({"persistentVolumeReclaimPolicy": policy});
    check(&free("v"), &OfClaim::None, "Available");
    check(&volume("v", Some(("data", "")), json!({}), json!({}), "Pending"), &there(""), "Available");
    check(&used("Available", json!({}), json!({})), &there(""), "nothing");
    check(&used("Available", json!({}), json!({})), &there("v"), "Bound");
    check(&used("Bound", json!({}), json!({})), &there("other"), "unbind");
    check(&used("Bound", policy("Retain"), json!({})), &OfClaim::Gone, "Released");
    check(&used("Released", policy("Retain"), json!({})), &OfClaim::Gone, "nothing");
    check(&used("Released", policy("Delete"), json!({})), &OfClaim::Gone, "VolumeFailedDelete");
    check(&used("Released", policy("Recycle"), json!({})), &OfClaim::Gone, "VolumeFailedRecycle");
    let made = json!({volumes::PROVISIONED_BY: "p"});
    check(&used("Released", policy("Delete"), made.clone()), &OfClaim::Gone, "nothing");
    check(&used("Bound", policy("Delete"), made), &there("other"), "Released");
    // Another claim of the same name.
    check(&volume("v", Some(("data", "former")), json!({}), policy("Retain"), "Bound"), &there("v"), "Released");
}

#[tokio::test]
async fn binds_and_releases() {
    let world = World::new();
    world.fake.put(free("v").as_ref());
    world.fake.put(&claim(json!({}), json!({"storageClassName": ""})));
    world.start(&["persistentvolume-binder"]);
    let bound = |claims: &[PersistentVolumeClaim]| phase(&claims[0]) == "Bound" && volumes::is_bound(&claims[0]);
    world.fake.until::<PersistentVolumeClaim>(bound).await;
    let status = world.fake.all::<PersistentVolumeClaim>()[0].status.clone().unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "1Gi");
    let is = |volumes: &[PersistentVolume], phase: &str| volumes[0].status.as_ref().unwrap().phase.as_deref() == Some(phase);
    world
        .fake
        .until::<PersistentVolume>(|volumes| is(volumes, "Bound") && volumes::is_for(&volumes[0], &world.fake.all()[0]))
        .await;
    let api: Api<PersistentVolumeClaim> = Api::namespaced(world.fake.client(), "a");
    api.delete("data", &Default::default()).await.unwrap();
    world.fake.until::<PersistentVolume>(|volumes| is(volumes, "Released")).await;
}

#[tokio::test]
async fn a_volume_that_comes_later_is_found() {
    let world = World::new();
    world.fake.put(&claim(json!({}), json!({})));
    world.start(&["persistentvolume-binder"]);
    let class = json!({"metadata": {"name": "fast", "annotations": {DEFAULT_CLASS: "true"}}, "provisioner": "p", "volumeBindingMode": "Immediate"});
    world.fake.put::<StorageClass>(&object(class));
    let asked = |claims: &[PersistentVolumeClaim]| meta::annotation(&claims[0], PROVISIONERS[0]) == Some("p");
    world.fake.until::<PersistentVolumeClaim>(asked).await;
    world.fake.put(volume("made", Some(("data", "u")), json!({}), json!({"storageClassName": "fast"}), "Pending").as_ref());
    world.fake.until::<PersistentVolumeClaim>(|claims| phase(&claims[0]) == "Bound").await;
}

/// An event is short: it says how many it does not name.
#[test]
fn not_all_pods_are_named() {
    let check = |count: usize, named: usize, more: &str| {
        let names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
        let expected = format!("waiting for pods {}{more} to be scheduled", names[..named].join(","));
        assert_eq!(plan::waiting(&names), ("WaitForPodScheduled", expected));
    };
    check(2, 2, "");
    check(16, 16, "");
    check(19, 16, " and 3 more");
}

/// Upstream, `emitEventForUnboundDelayBindingClaim`: the event names the pods that are waited for.
#[tokio::test]
async fn claims_tell_whom_they_wait_for() {
    let world = World::new();
    world.fake.put::<StorageClass>(class("fast", "p", "WaitForFirstConsumer").as_ref());
    world.fake.put(&claim(json!({}), json!({"storageClassName": "fast"})));
    world.start(&["persistentvolume-binder"]);
    let told = |reason: &'static str, message: &'static str| {
        move |events: &[k8s_openapi::api::core::v1::Event]| {
            events.iter().any(|event| event.reason.as_deref() == Some(reason) && event.message.as_deref() == Some(message))
        }
    };
    let nobody = "waiting for first consumer to be created before binding";
    world.fake.until(told("WaitForFirstConsumer", nobody)).await;
    let api: Api<Pod> = Api::namespaced(world.fake.client(), "a");
    let pod = |name: &str| -> Pod {
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
        object(json!({"metadata": {"namespace": "a", "name": name}, "spec": {"volumes": volumes, "containers": [{"name": "c"}]}}))
    };
    api.create(&POST, &pod("one")).await.unwrap();
    world.fake.until(told("WaitForPodScheduled", "waiting for pod one to be scheduled")).await;
    api.create(&POST, &pod("two")).await.unwrap();
    world.fake.until(told("WaitForPodScheduled", "waiting for pods one,two to be scheduled")).await;
}

/// Upstream's expand controller: a claim of a driver's volume that asks for more says who is waited for.
#[tokio::test]
async fn a_claim_that_grows_tells_whom_it_waits_for() {
    let world = World::new();
    let (csi, claims) = (json!({"csi": {"driver": "d", "volumeHandle": "h"}}), world.fake.client());
    world.fake.put(volume("v", Some(("data", "u")), json!({}), csi, "Pending").as_ref());
    world.fake.put(&claim(json!({}), json!({"storageClassName": ""})));
    world.start(&["persistentvolume-binder"]);
    world.fake.until::<PersistentVolumeClaim>(|claims| volumes::is_usable(&claims[0])).await;
    let expanding = |event: &k8s_openapi::api::core::v1::Event| {
        event.message.as_deref() == Some("waiting for an external controller to expand this PVC")
            && event.reason.as_deref() == Some("ExternalExpanding")
    };
    assert!(!world.fake.all().iter().any(expanding));
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let api: Api<PersistentVolumeClaim> = Api::namespaced(claims, "a");
    api.patch("data", &Default::default(), &client::kube::api::Patch::Merge(more)).await.unwrap();
    world.fake.until(|events: &[k8s_openapi::api::core::v1::Event]| events.iter().any(expanding)).await;
}

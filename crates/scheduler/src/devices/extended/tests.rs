#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::testing::pod;

fn class(name: &str, created: &str, resource: Option<&str>) -> DeviceClass {
    let meta = json!({"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created}Z")});
    serde_json::from_value(json!({"metadata": meta, "spec": {"extendedResourceName": resource}})).unwrap()
}

/// KEP-5004 and the API page of `extendedResourceName`: of two classes with the same name the one counts that was created later, and of those
/// created at the same time the one whose name is first in the alphabet. Each class has an implicit name, too.
#[test]
fn classes_stand_for_resources() {
    let mut classes = Classes::default();
    let gpu = Some("example.com/gpu");
    let (old, new, twin) = (class("a-old", "01", gpu), class("c-new", "02", gpu), class("b-new", "02", gpu));
    for (before, after, expected) in [
        (None, None, None),
        (None, Some(&old), Some("a-old")),
        (None, Some(&new), Some("c-new")),
        (None, Some(&twin), Some("b-new")),
        (Some(&twin), None, Some("c-new")),
        (Some(&new), Some(&class("c-new", "02", Some("example.com/other"))), Some("a-old")),
        (Some(&old), None, None),
    ] {
        classes.changed(before, after);
        assert_eq!(classes.of("example.com/gpu"), expected);
    }
    assert_eq!(classes.of("example.com/other"), Some("c-new"));
    assert_eq!(classes.of("deviceclass.resource.kubernetes.io/c-new"), Some("c-new"));
    assert_eq!(classes.of("deviceclass.resource.kubernetes.io/a-old"), None);
}

fn container(name: &str, gpus: i64) -> Value {
    json!({"name": name, "resources": {"requests": {"cpu": "1", "example.com/gpu": gpus.to_string()}}})
}

/// The claim of a pod as `REQUEST*COUNT...; CONTAINER=REQUEST...`.
#[track_caller]
fn check(spec: Value, expected: &str) {
    let pod = pod("p", spec);
    let asked = [("example.com/gpu", "gpu"), ("example.com/nic", "nic")];
    let Requests { requests, mappings } = Requests::new(pod.spec.as_ref().unwrap(), asked.into_iter());
    let short = |name: &str| name.replace("container-", "").replace("-request-", ".");
    let request = |one: &DeviceRequest| {
        let exactly = one.exactly.as_ref().unwrap();
        format!("{}*{}{}", short(&one.name), exactly.count.unwrap(), exactly.device_class_name)
    };
    let mapping = |one: &Mapping| format!("{}={}", one.container_name, short(&one.request_name));
    let requests: Vec<String> = requests.iter().map(request).collect();
    let mappings: Vec<String> = mappings.iter().map(mapping).collect();
    assert_eq!(format!("{}; {}", requests.join(" "), mappings.join(" ")), expected);
}

/// KEP-5004: one request for each container and resource, named by the place of the container and of the resource among its requests; init
/// containers use again what containers after them have, and what one of them needs beyond that the next one uses again.
#[test]
fn containers_have_requests() {
    check(json!({"containers": [container("a", 2), container("b", 0)]}), "0.1*2gpu; a=0.1");
    check(json!({"containers": [container("a", 2), container("b", 1)]}), "0.1*2gpu 1.1*1gpu; a=0.1 b=1.1");
    let both = json!({"name": "a", "resources": {"requests": {"example.com/gpu": "1", "example.com/nic": "2"}}});
    check(json!({"containers": [both]}), "0.0*1gpu 0.1*2nic; a=0.0 a=0.1");
    // The init container needs no more than one of the others, both of them, and more than both.
    let init =
        |gpus: i64| json!({"initContainers": [container("i", gpus)], "containers": [container("a", 1), container("b", 2)]});
    check(init(1), "1.1*1gpu 2.1*2gpu; a=1.1 b=2.1 i=1.1");
    check(init(3), "1.1*1gpu 2.1*2gpu; a=1.1 b=2.1 i=1.1 i=2.1");
    check(init(5), "0.1*2gpu 1.1*1gpu 2.1*2gpu; a=1.1 b=2.1 i=1.1 i=2.1 i=0.1");
    // The larger one of two is what both have.
    let two = json!([container("i", 2), container("j", 4)]);
    check(json!({"initContainers": two, "containers": [container("a", 1)]}), "1.1*3gpu 2.1*1gpu; a=2.1 i=2.1 i=1.1 j=2.1 j=1.1");
    // A sidecar runs beside the others, and what it has is not used before it.
    let mut sidecar = container("s", 1);
    sidecar["restartPolicy"] = json!("Always");
    let init = json!([sidecar, container("i", 1)]);
    check(json!({"initContainers": init, "containers": [container("a", 1)]}), "0.1*1gpu 2.1*1gpu; s=0.1 a=2.1 i=2.1");
}

/// KEP-5004: a node that has the resource by a device plugin is used by that, any other by a claim that belongs to the pod.
#[test]
fn nodes_that_have_the_resource_need_no_claim() {
    let info = PodInfo::new(Arc::new(pod("p", json!({"containers": [container("a", 2)]}))));
    let mut classes = Classes::default();
    let gpu = class("gpu", "01", Some("example.com/gpu"));
    classes.changed(None, Some(&gpu));
    let extended = Extended::new(classes.asked(&info));
    let on = |gpus: Option<i64>| {
        let others = gpus.map(|gpus| ("example.com/gpu".into(), gpus)).into_iter().collect();
        let allocatable = Resources { others, ..Resources::default() };
        extended.on(&info, &allocatable, |name| (name == "gpu").then(|| Arc::new(gpu.clone()))).unwrap()
    };
    assert!(on(Some(1)).is_none());
    let (made, zero) = (on(None).unwrap(), on(Some(0)).unwrap());
    assert!(Rc::ptr_eq(&made, &zero), "nodes that lack the same share a claim");
    let claim = fresh(&made.wanted.claim);
    assert_eq!(claim.metadata.generate_name.as_deref(), Some("p-extended-resources-"));
    assert!(claim.metadata.name.is_none() && claims::is_extended(&claim) && claims::is_for(&claim, "p"));
    let overhead = json!({"containers": [{"name": "a"}], "overhead": {"example.com/gpu": "1"}});
    let info = PodInfo::new(Arc::new(pod("p", overhead)));
    let error = Extended::new(classes.asked(&info)).on(&info, &Resources::default(), |_| None).err();
    assert_eq!(error.as_deref(), Some("cannot fit resource example.com/gpu: devices are given to containers only"));
}

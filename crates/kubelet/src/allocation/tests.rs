use super::*;
use crate::pod::testing::model;
use serde_json::{Value, json};

fn pod(cpu: &str, memory: &str) -> Model {
    model(json!({"containers": [{"name": "c1", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
}

#[test]
fn a_pod_runs_with_what_it_was_given() {
    let (small, large) = (pod("1", "1Gi").pod, pod("2", "1Gi").pod);
    let allocation = Allocation::wanted(&small);
    assert!(Arc::ptr_eq(&allocation.apply(&small), &small));
    assert_eq!(Allocation::wanted(&allocation.apply(&large)), allocation);
    let text = Model::new(small.clone()).members[0].record().to_owned();
    assert_eq!(Allocation::found(&large, [("c1", text.as_str())]), allocation);
    assert_eq!(Allocation::found(&large, [("c1", "garbage"), ("unknown", text.as_str())]), Allocation::wanted(&large));
}

/// KEP-5419: a resize of the pod as a whole that waits goes on waiting when another kubelet starts.
#[test]
fn a_pod_has_as_a_whole_what_was_told_of_it() {
    let of = |cpu: &str, told: Option<&str>| {
        let mut pod =
            model(json!({"resources": {"requests": {"cpu": cpu}}, "containers": [{"name": "c1"}]})).pod.as_ref().clone();
        let resources = told.map(|told| serde_json::from_value(json!({"requests": {"cpu": told}})).unwrap());
        pod.status = Some(k8s_openapi::api::core::v1::PodStatus { resources, ..Default::default() });
        pod
    };
    for (told, has) in [(Some("1"), "1"), (Some("3"), "3"), (None, "3")] {
        assert_eq!(Allocation::found(&of("3", told), []), Allocation::wanted(&of(has, None)), "{told:?}");
    }
    // One that is no such pod gets no such resources.
    let mut plain = pod("1", "1Gi").pod.as_ref().clone();
    plain.status = of("1", Some("1")).status;
    assert_eq!(Allocation::found(&plain, []), Allocation::wanted(&plain));
}

/// A resize that waits for room goes on waiting when another kubelet starts, also where the container was never made.
#[test]
fn a_container_that_was_never_made_has_what_was_told_of_it() {
    let told = |mut pod: Pod, cpu: &str| {
        let requests = json!({"cpu": cpu, "memory": "1Gi"});
        let status = json!({"containerStatuses": [{"name": "c1", "allocatedResources": requests}, {"name": "gone", "allocatedResources": requests}]});
        pod.status = Some(serde_json::from_value(status).unwrap());
        pod
    };
    let (small, large) = (pod("1", "1Gi").pod.as_ref().clone(), pod("2", "1Gi").pod.as_ref().clone());
    assert_eq!(Allocation::found(&told(large.clone(), "1"), []), Allocation::wanted(&small));
    assert_eq!(Allocation::found(&told(large.clone(), "2"), []), Allocation::wanted(&large));
    // What a container has says its record.
    let text = Model::new(Arc::new(large.clone())).members[0].record().to_owned();
    assert_eq!(Allocation::found(&told(large.clone(), "1"), [("c1", text.as_str())]), Allocation::wanted(&large));
}

#[test]
fn events_say_what_changes() {
    let expected = r#"{"containers":[{"name":"c1","resources":{"requests":{"cpu":"1","memory":"1Gi"}}}],"generation":1}"#;
    assert_eq!(summary(&pod("1", "1Gi"), None), expected);
    let text: Value = serde_json::from_str(&summary(&pod("1", "1Gi"), Some("no room"))).unwrap();
    assert_eq!(text["error"], "no room");
}

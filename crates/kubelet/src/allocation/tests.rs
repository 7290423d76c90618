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

#[test]
fn events_say_what_changes() {
    let expected = r#"{"containers":[{"name":"c1","resources":{"requests":{"cpu":"1","memory":"1Gi"}}}],"generation":1}"#;
    assert_eq!(summary(&pod("1", "1Gi"), None), expected);
    let text: Value = serde_json::from_str(&summary(&pod("1", "1Gi"), Some("no room"))).unwrap();
    assert_eq!(text["error"], "no room");
}

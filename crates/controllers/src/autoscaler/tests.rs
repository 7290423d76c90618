use super::*;
use crate::testing::object;
use serde_json::{Value, json};

/// Upstream's `TestMultipleHPAs` and its kin: who else selects one of the pods.
#[test]
fn rivals_select_the_same_pods() {
    let key = |namespace: &str, name: &str| Key { namespace: Some(namespace.to_owned()), name: name.to_owned() };
    let selectors: HashMap<Key, Selector> =
        [("ns", "a", "app=x"), ("ns", "b", "tier=front"), ("ns", "c", "app=z"), ("other", "d", "app=x")]
            .into_iter()
            .map(|(namespace, name, selector)| (key(namespace, name), Selector::parse(selector).unwrap()))
            .collect();
    let check = |labels: Value, expected: &[&str]| {
        let pod: Arc<Pod> = Arc::new(object(json!({"metadata": {"labels": labels}})));
        assert_eq!(rivals(&selectors, "ns", &[pod]), expected, "{labels}");
    };
    check(json!({"app": "x"}), &["ns/a"]);
    check(json!({"app": "x", "tier": "front"}), &["ns/a", "ns/b"]);
    check(json!({"app": "y"}), &[]);
}

#[test]
fn each_direction_has_a_tolerance() {
    let check = |behavior: Value, up: f64, down: f64| {
        let target = json!({"kind": "Deployment", "name": "d"});
        let scaler = object(json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target, "behavior": behavior}}));
        assert_eq!(tolerances(&scaler), Tolerances { up, down });
    };
    check(Value::Null, 0.1, 0.1);
    check(json!({"scaleUp": {"tolerance": "50m"}}), 0.05, 0.1);
    check(json!({"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "0.3"}}), 0.0, 0.3);
}

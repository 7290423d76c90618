use super::*;
use serde_json::{Value, json};

fn usage(value: Value) -> PodUsage {
    serde_json::from_value(value).unwrap()
}

#[test]
fn what_a_pod_uses_is_the_sum_of_its_containers() {
    let pod = || {
        usage(json!({"metadata": {"name": "p"}, "timestamp": "2026-01-01T00:00:00Z", "window": "15.5s", "containers": [
            {"name": "a", "usage": {"cpu": "100500u", "memory": "1Ki"}}, {"name": "b", "usage": {"cpu": "1"}}]}))
    };
    let check = |resource: &str, container: Option<&str>, expected: Option<i64>| {
        let metric = of_pod(pod(), "ns", resource, container).unwrap();
        assert_eq!(metric.as_ref().map(|(_, metric)| metric.value), expected, "{resource} {container:?}");
        assert!(metric.is_none_or(|(name, metric)| name == "p" && metric.window == SignedDuration::from_millis(15_500)));
    };
    check("cpu", None, Some(1101));
    check("cpu", Some("a"), Some(101));
    check("memory", Some("a"), Some(1_024_000));
    // One of its containers is not known to use any: the pod counts as missing.
    check("memory", None, None);
    let missing = of_pod(pod(), "ns", "cpu", Some("c")).unwrap_err();
    assert_eq!(missing.to_string(), "container c not present in metrics for pod ns/p");
}

#[test]
fn values_of_an_adapter() {
    let values: Values = serde_json::from_value(json!({"items": [
        {"describedObject": {"kind": "Pod", "name": "p", "namespace": "n"}, "metric": {"name": "m"},
            "timestamp": "2026-01-01T00:00:00Z", "windowSeconds": 30, "value": "1500m"},
        {"metricName": "external", "timestamp": "2026-01-01T00:00:00Z", "value": "3k"}]}))
    .unwrap();
    assert_eq!(values.items.iter().map(MetricValue::milli).collect::<Vec<_>>(), [1500, 3_000_000]);
    let pods = by_pod(values);
    assert_eq!((pods.len(), pods["p"].value, pods["p"].window.as_secs()), (1, 1500, 30));
}

#[test]
fn selectors_are_escaped() {
    let check = |text: &str, expected: &str| assert_eq!(escape(text), expected);
    check("a=b,c in (d, e)", "a%3Db%2Cc%20in%20%28d%2C%20e%29");
    check("plain-1.0_~", "plain-1.0_~");
}

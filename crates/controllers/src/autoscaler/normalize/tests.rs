use super::*;
use crate::testing::object;
use serde_json::{Value, json};

fn at(seconds: i64) -> Duration {
    Duration::from_secs((10_000 + seconds).try_into().unwrap())
}

/// What happened before: recommendations, additions and removals with seconds.
#[derive(Default)]
struct Past<'a> {
    recommendations: &'a [(i64, i32)],
    ups: &'a [(i64, i32)],
    downs: &'a [(i64, i32)],
}

/// From `current` replicas to what is set at second 0, with the reasons of both conditions.
#[track_caller]
fn check(past: &Past<'_>, behavior: Value, [current, desired]: [i32; 2], expected: (i32, &str, &str)) {
    let times = |list: &[(i64, i32)]| list.iter().map(|(seconds, number)| (at(*seconds), *number)).collect();
    let mut memory = Memory { recommendations: times(past.recommendations), ups: times(past.ups), downs: times(past.downs) };
    let behavior: Option<HorizontalPodAutoscalerBehavior> = object(behavior);
    let now = Now { at: at(0), current, min: 2, max: 100, behavior: behavior.as_ref() };
    let result = memory.normalize(now, desired);
    assert_eq!((result.replicas, result.stabilized.0, result.limited.1.0), expected);
    assert_eq!(result.limited.0, result.limited.1 != IN_RANGE);
}

/// Upstream's `TestConvertDesiredReplicasWithRules` and `TestNormalizeDesiredReplicas`.
#[test]
fn without_a_behaviour() {
    let none = Past::default();
    check(&none, Value::Null, [5, 7], (7, "ReadyForNewScale", "DesiredWithinRange"));
    check(&none, Value::Null, [5, 1], (2, "ReadyForNewScale", "TooFewReplicas"));
    check(&none, Value::Null, [5, 11], (10, "ReadyForNewScale", "ScaleUpLimit"));
    check(&none, Value::Null, [1, 9], (4, "ReadyForNewScale", "ScaleUpLimit"));
    check(&none, Value::Null, [60, 101], (100, "ReadyForNewScale", "TooManyReplicas"));
    let past = Past { recommendations: &[(-310, 20), (-299, 9), (-10, 6)], ..none };
    check(&past, Value::Null, [9, 5], (9, "ScaleDownStabilized", "DesiredWithinRange"));
    check(&past, Value::Null, [9, 10], (10, "ReadyForNewScale", "DesiredWithinRange"));
}

fn rules(select: &str, window: i32, policies: &[(&str, i32, i32)]) -> Value {
    let policy = |(kind, value, period): &(&str, i32, i32)| json!({"type": kind, "value": value, "periodSeconds": period});
    json!({"selectPolicy": select, "stabilizationWindowSeconds": window,
        "policies": policies.iter().map(policy).collect::<Vec<_>>()})
}

fn both(up: Value, down: Value) -> Value {
    json!({"scaleUp": up, "scaleDown": down})
}

/// Upstream's `TestScalingWithRules`: policies of both directions by number and percent.
#[test]
fn policies_limit_the_rate() {
    let up = |select: &str, policies: &[(&str, i32, i32)]| both(rules(select, 0, policies), rules("Max", 0, &[]));
    let down = |select: &str, policies: &[(&str, i32, i32)]| both(rules("Max", 0, &[]), rules(select, 0, policies));
    let none = Past::default();
    let two: &[(&str, i32, i32)] = &[("Pods", 4, 60), ("Percent", 50, 60)];
    check(&none, up("Max", two), [20, 90], (30, "ReadyForNewScale", "ScaleUpLimit"));
    check(&none, up("Min", two), [20, 90], (24, "ReadyForNewScale", "ScaleUpLimit"));
    check(&none, up("Disabled", two), [20, 90], (20, "ReadyForNewScale", "ScaleUpLimit"));
    check(&none, up("Max", two), [90, 120], (100, "ReadyForNewScale", "TooManyReplicas"));
    check(&none, up("Max", &[("Percent", 1, 60)]), [5, 90], (6, "ReadyForNewScale", "ScaleUpLimit"));
    // What has been added in the period counts, what was added before does not.
    let past = Past { ups: &[(-70, 50), (-30, 3)], ..none };
    check(&past, up("Max", &[("Pods", 4, 60)]), [20, 90], (21, "ReadyForNewScale", "ScaleUpLimit"));
    let past = Past { ups: &[(-30, 9)], ..none };
    check(&past, up("Max", &[("Pods", 4, 60)]), [20, 90], (20, "ReadyForNewScale", "ScaleUpLimit"));

    check(&none, down("Max", two), [20, 3], (10, "ReadyForNewScale", "ScaleDownLimit"));
    check(&none, down("Min", two), [20, 3], (16, "ReadyForNewScale", "ScaleDownLimit"));
    check(&none, down("Disabled", two), [20, 3], (20, "ReadyForNewScale", "ScaleDownLimit"));
    check(&none, down("Max", &[("Percent", 100, 60)]), [20, 1], (2, "ReadyForNewScale", "TooFewReplicas"));
    let past = Past { downs: &[(-30, 3)], ..none };
    check(&past, down("Max", &[("Pods", 4, 60)]), [20, 3], (19, "ReadyForNewScale", "ScaleDownLimit"));
}

/// Upstream's `TestStoreScaleEvents`, `TestNormalizeDesiredReplicasWithBehavior`.
#[test]
fn windows_stabilize_both_directions() {
    let wide: &[(&str, i32, i32)] = &[("Percent", 900, 60)];
    let behavior = |up, down| both(rules("Max", up, wide), rules("Max", down, &[("Percent", 100, 60)]));
    let past = Past { recommendations: &[(-200, 30), (-100, 8), (-20, 15)], ..Past::default() };
    check(&past, behavior(0, 0), [10, 20], (20, "ReadyForNewScale", "DesiredWithinRange"));
    check(&past, behavior(60, 0), [10, 20], (15, "ScaleUpStabilized", "DesiredWithinRange"));
    check(&past, behavior(120, 0), [10, 20], (10, "ScaleUpStabilized", "DesiredWithinRange"));
    check(&past, behavior(0, 60), [20, 5], (15, "ScaleDownStabilized", "DesiredWithinRange"));
    check(&past, behavior(0, 250), [20, 5], (20, "ScaleDownStabilized", "DesiredWithinRange"));
    // Five minutes when nothing is said.
    check(&past, json!({"scaleDown": {"policies": []}}), [20, 5], (20, "ScaleDownStabilized", "DesiredWithinRange"));
}

#[test]
fn what_was_done_is_remembered_for_an_hour() {
    let mut memory = Memory::default();
    memory.begin(at(0), 7);
    memory.begin(at(1), 9);
    assert_eq!(memory.recommendations, [(at(0), 7)]);
    memory.scaled(at(1), 3, 7);
    memory.scaled(at(2), 7, 2);
    assert_eq!((&memory.ups[..], &memory.downs[..]), (&[(at(1), 4)][..], &[(at(2), 5)][..]));
    memory.normalize(Now { at: at(3601), current: 2, min: 1, max: 9, behavior: None }, 3);
    assert_eq!((memory.recommendations.len(), memory.ups.len(), memory.downs.len()), (1, 0, 1));
}

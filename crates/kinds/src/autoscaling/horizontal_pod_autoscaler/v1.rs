//! autoscaling/v1 knows one metric only, the use of the processor. What else there is of an autoscaler stands in annotations there, in
//! the form that v1 had for it when it was new.

use apimachinery::meta;
use apimachinery::quantity::Quantity;
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// Takes away what only a conversion writes.
pub(super) fn drop_annotations(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata") else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    let before = annotations.len();
    for key in [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS] {
        annotations.remove(key);
    }
    if annotations.is_empty() && before > 0 {
        crate::util::remove(metadata, "annotations");
    }
}

/// The fields of a JSON object.
fn object(fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let fields = fields.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(fields.collect::<Map<_, _>>())
}

fn field(value: &Value, pointer: &str) -> Option<Value> {
    value.pointer(pointer).filter(|value| !value.is_null()).cloned()
}

fn list(value: &Value, pointer: &str) -> Vec<Value> {
    value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Whether a metric, wanted or read, is the one that v1 has fields for.
fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric.pointer("/resource/name").is_some_and(|name| name == "cpu")
}

/// The autoscaler in the form of autoscaling/v1.
pub(in crate::autoscaling) fn to_v1(scaler: &Value) -> Value {
    let mut out = scaler.clone();
    drop_annotations(&mut out);
    out["apiVersion"] = "autoscaling/v1".into();
    let (metrics, current) = (list(scaler, "/spec/metrics"), list(scaler, "/status/currentMetrics"));
    let cpu =
        |metrics: &[Value], pointer: &str| metrics.iter().find(|metric| is_cpu(metric)).and_then(|metric| field(metric, pointer));
    out["spec"] = object([
        ("scaleTargetRef", field(scaler, "/spec/scaleTargetRef")),
        ("minReplicas", field(scaler, "/spec/minReplicas")),
        ("maxReplicas", field(scaler, "/spec/maxReplicas")),
        ("targetCPUUtilizationPercentage", cpu(&metrics, "/resource/target/averageUtilization")),
    ]);
    out["status"] = object([
        ("observedGeneration", field(scaler, "/status/observedGeneration")),
        ("lastScaleTime", field(scaler, "/status/lastScaleTime")),
        ("currentReplicas", field(scaler, "/status/currentReplicas").or(Some(json!(0)))),
        ("desiredReplicas", field(scaler, "/status/desiredReplicas").or(Some(json!(0)))),
        ("currentCPUUtilizationPercentage", cpu(&current, "/resource/current/averageUtilization")),
    ]);
    let other = |metric: &&Value| !(is_cpu(metric) && field(metric, "/resource/target/averageUtilization").is_some());
    let others: Vec<_> = metrics.iter().filter(other).map(spec_to_v1).collect();
    let read: Vec<_> = current.iter().map(status_to_v1).collect();
    let conditions = list(scaler, "/status/conditions");
    for (key, list) in [(METRICS, others), (CURRENT_METRICS, read), (CONDITIONS, conditions)] {
        if !list.is_empty() {
            meta::set_annotation(&mut out, key, Value::Array(list).to_string());
        }
    }
    if let Some(behavior) = field(scaler, "/spec/behavior") {
        meta::set_annotation(&mut out, BEHAVIOR, behavior_to_v1(&behavior).to_string());
    }
    out
}

/// The autoscaler in the form of autoscaling/v2.
pub(in crate::autoscaling) fn from_v1(scaler: &Value) -> Value {
    let mut out = scaler.clone();
    drop_annotations(&mut out);
    out["apiVersion"] = "autoscaling/v2".into();
    let noted = |key: &str| meta::annotation(scaler, key).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let noted_list = |key: &str| noted(key).and_then(|value| value.as_array().cloned());
    let mut metrics: Vec<_> = noted_list(METRICS).unwrap_or_default().iter().map(spec_from_v1).collect();
    if let Some(part) = field(scaler, "/spec/targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": part});
        metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if metrics.is_empty() {
        metrics.push(super::default_metric());
    }
    out["spec"] = object([
        ("scaleTargetRef", field(scaler, "/spec/scaleTargetRef")),
        ("minReplicas", field(scaler, "/spec/minReplicas")),
        ("maxReplicas", field(scaler, "/spec/maxReplicas")),
        ("metrics", Some(metrics.into())),
        ("behavior", noted(BEHAVIOR).map(|behavior| behavior_from_v1(&behavior)).filter(|value| value != &json!({}))),
    ]);
    let cpu = field(scaler, "/status/currentCPUUtilizationPercentage")
        .map(|part| json!([{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": part}}}]));
    let read = noted_list(CURRENT_METRICS).map(|list| list.iter().map(status_from_v1).collect::<Vec<_>>().into());
    out["status"] = object([
        ("observedGeneration", field(scaler, "/status/observedGeneration")),
        ("lastScaleTime", field(scaler, "/status/lastScaleTime")),
        ("currentReplicas", field(scaler, "/status/currentReplicas")),
        ("desiredReplicas", field(scaler, "/status/desiredReplicas").or(Some(json!(0)))),
        ("currentMetrics", read.or(cpu).or(Some(Value::Null))),
        ("conditions", noted_list(CONDITIONS).map(Value::Array)),
    ]);
    out
}

/// A field of the same metric in the flat form of v1 and in the nested one of v2.
struct Names {
    /// Metric type, and the field with its source.
    source: (&'static str, &'static str),
    /// Pairs of v1's field and the pointer of v2's.
    fields: &'static [(&'static str, &'static str)],
}

const TARGETS: &[Names] = &[
    Names {
        source: ("Object", "object"),
        fields: &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("targetValue", "/target/value"),
            ("selector", "/metric/selector"),
            ("averageValue", "/target/averageValue"),
        ],
    },
    Names {
        source: ("Pods", "pods"),
        fields: &[
            ("metricName", "/metric/name"),
            ("targetAverageValue", "/target/averageValue"),
            ("selector", "/metric/selector"),
        ],
    },
    Names {
        source: ("Resource", "resource"),
        fields: &[
            ("name", "/name"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    },
    Names {
        source: ("ContainerResource", "containerResource"),
        fields: &[
            ("name", "/name"),
            ("targetAverageUtilization", "/target/averageUtilization"),
            ("targetAverageValue", "/target/averageValue"),
            ("container", "/container"),
        ],
    },
    Names {
        source: ("External", "external"),
        fields: &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("targetValue", "/target/value"),
            ("targetAverageValue", "/target/averageValue"),
        ],
    },
];

const CURRENT: &[Names] = &[
    Names {
        source: ("Object", "object"),
        fields: &[
            ("target", "/describedObject"),
            ("metricName", "/metric/name"),
            ("currentValue", "/current/value"),
            ("selector", "/metric/selector"),
            ("averageValue", "/current/averageValue"),
        ],
    },
    Names {
        source: ("Pods", "pods"),
        fields: &[
            ("metricName", "/metric/name"),
            ("currentAverageValue", "/current/averageValue"),
            ("selector", "/metric/selector"),
        ],
    },
    Names {
        source: ("Resource", "resource"),
        fields: &[
            ("name", "/name"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    },
    Names {
        source: ("ContainerResource", "containerResource"),
        fields: &[
            ("name", "/name"),
            ("currentAverageUtilization", "/current/averageUtilization"),
            ("currentAverageValue", "/current/averageValue"),
            ("container", "/container"),
        ],
    },
    Names {
        source: ("External", "external"),
        fields: &[
            ("metricName", "/metric/name"),
            ("metricSelector", "/metric/selector"),
            ("currentValue", "/current/value"),
            ("currentAverageValue", "/current/averageValue"),
        ],
    },
];

/// Amounts that v1 always has.
const ALWAYS: &[(&str, &str)] = &[
    ("Object", "targetValue"),
    ("Pods", "targetAverageValue"),
    ("Object", "currentValue"),
    ("Pods", "currentAverageValue"),
    ("External", "currentValue"),
    ("Resource", "currentAverageValue"),
    ("ContainerResource", "currentAverageValue"),
];

fn spec_to_v1(metric: &Value) -> Value {
    flat(metric, TARGETS)
}

fn status_to_v1(metric: &Value) -> Value {
    flat(metric, CURRENT)
}

fn flat(metric: &Value, table: &[Names]) -> Value {
    let mut out = json!({"type": metric["type"]});
    for Names { source: (kind, field_name), fields } in table {
        let Some(source) = metric.get(field_name) else { continue };
        let amount = |name: &str| ALWAYS.contains(&(kind, name)).then(|| json!("0"));
        let fields = fields.iter().map(|(name, pointer)| (*name, field(source, pointer).or_else(|| amount(name))));
        out[field_name] = object(fields);
    }
    out
}

fn nested(metric: &Value, table: &[Names]) -> Value {
    let mut out = json!({"type": metric["type"]});
    for Names { source: (_, field_name), fields } in table {
        let Some(source) = metric.get(field_name) else { continue };
        for (name, pointer) in *fields {
            let Some(value) = source.get(name).filter(|value| !value.is_null()) else { continue };
            let mut at = &mut out[field_name];
            for part in pointer.split('/').skip(1) {
                at = &mut at[part];
            }
            *at = value.clone();
        }
    }
    out
}

fn spec_from_v1(metric: &Value) -> Value {
    let mut out = nested(metric, TARGETS);
    for Names { source: (kind, field_name), .. } in TARGETS {
        let Some(source) = out.get_mut(field_name).filter(|source| source.is_object()) else { continue };
        if *kind == "Object" {
            drop_zero_value(&mut source["target"]);
        }
        let has = |name: &str| source.pointer(&format!("/target/{name}")).is_some();
        let ty = match *kind {
            "Resource" | "ContainerResource" if has("averageUtilization") => "Utilization",
            "Object" if !has("averageValue") => "Value",
            "External" if has("value") => "Value",
            _ => "AverageValue",
        };
        source["target"]["type"] = ty.into();
    }
    out
}

/// v1 has a target value always, which is zero where the target is an average and no value of its own.
fn drop_zero_value(target: &mut Value) {
    let is_zero = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok()).is_some_and(|q| q.signum() == 0);
    if target.get("averageValue").is_some() && target.get("value").is_some_and(is_zero) {
        crate::util::remove(target, "value");
    }
}

fn status_from_v1(metric: &Value) -> Value {
    nested(metric, CURRENT)
}

/// The behaviour stands in the annotation as the server's own type, whose fields begin with a capital.
fn behavior_to_v1(behavior: &Value) -> Value {
    let rules = |name: &str| {
        let rules = behavior.get(name)?;
        let policies = list(rules, "/policies")
            .into_iter()
            .map(|policy| json!({"Type": policy["type"], "Value": policy["value"], "PeriodSeconds": policy["periodSeconds"]}));
        let policies = rules.get("policies").map(|_| policies.collect::<Vec<_>>());
        Some(json!({
            "StabilizationWindowSeconds": rules.get("stabilizationWindowSeconds"),
            "SelectPolicy": rules.get("selectPolicy"),
            "Policies": policies,
            "Tolerance": rules.get("tolerance"),
        }))
    };
    json!({"ScaleUp": rules("scaleUp"), "ScaleDown": rules("scaleDown")})
}

/// Fields by name, whatever their capitals, as Go reads JSON.
fn any_case<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).filter(|value| !value.is_null())
}

fn behavior_from_v1(behavior: &Value) -> Value {
    let rules = |name: &str| {
        let rules = any_case(behavior, name)?;
        let policies = any_case(rules, "policies").and_then(Value::as_array).map(|policies| {
            let fields =
                |policy: &Value| object(["type", "value", "periodSeconds"].map(|name| (name, any_case(policy, name).cloned())));
            policies.iter().map(fields).collect::<Vec<_>>().into()
        });
        Some(object([
            ("stabilizationWindowSeconds", any_case(rules, "stabilizationWindowSeconds").cloned()),
            ("selectPolicy", any_case(rules, "selectPolicy").cloned()),
            ("policies", policies),
            ("tolerance", any_case(rules, "tolerance").cloned()),
        ]))
    };
    object([("scaleUp", rules("scaleUp")), ("scaleDown", rules("scaleDown"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaler() -> Value {
        let object_ = json!({"type": "Object", "object": {"describedObject": {"kind": "Ingress", "name": "main"},
            "metric": {"name": "hits"}, "target": {"type": "Value", "value": "2k"}}});
        let cpu =
            json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}});
        let external = json!({"type": "External", "external": {"metric": {"name": "queue", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "30"}}});
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web", "annotations": {"own": "x"}},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"}, "minReplicas": 1, "maxReplicas": 5,
                "metrics": [object_, external, cpu],
                "behavior": {"scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]}}},
            "status": {"currentReplicas": 2, "desiredReplicas": 3, "conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 20, "averageValue": "5m"}}}]}})
    }

    #[test]
    fn v1_has_one_metric_and_notes_the_rest() {
        let v1 = to_v1(&scaler());
        assert_eq!(
            v1["spec"],
            json!({"scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
            "minReplicas": 1, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50})
        );
        assert_eq!(v1["status"], json!({"currentReplicas": 2, "desiredReplicas": 3, "currentCPUUtilizationPercentage": 20}));
        let note = |key: &str| meta::annotation(&v1, key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
        assert_eq!(
            note(METRICS),
            json!([
                {"type": "Object", "object": {"target": {"kind": "Ingress", "name": "main"}, "metricName": "hits", "targetValue": "2k"}},
                {"type": "External", "external": {"metricName": "queue", "metricSelector": {"matchLabels": {"a": "b"}}, "targetAverageValue": "30"}},
            ])
        );
        assert_eq!(
            note(CURRENT_METRICS),
            json!([
                {"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 20, "currentAverageValue": "5m"}},
            ])
        );
        let rules = json!({"StabilizationWindowSeconds": null, "SelectPolicy": "Max", "Tolerance": null,
            "Policies": [{"Type": "Pods", "Value": 4, "PeriodSeconds": 60}]});
        assert_eq!(note(BEHAVIOR), json!({"ScaleUp": null, "ScaleDown": rules}));
        assert_eq!((meta::annotation(&v1, "own"), v1["apiVersion"].as_str()), (Some("x"), Some("autoscaling/v1")));
    }

    #[test]
    fn the_way_there_and_back_loses_nothing() {
        assert_eq!(from_v1(&to_v1(&scaler())), scaler());
    }

    /// Upstream's issue 87733: an average of an object's metric can be written back by a client of v1.
    #[test]
    fn averages_of_objects_have_no_value_beside_them() {
        let check = |target: Value, expected: Value| {
            let mut scaler = scaler();
            scaler["spec"]["metrics"][0]["object"]["target"] = target;
            assert_eq!(from_v1(&to_v1(&scaler))["spec"]["metrics"][0]["object"]["target"], expected);
        };
        let average = json!({"type": "AverageValue", "averageValue": "3"});
        check(average.clone(), average.clone());
        check(json!({"type": "AverageValue", "averageValue": "3", "value": "0m"}), average);
        let both = json!({"type": "AverageValue", "averageValue": "3", "value": "1"});
        check(both.clone(), both);
        check(json!({"type": "Value", "value": "0"}), json!({"type": "Value", "value": "0"}));
    }

    #[test]
    fn the_least_that_v1_can_say() {
        let check = |spec: Value, expected: Value| {
            let v2 = from_v1(&json!({"kind": "HorizontalPodAutoscaler", "spec": spec}));
            assert_eq!(v2["spec"]["metrics"], expected);
        };
        let cpu = |part: i32| json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": part}}}]);
        check(json!({"maxReplicas": 2, "targetCPUUtilizationPercentage": 30}), cpu(30));
        check(json!({"maxReplicas": 2}), cpu(80));
    }

    #[test]
    fn notes_that_nobody_can_read_are_left_out() {
        let annotations = json!({METRICS: "[", BEHAVIOR: "x", "own": "y"});
        let v2 = from_v1(&json!({"metadata": {"annotations": annotations}, "spec": {"targetCPUUtilizationPercentage": 30}}));
        assert_eq!((v2["metadata"]["annotations"].clone(), v2["spec"].get("behavior")), (json!({"own": "y"}), None));
    }
}

//! Whether a pod or a claim keeps within a limit range. Pure.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::PodSpec;
use pods::resources;
use serde_json::Value;

use super::limits;

/// Amounts by resource.
type Amounts = BTreeMap<String, Quantity>;

fn amounts(value: Option<&Value>) -> Amounts {
    let list = value.and_then(Value::as_object).into_iter().flatten();
    list.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount).ok()?))).collect()
}

/// What something asks for and how much it may have.
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

/// What of `object` (a pod, or a claim) breaks the range, in upstream's words.
pub(super) fn broken(object: &Value, range: &Value, pod: bool) -> Vec<String> {
    let mut broken = Vec::new();
    if !pod {
        let asked = Asked { requests: amounts(object.pointer("/spec/resources/requests")), limits: Amounts::new() };
        for limit in limits(range, "PersistentVolumeClaim") {
            each(limit, "min", |name, least| below(&asked, name, least), "PersistentVolumeClaim", &mut broken);
            each(limit, "max", |name, most| requests_above(&asked, name, most), "PersistentVolumeClaim", &mut broken);
        }
        return broken;
    }
    let Some(spec) = pods::spec_of_value(object) else { return broken };
    for limit in limits(range, "Container") {
        for container in pods::containers(&spec) {
            let asked = Asked { requests: owned(resources::requests(container)), limits: owned(resources::limits(container)) };
            bound(&asked, limit, "Container", &mut broken);
        }
    }
    for limit in limits(range, "Pod") {
        bound(&of_pod(&spec), limit, "Pod", &mut broken);
    }
    broken
}

fn owned(amounts: resources::Amounts<'_>) -> Amounts {
    amounts.into_iter().map(|(name, amount)| (name.to_owned(), amount)).collect()
}

/// What the containers take together, where the pod itself says nothing else.
fn of_pod(spec: &PodSpec) -> Asked {
    let own = spec.resources.as_ref();
    let (mut requests, mut limits) =
        (resources::together(spec, resources::requests), resources::together(spec, resources::limits));
    requests.extend(resources::amounts(own.and_then(|own| own.requests.as_ref())));
    limits.extend(resources::amounts(own.and_then(|own| own.limits.as_ref())));
    Asked { requests: owned(requests), limits: owned(limits) }
}

fn bound(asked: &Asked, limit: &Value, kind: &str, broken: &mut Vec<String>) {
    each(limit, "min", |name, least| below(asked, name, least), kind, broken);
    each(limit, "max", |name, most| above(asked, name, most), kind, broken);
    each(limit, "maxLimitRequestRatio", |name, most| ratio(asked, name, most), kind, broken);
}

/// Asks of each amount in a part of the limit how it is broken.
fn each(limit: &Value, part: &str, how: impl Fn(&str, Quantity) -> Option<String>, kind: &str, broken: &mut Vec<String>) {
    for (name, bound) in amounts(limit.get(part)) {
        let Some(how) = how(&name, bound) else { continue };
        broken.push(match part {
            "min" => format!("minimum {name} usage per {kind} is {bound}{how}"),
            "max" => format!("maximum {name} usage per {kind} is {bound}{how}"),
            _ => format!("{name} max limit to request ratio per {kind} is {bound}, but {how}"),
        });
    }
}

fn below(asked: &Asked, name: &str, least: Quantity) -> Option<String> {
    let Some(request) = asked.requests.get(name) else { return Some(".  No request is specified".to_owned()) };
    if *request < least {
        return Some(format!(", but request is {request}"));
    }
    asked.limits.get(name).filter(|limit| **limit < least).map(|limit| format!(", but limit is {limit}"))
}

fn above(asked: &Asked, name: &str, most: Quantity) -> Option<String> {
    let Some(limit) = asked.limits.get(name) else { return Some(".  No limit is specified".to_owned()) };
    if *limit > most {
        return Some(format!(", but limit is {limit}"));
    }
    asked.requests.get(name).filter(|request| **request > most).map(|request| format!(", but request is {request}"))
}

fn requests_above(asked: &Asked, name: &str, most: Quantity) -> Option<String> {
    let Some(request) = asked.requests.get(name) else { return Some(".  No request is specified".to_owned()) };
    (*request > most).then(|| format!(", but request is {request}"))
}

fn ratio(asked: &Asked, name: &str, most: Quantity) -> Option<String> {
    let positive = |amounts: &Amounts| amounts.get(name).copied().filter(|amount| !amount.is_zero());
    let Some(request) = positive(&asked.requests) else { return Some("no request is specified or request is 0".to_owned()) };
    let Some(limit) = positive(&asked.limits) else { return Some("no limit is specified or limit is 0".to_owned()) };
    let found = limit.as_f64() / request.as_f64();
    (found > most.as_f64()).then(|| format!("provided ratio is {found:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(requests: &Value, limits: &Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn containers() {
        let check = |limit: Value, requests: Value, limits: Value, expected: &[&str]| {
            let mut limit = limit;
            limit["type"] = json!("Container");
            let pod = json!({"spec": {"containers": [container(&requests, &limits)]}});
            assert_eq!(broken(&pod, &json!({"spec": {"limits": [limit]}}), true), expected);
        };
        let cpu = |amount: &str| json!({"cpu": amount});
        check(json!({"min": {"cpu": "50m"}, "max": {"cpu": "500m"}}), cpu("100m"), cpu("500m"), &[]);
        check(
            json!({"max": {"cpu": "500m"}}),
            cpu("100m"),
            cpu("1"),
            &["maximum cpu usage per Container is 500m, but limit is 1"],
        );
        check(
            json!({"max": {"cpu": "500m"}}),
            cpu("1"),
            json!({}),
            &["maximum cpu usage per Container is 500m.  No limit is specified"],
        );
        check(
            json!({"min": {"cpu": "50m"}}),
            cpu("10m"),
            json!({}),
            &["minimum cpu usage per Container is 50m, but request is 10m"],
        );
        check(
            json!({"min": {"cpu": "50m"}}),
            json!({}),
            json!({}),
            &["minimum cpu usage per Container is 50m.  No request is specified"],
        );
        let two = json!({"maxLimitRequestRatio": {"cpu": "2"}});
        check(two.clone(), cpu("100m"), cpu("200m"), &[]);
        check(
            two.clone(),
            cpu("100m"),
            cpu("250m"),
            &["cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000"],
        );
        check(
            two,
            json!({}),
            cpu("1"),
            &["cpu max limit to request ratio per Container is 2, but no request is specified or request is 0"],
        );
    }

    #[test]
    fn pods() {
        let check = |spec: Value, expected: &[&str]| {
            let range = json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "2"}}]}});
            assert_eq!(broken(&json!({"spec": spec}), &range, true), expected);
        };
        let one = || container(&json!({"cpu": "1"}), &json!({"cpu": "1"}));
        let sidecar = || {
            let mut sidecar = one();
            sidecar["restartPolicy"] = json!("Always");
            sidecar
        };
        let over = |amount: &str| format!("maximum cpu usage per Pod is 2, but limit is {amount}");
        check(json!({"containers": [one(), one()]}), &[]);
        check(json!({"containers": [one(), one(), one()]}), &[&over("3")]);
        check(json!({"containers": [one()], "initContainers": [one(), one()]}), &[]);
        check(json!({"containers": [one()], "initContainers": [sidecar(), sidecar(), one()]}), &[&over("3")]);
        check(json!({"containers": [one(), one(), one()], "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}}), &[]);
    }

    #[test]
    fn claims() {
        let range = json!({"spec": {"limits": [{"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}]}});
        let check = |amount: &str, expected: &[&str]| {
            let claim = json!({"spec": {"resources": {"requests": {"storage": amount}}}});
            assert_eq!(broken(&claim, &range, false), expected);
        };
        check("1Gi", &[]);
        check("3Gi", &["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]);
        check("1Mi", &["minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"]);
    }
}

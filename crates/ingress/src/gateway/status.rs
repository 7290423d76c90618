//! Statuses of the Gateway API: conditions that keep the time of their last change. Pure.

use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::policy::Protocol;

/// The versions of BackendTLSPolicies.
pub const POLICY_VERSIONS: [&str; 2] = ["v1", "v1alpha3"];
/// The versions of TLSRoutes.
pub const TLS_VERSIONS: [&str; 3] = ["v1", "v1alpha3", "v1alpha2"];

/// The versions of TCPRoutes and UDPRoutes.
pub const STREAM_VERSIONS: [&str; 2] = ["v1", "v1alpha2"];

/// The kinds that have a status of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    GatewayClass,
    Gateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    UdpRoute,
    BackendTlsPolicy,
}

impl Kind {
    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
        }
    }

    /// What the back ends of such routes speak; what their Services say when none.
    pub fn protocol(self) -> Option<Protocol> {
        (self == Self::GrpcRoute).then_some(Protocol::Grpc)
    }

    /// The answer of such routes where a back end is none. "When a GRPCBackendRef is invalid, UNAVAILABLE statuses MUST be returned" (GRPCRouteRule), which is
    /// what clients of gRPC take 503 for; they take 500, which HTTPRoutes answer with, for UNKNOWN.
    pub fn without_backend(self) -> StatusCode {
        if self == Self::GrpcRoute { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR }
    }

    /// Whether what such routes forward is not looked into: it has TLS of its own, or anything else.
    pub fn is_led_on(self) -> bool {
        matches!(self, Self::TlsRoute | Self::TcpRoute | Self::UdpRoute)
    }

    /// The resource's name.
    pub fn plural(self) -> &'static str {
        match self {
            Self::GatewayClass => "gatewayclasses",
            Self::Gateway => "gateways",
            Self::ListenerSet => "listenersets",
            Self::HttpRoute => "httproutes",
            Self::GrpcRoute => "grpcroutes",
            Self::TlsRoute => "tlsroutes",
            Self::TcpRoute => "tcproutes",
            Self::UdpRoute => "udproutes",
            Self::BackendTlsPolicy => "backendtlspolicies",
        }
    }

    /// The versions in which the resource may be served, the best first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            Self::TlsRoute => &TLS_VERSIONS,
            Self::TcpRoute | Self::UdpRoute => &STREAM_VERSIONS,
            Self::BackendTlsPolicy => &POLICY_VERSIONS,
            _ => &["v1"],
        }
    }
}

/// The generation of an object, for `observedGeneration`.
pub fn generation(metadata: &ObjectMeta) -> i64 {
    metadata.generation.unwrap_or_default()
}

/// A condition, without the time of its last change, which [`settle`] adds.
pub fn condition(kind: &str, holds: Result<(), ()>, reason: &str, message: &str, generation: i64) -> Value {
    let status = if holds.is_ok() { "True" } else { "False" };
    json!({"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": generation})
}

/// The types of our conditions; others' stay.
const OWN: [&str; 6] =
    ["Accepted", "Programmed", "ResolvedRefs", "Conflicted", "OverlappingTLSConfig", "InsecureFrontendValidationMode"];

/// The wanted status with what stays of the one that is there: the time of a condition whose status is the same, and conditions of
/// types that others set (GatewayPreserveForeignConditions of the conformance tests). None when nothing changes.
pub fn settle(wanted: &Value, old: &Value, now: &str) -> Option<Value> {
    let mut settled = wanted.clone();
    times(&mut settled, old, now);
    let same = settled.as_object().into_iter().flatten().all(|(name, value)| old.get(name) == Some(value));
    (!same).then_some(settled)
}

fn times(wanted: &mut Value, old: &Value, now: &str) {
    match wanted {
        Value::Array(items) => {
            for (place, item) in items.iter_mut().enumerate() {
                let before = partner(item, old.as_array().map_or(&[], Vec::as_slice), place);
                times(item, before, now);
            }
        }
        Value::Object(object) => {
            if object.contains_key("observedGeneration") && !object.contains_key("lastTransitionTime") {
                let stays = old["status"] == object["status"] && old["lastTransitionTime"].is_string();
                let time = if stays { old["lastTransitionTime"].clone() } else { now.into() };
                object.insert("lastTransitionTime".to_owned(), time);
                return;
            }
            for (name, value) in object {
                if let (true, Some(conditions)) = (name == "conditions", value.as_array_mut()) {
                    keep_others(conditions, &old["conditions"]);
                }
                times(value, &old[name.as_str()], now);
            }
        }
        _ => {}
    }
}

/// Adds the conditions that others have set beside ours.
fn keep_others(conditions: &mut Vec<Value>, old: &Value) {
    let is_there = |one: &Value, all: &[Value]| all.iter().any(|other| other["type"] == one["type"]);
    let others = old.as_array().into_iter().flatten().filter(|one| !OWN.iter().any(|own| one["type"] == *own));
    let others: Vec<Value> = others.filter(|one| !is_there(one, conditions)).cloned().collect();
    conditions.extend(others);
}

/// The item of the old list that an item of the new one continues: of the same type, name or parent, else in the same place.
fn partner<'a>(item: &Value, old: &'a [Value], place: usize) -> &'a Value {
    const NOTHING: &Value = &Value::Null;
    for key in ["type", "name"] {
        if item.get(key).is_some_and(Value::is_string) {
            return old.iter().find(|other| other[key] == item[key]).unwrap_or(NOTHING);
        }
    }
    for key in ["parentRef", "ancestorRef"] {
        if item.get(key).is_some() {
            let same = |other: &&Value| other[key] == item[key] && other["controllerName"] == item["controllerName"];
            return old.iter().find(same).unwrap_or(NOTHING);
        }
    }
    old.get(place).unwrap_or(NOTHING)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_stay_while_nothing_changes() {
        let wanted = |holds, generation| json!({"conditions": [condition("Accepted", holds, "Accepted", "", generation)]});
        let first = settle(&wanted(Ok(()), 1), &json!({"conditions": []}), "t1").unwrap();
        assert_eq!(first["conditions"][0]["lastTransitionTime"], "t1");
        assert_eq!(settle(&wanted(Ok(()), 1), &first, "t2"), None);
        let second = settle(&wanted(Ok(()), 2), &first, "t2").unwrap();
        assert_eq!(second["conditions"][0]["lastTransitionTime"], "t1", "the status is as it was");
        let third = settle(&wanted(Err(()), 2), &second, "t3").unwrap();
        assert_eq!(third["conditions"][0]["lastTransitionTime"], "t3");
    }

    /// GatewayPreserveForeignConditions and BackendTLSPolicyPreserveForeignStatus of the conformance tests; what we no longer say goes.
    #[test]
    fn conditions_of_others_stay() {
        let theirs = json!({"type": "example.com/Seen", "status": "True", "reason": "Yes", "message": "", "observedGeneration": 1, "lastTransitionTime": "t0"});
        let mut conflicted = condition("Conflicted", Ok(()), "HostnameConflict", "", 1);
        conflicted["lastTransitionTime"] = json!("t0");
        let conditions = json!([theirs, conflicted]);
        let old = json!({"conditions": conditions, "listeners": [{"name": "a", "conditions": conditions}], "parents": [{"parentRef": {"name": "g"}, "controllerName": "own", "conditions": conditions}]});
        let ours = json!([condition("Accepted", Ok(()), "Accepted", "", 1)]);
        let wanted = json!({"conditions": ours, "listeners": [{"name": "a", "conditions": ours}, {"name": "b", "conditions": ours}], "parents": [{"parentRef": {"name": "g"}, "controllerName": "own", "conditions": ours}]});
        let settled = settle(&wanted, &old, "t1").unwrap();
        let types = |place: &str| {
            let all = settled.pointer(place).unwrap().as_array().unwrap();
            all.iter().map(|one| format!("{}@{}", one["type"], one["lastTransitionTime"]).replace('"', "")).collect::<Vec<_>>()
        };
        for place in ["/conditions", "/listeners/0/conditions", "/parents/0/conditions"] {
            assert_eq!(types(place), ["Accepted@t1", "example.com/Seen@t0"], "{place}");
        }
        assert_eq!(types("/listeners/1/conditions"), ["Accepted@t1"]);
        assert_eq!(settle(&wanted, &settled, "t2"), None);
    }

    #[test]
    fn what_others_wrote_stays() {
        let parent = |name: &str, controller: &str, conditions: Value| json!({"parentRef": {"name": name}, "controllerName": controller, "conditions": conditions});
        let theirs = parent(
            "x",
            "other",
            json!([{"type": "Accepted", "status": "True", "observedGeneration": 1, "lastTransitionTime": "t0"}]),
        );
        let ours = parent("g", "own", json!([condition("Accepted", Ok(()), "Accepted", "", 1)]));
        let settled = settle(&json!({"parents": [theirs, ours]}), &json!({"parents": [theirs]}), "t1").unwrap();
        assert_eq!(settled["parents"][0], theirs);
        assert_eq!(settled["parents"][1]["conditions"][0]["lastTransitionTime"], "t1");
    }
}

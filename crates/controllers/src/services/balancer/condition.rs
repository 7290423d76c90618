//! The condition of a Service whose ports are not for it (KEP-1435), there for as long as that is so: an event is gone after an hour.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::meta;

/// Upstream's type of it: "the condition of the requested ports on the cloud load balancer instance".
const PORTS_ERROR: &str = "LoadBalancerPortsError";
/// Why. A condition of that type with another reason is another implementation's.
const UNAVAILABLE: &str = "PortUnavailable";

/// What the condition says of the Service.
pub(super) fn told(service: &Service) -> Option<&str> {
    all(service).iter().find(|condition| is_ours(condition)).map(|condition| condition.message.as_str())
}

/// The Service's conditions when its ports are refused for the reason `why`, or not refused.
pub(super) fn with(service: &Service, why: Option<&str>, now: Timestamp) -> Vec<Condition> {
    let before = all(service).iter().find(|condition| is_ours(condition));
    let mut conditions: Vec<Condition> = all(service).iter().filter(|condition| !is_ours(condition)).cloned().collect();
    conditions.extend(why.map(|message| Condition {
        type_: PORTS_ERROR.to_owned(),
        status: "True".to_owned(),
        reason: UNAVAILABLE.to_owned(),
        message: message.to_owned(),
        observed_generation: service.metadata.generation,
        last_transition_time: before.map_or(meta::whole_seconds(now), |before| before.last_transition_time.clone()),
    }));
    conditions
}

fn is_ours(condition: &Condition) -> bool {
    condition.type_ == PORTS_ERROR && condition.reason == UNAVAILABLE
}

fn all(service: &Service) -> &[Condition] {
    service.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use serde_json::json;

    #[test]
    fn it_comes_and_goes_and_leaves_others_alone() {
        let at = |second| Timestamp::from_second(second).unwrap_or_default();
        let other = json!({"type": "Other", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "1970-01-01T00:00:01Z"});
        let mut service: Service = object(json!({"metadata": {}, "status": {"conditions": [other]}}));
        let mut step = |why: Option<&str>, second, expected: &[(&str, i64)]| {
            let conditions = with(&service, why, at(second));
            let seen: Vec<_> =
                conditions.iter().map(|one| (one.message.as_str(), one.last_transition_time.0.as_second())).collect();
            assert_eq!(seen, expected);
            service.status.get_or_insert_default().conditions = Some(conditions);
            assert_eq!(told(&service), why);
        };
        step(None, 2, &[("", 1)]);
        step(Some("a"), 3, &[("", 1), ("a", 3)]);
        step(Some("b"), 4, &[("", 1), ("b", 3)]);
        step(None, 5, &[("", 1)]);
    }
}

//! The quality of service class of a pod (docs "Pod Quality of Service Classes", KEP-2837 for resources of the pod itself).

use apimachinery::quantity::Quantity;
use codec::Decode as _;
use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use serde_json::Value;

use crate::resources::{ResourceList, parse};

/// The class. CPU and memory decide, other resources do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// Everything has a limit, and asks for all of it.
    Guaranteed,
    /// Something is asked for or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl Qos {
    /// As in `status.qosClass`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The class of a pod.
    pub fn of(spec: &PodSpec) -> Self {
        Self::of_resources(spec.resources.as_ref(), crate::containers(spec).map(|container| container.resources.as_ref()))
    }

    /// The class of a pod that may not have been validated: what of it cannot be decoded counts as missing.
    pub fn of_object(pod: &Value) -> Self {
        let decoded = |value: Option<&Value>| ResourceRequirements::from_tree(value?).ok();
        let list = |key: &str| pod.pointer(&format!("/spec/{key}")).and_then(Value::as_array).into_iter().flatten();
        let containers: Vec<_> = list("containers").chain(list("initContainers")).map(|c| decoded(c.get("resources"))).collect();
        let own = decoded(pod.pointer("/spec/resources"));
        Self::of_resources(own.as_ref(), containers.iter().map(Option::as_ref))
    }

    /// The class by the pod's own resources, where it has them, or those of its containers and init containers.
    pub fn of_resources<'a>(
        pod: Option<&'a ResourceRequirements>,
        containers: impl Iterator<Item = Option<&'a ResourceRequirements>>,
    ) -> Self {
        let (mut any, mut all) = (false, true);
        let mut look = |resources: Option<&ResourceRequirements>| {
            for name in ["cpu", "memory"] {
                let (request, limit) = (positive(resources.and_then(|r| r.requests.as_ref()), name), limit(resources, name));
                any |= request.is_some() || limit.is_some();
                all &= limit.is_some() && request == limit;
            }
        };
        match pod {
            Some(_) => look(pod),
            None => containers.for_each(look),
        }
        match (any, all) {
            (false, _) => Self::BestEffort,
            (true, true) => Self::Guaranteed,
            (true, false) => Self::Burstable,
        }
    }
}

fn limit(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    positive(resources.and_then(|r| r.limits.as_ref()), name)
}

fn positive(list: Option<&ResourceList>, name: &str) -> Option<Quantity> {
    list?.get(name).map(parse).filter(|quantity| quantity.signum() > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(pod: Value, containers: &[Value], init: &[Value], expected: Qos) {
        let list = |list: &[Value]| list.iter().map(|r| json!({"name": "c", "resources": r})).collect::<Vec<_>>();
        let spec = json!({"resources": pod, "containers": list(containers), "initContainers": list(init)});
        let seen = Qos::of(&serde_json::from_value(spec.clone()).unwrap());
        assert_eq!(seen, expected, "{spec}");
    }

    #[test]
    fn classes() {
        use Qos::{BestEffort, Burstable, Guaranteed};
        let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
        let equal = |cpu: &str| json!({"requests": amounts(cpu, "1Gi"), "limits": amounts("1", "1024Mi")});
        let none = || Value::Null;
        check(none(), &[json!({})], &[], BestEffort);
        check(none(), &[json!({"requests": {"cpu": "0", "nvidia.com/gpu": "1"}, "limits": {"memory": "0m"}})], &[], BestEffort);
        check(none(), &[equal("1000m")], &[], Guaranteed);
        check(none(), &[equal("999m")], &[], Burstable);
        check(none(), &[equal("1"), json!({})], &[], Burstable);
        check(none(), &[equal("1")], &[equal("1")], Guaranteed);
        check(none(), &[equal("1")], &[json!({})], Burstable);
        check(none(), &[json!({"limits": amounts("1", "1Gi")})], &[], Burstable);
        check(none(), &[json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})], &[], Burstable);
        // The pod's own resources alone decide, whatever its containers say.
        check(equal("1"), &[json!({})], &[], Guaranteed);
        check(equal("1"), &[json!({"requests": {"cpu": "5m"}})], &[json!({})], Guaranteed);
        check(json!({"requests": {"cpu": "1"}}), &[equal("1")], &[], Burstable);
        check(json!({}), &[equal("1")], &[], BestEffort);
    }
}

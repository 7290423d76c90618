//! What is said of an eviction, in upstream's words. Pure.

use apimachinery::quantity::{Format, Quantity};

use super::pressure::Observations;
use super::signal::{Condition, Signal};
use super::threshold::Threshold;
use crate::spec::Model;
use crate::units;

/// What a container has of the resource that is short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub used: i64,
}

fn quantity(signal: Signal, amount: i64) -> Quantity {
    let format = if matches!(signal.resource(), "memory" | "ephemeral-storage") { Format::BinarySi } else { Format::DecimalSi };
    Quantity::from_units(amount, format)
}

/// Why a pod goes: the first of `starved` is what is short, and containers are named that have more of it than they asked for.
pub fn of_pod(starved: &[&Threshold], observations: &Observations, model: &Model, uses: &[ContainerUse]) -> String {
    let Some(signal) = starved.first().map(|threshold| threshold.signal) else { return String::new() };
    let resource = signal.resource();
    let mut message = format!("The node was low on resource: {resource}. ");
    let met = starved.iter().filter(|threshold| threshold.signal.resource() == resource);
    let known = met.filter_map(|threshold| Some((threshold, observations.get(&threshold.signal)?))).next();
    if let Some((threshold, supply)) = known {
        let amounts = [threshold.quantity(supply.total), supply.available].map(|amount| quantity(signal, amount));
        message += &format!("Threshold quantity: {}, available: {}. ", amounts[0], amounts[1]);
    }
    let request = |list: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
        list.and_then(|resources| resources.requests.as_ref()?.get(resource))
            .map(|amount| (amount.0.clone(), units::whole(amount)))
    };
    if resource == "memory"
        && let Some((asked, _)) = request(model.spec().resources.as_ref())
    {
        let used = quantity(signal, uses.iter().map(|container| container.used).sum());
        message += &format!("Pod {} was using {used}, request is {asked}, has larger consumption of {resource}. ", model.name());
    }
    for container in uses {
        let Some(member) = model.member(&container.name) else { continue };
        let (asked, amount) = request(member.spec.resources.as_ref()).unwrap_or_else(|| ("0".to_owned(), 0));
        if container.used > amount {
            let used = quantity(signal, container.used);
            message += &format!(
                "Container {} was using {used}, request is {asked}, has larger consumption of {resource}. ",
                container.name
            );
        }
    }
    message
}

/// Why a pod is not let in.
pub fn of_conditions<'a>(conditions: impl IntoIterator<Item = &'a Condition>) -> String {
    let names: Vec<_> = conditions.into_iter().map(|condition| condition.name()).collect();
    format!("The node had condition: [{}]. ", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eviction::{Settings, Texts};
    use crate::node::supply::Supply;
    use crate::pod::testing::model;
    use serde_json::json;
    use std::time::Duration;

    #[track_caller]
    fn check(hard: &str, available: i64, total: i64, spec: serde_json::Value, uses: &[(&str, i64)], expected: &str) {
        let settings = Settings::parse(&Texts { hard: Some(hard), ..Texts::default() }, None, Duration::ZERO).unwrap();
        let starved: Vec<_> = settings.thresholds.iter().take(1).collect();
        let observations = [(starved[0].signal, Supply { total, available })].into();
        let uses: Vec<_> = uses.iter().map(|(name, used)| ContainerUse { name: (*name).to_owned(), used: *used }).collect();
        assert_eq!(of_pod(&starved, &observations, &model(spec), &uses), expected);
    }

    #[test]
    fn containers_that_have_more_than_they_asked_for_are_named() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b", "resources": {"requests": {"memory": "64Mi"}}}]});
        check(
            "memory.available<100Mi",
            50 << 20,
            1 << 30,
            spec,
            &[("a", 3 << 20), ("b", 64 << 20)],
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Container a was using 3Mi, request is 0, has larger consumption of memory. ",
        );
        let spec = json!({"containers": [{"name": "a"}]});
        let low = "The node was low on resource: inodes. Threshold quantity: 50, available: 49. ";
        check("nodefs.inodesFree<5%", 49, 1000, spec.clone(), &[], low);
        let low = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 1000Ki. ";
        check("nodefs.available<1Gi", 1000 << 10, 2 << 30, spec, &[], low);
    }

    #[test]
    fn requests_of_the_pod_itself_are_told() {
        let spec = json!({"resources": {"requests": {"memory": "1Mi"}}, "containers": [{"name": "a", "resources": {"requests": {"memory": "1Gi"}}}]});
        check(
            "memory.available<100Mi",
            50 << 20,
            1 << 30,
            spec,
            &[("a", 3 << 20)],
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
             Pod p was using 3Mi, request is 1Mi, has larger consumption of memory. ",
        );
    }

    #[test]
    fn conditions_are_listed_as_go_does() {
        assert_eq!(
            of_conditions(&[Condition::Memory, Condition::Disk]),
            "The node had condition: [MemoryPressure DiskPressure]. "
        );
    }
}

//! What is said of an eviction, in upstream's words. Pure.

use std::collections::BTreeMap;

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

/// Why a pod goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// For people.
    pub message: String,
    /// For programs, on the event: who is named in the message, how much they have, and of what. Vertical autoscalers read it.
    pub annotations: BTreeMap<String, String>,
}

/// Why a pod goes: the first of `starved` is what is short, and containers are named that have more of it than they asked for.
pub fn of_pod(starved: &[&Threshold], observations: &Observations, model: &Model, uses: &[ContainerUse]) -> Reason {
    let Some(signal) = starved.first().map(|threshold| threshold.signal) else { return Reason::default() };
    let resource = signal.resource();
    let mut message = format!("The node was low on resource: {resource}. ");
    let met = starved.iter().filter(|threshold| threshold.signal.resource() == resource);
    let known = met.filter_map(|threshold| Some((threshold, observations.get(&threshold.signal)?))).next();
    if let Some((threshold, supply)) = known {
        let amounts = [threshold.quantity(supply.total), supply.available].map(|amount| quantity(signal, amount));
        message += &format!("Threshold quantity: {}, available: {}. ", amounts[0], amounts[1]);
    }
    let mut annotations = BTreeMap::new();
    let request = |list: Option<&k8s_openapi::api::core::v1::ResourceRequirements>| {
        list.and_then(|resources| resources.requests.as_ref()?.get(resource))
            .map(|amount| (amount.0.clone(), units::whole(amount)))
    };
    if resource == "memory"
        && let Some((asked, _)) = request(model.spec().resources.as_ref())
    {
        let used = quantity(signal, uses.iter().map(|container| container.used).sum());
        message += &format!("Pod {} was using {used}, request is {asked}, has larger consumption of {resource}. ", model.name());
        annotations.insert("offending_pod".to_owned(), model.name().to_owned());
        annotations.insert("offending_pod_usage".to_owned(), used.to_string());
    }
    let (mut names, mut amounts) = (Vec::new(), Vec::new());
    for container in uses {
        let Some(member) = model.member(&container.name) else { continue };
        let (asked, amount) = request(member.spec.resources.as_ref()).unwrap_or_else(|| ("0".to_owned(), 0));
        if container.used > amount {
            let used = quantity(signal, container.used);
            message += &format!(
                "Container {} was using {used}, request is {asked}, has larger consumption of {resource}. ",
                container.name
            );
            names.push(container.name.as_str());
            amounts.push(used.to_string());
        }
    }
    annotations.insert("offending_containers".to_owned(), names.join(","));
    annotations.insert("offending_containers_usage".to_owned(), amounts.join(","));
    annotations.insert("starved_resource".to_owned(), resource.to_owned());
    Reason { message, annotations }
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

    /// The message, and the annotations that upstream's `evictionMessage` gives the event with it.
    #[track_caller]
    fn check(
        hard: &str,
        available: i64,
        total: i64,
        spec: serde_json::Value,
        uses: &[(&str, i64)],
        expected: &str,
        offending: [&str; 2],
    ) {
        let settings = Settings::parse(&Texts { hard: Some(hard), ..Texts::default() }, None, Duration::ZERO).unwrap();
        let starved: Vec<_> = settings.thresholds.iter().take(1).collect();
        let observations = [(starved[0].signal, Supply { total, available })].into();
        let uses: Vec<_> = uses.iter().map(|(name, used)| ContainerUse { name: (*name).to_owned(), used: *used }).collect();
        let Reason { message, annotations } = of_pod(&starved, &observations, &model(spec), &uses);
        assert_eq!(message, expected);
        let annotation = |key: &str| annotations.get(key).map_or("none", String::as_str);
        assert_eq!([annotation("offending_containers"), annotation("offending_containers_usage")], offending);
        assert_eq!(annotation("starved_resource"), starved[0].signal.resource());
        // Of a pod that has asked for something itself.
        let pod = if expected.contains("Pod p was using 3Mi") { ["p", "3Mi"] } else { ["none"; 2] };
        assert_eq!([annotation("offending_pod"), annotation("offending_pod_usage")], pod);
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
            ["a", "3Mi"],
        );
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let both = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
                    Container a was using 3Mi, request is 0, has larger consumption of memory. \
                    Container b was using 1Ki, request is 0, has larger consumption of memory. ";
        check("memory.available<100Mi", 50 << 20, 1 << 30, spec, &[("a", 3 << 20), ("b", 1024)], both, ["a,b", "3Mi,1Ki"]);
        let spec = json!({"containers": [{"name": "a"}]});
        let low = "The node was low on resource: inodes. Threshold quantity: 50, available: 49. ";
        check("nodefs.inodesFree<5%", 49, 1000, spec.clone(), &[], low, ["", ""]);
        let low = "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 1000Ki. ";
        check("nodefs.available<1Gi", 1000 << 10, 2 << 30, spec, &[], low, ["", ""]);
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
            ["", ""],
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

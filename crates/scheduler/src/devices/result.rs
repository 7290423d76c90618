//! What is written into a claim that gets devices.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, Device, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult, ResourceSlice,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use uuid::Uuid;

use super::PoolId;
use super::shares::Part;
use super::wanted::{Request, Wanted};

/// A device that a request gets.
pub(super) struct Given<'a> {
    pub(super) form: &'a Request,
    pub(super) pool: &'a PoolId,
    pub(super) slice: &'a ResourceSlice,
    pub(super) device: &'a Device,
    pub(super) part: &'a Part,
}

/// The allocation of these devices on a node.
pub(super) fn of(wanted: &Wanted, given: &[Given<'_>], node: &str) -> AllocationResult {
    let results = given.iter().map(|one| DeviceRequestAllocationResult {
        request: one.form.name.clone(),
        driver: one.pool.driver.clone(),
        pool: one.pool.pool.clone(),
        device: one.device.name.clone(),
        admin_access: one.form.admin.then_some(true),
        tolerations: Some(one.form.tolerations.clone()).filter(|all| !all.is_empty()),
        share_id: matches!(one.part, Part::Share(_)).then(|| Uuid::new_v4().to_string()),
        consumed_capacity: consumed(one.part),
        binding_conditions: one.device.binding_conditions.clone(),
        binding_failure_conditions: one.device.binding_failure_conditions.clone(),
    });
    let config = configuration(wanted, given);
    AllocationResult {
        devices: Some(DeviceAllocationResult {
            results: Some(results.collect()),
            config: Some(config).filter(|all| !all.is_empty()),
        }),
        node_selector: nodes(given, node),
        allocation_timestamp: None,
    }
}

/// What drivers are told of the devices: first what classes say, then what the claim does.
fn configuration(wanted: &Wanted, given: &[Given<'_>]) -> Vec<DeviceAllocationConfiguration> {
    let mut used: Vec<&Request> = Vec::new();
    for one in given {
        if !used.iter().any(|known| known.name == one.form.name) {
            used.push(one.form);
        }
    }
    let mut all = Vec::new();
    let mut classes: Vec<&str> = Vec::new();
    for form in &used {
        let class = form.class.metadata.name.as_deref().unwrap_or_default();
        if classes.contains(&class) {
            continue;
        }
        classes.push(class);
        let of_class = |other: &&&Request| other.class.metadata.name.as_deref() == Some(class);
        let requests: Vec<String> = used.iter().filter(of_class).map(|form| form.name.clone()).collect();
        // None means all.
        let requests = Some(requests).filter(|requests| requests.len() < wanted.requests.len());
        all.extend(form.class.spec.config.iter().flatten().map(|config| DeviceAllocationConfiguration {
            source: "FromClass".to_owned(),
            requests: requests.clone(),
            opaque: config.opaque.clone(),
        }));
    }
    for config in wanted.claim.spec.devices.iter().flat_map(|devices| devices.config.iter().flatten()) {
        let requests = config.requests.as_deref().unwrap_or_default();
        let concerns = |form: &&Request| names(requests, &form.name);
        if requests.is_empty() || used.iter().any(concerns) {
            all.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    all
}

fn names(requests: &[String], name: &str) -> bool {
    requests.iter().any(|request| pods::claims::is_of_request(name, Some(request)))
}

fn consumed(part: &Part) -> Option<BTreeMap<String, Quantity>> {
    let Part::Share(amounts) = part else { return None };
    Some(amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect())
}

/// The node of this name alone.
fn only(name: &str) -> NodeSelector {
    let only = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![name.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![only]), match_expressions: None };
    NodeSelector { node_selector_terms: vec![term] }
}

/// The nodes where all of the devices can be used, of which `node` is one; none is all nodes.
fn nodes(given: &[Given<'_>], node: &str) -> Option<NodeSelector> {
    if given.iter().any(|one| one.device.binds_to_node == Some(true)) {
        return Some(only(node));
    }
    let mut term = NodeSelectorTerm::default();
    for Given { slice, device, .. } in given {
        let (name, selector) = match slice.spec.per_device_node_selection {
            Some(true) => (&device.node_name, &device.node_selector),
            _ => (&slice.spec.node_name, &slice.spec.node_selector),
        };
        if let Some(name) = name.as_ref().filter(|name| !name.is_empty()) {
            return Some(only(name));
        }
        // A slice has one term.
        let Some(more) = selector.as_ref().and_then(|selector| selector.node_selector_terms.first()) else { continue };
        add(&mut term.match_fields, more.match_fields.as_deref());
        add(&mut term.match_expressions, more.match_expressions.as_deref());
    }
    let restricts = term.match_fields.is_some() || term.match_expressions.is_some();
    restricts.then(|| NodeSelector { node_selector_terms: vec![term] })
}

fn add(to: &mut Option<Vec<NodeSelectorRequirement>>, more: Option<&[NodeSelectorRequirement]>) {
    for one in more.unwrap_or_default() {
        let all = to.get_or_insert_default();
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
}

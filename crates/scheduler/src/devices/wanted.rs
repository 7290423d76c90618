//! What a claim asks for: its requests with their classes, and their selectors compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use cel::{Budget, Program, Value};
use client::Key;
use k8s_openapi::api::resource::v1::{
    CapacityRequirements, Device, DeviceAttribute, DeviceClass, DeviceSelector, DeviceToleration, ResourceClaim,
};

use super::effort::Effort;
use super::shares::{Amounts, amount};

/// What one selector may cost for one device (upstream's limit of a call).
const COST: u64 = 1_000_000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("request {request}: device class {class} does not exist")]
    Class { request: String, class: String },
    #[error("claim {claim}, request {request}: unsupported count mode {mode}")]
    Mode { claim: Key, request: String, mode: String },
    #[error("{of}: selector #{index}: CEL compile error: {error}")]
    Compile { of: String, index: usize, error: String },
}

/// A claim that gets devices.
pub(super) struct Wanted {
    pub(super) claim: Arc<ResourceClaim>,
    /// The alternatives of each request, the preferred one first.
    pub(super) requests: Vec<Vec<Request>>,
}

/// A request, or one of its alternatives.
pub(super) struct Request {
    /// As it stands in the result: `request` or `request/alternative`.
    pub(super) name: String,
    pub(super) class: Arc<DeviceClass>,
    /// Whose each is, for errors.
    selectors: Vec<(String, usize, Program)>,
    /// None: all that there are.
    pub(super) count: Option<usize>,
    /// Devices are not taken from others.
    pub(super) admin: bool,
    pub(super) tolerations: Vec<DeviceToleration>,
    /// What it needs of the capacity of a device.
    pub(super) capacity: Amounts,
}

/// A request of either form.
struct Form<'a> {
    name: String,
    class: &'a str,
    selectors: Option<&'a Vec<DeviceSelector>>,
    mode: Option<&'a str>,
    count: Option<i64>,
    admin: bool,
    tolerations: Option<&'a Vec<DeviceToleration>>,
    capacity: Option<&'a CapacityRequirements>,
}

impl Wanted {
    pub(super) fn new(claim: Arc<ResourceClaim>, class: impl Fn(&str) -> Option<Arc<DeviceClass>>) -> Result<Self, Error> {
        let mut requests = Vec::new();
        for request in claim.spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten()) {
            let exact = request.exactly.as_ref().map(|exactly| Form {
                name: request.name.clone(),
                class: &exactly.device_class_name,
                selectors: exactly.selectors.as_ref(),
                mode: exactly.allocation_mode.as_deref(),
                count: exactly.count,
                admin: exactly.admin_access == Some(true),
                tolerations: exactly.tolerations.as_ref(),
                capacity: exactly.capacity.as_ref(),
            });
            let others = request.first_available.iter().flatten().map(|one| Form {
                name: format!("{}/{}", request.name, one.name),
                class: &one.device_class_name,
                selectors: one.selectors.as_ref(),
                mode: one.allocation_mode.as_deref(),
                count: one.count,
                admin: false,
                tolerations: one.tolerations.as_ref(),
                capacity: one.capacity.as_ref(),
            });
            let forms = exact.into_iter().chain(others);
            requests.push(forms.map(|form| Request::new(&claim, form, &class)).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(Self { claim, requests })
    }

    /// Whether a request is a list of which the first that is available is given (KEP-4816).
    pub(super) fn has_alternatives(&self, request: usize) -> bool {
        let devices = self.claim.spec.devices.as_ref();
        devices.and_then(|devices| devices.requests.as_ref()?.get(request)?.first_available.as_ref()).is_some()
    }
}

impl Request {
    fn new(claim: &ResourceClaim, form: Form<'_>, class: impl Fn(&str) -> Option<Arc<DeviceClass>>) -> Result<Self, Error> {
        let request = form.name;
        let Some(class) = class(form.class) else {
            return Err(Error::Class { request, class: form.class.to_owned() });
        };
        let key = Key::of(claim);
        let count = match form.mode.unwrap_or("ExactCount") {
            "ExactCount" => Some(usize::try_from(form.count.unwrap_or(1)).unwrap_or(usize::MAX)),
            "All" => None,
            mode => return Err(Error::Mode { claim: key, request, mode: mode.to_owned() }),
        };
        let mut selectors = Vec::new();
        compile(&format!("class {}", form.class), class.spec.selectors.as_ref(), &mut selectors)?;
        compile(&format!("claim {key}"), form.selectors, &mut selectors)?;
        let tolerations = form.tolerations.cloned().unwrap_or_default();
        let asked = form.capacity.iter().flat_map(|capacity| capacity.requests.iter().flatten());
        let capacity = asked.map(|(name, text)| (name.clone(), amount(text))).collect();
        Ok(Self { name: request, class, selectors, count, admin: form.admin, tolerations, capacity })
    }

    /// Whether the class and the request select a device.
    pub(super) fn selects(&self, driver: &str, device: &Device, effort: &Effort) -> Result<bool, String> {
        if self.selectors.is_empty() {
            return Ok(true);
        }
        let value = value_of(driver, device);
        for (of, index, program) in &self.selectors {
            let mut budget = Budget::new(COST.min(effort.cost()));
            let before = budget.left();
            let result = program.evaluate(&[("device", value.clone())], &mut budget);
            effort.spend_cost(before - budget.left());
            match result {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(_) => return Err(format!("{of}: selector #{index}: no boolean")),
                Err(error) => {
                    let device = format!("{driver}/{}", device.name);
                    return Err(format!("{of}: selector #{index} on device {device}: CEL runtime error: {error}"));
                }
            }
        }
        Ok(true)
    }

    /// Whether the device has no taint that keeps it from being allocated for this request.
    pub(super) fn tolerates(&self, device: &Device) -> bool {
        let mut hard = device.taints.iter().flatten().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
        hard.all(|taint| self.tolerations.iter().any(|one| pods::tolerations::tolerates_device(one, taint)))
    }
}

fn compile(of: &str, selectors: Option<&Vec<DeviceSelector>>, into: &mut Vec<(String, usize, Program)>) -> Result<(), Error> {
    for (index, selector) in selectors.into_iter().flatten().enumerate() {
        let expression = selector.cel.as_ref().map_or("", |cel| cel.expression.as_str());
        let failed = |error: String| Error::Compile { of: of.to_owned(), index, error };
        let program = Program::compile(expression, &["device"]).map_err(|error| failed(error.to_string()))?;
        into.push((of.to_owned(), index, program));
    }
    Ok(())
}

/// A device as selectors see it (`k8s.io/dynamic-resource-allocation/cel`): attributes and capacities by domain and name.
fn value_of<'a>(driver: &'a str, device: &'a Device) -> Value<'a> {
    let by_domain = |entries: Vec<(&'a str, Value<'a>)>| {
        let mut domains: BTreeMap<&str, Vec<(Value<'a>, Value<'a>)>> = BTreeMap::new();
        for (name, value) in entries {
            let (domain, id) = name.split_once('/').unwrap_or((driver, name));
            domains.entry(domain).or_default().push((Value::text(id), value));
        }
        Value::lenient(domains.into_iter().map(|(domain, entries)| (Value::text(domain), Value::map(entries))).collect())
    };
    let attributes = device.attributes.iter().flatten().filter_map(|(name, one)| Some((name.as_str(), attribute(one)?)));
    let capacity = device
        .capacity
        .iter()
        .flatten()
        .filter_map(|(name, one)| Some((name.as_str(), Value::Quantity(Quantity::parse(&one.value.0).ok()?))));
    Value::map(vec![
        (Value::text("driver"), Value::text(driver)),
        (Value::text("attributes"), by_domain(attributes.collect())),
        (Value::text("capacity"), by_domain(capacity.collect())),
        (Value::text("allowMultipleAllocations"), Value::Bool(device.allow_multiple_allocations == Some(true))),
    ])
}

fn attribute(one: &DeviceAttribute) -> Option<Value<'_>> {
    match one {
        DeviceAttribute { bool: Some(value), .. } => Some(Value::Bool(*value)),
        DeviceAttribute { int: Some(value), .. } => Some(Value::Int(*value)),
        DeviceAttribute { string: Some(value), .. } => Some(Value::text(value.as_str())),
        DeviceAttribute { version: Some(value), .. } => Value::semver(value),
        _ => None,
    }
}

//! What all devices of some requests of a claim must have in common, or must all have different (`matchAttribute`, `distinctAttribute`).

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, DeviceConstraint};

/// A constraint, with the values of the devices that have been chosen so far.
#[derive(Debug)]
pub(super) struct Constraint<'a> {
    requests: &'a [String],
    attribute: &'a str,
    distinct: bool,
    values: Vec<&'a DeviceAttribute>,
}

impl<'a> Constraint<'a> {
    /// None of one of a kind that is not known.
    pub(super) fn new(constraint: &'a DeviceConstraint) -> Option<Self> {
        let (attribute, distinct) = match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (Some(attribute), None) => (attribute, false),
            (None, Some(attribute)) => (attribute, true),
            _ => return None,
        };
        Some(Self { requests: constraint.requests.as_deref().unwrap_or_default(), attribute, distinct, values: Vec::new() })
    }

    fn concerns(&self, request: &str) -> bool {
        let base = request.split('/').next();
        self.requests.is_empty() || self.requests.iter().any(|one| one == request || Some(one.as_str()) == base)
    }

    /// Takes a device in, unless it does not fit with those that are in.
    pub(super) fn add(&mut self, request: &str, driver: &str, device: &'a Device) -> bool {
        if !self.concerns(request) {
            return true;
        }
        let Some(value) = attribute(device, driver, self.attribute).filter(|value| is_single(value)) else { return false };
        let fits =
            if self.distinct { !self.values.contains(&value) } else { self.values.first().is_none_or(|first| *first == value) };
        if fits {
            self.values.push(value);
        }
        fits
    }

    /// Takes the device out that came last.
    pub(super) fn remove(&mut self, request: &str) {
        if self.concerns(request) {
            self.values.pop();
        }
    }
}

fn is_single(value: &DeviceAttribute) -> bool {
    value.string.is_some() || value.int.is_some() || value.bool.is_some() || value.version.is_some()
}

/// An attribute by its whole name; those of the driver's own domain are published without it too.
fn attribute<'a>(device: &'a Device, driver: &str, name: &str) -> Option<&'a DeviceAttribute> {
    let attributes = device.attributes.as_ref()?;
    attributes.get(name).or_else(|| {
        let (domain, id) = name.split_once('/')?;
        (domain == driver).then(|| attributes.get(id)).flatten()
    })
}

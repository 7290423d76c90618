//! Rules for what is claimed, in claims and in templates of claims.

use std::collections::HashMap;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceSubRequest, DeviceToleration, ExactDeviceRequest,
};
use serde_json::Value;

use super::{configuration, each, each_once, fully_qualified_name, selectors, toleration};
use crate::rules::{self, NOT_POSITIVE, list};
use crate::util::{self, set_zero, text};

pub(super) const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
pub(super) const MAX_CONFIG: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const ONE_OF_TWO: &str = "exactly one of `exactly` or `firstAvailable` is required";
const NO_REQUEST: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// One device, where nothing else is said.
pub(super) fn apply_defaults(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in util::each(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly") {
            default_request(exactly);
        }
        util::each(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    set_zero(request, "allocationMode", "ExactCount");
    if text(request, "/allocationMode") == "ExactCount" {
        set_zero(request, "count", 1);
    }
    util::each(request, "tolerations").for_each(|toleration| set_zero(toleration, "operator", "Equal"));
}

/// Names of requests, with those of their alternatives.
pub(super) struct Requests<'a>(HashMap<&'a str, Vec<&'a str>>);

impl<'a> Requests<'a> {
    pub(super) fn of(claim: &'a DeviceClaim) -> Self {
        let alternatives = |request: &'a DeviceRequest| list(&request.first_available).iter().map(|one| one.name.as_str());
        Self(list(&claim.requests).iter().map(|request| (request.name.as_str(), alternatives(request).collect())).collect())
    }

    fn contains(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, alternative)) => self.0.get(request).is_some_and(|all| all.contains(&alternative)),
        }
    }

    /// The name of a request, or of a request and one of its alternatives.
    pub(super) fn reference(&self, name: &str, path: &Path, errors: &mut Errors) {
        let parts = name.split('/');
        if parts.clone().count() > 2 {
            return errors.push(Error::invalid(path, name, NO_REQUEST));
        }
        parts.for_each(|part| rules::dns_label(path, part, errors));
        if !self.contains(name) {
            errors.push(Error::invalid(path, name, NO_REQUEST));
        }
    }

    pub(super) fn references(&self, names: &[String], path: &Path, errors: &mut Errors) {
        let check = |name: &String, path: &Path, errors: &mut Errors| self.reference(name, path, errors);
        each_once(names, MAX_REQUESTS, path, errors, check, Clone::clone);
    }
}

/// Upstream: `validateDeviceClaim`.
pub(super) fn validate(claim: &DeviceClaim, path: &Path, errors: &mut Errors) {
    let requests = Requests::of(claim);
    let name = |request: &DeviceRequest| request.name.clone();
    each_once(list(&claim.requests), MAX_REQUESTS, &path.child("requests"), errors, validate_request, name);
    each(list(&claim.constraints), MAX_CONSTRAINTS, &path.child("constraints"), errors, |constraint, path, errors| {
        validate_constraint(constraint, &requests, path, errors);
    });
    each(list(&claim.config), MAX_CONFIG, &path.child("config"), errors, |config, path, errors| {
        requests.references(list(&config.requests), &path.child("requests"), errors);
        configuration(config.opaque.as_ref(), path, errors);
    });
}

fn validate_request(request: &DeviceRequest, path: &Path, errors: &mut Errors) {
    rules::dns_label(&path.child("name"), &request.name, errors);
    let alternatives = list(&request.first_available);
    match (&request.exactly, alternatives.is_empty()) {
        (None, true) => errors.push(Error::required(path, ONE_OF_TWO)),
        (Some(_), false) => {
            errors.push(Error::invalid(path, Value::Null, format!("{ONE_OF_TWO}, but multiple fields are set")));
        }
        (None, false) => {
            let (path, name) = (path.child("firstAvailable"), |one: &DeviceSubRequest| one.name.clone());
            each_once(alternatives, MAX_ALTERNATIVES, &path, errors, validate_alternative, name);
        }
        (Some(exactly), true) => validate_devices(&Devices::from(exactly), &path.child("exactly"), errors),
    }
}

fn validate_alternative(one: &DeviceSubRequest, path: &Path, errors: &mut Errors) {
    rules::dns_label(&path.child("name"), &one.name, errors);
    validate_devices(&Devices::from(one), path, errors);
}

/// What a request and an alternative have in common.
struct Devices<'a> {
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: Option<&'a str>,
    count: i64,
    tolerations: &'a [DeviceToleration],
}

macro_rules! devices_from {
    ($($request:ty),+) => { $(impl<'a> From<&'a $request> for Devices<'a> {
        fn from(request: &'a $request) -> Self {
            Self {
                class: &request.device_class_name,
                selectors: list(&request.selectors),
                mode: request.allocation_mode.as_deref(),
                count: request.count.unwrap_or(0),
                tolerations: list(&request.tolerations),
            }
        }
    })+ };
}
devices_from!(ExactDeviceRequest, DeviceSubRequest);

fn validate_devices(devices: &Devices<'_>, path: &Path, errors: &mut Errors) {
    let at = path.child("deviceClassName");
    match devices.class {
        "" => errors.push(Error::required(&at, "")),
        class => rules::dns_subdomain(&at, class, errors),
    }
    selectors(devices.selectors, &path.child("selectors"), errors);
    let count = path.child("count");
    match devices.mode {
        Some("All") if devices.count != 0 => {
            errors.push(Error::invalid(&count, devices.count, "must not be specified when allocationMode is 'All'"));
        }
        Some("ExactCount") if devices.count <= 0 => errors.push(Error::invalid(&count, devices.count, NOT_POSITIVE)),
        mode => rules::supported(&path.child("allocationMode"), mode, &["All", "ExactCount"], errors),
    }
    for (index, one) in devices.tolerations.iter().enumerate() {
        toleration(one, &path.child("tolerations").index(index), errors);
    }
}

fn validate_constraint(constraint: &DeviceConstraint, requests: &Requests<'_>, path: &Path, errors: &mut Errors) {
    requests.references(list(&constraint.requests), &path.child("requests"), errors);
    match (&constraint.match_attribute, &constraint.distinct_attribute) {
        (Some(name), _) => fully_qualified_name(&path.child("matchAttribute"), name, errors),
        (None, Some(name)) => fully_qualified_name(&path.child("distinctAttribute"), name, errors),
        (None, None) => {
            // Upstream says so when none is set, too.
            let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
            errors.push(Error::required(path, detail));
        }
    }
}

//! Rules for how a shared device's capacity may be asked for (KEP-5075).

use apimachinery::field::{Error, Errors, Path};
use apimachinery::quantity::Quantity;
use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, CapacityRequestPolicyRange};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::each_once;
use crate::rules::resources::amount;
use crate::rules::{NOT_POSITIVE, list};

const MAX_OPTIONS: usize = 10;

/// `capacity` is all that the device has.
pub(super) fn validate(capacity: &ApiQuantity, policy: &CapacityRequestPolicy, path: &Path, errors: &mut Errors) {
    let values = list(&policy.valid_values);
    match (values.is_empty(), &policy.valid_range, &policy.default) {
        (false, Some(_), _) => {
            let detail =
                "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            errors.push(Error::forbidden(path, detail));
        }
        (false, None, None) => {
            errors.push(Error::required(&path.child("default"), "required when validValues is defined"));
        }
        (false, None, Some(default)) => validate_values(default, capacity, values, &path.child("validValues"), errors),
        (true, Some(_), None) => {
            errors.push(Error::required(&path.child("default"), "required when validRange is defined"));
        }
        (true, Some(range), Some(default)) => validate_range(default, capacity, range, &path.child("validRange"), errors),
        (true, None, _) => {}
    }
}

fn validate_values(default: &ApiQuantity, capacity: &ApiQuantity, values: &[ApiQuantity], path: &Path, errors: &mut Errors) {
    for (index, pair) in values.windows(2).enumerate().filter(|(_, pair)| amount(&pair[0]) > amount(&pair[1])) {
        let detail = "values must be sorted in ascending order";
        errors.push(Error::invalid(&path.index(index + 1), pair[1].0.as_str(), detail));
    }
    let check = |value: &ApiQuantity, path: &Path, errors: &mut Errors| {
        if amount(value) > amount(capacity) {
            let detail = format!("option is larger than capacity value: {}", capacity.0);
            errors.push(Error::invalid(path, value.0.as_str(), detail));
        }
    };
    each_once(values, MAX_OPTIONS, path, errors, check, |value| amount(value).as_i64().to_string());
    if !values.iter().any(|value| amount(value) == amount(default)) {
        let detail = "default value is not valid according to the requestPolicy";
        errors.push(Error::invalid(path, default.0.as_str(), detail));
    }
}

fn validate_range(
    default: &ApiQuantity,
    capacity: &ApiQuantity,
    range: &CapacityRequestPolicyRange,
    path: &Path,
    errors: &mut Errors,
) {
    let (min, all) = (&range.min, amount(capacity));
    let mut wrong = |field: &str, value: &ApiQuantity, broken: bool, detail: &str, than: &ApiQuantity| {
        if broken {
            errors.push(Error::invalid(&path.child(field), value.0.as_str(), format!("{detail}: {}", than.0)));
        }
    };
    wrong("min", min, amount(min) > all, "min is larger than capacity value", capacity);
    wrong("default", default, amount(default) < amount(min), "default is less than min", min);
    if let Some(max) = &range.max {
        wrong("max", min, amount(min) > amount(max), "min is larger than max", max);
        wrong("max", max, amount(max) > all, "max is larger than capacity value", capacity);
        wrong("default", default, amount(default) > amount(max), "default is more than max", max);
    }
    if let Some(step) = &range.step {
        validate_step(step, (min, range.max.as_ref(), default), capacity, &path.child("step"), errors);
    }
}

/// The default and the maximum are some steps away from the minimum.
fn validate_step(
    step: &ApiQuantity,
    (min, max, default): (&ApiQuantity, Option<&ApiQuantity>, &ApiQuantity),
    capacity: &ApiQuantity,
    path: &Path,
    errors: &mut Errors,
) {
    if amount(step).signum() <= 0 {
        return errors.push(Error::invalid(path, step.0.as_str(), NOT_POSITIVE));
    }
    let first: Quantity = amount(min) + amount(step);
    if first > amount(capacity) {
        let detail = format!("one step {first} is larger than capacity value: {}", capacity.0);
        errors.push(Error::invalid(path, step.0.as_str(), detail));
    }
    let size = amount(step).as_i64();
    let off = |value: &&ApiQuantity| size != 0 && amount(value).as_i64().wrapping_sub(amount(min).as_i64()) % size != 0;
    for value in [Some(default), max].into_iter().flatten().filter(off) {
        let detail = format!("value is not a multiple of a given step ({}) from ({})", step.0, min.0);
        errors.push(Error::invalid(path, value.0.as_str(), detail));
    }
}

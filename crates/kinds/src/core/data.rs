//! What ConfigMaps and Secrets have in common: keyed data of bounded size, which may be immutable.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use std::collections::BTreeMap;

/// Most bytes that a ConfigMap or Secret may hold.
const MAX_BYTES: usize = 1024 * 1024;

/// Keys must be file names, and all values together stay within the limit.
pub(super) fn validate_data(parts: &[(&str, Vec<(&String, usize)>)], whole: &Path, errors: &mut Errors) {
    let mut total = 0;
    for (field, entries) in parts {
        for (key, size) in entries {
            errors.invalid_each(&Path::new(field).key(key), key, names::config_map_key(key));
            total += size;
        }
    }
    if total > MAX_BYTES {
        errors.push(Error::too_long(whole, MAX_BYTES));
    }
}

pub(super) fn sizes<V>(data: &Option<BTreeMap<String, V>>, size: fn(&V) -> usize) -> Vec<(&String, usize)> {
    data.iter().flatten().map(|(key, value)| (key, size(value))).collect()
}

/// An immutable object keeps its data, and stays immutable.
pub(super) fn validate_immutable(was: Option<bool>, is: Option<bool>, same: &[(&str, bool)], errors: &mut Errors) {
    if was != Some(true) {
        return;
    }
    if is != Some(true) {
        errors.push(Error::forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set"));
    }
    for (field, same) in same {
        if !same {
            errors.push(Error::forbidden(&Path::new(field), "field is immutable when `immutable` is set"));
        }
    }
}

//! Kinds of storage.k8s.io (upstream: `pkg/apis/storage/validation`).

mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod storage_class;
#[cfg(test)]
mod tests;
mod volume_attachment;
mod volume_attributes_class;

use std::collections::BTreeMap;

use apimachinery::field::{Error, Errors, Path};

/// Most parameters of a class.
const MAX_PARAMETERS: usize = 512;
/// Keys and values of all parameters together, in bytes.
const MAX_PARAMETERS_SIZE: usize = 256 << 10;

/// The name of what makes volumes: upper case is allowed.
fn provisioner(path: &Path, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else {
        errors.invalid_each(path, name, apimachinery::names::qualified_name(&name.to_lowercase()));
    }
}

/// Parameters that mean something to the driver only.
fn parameters(path: &Path, parameters: Option<&BTreeMap<String, String>>, errors: &mut Errors) {
    let Some(parameters) = parameters else { return };
    if parameters.len() > MAX_PARAMETERS {
        return errors.push(Error::too_long(path, MAX_PARAMETERS));
    }
    if parameters.contains_key("") {
        errors.push(Error::invalid(path, "", "field can not be empty."));
    }
    if size(parameters) > MAX_PARAMETERS_SIZE {
        errors.push(Error::too_long(path, MAX_PARAMETERS_SIZE));
    }
}

/// Bytes of all keys and values.
fn size(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// Fields of a class that stay as they are.
fn no_updates<T: PartialEq>(field: &str, new: &T, old: &T, errors: &mut Errors) {
    if new != old {
        errors.push(Error::forbidden(&Path::new(field), format!("updates to {field} are forbidden.")));
    }
}

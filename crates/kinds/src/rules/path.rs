//! Paths inside volumes and containers.

use apimachinery::field::{Error, Errors, Path};

/// No `..` as an element.
pub(crate) fn no_backsteps(path: &Path, target: &str, errors: &mut Errors) {
    if target.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, target, "must not contain '..'"));
    }
}

/// Relative, and never upwards.
pub(crate) fn descending_path(path: &Path, target: &str, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.push(Error::invalid(path, target, "must be a relative path"));
    }
    no_backsteps(path, target, errors);
}

/// A file that a volume projects: descending, and not one of the names that atomic updates of a volume use.
pub(crate) fn local_path(path: &Path, target: &str, errors: &mut Errors) {
    descending_path(path, target, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(Error::invalid(path, target, "must not start with '..'"));
    }
}

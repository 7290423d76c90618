//! Files that a volume makes of keys.

use std::collections::HashSet;

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::KeyToPath;

use crate::rules;

/// Keys as files.
pub(super) fn keys(items: &[KeyToPath], path: &Path, errors: &mut Errors) {
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        rules::required(&path.child("key"), &item.key, errors);
        rules::required(&path.child("path"), &item.path, errors);
        rules::local_path(&path.child("path"), &item.path, errors);
        mode(&path.child("mode"), item.mode, errors);
    }
}

/// The mode of files.
pub(super) fn mode(path: &Path, mode: Option<i32>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.push(Error::invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

/// Files of several sources in one directory: no two of the same path.
#[derive(Default)]
pub(super) struct Paths<'a>(HashSet<&'a str>);

impl<'a> Paths<'a> {
    /// Whether the path is taken already.
    pub(super) fn taken(&mut self, path: &'a str) -> bool {
        !path.is_empty() && !self.0.insert(path)
    }
}

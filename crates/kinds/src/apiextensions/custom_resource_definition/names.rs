//! Names that a definition gives to its kind.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionNames;

use crate::rules::{self, list, text};

/// A domain of at least two parts.
pub(super) fn validate_group(group: &str, path: &Path, errors: &mut Errors) {
    let wrong = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.push(Error::required(path, ""));
    } else if !wrong.is_empty() {
        errors.push(Error::invalid(path, group, wrong.join(",")));
    } else if !group.contains('.') {
        errors.push(Error::invalid(path, group, "should be a domain with at least one dot"));
    }
}

/// What a specification, unlike a status, must name.
pub(super) fn validate_required(names: &CustomResourceDefinitionNames, path: &Path, errors: &mut Errors) {
    let fields = [
        ("plural", names.plural.as_str()),
        ("singular", text(&names.singular)),
        ("kind", names.kind.as_str()),
        ("listKind", text(&names.list_kind)),
    ];
    fields.into_iter().for_each(|(field, value)| rules::required(&path.child(field), value, errors));
}

/// All names are DNS labels, kinds but for their case.
pub(super) fn validate(names: &CustomResourceDefinitionNames, path: &Path, errors: &mut Errors) {
    let list_kind = text(&names.list_kind);
    for (field, value) in [("plural", names.plural.as_str()), ("singular", text(&names.singular))] {
        if !value.is_empty() {
            label(&path.child(field), value, errors);
        }
    }
    for (field, value) in [("kind", names.kind.as_str()), ("listKind", list_kind)] {
        let wrong = names::dns1035_label(&value.to_lowercase());
        if !value.is_empty() && !wrong.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.push(Error::invalid(&path.child(field), value, detail));
        }
    }
    for (index, name) in list(&names.short_names).iter().enumerate() {
        label(&path.child("shortNames").index(index), name, errors);
    }
    if !names.kind.is_empty() && names.kind == list_kind {
        errors.push(Error::invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same"));
    }
    for (index, name) in list(&names.categories).iter().enumerate() {
        label(&path.child("categories").index(index), name, errors);
    }
}

/// A DNS label, all that is wrong with it in one error.
pub(super) fn label(path: &Path, value: &str, errors: &mut Errors) {
    let wrong = names::dns1035_label(value);
    if !wrong.is_empty() {
        errors.push(Error::invalid(path, value, wrong.join(",")));
    }
}

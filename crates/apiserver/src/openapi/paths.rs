//! The operations of documents.

use std::collections::BTreeMap;

use registry::Catalog;
use schema::{Schema, TypeId};

use super::custom;
use super::operation::{Operation, Writes};

/// Operations, by their paths.
pub(super) type Operations = BTreeMap<String, Vec<Operation>>;

/// The types that operations read and write.
pub(super) fn types(operations: &Operations) -> Vec<TypeId> {
    let all = || operations.values().flatten();
    let names = all().flat_map(|one| {
        let written = match &one.writes {
            Writes::Object(name) => Some(name),
            Writes::Text => None,
        };
        one.reads.iter().map(|reads| &reads.schema).chain(written)
    });
    let custom = all().any(|one| one.is_custom);
    let needed = custom::NEEDED.into_iter().filter(|_| custom);
    let mut types: Vec<TypeId> =
        names.map(String::as_str).chain(needed).filter_map(|name| Schema::builtin().named(name)).collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// kubectl looks up a kind that it finds in no document among the custom resources, if the second version of the document
/// says that Namespaces take `fieldValidation`. Where there are none, it says without that that it does not know the kind.
pub(super) fn hide_field_validation(catalog: &Catalog, operations: &mut Operations) {
    if catalog.get("apiextensions.k8s.io", "v1", "customresourcedefinitions").is_some() {
        return;
    }
    for patch in operations.get_mut("/api/v1/namespaces/{name}").into_iter().flatten().filter(|one| one.method == "patch") {
        patch.parameters.retain(|parameter| parameter.name != "fieldValidation");
    }
}

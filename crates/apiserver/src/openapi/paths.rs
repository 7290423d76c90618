//! The paths half of the documents.

use std::collections::BTreeMap;

use registry::Catalog;
use schema::openapi::Docs;
use schema::{Schema, TypeId};
use serde_json::{Map, Value};

use super::operation::{Dialect, Operation, Writes, item};
use super::{custom, prefix, resource, roots};

/// The operations of a document, by their paths.
pub(super) struct Operations(BTreeMap<String, Vec<Operation>>);

impl Operations {
    /// Those of a document of version 3.
    pub(super) fn of(catalog: &Catalog, docs: &Docs, key: &str) -> Self {
        let own = catalog.iter().map(|resource| &*resource.def).filter(|def| prefix(&def.group, &def.version) == key);
        let own = own.flat_map(|def| resource::operations(def, docs));
        Self(own.chain(roots::operations(key)).collect())
    }

    /// All.
    pub(super) fn all(catalog: &Catalog, docs: &Docs) -> Self {
        let own = catalog.iter().flat_map(|resource| resource::operations(&resource.def, docs));
        let mut all: BTreeMap<_, _> = own.chain(roots::keys(catalog).iter().flat_map(|key| roots::operations(key))).collect();
        hide_field_validation(catalog, &mut all);
        Self(all)
    }

    /// The types that they read and write.
    pub(super) fn types(&self) -> Vec<TypeId> {
        let names = self.0.values().flatten().flat_map(|one| {
            let written = match &one.writes {
                Writes::Object(name) => Some(name),
                Writes::Text => None,
            };
            one.reads.iter().map(|reads| &reads.schema).chain(written)
        });
        let custom = self.0.values().flatten().any(|one| one.is_custom);
        let needed = custom::NEEDED.into_iter().filter(|_| custom);
        let names = names.map(String::as_str).chain(needed);
        let mut types: Vec<TypeId> = names.filter_map(|name| Schema::builtin().named(name)).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// As the `paths` of a document.
    pub(super) fn render(&self, dialect: Dialect) -> Map<String, Value> {
        self.0.iter().map(|(path, operations)| (path.clone(), item(operations, dialect))).collect()
    }
}

/// kubectl looks up a kind that it finds in no document among the custom resources, if the second version of the document
/// says that Namespaces take `fieldValidation`. Where there are none, it says without that that it does not know the kind.
fn hide_field_validation(catalog: &Catalog, all: &mut BTreeMap<String, Vec<Operation>>) {
    if catalog.get("apiextensions.k8s.io", "v1", "customresourcedefinitions").is_some() {
        return;
    }
    for patch in all.get_mut("/api/v1/namespaces/{name}").into_iter().flatten().filter(|one| one.method == "patch") {
        patch.parameters.retain(|parameter| parameter.name != "fieldValidation");
    }
}

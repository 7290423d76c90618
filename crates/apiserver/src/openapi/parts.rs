//! What a kind, a set of types or another server contributes to documents, in each form that documents have.

use std::cell::LazyCell;
use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use registry::{Remote, Served};
use schema::openapi::{Docs, v2_definitions, v3_schemas};
use schema::{Schema, TypeId};
use serde_json::{Map, Value};

use super::operation::{Dialect, item};
use super::part::Part;
use super::paths::Operations;
use super::{custom, gnostic, resource};

/// A form that documents have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Version 3.
    V3,
    /// Version 2.
    V2,
    /// Version 2 in protobuf.
    Protobuf,
}

impl Form {
    fn dialect(self) -> Dialect {
        if self == Self::V3 { Dialect::V3 } else { Dialect::V2 }
    }

    /// Entries of `paths`.
    pub(super) fn paths(self, items: &Map<String, Value>) -> Arc<Part> {
        Arc::new(match self {
            Self::Protobuf => Part::new(&gnostic::paths(items)),
            _ => entries(items),
        })
    }

    /// Entries of `definitions` or of `components.schemas`.
    pub(super) fn schemas(self, schemas: &Map<String, Value>) -> Arc<Part> {
        Arc::new(match self {
            Self::Protobuf => Part::new(&gnostic::definitions(schemas)),
            _ => entries(schemas),
        })
    }

    /// Operations as entries of `paths`.
    pub(super) fn operations(self, operations: &Operations) -> Arc<Part> {
        self.paths(&operations.iter().map(|(path, all)| (path.clone(), item(all, self.dialect()))).collect())
    }
}

/// The members of an object, without its brackets.
fn entries(map: &Map<String, Value>) -> Part {
    let text = serde_json::to_string(map).unwrap_or_default();
    Part::new(text.get(1..text.len().saturating_sub(1)).unwrap_or_default().as_bytes())
}

/// The descriptions of types. Those of the options of requests are always there, for custom resources have no others; all of them
/// are unpacked when they are needed.
pub(super) struct Descriptions<'a> {
    options: &'a Docs,
    all: LazyCell<Docs>,
}

impl<'a> Descriptions<'a> {
    pub(super) fn new(options: &'a Docs) -> Self {
        Self { options, all: LazyCell::new(Docs::builtin) }
    }

    fn of(&self, served: &Served) -> &Docs {
        if served.is_custom() { self.options } else { &self.all }
    }
}

/// What a kind contributes.
pub(super) struct Contribution {
    pub(super) paths: Arc<Part>,
    /// The types of custom resources.
    pub(super) schemas: Arc<Part>,
    /// Their names.
    pub(super) names: Vec<String>,
    /// The types of the table that it needs.
    pub(super) types: Vec<TypeId>,
}

/// What a kind contributes to each form, made when it is first asked for.
#[derive(Default)]
struct Contributions([OnceLock<Arc<Contribution>>; 3]);

/// What a kind contributes. `change` is made of its operations.
pub(super) fn of(
    served: &Served,
    form: Form,
    descriptions: &Descriptions<'_>,
    change: impl FnOnce(&mut Operations),
) -> Arc<Contribution> {
    let all = served.derived.get(Contributions::default);
    let made = all.0[form as usize].get_or_init(|| {
        let mut operations: Operations = resource::operations(&served.def, descriptions.of(served)).into_iter().collect();
        change(&mut operations);
        let schemas = custom::schemas(served, form.dialect());
        Arc::new(Contribution {
            paths: form.operations(&operations),
            schemas: form.schemas(&schemas),
            types: super::paths::types(&operations),
            names: schemas.into_iter().map(|(name, _)| name).collect(),
        })
    });
    made.clone()
}

/// Types of the table, with all that they refer to.
pub(super) struct Types {
    pub(super) part: Arc<Part>,
    pub(super) names: HashSet<String>,
}

impl Types {
    pub(super) fn new(form: Form, types: &[TypeId], descriptions: &Descriptions<'_>) -> Self {
        let make = if form == Form::V3 { v3_schemas } else { v2_definitions };
        let schemas = make(Schema::builtin(), &descriptions.all, types);
        Self { part: form.schemas(&schemas), names: schemas.into_iter().map(|(name, _)| name).collect() }
    }
}

/// What other servers add to the document of version 2.
pub(super) struct Others {
    of: Vec<Arc<Remote>>,
    types: Arc<Types>,
    form: Form,
    pub(super) paths: Arc<Part>,
    pub(super) schemas: Arc<Part>,
    names: Vec<String>,
}

impl Others {
    /// The paths of their group versions, and the types that nobody else has: one that two have is the same.
    pub(super) fn new(form: Form, remotes: &[Arc<Remote>], types: &Arc<Types>) -> Self {
        Self::without(form, remotes, types, &HashSet::new())
    }

    /// The same without types of these names.
    pub(super) fn without(form: Form, remotes: &[Arc<Remote>], types: &Arc<Types>, taken: &HashSet<&str>) -> Self {
        let (mut paths, mut schemas) = (Map::new(), Map::new());
        for remote in remotes {
            let Some(document) = &remote.openapi else { continue };
            let items = document["paths"].as_object().into_iter().flatten();
            paths.extend(items.map(|(path, item)| (path.clone(), item.clone())));
            let told = document["definitions"].as_object().into_iter().flatten();
            for (name, schema) in told.filter(|(name, _)| !types.names.contains(*name) && !taken.contains(name.as_str())) {
                schemas.entry(name.clone()).or_insert_with(|| schema.clone());
            }
        }
        let names = schemas.keys().cloned().collect();
        let (paths, schemas) = (form.paths(&paths), form.schemas(&schemas));
        Self { of: remotes.to_vec(), types: types.clone(), form, paths, schemas, names }
    }

    /// Whether a type of theirs has one of these names.
    pub(super) fn have_any(&self, names: &HashSet<&str>) -> bool {
        self.names.iter().any(|name| names.contains(name.as_str()))
    }

    /// The form that they are in.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Whether it is of these.
    pub(super) fn is_of(&self, form: Form, remotes: &[Arc<Remote>], types: &Arc<Types>) -> bool {
        let same = self.of.len() == remotes.len() && self.of.iter().zip(remotes).all(|(a, b)| Arc::ptr_eq(a, b));
        same && self.form == form && Arc::ptr_eq(&self.types, types)
    }
}

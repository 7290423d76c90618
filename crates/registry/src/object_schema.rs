//! Where the shape of a kind's objects comes from.

use std::sync::Arc;

use apimachinery::apply::Types;
use kinds::{KindDef, Rules};
use schema::{Schema, TypeError, TypeId};
use serde_json::Value;
use structural::Structural;

/// The shape of a kind's objects.
#[derive(Clone, Debug)]
pub enum ObjectSchema {
    /// A built-in kind: a type of the table.
    Builtin(TypeId),
    /// A custom resource: what its definition says.
    Structural(Arc<Structural>),
}

impl ObjectSchema {
    /// That of a kind.
    pub(crate) fn of(rules: &Rules) -> Result<Self, String> {
        match rules.schema() {
            Some(schema) => Ok(Self::Structural(schema.clone())),
            None => builtin(rules.def()).map(Self::Builtin),
        }
    }

    /// Brings what a client sent into the form in which objects are kept; the paths of fields that are not known, which go.
    pub(crate) fn decode(&self, value: &mut Value) -> Result<Vec<String>, TypeError> {
        match self {
            Self::Builtin(ty) => schema::decode(Schema::builtin(), *ty, value),
            Self::Structural(schema) => schema.decode(value),
        }
    }

    /// Brings an object that comes from another version, or from an older schema, into that form.
    pub(crate) fn settle(&self, object: &mut Value) {
        // The same values under other names have the right types; what has not, is shown as it is.
        let _ = self.decode(object);
        if let Self::Structural(schema) = self {
            schema.apply_defaults(object);
        }
    }

    /// For managed fields.
    pub fn types(&self) -> Types<'_> {
        match self {
            Self::Builtin(ty) => Types::Builtin(Schema::builtin(), *ty),
            Self::Structural(schema) => Types::Structural(schema.source()),
        }
    }

    /// The type in the table, of a built-in kind.
    pub fn type_id(&self) -> Option<TypeId> {
        match self {
            Self::Builtin(ty) => Some(*ty),
            Self::Structural(_) => None,
        }
    }
}

fn builtin(def: &KindDef) -> Result<TypeId, String> {
    let ty = Schema::builtin().kind(&def.group, &def.version, &def.kind);
    ty.ok_or_else(|| format!("no schema for {} {}", def.api_version(), def.kind))
}

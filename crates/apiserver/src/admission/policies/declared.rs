//! What is declared of the objects of a kind, for expressions that speak of them.

use std::sync::Arc;

use cel::{Declaration, Type};
use registry::{ObjectSchema, Served};
use schema::{Schema, TypeId};

/// What the schema of a kind declares; none where it declares nothing.
pub(super) fn declaration(served: &Served) -> Option<Arc<Declaration>> {
    match &served.schema {
        ObjectSchema::Builtin(ty) => Some(object(*ty, &mut Vec::new())),
        ObjectSchema::Structural(schema) => schema.declaration(),
    }
}

/// The fields of a type; `around` are the types that it is a part of.
fn object(id: TypeId, around: &mut Vec<TypeId>) -> Arc<Declaration> {
    // A type that is a part of itself is not followed further.
    if around.contains(&id) {
        return Declaration::plain(Type::Dyn);
    }
    around.push(id);
    let def = Schema::builtin().get(id);
    let fields: Vec<_> = def.fields.iter().map(|field| (field.name.to_owned(), of(&field.ty, around))).collect();
    around.pop();
    Declaration::object(def.name, fields)
}

fn of(ty: &schema::Type, around: &mut Vec<TypeId>) -> Arc<Declaration> {
    Declaration::plain(match ty {
        schema::Type::Struct(id) => return object(*id, around),
        schema::Type::List(element) => return Declaration::list(of(element, around)),
        schema::Type::Map(value) => return Declaration::map(of(value, around)),
        schema::Type::Bool => Type::Bool,
        schema::Type::Int32 | schema::Type::Int64 => Type::Int,
        schema::Type::Float64 => Type::Double,
        schema::Type::String | schema::Type::Duration => Type::String,
        schema::Type::Bytes => Type::Bytes,
        schema::Type::Time | schema::Type::MicroTime => Type::Timestamp,
        // Numbers or texts, or anything at all.
        _ => Type::Dyn,
    })
}

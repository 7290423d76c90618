//! What a value means to server-side apply: a leaf, a map of fields, a set, or a list of keyed items.
//!
//! The answer comes from the built-in type table, from the structural schema of a custom resource, or from the value itself.

use schema::{Field, ListKind, Schema, Type, TypeDef, TypeId};
use serde_json::{Map, Value};

use crate::text::quote;

/// Where the types of an object come from.
#[derive(Clone, Copy, Debug)]
pub enum Types<'s> {
    /// A kind of the built-in API.
    Builtin(&'s Schema, TypeId),
    /// A custom resource: the `openAPIV3Schema` of its version.
    Structural(&'s Value),
    /// Nothing is known: objects are merged field by field, lists are replaced.
    Untyped,
}

impl<'s> Types<'s> {
    pub(crate) fn root(self) -> Ref<'s> {
        match self {
            Self::Builtin(schema, id) => Ref::Struct(schema, id),
            Self::Structural(schema) => Ref::Resource(schema),
            Self::Untyped => Ref::Deduced,
        }
    }
}

/// The type of a value, not yet looked at.
#[derive(Clone, Copy)]
pub(crate) enum Ref<'s> {
    Struct(&'s Schema, TypeId),
    Field(&'s Schema, &'s Field),
    Element(&'s Schema, &'s Type),
    /// A structural schema.
    Json(&'s Value),
    /// The structural schema of an object with `apiVersion`, `kind` and `metadata`.
    Resource(&'s Value),
    Scalar,
    Deduced,
}

/// What a value of a type is.
pub(crate) enum Shape<'s> {
    /// A scalar, or something that is only replaced as a whole.
    Leaf,
    Map(Fields<'s>),
    /// A list of scalars, each of which is there or not.
    Set,
    List(Keys<'s>, Ref<'s>),
    /// A list that is only replaced as a whole. For [`Ref::inside`]; it is a leaf else.
    Row(Ref<'s>),
}

/// The fields of an object.
#[derive(Clone, Copy)]
pub(crate) enum Fields<'s> {
    Struct(&'s Schema, &'s TypeDef),
    /// Any keys, all of one type.
    Same(&'s Schema, &'s Type),
    Json(&'s Value),
    Resource(&'s Value),
    Deduced,
}

/// The fields by which items of a list are told apart, with the types of the items.
#[derive(Clone, Copy)]
pub(crate) enum Keys<'s> {
    Builtin(&'s [&'static str], Option<(&'s Schema, &'s TypeDef)>),
    Json(&'s [Value], &'s Value),
}

impl<'s> Ref<'s> {
    pub(crate) fn shape(self, value: &Value) -> Shape<'s> {
        match self {
            Self::Scalar => Shape::Leaf,
            Self::Deduced => match value {
                Value::Object(_) => Shape::Map(Fields::Deduced),
                _ => Shape::Leaf,
            },
            Self::Struct(schema, id) => structure(schema, id),
            Self::Field(_, field) if field.atomic => Shape::Leaf,
            Self::Field(schema, Field { ty: Type::Struct(id), map_declared: true, .. }) => {
                // Granular here although the type is atomic elsewhere: a volume's claimRef.
                Shape::Map(Fields::Struct(schema, schema.get(*id)))
            }
            Self::Field(schema, field) => typed(schema, &field.ty, &field.list),
            Self::Element(schema, ty) => typed(schema, ty, &ListKind::Atomic),
            Self::Json(schema) => structural(schema, value),
            Self::Resource(schema) => Shape::Map(Fields::Resource(schema)),
        }
    }
}

impl Ref<'_> {
    /// Whether the type has parts, but is only replaced as a whole.
    pub(crate) fn is_whole(self) -> bool {
        let leaf = |sample: Value| matches!(self.shape(&sample), Shape::Leaf);
        !matches!(self, Self::Scalar | Self::Deduced) && leaf(Value::Object(Map::new())) && leaf(Value::Array(Vec::new()))
    }
}

/// What a value without parts may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    Text,
    Number,
    Boolean,
    Any,
}

impl Ref<'_> {
    /// What a value of the type may be, if it has no parts and that is known.
    pub(crate) fn scalar(self) -> Option<Scalar> {
        let of = |ty: &Type| match ty {
            Type::String | Type::Bytes => Some(Scalar::Text),
            Type::Int32 | Type::Int64 | Type::Float64 => Some(Scalar::Number),
            Type::Bool => Some(Scalar::Boolean),
            Type::Quantity | Type::IntOrString | Type::Time | Type::MicroTime => Some(Scalar::Any),
            _ => None,
        };
        match self {
            Self::Field(_, field) => of(&field.ty),
            Self::Element(_, ty) => of(ty),
            Self::Json(schema) if flag(schema, "x-kubernetes-int-or-string") => Some(Scalar::Any),
            Self::Json(schema) => match text(schema, "type") {
                "string" => Some(Scalar::Text),
                "integer" | "number" => Some(Scalar::Number),
                "boolean" => Some(Scalar::Boolean),
                _ => None,
            },
            _ => None,
        }
    }
}

impl<'s> Ref<'s> {
    /// What a value of the type is made of, also where it is only replaced as a whole.
    pub(crate) fn inside(self, value: &Value) -> Shape<'s> {
        let typed = |schema: &'s Schema, ty: &'s Type, list: &'s ListKind| match (ty, list) {
            (Type::Struct(id), _) => Shape::Map(Fields::Struct(schema, schema.get(*id))),
            (Type::List(element), ListKind::Atomic) => Shape::Row(Ref::Element(schema, element)),
            _ => typed(schema, ty, list),
        };
        match self {
            Self::Struct(schema, id) => Shape::Map(Fields::Struct(schema, schema.get(id))),
            Self::Field(schema, field) => typed(schema, &field.ty, &field.list),
            Self::Element(schema, ty) => typed(schema, ty, &ListKind::Atomic),
            Self::Json(schema) => match (self.shape(value), text(schema, "type"), schema.get("items")) {
                (Shape::Leaf, "object", _) => Shape::Map(Fields::Json(schema)),
                (Shape::Leaf, "array", Some(items)) => Shape::Row(Ref::Json(items)),
                (shape, ..) => shape,
            },
            _ => self.shape(value),
        }
    }
}

fn structure(schema: &Schema, id: TypeId) -> Shape<'_> {
    let def = schema.get(id);
    if def.atomic { Shape::Leaf } else { Shape::Map(Fields::Struct(schema, def)) }
}

fn typed<'s>(schema: &'s Schema, ty: &'s Type, list: &'s ListKind) -> Shape<'s> {
    match (ty, list) {
        (Type::Struct(id), _) => structure(schema, *id),
        (Type::Map(element), _) => Shape::Map(Fields::Same(schema, element)),
        (Type::List(_), ListKind::Set) => Shape::Set,
        (Type::List(element), ListKind::Map(keys)) => {
            let def = match &**element {
                Type::Struct(id) => Some((schema, schema.get(*id))),
                _ => None,
            };
            Shape::List(Keys::Builtin(keys, def), Ref::Element(schema, element))
        }
        _ => Shape::Leaf,
    }
}

fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn structural<'s>(schema: &'s Value, value: &Value) -> Shape<'s> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return Shape::Leaf;
    }
    match text(schema, "type") {
        "object" if text(schema, "x-kubernetes-map-type") == "atomic" => Shape::Leaf,
        "object" if flag(schema, "x-kubernetes-embedded-resource") => Shape::Map(Fields::Resource(schema)),
        "object" => Shape::Map(Fields::Json(schema)),
        "array" => match (text(schema, "x-kubernetes-list-type"), schema.get("items")) {
            ("set", _) => Shape::Set,
            ("map", Some(items)) => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                Shape::List(Keys::Json(keys.map_or(&[], Vec::as_slice), items), Ref::Json(items))
            }
            _ => Shape::Leaf,
        },
        "" => Ref::Deduced.shape(value),
        _ => Shape::Leaf,
    }
}

impl<'s> Fields<'s> {
    /// The type of a field; `None` when it is not declared.
    pub(crate) fn declared(self, name: &str) -> Option<Ref<'s>> {
        match self {
            Self::Struct(schema, def) => def.field(name).map(|f| Ref::Field(schema, f)),
            Self::Same(schema, ty) => Some(Ref::Element(schema, ty)),
            Self::Deduced => Some(Ref::Deduced),
            Self::Resource(schema) => match name {
                "apiVersion" | "kind" => Some(Ref::Scalar),
                "metadata" => Some(object_meta()),
                _ => Self::Json(schema).declared(name),
            },
            Self::Json(schema) => {
                if let Some(property) = schema.get("properties").and_then(|p| p.get(name)) {
                    return Some(Ref::Json(property));
                }
                match schema.get("additionalProperties") {
                    Some(additional @ Value::Object(_)) => Some(Ref::Json(additional)),
                    Some(Value::Bool(true)) => Some(Ref::Deduced),
                    _ if flag(schema, "x-kubernetes-preserve-unknown-fields") => Some(Ref::Deduced),
                    _ => None,
                }
            }
        }
    }

    /// The type of a field, deduced when it is not declared.
    pub(crate) fn get(self, name: &str) -> Ref<'s> {
        self.declared(name).unwrap_or(Ref::Deduced)
    }

    /// Whether the field is one of a struct, which is owned through its own fields, rather than a key of a map.
    pub(crate) fn is_named(self, name: &str) -> bool {
        match self {
            Self::Struct(_, def) => def.field(name).is_some(),
            Self::Same(..) | Self::Deduced => false,
            Self::Resource(schema) => matches!(name, "apiVersion" | "kind" | "metadata") || Self::Json(schema).is_named(name),
            Self::Json(schema) => schema.get("properties").and_then(|p| p.get(name)).is_some(),
        }
    }
}

fn object_meta() -> Ref<'static> {
    let schema = Schema::builtin();
    schema.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").map_or(Ref::Deduced, |id| Ref::Struct(schema, id))
}

impl<'s> Keys<'s> {
    /// Names of the keys, sorted.
    fn names(self) -> Vec<&'s str> {
        let mut names: Vec<&str> = match self {
            Self::Builtin(keys, _) => keys.to_vec(),
            Self::Json(keys, _) => keys.iter().filter_map(Value::as_str).collect(),
        };
        names.sort_unstable();
        names
    }

    /// The value that stands for a key that an item lacks.
    fn default(self, name: &str) -> Option<Value> {
        match self {
            Self::Builtin(_, def) => {
                let field = def?.1.field(name)?;
                match (field.default, &field.ty) {
                    (Some(text), _) => serde_json::from_str(text).ok(),
                    // What Go always writes has a default in upstream's OpenAPI: Go's zero value.
                    (None, Type::String) if field.required => Some("".into()),
                    (None, Type::Int32 | Type::Int64) if field.required => Some(0.into()),
                    (None, Type::Bool) if field.required => Some(false.into()),
                    _ => None,
                }
            }
            Self::Json(_, items) => items.get("properties")?.get(name)?.get("default").cloned(),
        }
    }

    /// The path element of an item, `k:{"name":"x"}`, with the keys that it has or that have a default; `None` when there is none.
    pub(crate) fn element(self, item: &Value) -> Option<String> {
        let mut out = String::from("k:{");
        let item = item.as_object()?;
        for name in self.names() {
            let start = out.len();
            if start > 3 {
                out.push(',');
            }
            push_json(&mut out, name);
            out.push(':');
            match (item.get(name), self.default(name)) {
                (Some(Value::String(text)), _) => push_json(&mut out, text),
                (Some(value), _) => out.push_str(&value.to_string()),
                (None, Some(value)) => out.push_str(&value.to_string()),
                (None, None) => out.truncate(start),
            }
        }
        out.push('}');
        (out.len() > 4).then_some(out)
    }

    /// The names as messages tell them, `["port" "protocol"]`.
    pub(crate) fn told(self) -> String {
        let names: Vec<String> = match self {
            Self::Builtin(keys, _) => keys.iter().map(|name| quote(name)).collect(),
            Self::Json(keys, _) => keys.iter().filter_map(Value::as_str).map(quote).collect(),
        };
        format!("[{}]", names.join(" "))
    }
}

fn push_json(out: &mut String, text: &str) {
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

/// The path element of a member of a set, `v:"x"`.
pub(crate) fn set_element(item: &Value) -> String {
    format!("v:{item}")
}

/// The path element of a field, `f:x`.
pub(crate) fn field_element(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    out.push_str("f:");
    out.push_str(name);
    out
}

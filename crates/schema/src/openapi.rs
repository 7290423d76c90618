//! The schemas half of the OpenAPI documents; the paths are the API server's.
//!
//! Both dialects have the shape that upstream publishes, so that kubectl (explain, apply) and client generators find what they
//! expect. Source: <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-interface-definition>.

mod docs;
mod special;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use docs::Docs;

use crate::types::{Field, ListKind, Patch, Schema, Type, TypeDef, TypeId};

/// A version of the OpenAPI specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// 2.0: no defaults, no `oneOf`.
    V2,
    /// 3.0.
    V3,
}

/// The `definitions` of an OpenAPI 2.0 document: the given types and all that they refer to, by their OpenAPI names.
pub fn v2_definitions(schema: &Schema, docs: &Docs, roots: &[TypeId]) -> Map<String, Value> {
    Builder { schema, docs, dialect: Dialect::V2 }.definitions(roots)
}

/// The `components.schemas` of an OpenAPI 3.0 document: the given types and all that they refer to.
pub fn v3_schemas(schema: &Schema, docs: &Docs, roots: &[TypeId]) -> Map<String, Value> {
    Builder { schema, docs, dialect: Dialect::V3 }.definitions(roots)
}

/// Groups and versions of a kind, as `x-kubernetes-group-version-kind`. The options of deletion and the watch event belong to
/// every group version.
pub fn group_version_kinds(schema: &Schema, ty: TypeId) -> Vec<Value> {
    let def = schema.get(ty);
    let entry = |group: &str, version: &str| json!({"group": group, "version": version, "kind": def.go});
    match def.kind {
        None => Vec::new(),
        Some(("meta.k8s.io", "v1")) if matches!(def.go, "DeleteOptions" | "WatchEvent") => {
            let mut all: Vec<_> = schema.kinds().map(|kind| (kind.0, kind.1)).filter(|gv| gv.0 != "meta.k8s.io").collect();
            all.sort_unstable();
            all.dedup();
            all.into_iter().map(|(group, version)| entry(group, version)).collect()
        }
        Some(("meta.k8s.io", version)) => vec![entry("", version)],
        Some((group, version)) => vec![entry(group, version)],
    }
}

struct Builder<'a> {
    schema: &'a Schema,
    docs: &'a Docs,
    dialect: Dialect,
}

/// What a schema refers to.
#[derive(Default)]
struct Uses {
    structs: Vec<TypeId>,
    specials: BTreeMap<&'static str, Value>,
}

impl Builder<'_> {
    fn definitions(&self, roots: &[TypeId]) -> Map<String, Value> {
        let mut out = Map::new();
        let mut uses = Uses { structs: roots.to_vec(), specials: BTreeMap::new() };
        while let Some(id) = uses.structs.pop() {
            let ty = self.schema.get(id);
            if !out.contains_key(ty.name) {
                out.insert(ty.name.to_owned(), self.definition(id, ty, &mut uses));
            }
        }
        out.extend(uses.specials.into_iter().map(|(name, schema)| (name.to_owned(), schema)));
        out
    }

    fn definition(&self, id: TypeId, ty: &TypeDef, uses: &mut Uses) -> Value {
        let mut out = Map::new();
        let docs = self.docs.of(ty.name);
        describe(&mut out, docs.map_or("", docs::TypeDocs::description));
        out.insert("type".to_owned(), "object".into());
        let mut properties = Map::new();
        for field in &ty.fields {
            let docs = docs.and_then(|docs| docs.field(field.name));
            properties.insert(field.name.to_owned(), self.property(field, docs, uses));
        }
        if !properties.is_empty() {
            out.insert("properties".to_owned(), Value::Object(properties));
        }
        let required: Vec<_> = ty.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
        if !required.is_empty() {
            out.insert("required".to_owned(), json!(required));
        }
        let kinds = group_version_kinds(self.schema, id);
        if !kinds.is_empty() {
            out.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(kinds));
        }
        if ty.atomic {
            out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        Value::Object(out)
    }

    fn property(&self, field: &Field, docs: Option<&docs::FieldDocs>, uses: &mut Uses) -> Value {
        let mut out = self.type_of(&field.ty, uses);
        describe(&mut out, docs.map_or("", docs::FieldDocs::description));
        if let Some(docs) = docs.filter(|docs| !docs.values.is_empty()) {
            out.insert("enum".to_owned(), json!(docs.values));
        }
        if self.dialect == Dialect::V3
            && let Some(default) = default_of(field)
        {
            out.insert("default".to_owned(), default);
        }
        extensions(field, &mut out);
        Value::Object(self.tidy(out))
    }

    fn type_of(&self, ty: &Type, uses: &mut Uses) -> Map<String, Value> {
        let simple = |name: &str, format: &str| {
            let mut out = Map::from_iter([("type".to_owned(), name.into())]);
            if !format.is_empty() {
                out.insert("format".to_owned(), format.into());
            }
            out
        };
        match ty {
            Type::Bool => simple("boolean", ""),
            Type::Int32 => simple("integer", "int32"),
            Type::Int64 => simple("integer", "int64"),
            Type::Float64 => simple("number", "double"),
            Type::String => simple("string", ""),
            Type::Bytes => simple("string", "byte"),
            Type::Any => simple("object", ""),
            Type::Struct(id) => {
                uses.structs.push(*id);
                self.reference(self.schema.get(*id).name)
            }
            Type::List(inner) => self.container("array", "items", inner, uses),
            Type::Map(inner) => self.container("object", "additionalProperties", inner, uses),
            special => {
                if let Type::SchemaOr(_, id) = special {
                    uses.structs.push(*id);
                }
                let (name, schema) = special::definition(special, self.dialect);
                uses.specials.insert(name, schema);
                self.reference(name)
            }
        }
    }

    fn container(&self, name: &str, key: &str, inner: &Type, uses: &mut Uses) -> Map<String, Value> {
        let mut element = self.type_of(inner, uses);
        if self.dialect == Dialect::V3
            && let Some(zero) = implied_default(inner, false)
        {
            element.insert("default".to_owned(), zero);
        }
        let element = self.tidy(element);
        Map::from_iter([("type".to_owned(), name.into()), (key.to_owned(), Value::Object(element))])
    }

    fn reference(&self, name: &str) -> Map<String, Value> {
        let base = if self.dialect == Dialect::V2 { "#/definitions/" } else { "#/components/schemas/" };
        Map::from_iter([("$ref".to_owned(), format!("{base}{name}").into())])
    }

    /// In 3.0 a reference hides what stands beside it, so it goes into `allOf` when it has company.
    fn tidy(&self, mut schema: Map<String, Value>) -> Map<String, Value> {
        if self.dialect == Dialect::V3
            && schema.len() > 1
            && let Some(reference) = schema.remove("$ref")
        {
            schema.insert("allOf".to_owned(), json!([{"$ref": reference}]));
        }
        schema
    }
}

fn describe(out: &mut Map<String, Value>, text: &str) {
    if !text.is_empty() {
        out.insert("description".to_owned(), text.into());
    }
}

/// The declared default, or the zero value of what is always present.
fn default_of(field: &Field) -> Option<Value> {
    match field.default {
        Some(text) => serde_json::from_str(text).ok(),
        None if field.pointer => None,
        None => implied_default(&field.ty, field.omit_empty),
    }
}

fn implied_default(ty: &Type, omit_empty: bool) -> Option<Value> {
    match ty {
        Type::Struct(_) => Some(json!({})),
        _ if omit_empty => None,
        Type::Bool => Some(false.into()),
        Type::Int32 | Type::Int64 | Type::Float64 => Some(0.into()),
        Type::String => Some("".into()),
        _ => None,
    }
}

fn extensions(field: &Field, out: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| drop(out.insert(format!("x-kubernetes-{key}"), value));
    if field.list_declared {
        match &field.list {
            ListKind::Atomic => put("list-type", "atomic".into()),
            ListKind::Set => put("list-type", "set".into()),
            ListKind::Map(keys) => {
                put("list-type", "map".into());
                put("list-map-keys", json!(keys));
            }
        }
    }
    if field.atomic {
        put("map-type", "atomic".into());
    } else if field.map_declared {
        put("map-type", "granular".into());
    }
    if let Some(key) = field.patch.merge_key {
        put("patch-merge-key", key.into());
    }
    let Patch { merge, retain_keys, replace, .. } = field.patch;
    let parts: Vec<_> = [(merge, "merge"), (retain_keys, "retainKeys"), (replace, "replace")]
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .collect();
    if !parts.is_empty() {
        put("patch-strategy", parts.join(",").into());
    }
}

#[cfg(test)]
mod tests;

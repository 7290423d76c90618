//! Reads the structural table.
//!
//! A line `@OPENAPI-NAME GO-NAME [kind=GROUP/VERSION] [atomic]` starts a struct; each line after it is a field,
//! `JSON-NAME PROTOBUF-NUMBER TYPE FLAG...`. A type is a scalar's name, a struct's OpenAPI name, `[]TYPE` or `{}TYPE` (a map with
//! string keys); `?bool:TYPE`, `?list:TYPE` and `?strings:TYPE` are a JSON schema or its alternative. The flags are named in [`flag`]; `def=` takes the rest of the line.

use std::collections::HashMap;

use crate::types::{Alternative, Field, ListKind, Patch, Schema, Type, TypeDef, TypeId, Wire};

/// Types of the Go packages `k8s.io/api`, `k8s.io/apimachinery` and `k8s.io/apiextensions-apiserver`, version 0.36, and those of the
/// aggregation layer and of the metrics API, which are written by hand.
const TABLES: [&str; 3] =
    [include_str!("../data/v1.36.table"), include_str!("../data/apiregistration.table"), include_str!("../data/metrics.table")];

fn lines() -> impl Iterator<Item = &'static str> {
    TABLES.into_iter().flat_map(str::lines)
}

pub(crate) fn builtin() -> Schema {
    let mut schema = Schema::default();
    let heads = lines().filter(|line| line.starts_with('@'));
    schema.names = heads.zip(0..).map(|(line, id)| (line[1..].split(' ').next().unwrap_or_default(), TypeId(id))).collect();
    for line in lines() {
        match line.strip_prefix('@') {
            Some(head) => {
                let ty = type_head(head);
                if let Some((group, version)) = ty.kind {
                    schema.kinds.insert((group, version, ty.go), TypeId(schema.types.len() as u32));
                }
                schema.types.push(ty);
            }
            None => {
                let field = field(line, &schema.names);
                schema.types.last_mut().expect("the table starts with a type").fields.push(field);
            }
        }
    }
    schema.types.iter_mut().for_each(finish);
    schema
}

fn type_head(head: &'static str) -> TypeDef {
    let mut words = head.split(' ');
    let (name, go) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut kind, mut atomic) = (None, false);
    for word in words {
        match word.strip_prefix("kind=") {
            Some(gv) => kind = gv.split_once('/'),
            None => atomic |= word == "atomic",
        }
    }
    TypeDef { name, go, fields: Vec::new(), atomic, kind, by_name: Vec::new(), always: Vec::new(), wire: Vec::new() }
}

fn field(line: &'static str, names: &HashMap<&'static str, TypeId>) -> Field {
    let mut words = line.splitn(4, ' ');
    let mut next = || words.next().unwrap_or_default();
    let (name, number, ty) = (next(), next(), next());
    let mut field = Field {
        name,
        number: number.parse().unwrap_or_default(),
        via: Vec::new(),
        ty: type_of(ty, names),
        pointer: false,
        omit_empty: false,
        omit_zero: false,
        required: false,
        wrapped: false,
        list: ListKind::Atomic,
        patch: Patch::default(),
        atomic: false,
        default: None,
        go: None,
        list_declared: false,
        map_declared: false,
    };
    let mut rest = next();
    while !rest.is_empty() {
        if let Some(default) = rest.strip_prefix("def=") {
            field.default = Some(default);
            break;
        }
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        flag(&mut field, word);
        rest = after;
    }
    field
}

fn flag(field: &mut Field, word: &'static str) {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "ptr" => field.pointer = true,
        "omit" => field.omit_empty = true,
        "omitzero" => field.omit_zero = true,
        "req" => field.required = true,
        "wrap" => field.wrapped = true,
        "set" => field.list = ListKind::Set,
        "map" => field.list = ListKind::Map(value.split(',').collect()),
        "atomic" => field.atomic = true,
        "listtype" => field.list_declared = true,
        "maptype" => field.map_declared = true,
        "merge" => field.patch.merge = true,
        "key" => field.patch.merge_key = Some(value),
        "retain" => field.patch.retain_keys = true,
        "replace" => field.patch.replace = true,
        "go" => field.go = Some(value),
        "via" => field.via = value.split('.').filter_map(|number| number.parse().ok()).collect(),
        _ => panic!("unknown flag {word} in the type table"),
    }
}

fn type_of(text: &'static str, names: &HashMap<&'static str, TypeId>) -> Type {
    if let Some(inner) = text.strip_prefix("[]") {
        return Type::List(Box::new(type_of(inner, names)));
    }
    if let Some(inner) = text.strip_prefix("{}") {
        return Type::Map(Box::new(type_of(inner, names)));
    }
    for (prefix, alternative) in
        [("?bool:", Alternative::Bool), ("?list:", Alternative::List), ("?strings:", Alternative::Strings)]
    {
        if let Some(name) = text.strip_prefix(prefix) {
            return Type::SchemaOr(alternative, struct_id(name, names));
        }
    }
    match text {
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "float64" => Type::Float64,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "duration" => Type::Duration,
        "raw" => Type::RawExtension,
        "fieldsv1" => Type::FieldsV1,
        "any" => Type::Any,
        "json" => Type::Json,
        _ => Type::Struct(struct_id(text, names)),
    }
}

fn struct_id(name: &str, names: &HashMap<&'static str, TypeId>) -> TypeId {
    *names.get(name).unwrap_or_else(|| panic!("unknown type {name} in the type table"))
}

/// Builds the indices of a type.
fn finish(ty: &mut TypeDef) {
    let indices = 0..ty.fields.len() as u16;
    ty.by_name = ty.fields.iter().map(|field| field.name).zip(indices.clone()).collect();
    ty.by_name.sort_by_key(|(name, _)| (name.len(), *name));
    ty.always = indices.filter(|index| ty.fields[*index as usize].always_written()).collect();
    for (index, field) in ty.fields.iter().enumerate().filter(|(_, field)| field.number != 0) {
        let mut level = &mut ty.wire;
        for number in &field.via {
            let at = level.iter().position(|wire| wire.number() == *number).unwrap_or_else(|| {
                level.push(Wire::Embedded(*number, Vec::new()));
                level.len() - 1
            });
            let Wire::Embedded(_, inner) = &mut level[at] else { panic!("field {} of {} clashes", field.name, ty.name) };
            level = inner;
        }
        level.push(Wire::Field(field.number, index as u16));
    }
    sort(&mut ty.wire);
}

fn sort(level: &mut [Wire]) {
    level.sort_by_key(Wire::number);
    for wire in level {
        if let Wire::Embedded(_, inner) = wire {
            sort(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(name: &str, field: &str, test: impl Fn(&Field) -> bool) {
        let schema = Schema::builtin();
        let id = schema.named(name).unwrap_or_else(|| panic!("no type {name}"));
        let field = schema.get(id).field(field).unwrap_or_else(|| panic!("no field {field} in {name}"));
        assert!(test(field), "{field:#?}");
    }

    #[test]
    fn kinds_are_found() {
        let schema = Schema::builtin();
        let name = |group, version, kind| schema.kind(group, version, kind).map(|id| schema.get(id).name);
        assert_eq!(name("", "v1", "Pod"), Some("io.k8s.api.core.v1.Pod"));
        assert_eq!(
            name("autoscaling", "v2", "HorizontalPodAutoscaler"),
            Some("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler")
        );
        assert_eq!(name("", "v1", "Status"), Some("io.k8s.apimachinery.pkg.apis.meta.v1.Status"));
        assert_eq!(name("apps", "v1", "DeleteOptions"), Some("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"));
        assert_eq!(name("", "v1", "PodSpec"), None);
        assert_eq!(name("apps", "v1", "Pod"), None);
    }

    #[test]
    fn facts_of_fields() {
        let pod = "io.k8s.api.core.v1.PodSpec";
        check(pod, "containers", |f| f.number == 2 && f.required && f.list == ListKind::Map(vec!["name"]));
        check(pod, "volumes", |f| f.patch == Patch { merge: true, merge_key: Some("name"), retain_keys: true, replace: false });
        check(pod, "terminationGracePeriodSeconds", |f| f.pointer && f.ty == Type::Int64);
        check("io.k8s.api.core.v1.Container", "ports", |f| f.list == ListKind::Map(vec!["containerPort", "protocol"]));
        check("io.k8s.api.core.v1.ContainerPort", "protocol", |f| f.default == Some("\"TCP\""));
        check("io.k8s.api.core.v1.Volume", "emptyDir", |f| f.via == [2] && f.number == 2 && f.pointer);
        check("io.k8s.api.core.v1.PodSpec", "nodeSelector", |f| f.atomic && f.ty == Type::Map(Box::new(Type::String)));
        check("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", |f| f.list == ListKind::Set);
        check("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations", "apiGroups", |f| f.via == [2, 2]);
        check("io.k8s.api.authentication.v1.UserInfo", "extra", |f| f.wrapped);
        check("io.k8s.api.apps.v1.DeploymentStrategy", "type", |f| f.go == Some("v1.DeploymentStrategyType"));
    }
}

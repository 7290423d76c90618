//! Writes the structural table: one line for each struct type, one for each of its JSON fields. The format is described in
//! `crates/schema/src/table.rs`, which reads it.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::{Context, Result};

use super::go::{GoField, markers, struct_tag};
use super::packages::{Source, is_served, open_api_name};

/// A JSON field, inlined structs expanded.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) json: String,
    pub(crate) number: u32,
    /// Protobuf numbers of the inlined messages around the field, outermost first.
    pub(crate) via: Vec<u32>,
    pub(crate) ty: String,
    pub(crate) flags: Vec<String>,
    /// The struct that declares the field: its description is there.
    pub(crate) owner: (String, String),
    /// The named string type, of which the constants are the possible values.
    pub(crate) named: Option<(String, String)>,
    /// `set`, `map=key,key` or empty (atomic), for the cross-check.
    pub(crate) list: String,
    pub(crate) comments: Vec<String>,
}

pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) go: String,
    pub(crate) dir: String,
    pub(crate) atomic: bool,
    pub(crate) kind: bool,
    pub(crate) rows: Vec<Row>,
}

/// All types that an API object (a struct with `TypeMeta`) reaches, in source order.
pub(crate) fn types(source: &Source) -> Result<Vec<Type>> {
    let mut all = Vec::new();
    for (dir, package) in &source.packages {
        for ty in &package.types {
            let Ok(fields) = source.fields(dir, &ty.name) else { continue };
            // A watch event is registered as a kind, though it has no type of its own in JSON.
            let kind =
                ty.name == "WatchEvent" || fields.iter().any(|field| field.name.is_empty() && field.ty.ends_with("TypeMeta"));
            all.push((dir.clone(), ty.name.clone(), kind && is_served(dir, &ty.name)));
        }
    }
    let mut reached = BTreeSet::new();
    // The body of a patch has a definition in OpenAPI, but nothing refers to it.
    let mut queue: Vec<_> = all.iter().filter(|ty| ty.2 || ty.1 == "Patch").map(|ty| (ty.0.clone(), ty.1.clone())).collect();
    while let Some((dir, name)) = queue.pop() {
        if !reached.insert((dir.clone(), name.clone())) {
            continue;
        }
        for row in rows(source, &dir, &name)? {
            let target = row.ty.trim_start_matches(['[', ']', '{', '}']).to_owned();
            queue.extend(all.iter().filter(|ty| open_api_name(&ty.0, &ty.1) == target).map(|ty| (ty.0.clone(), ty.1.clone())));
        }
    }
    all.into_iter()
        .filter(|(dir, name, _)| reached.contains(&(dir.clone(), name.clone())))
        .map(|(dir, name, kind)| {
            let ty = source.find(&dir, &name).context("listed above")?;
            let atomic = markers(&ty.comments, "structType").any(|value| value == "atomic");
            let rows = rows(source, &dir, &name)?;
            Ok(Type { name: open_api_name(&dir, &name), go: name, dir, atomic, kind, rows })
        })
        .collect()
}

fn rows(source: &Source, dir: &str, name: &str) -> Result<Vec<Row>> {
    let mut out = Vec::new();
    for field in source.fields(dir, name)? {
        let json = struct_tag(&field.tag, "json").unwrap_or("-");
        let number = struct_tag(&field.tag, "protobuf").and_then(|tag| tag.split(',').nth(1)?.parse().ok()).unwrap_or(0);
        if json == ",inline" || (json.is_empty() && field.name.is_empty()) {
            let (at, inner) = source.locate(dir, &field.ty)?;
            for mut row in rows(source, &at, &inner)? {
                if inner == "TypeMeta" {
                    row.number = 0;
                } else {
                    row.via.insert(0, number);
                }
                out.push(row);
            }
        } else if json != "-" {
            out.push(row(source, dir, name, field, json, number).with_context(|| format!("{dir} {name} {}", field.name))?);
        }
    }
    Ok(out)
}

fn row(source: &Source, dir: &str, name: &str, field: &GoField, json: &str, number: u32) -> Result<Row> {
    let mut parts = json.split(',');
    let json = parts.next().unwrap_or_default().to_owned();
    let options: Vec<_> = parts.collect();
    let resolved = source.resolve(dir, &field.ty)?;
    let mut flags = Vec::new();
    let mut flag = |on: bool, text: &str| {
        if on {
            flags.push(text.to_owned());
        }
    };
    let omit = options.contains(&"omitempty");
    flag(resolved.pointer, "ptr");
    flag(omit, "omit");
    flag(options.contains(&"omitzero"), "omitzero");
    flag(required(field, omit), "req");
    flag(resolved.wrapped, "wrap");
    let list = if resolved.table.starts_with("[]") { list_kind(field) } else { String::new() };
    flag(!list.is_empty(), &list);
    let atomic = ["mapType", "structType"].iter().any(|key| markers(&field.comments, key).any(|value| value == "atomic"));
    flag(atomic, "atomic");
    let declared = markers(&field.comments, "listType").next();
    flag(declared.is_some(), "listtype");
    flag(["mapType", "structType"].iter().any(|key| markers(&field.comments, key).next().is_some()), "maptype");
    let strategy = struct_tag(&field.tag, "patchStrategy").unwrap_or_default();
    for (part, text) in [("merge", "merge"), ("retainKeys", "retain"), ("replace", "replace")] {
        flag(strategy.split(',').any(|item| item == part), text);
    }
    if let Some(key) = struct_tag(&field.tag, "patchMergeKey") {
        flag(true, &format!("key={key}"));
    }
    flag(true, &format!("go={}", resolved.go.replace("interface {}", "interface{}")));
    if let Some(default) = markers(&field.comments, "default").next() {
        let constant = default.strip_prefix("ref(").and_then(|name| name.strip_suffix(')'));
        let value = match constant {
            Some(name) => {
                let constant = source.package(dir)?.consts.iter().find(|constant| constant.name == name);
                format!("\"{}\"", constant.with_context(|| format!("no constant {name}"))?.value)
            }
            None => default.to_owned(),
        };
        flag(true, &format!("def={value}"));
    }
    let owner = (dir.to_owned(), name.to_owned());
    Ok(Row {
        json,
        number,
        via: Vec::new(),
        ty: resolved.table,
        flags,
        owner,
        named: resolved.named,
        list,
        comments: field.comments.clone(),
    })
}

/// As the OpenAPI generator decides: the markers win, and without them a field that may be omitted is optional.
fn required(field: &GoField, omit: bool) -> bool {
    if markers(&field.comments, "required").next().is_some() {
        return true;
    }
    markers(&field.comments, "optional").next().is_none() && !omit
}

/// How server-side apply merges a list. A strategic-merge tag stands in for a missing `+listType`.
fn list_kind(field: &GoField) -> String {
    let keys = || markers(&field.comments, "listMapKey").collect::<Vec<_>>().join(",");
    match markers(&field.comments, "listType").next() {
        Some("map") => format!("map={}", keys()),
        Some("set") => "set".to_owned(),
        Some(_) => String::new(),
        None => {
            let merge = struct_tag(&field.tag, "patchStrategy").is_some_and(|value| value.split(',').any(|item| item == "merge"));
            match (merge, struct_tag(&field.tag, "patchMergeKey")) {
                (true, Some(key)) => format!("map={key}"),
                (true, None) => "set".to_owned(),
                (false, _) => String::new(),
            }
        }
    }
}

/// The table's text.
pub(crate) fn write(source: &Source, types: &[Type]) -> Result<String> {
    let mut out = String::new();
    for ty in types {
        write!(out, "@{} {}", ty.name, ty.go)?;
        if ty.kind {
            let group = &source.package(&ty.dir)?.group;
            write!(out, " kind={group}/{}", ty.dir.rsplit('/').next().unwrap_or_default())?;
        }
        writeln!(out, "{}", if ty.atomic { " atomic" } else { "" })?;
        for row in &ty.rows {
            write!(out, "{} {} {}", row.json, row.number, row.ty)?;
            if !row.via.is_empty() {
                write!(out, " via={}", row.via.iter().map(u32::to_string).collect::<Vec<_>>().join("."))?;
            }
            for flag in &row.flags {
                if flag.strip_prefix("go=") != Some(implied_go(&row.ty).as_str()) {
                    write!(out, " {flag}")?;
                }
            }
            out.push('\n');
        }
    }
    Ok(out)
}

/// The Go type that the reader derives from the table's type.
fn implied_go(ty: &str) -> String {
    if let Some(inner) = ty.strip_prefix("[]") {
        return format!("[]{}", implied_go(inner));
    }
    if let Some(inner) = ty.strip_prefix("{}") {
        return format!("map[string]{}", implied_go(inner));
    }
    match ty {
        "bytes" => "[]uint8".to_owned(),
        "quantity" => "resource.Quantity".to_owned(),
        "intorstring" => "intstr.IntOrString".to_owned(),
        "time" => "v1.Time".to_owned(),
        "microtime" => "v1.MicroTime".to_owned(),
        "duration" => "v1.Duration".to_owned(),
        "raw" => "runtime.RawExtension".to_owned(),
        "fieldsv1" => "v1.FieldsV1".to_owned(),
        "any" => "interface{}".to_owned(),
        "json" => "v1.JSON".to_owned(),
        _ if ty.starts_with("?bool:") => "v1.JSONSchemaPropsOrBool".to_owned(),
        _ if ty.starts_with("?list:") => "v1.JSONSchemaPropsOrArray".to_owned(),
        _ if ty.starts_with("?strings:") => "v1.JSONSchemaPropsOrStringArray".to_owned(),
        _ => ty.rsplitn(3, '.').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("."),
    }
}

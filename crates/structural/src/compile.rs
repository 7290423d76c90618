//! From the JSON of a schema to its compiled form.

use serde_json::{Map, Value};

use crate::field_path::field_path;
use crate::formats::Format;
use crate::node::{Additional, Kind, Limits, List, Node, NumberFormat};
use crate::pattern::Pattern;
use crate::rule::Rule;
use crate::timing::timed;
use crate::{numbers, prune};

/// How deep schemas may be: a body cannot nest deeper either.
const MAX_DEPTH: usize = 128;

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unusable {
    /// Something else stands where a schema should.
    #[error("a schema must be an object")]
    NoObject,
    /// Deeper than any object can be.
    #[error("the schema nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A type that JSON has not.
    #[error("unknown type {0:?}")]
    Type(String),
}

/// The rules of a part.
fn compiled(rules: &[&Value]) -> Vec<Rule> {
    match rules {
        [] => Vec::new(),
        rules => timed(|timing| timing.compiled, || rules.iter().copied().map(Rule::new).collect()),
    }
}

pub(crate) fn node(source: &Value, depth: usize) -> Result<Node, Unusable> {
    let Value::Object(map) = source else { return Err(Unusable::NoObject) };
    if depth > MAX_DEPTH {
        return Err(Unusable::TooDeep);
    }
    let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
    let child = |source: &Value| node(source, depth + 1);
    let mut properties = std::collections::BTreeMap::new();
    for (name, source) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
        properties.insert(name.clone(), child(source)?);
    }
    let additional = match map.get("additionalProperties") {
        None | Some(Value::Null) => Additional::Unsaid,
        Some(Value::Bool(true)) => Additional::Any,
        Some(Value::Bool(false)) => Additional::None,
        Some(source) => Additional::Of(Box::new(child(source)?)),
    };
    let items = map.get("items").filter(|items| items.is_object()).map(child).transpose()?.map(Box::new);
    let limits = limits(map, depth)?;
    let rules = map.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten();
    let mut out = Node {
        kind: kind(map)?,
        nullable: flag("nullable"),
        preserves: flag("x-kubernetes-preserve-unknown-fields"),
        embeds: flag("x-kubernetes-embedded-resource"),
        properties,
        additional,
        items,
        default: map.get("default").filter(|default| !default.is_null()).cloned(),
        default_was_pruned: false,
        list: list(map),
        atomic: map.get("x-kubernetes-map-type").is_some_and(|kind| kind == "atomic"),
        limits: (!limits.is_empty()).then(|| Box::new(limits)),
        rules: compiled(&rules.collect::<Vec<_>>()),
        has_defaults: false,
        has_embedded: false,
        has_unique: false,
        has_rules: false,
    };
    let fields: Vec<String> = out.rules.iter().map(|rule| field_path(&out, &rule.field).unwrap_or_default()).collect();
    out.rules.iter_mut().zip(fields).for_each(|(rule, field)| rule.field = field);
    out.has_defaults = out.default.is_some() || out.children().any(|child| child.has_defaults);
    out.has_embedded = out.embeds || out.children().any(|child| child.has_embedded);
    out.has_unique = out.list != List::Atomic || out.children().any(|child| child.has_unique);
    out.has_rules = !out.rules.is_empty() || out.children().any(|child| child.has_rules);
    if let Some(mut default) = out.default.take() {
        out.default_was_pruned = !prune::prune(&out, &mut default).is_empty();
        numbers::settle(&mut default);
        out.default = Some(default);
    }
    Ok(out)
}

fn kind(map: &Map<String, Value>) -> Result<Kind, Unusable> {
    if map.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return Ok(Kind::IntOrString);
    }
    Ok(match map.get("type").and_then(Value::as_str).unwrap_or_default() {
        "" => Kind::Any,
        "object" => Kind::Object,
        "array" => Kind::Array,
        "string" => Kind::String,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        other => return Err(Unusable::Type(other.to_owned())),
    })
}

fn list(map: &Map<String, Value>) -> List {
    match map.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => List::Set,
        Some("map") => List::Map(texts(map.get("x-kubernetes-list-map-keys"))),
        _ => List::Atomic,
    }
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn limits(map: &Map<String, Value>, depth: usize) -> Result<Limits, Unusable> {
    let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| map.get(name).and_then(Value::as_f64);
    let size = |name: &str| map.get(name).and_then(Value::as_u64);
    let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
    let text = |name: &str| map.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let nodes = |name: &str| {
        let list = map.get(name).and_then(Value::as_array).into_iter().flatten();
        list.map(|source| node(source, depth + 1)).collect::<Result<Vec<_>, _>>()
    };
    let not = map.get("not").filter(|not| not.is_object()).map(|not| node(not, depth + 1)).transpose()?;
    Ok(Limits {
        required: texts(map.get("required")),
        values: map.get("enum").and_then(Value::as_array).filter(|values| !values.is_empty()).cloned(),
        maximum: number("maximum"),
        minimum: number("minimum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: size("maxLength"),
        min_length: size("minLength"),
        max_items: size("maxItems"),
        min_items: size("minItems"),
        max_properties: size("maxProperties"),
        min_properties: size("minProperties"),
        unique_items: flag("uniqueItems"),
        pattern: text("pattern").map(Pattern::new),
        format: text("format").filter(|_| matches!(kind, "" | "string")).and_then(Format::named),
        number_format: text("format").and_then(|format| NumberFormat::named(kind, format)),
        format_as_written: text("format").unwrap_or_default().to_owned(),
        all_of: nodes("allOf")?,
        any_of: nodes("anyOf")?,
        one_of: nodes("oneOf")?,
        not: not.map(Box::new),
    })
}

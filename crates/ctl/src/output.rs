//! `-o`: the forms in which objects are shown.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use serde_json::{Map, Value};

use crate::discovery::Resource;
use crate::error::{Error, Result};
use crate::template::Template;

/// How objects are shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Output {
    /// As the server's table of them.
    #[default]
    Table,
    /// With the columns for wide screens.
    Wide,
    /// `pod/web`
    Name,
    Json,
    Yaml,
    /// What a template makes of them.
    JsonPath(Template),
}

/// Reads the value of `-o`.
///
/// # Errors
/// There is no such form.
pub(crate) fn parse(text: &str) -> std::result::Result<Output, String> {
    Ok(match text {
        "wide" => Output::Wide,
        "name" => Output::Name,
        "json" => Output::Json,
        "yaml" => Output::Yaml,
        _ => match text.strip_prefix("jsonpath=") {
            Some(template) => Output::JsonPath(Template::parse(template).map_err(|error| error.to_string())?),
            None => return Err("allowed formats are: json, yaml, name, wide, jsonpath=TEMPLATE".to_owned()),
        },
    })
}

impl Output {
    /// Whether the server's tables are shown, and not the objects themselves.
    pub(crate) fn is_table(&self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }

    /// An object, or a list of objects, in this form; tables are the server's.
    pub(crate) fn text(&self, value: &Value, resource: &Resource, managed: bool) -> Result<String> {
        let plain = |value: &Value| sorted(if managed { value.clone() } else { without_managed_fields(value) });
        Ok(match self {
            Self::Name | Self::Table | Self::Wide => {
                format!("{}\n", resource.named(value["metadata"]["name"].as_str().unwrap_or_default()))
            }
            Self::Json => json(&plain(value)),
            Self::Yaml => yaml(&plain(value))?,
            Self::JsonPath(template) => template.fill(&plain(value)),
        })
    }
}

/// JSON with four blanks for each level, as kubectl's.
fn json(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // A value has a form in JSON, and a vector takes all.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}

/// YAML with every text on one line, as far as it is one: programs look for it.
fn yaml(value: &Value) -> Result<String> {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options)
        .map_err(|error| Error::Answer { what: "with something that has no YAML", text: error.to_string() })
}

/// The objects of a list, or an object, without who owns which fields.
fn without_managed_fields(value: &Value) -> Value {
    let mut value = value.clone();
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut value);
    value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
    value
}

/// The same with the fields in the order of their names.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(Map::from_iter(fields))
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// Several objects as one.
pub(crate) fn list(items: Vec<Value>) -> Value {
    serde_json::json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// Writes to standard output: to programs as it is, to a terminal [`visible`], whatever the form.
///
/// # Errors
/// Nobody reads it, or it cannot be written.
pub(crate) fn print(text: &str) -> Result<()> {
    print_bytes(for_reader(text, std::io::stdout().is_terminal()).as_bytes())
}

/// What a program reads is as it is, since it may need every byte. Lines that a person reads stay lines.
fn for_reader(text: &str, is_person: bool) -> Cow<'_, str> {
    if is_person { Cow::Owned(visible(text, &['\n', '\t'])) } else { Cow::Borrowed(text) }
}

/// Writes a stream of a container to standard output as it is, since it may be meant for the terminal.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Error::io("standard output", error))
}

/// Text without what a terminal would obey, for people: what is shown is strangers' (messages of events, names, warnings of webhooks), and whoever
/// looks may be root. An escape is `^[` and a carriage return `\r` as kubectl has them (its 112553), every other control character is as Rust
/// writes it. Those in `kept` stay.
pub fn visible(text: &str, kept: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !c.is_control() || kept.contains(&c) => shown.push(c),
            '\x1b' => shown.push_str("^["),
            c => shown.extend(c.escape_default()),
        }
    }
    shown
}

/// Writes a line about what was done to standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn say(line: &str) -> Result<()> {
    print(&format!("{}\n", visible(line, &['\t'])))
}

/// Tells something on standard error, beside the output.
// The one place that writes there, so that nothing gets to a terminal as it is.
#[allow(clippy::print_stderr)]
pub(crate) fn tell(text: &str) {
    eprintln!("{}", visible(text, &['\n', '\t']));
}

/// Tells an error, and that there was one.
pub(crate) fn complain(error: &Error) {
    let text = error.to_string();
    if !text.is_empty() {
        tell(&text);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn control_characters_are_shown() {
        let check = |text: &str, kept: &[char], expected: &str| assert_eq!(visible(text, kept), expected, "{text:?}");
        check("plain \u{e9} \u{1f980} 'a' \\", &[], "plain \u{e9} \u{1f980} 'a' \\");
        // An escape; the same as one character (C1); a bell, which ends titles.
        check("\x1b]0;root\x07 \u{9b}2J", &[], "^[]0;root\\u{7} \\u{9b}2J");
        check("a\rb\x08\x7f", &['\n', '\t'], "a\\rb\\u{8}\\u{7f}");
        check("a\n\tb", &['\n', '\t'], "a\n\tb");
        check("a\n\tb", &['\t'], "a\\n\tb");
        check("a\n\tb", &[], "a\\n\\tb");
        for c in ('\0'..='\u{ff}').filter(|c| c.is_control()) {
            assert!(!visible(&c.to_string(), &[]).chars().any(char::is_control), "{c:?}");
        }
    }

    #[test]
    fn forms_for_programs_are_no_orders_to_a_terminal() {
        let resources = crate::discovery::tests::some();
        let pods = resources.named("pods").unwrap();
        let evil = "a\x1b]0;x\x07\r\u{9b}2J\x7f\nb\tc";
        let object = json!({"metadata": {"name": evil, "labels": {evil: evil}}});
        for form in ["name", "json", "yaml", "jsonpath={.metadata.name}"] {
            let text = parse(form).unwrap().text(&object, pods, false).unwrap();
            let shown = for_reader(&text, true);
            assert!(!shown.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')), "{form}: {shown:?}");
            assert_eq!(for_reader(&text, false), text, "{form}");
        }
    }

    #[test]
    fn forms() {
        let resources = crate::discovery::tests::some();
        let deployments = resources.named("deployments").unwrap();
        let object = json!({"metadata": {"name": "web", "managedFields": [1]}, "apiVersion": "apps/v1", "spec": {"b": ["x"], "a": "true"}});
        let check = |form: &str, expected: &str| {
            assert_eq!(parse(form).unwrap().text(&object, deployments, false).unwrap(), expected, "{form}");
        };
        check("name", "deployment.apps/web\n");
        check("jsonpath={.metadata}", r#"{"name":"web"}"#);
        check("yaml", "apiVersion: apps/v1\nmetadata:\n  name: web\nspec:\n  a: \"true\"\n  b:\n  - x\n");
        check(
            "json",
            "{\n    \"apiVersion\": \"apps/v1\",\n    \"metadata\": {\n        \"name\": \"web\"\n    },\n    \"spec\": {\n        \"a\": \"true\",\n        \"b\": [\n            \"x\"\n        ]\n    }\n}\n",
        );
        let long = "word ".repeat(40);
        assert_eq!(yaml(&json!({"a": long.trim()})).unwrap().lines().count(), 1);
        assert!(parse("xml").is_err() && parse("jsonpath={.a").is_err());
    }
}

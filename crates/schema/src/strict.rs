//! Parses JSON and finds the keys that occur twice in one object, for field validation.

mod problems;

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::path::{Path, Segment};
pub use problems::{Shape, problems};

/// Parses JSON text. Returns the value (the last of equal keys wins) and the paths of the duplicates, such as
/// `spec.replicas` or `spec.containers[0].name`.
///
/// # Errors
/// The text is not JSON, or nests deeper than 128 levels.
pub fn parse_strict(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { path: Path::ROOT, duplicates: &mut duplicates }.deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, duplicates))
}

/// Problems that are reported of one object, as upstream.
const MAX_REPORTED: usize = 100;
/// Bytes of their paths, but for the last one. Keys may be as long as a body: a path for each of many would fill the memory.
const MAX_REPORTED_BYTES: usize = 64 << 10;

/// Notes the path of a problem, once, while there are few.
pub(crate) fn report(all: &mut Vec<String>, path: impl FnOnce() -> String) {
    if all.len() < MAX_REPORTED && all.iter().map(String::len).sum::<usize>() < MAX_REPORTED_BYTES {
        let path = path();
        if !all.contains(&path) {
            all.push(path);
        }
    }
}

struct Seed<'a, 'p> {
    path: Path<'p>,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) =
            seq.next_element_seed(Seed { path: self.path.join(Segment::Index(items.len())), duplicates: &mut *self.duplicates })?
        {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = self.path.join(Segment::Key(&key));
            if map.contains_key(&key) {
                report(self.duplicates, || path.to_string());
            }
            let value = access.next_value_seed(Seed { path, duplicates: &mut *self.duplicates })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let (value, duplicates) = parse_strict(text.as_bytes()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(duplicates, expected);
    }

    #[test]
    fn finds_duplicates() {
        check(r#"{"a":1,"b":[true,null,1.5,"x",-3]}"#, &[]);
        check(r#"{"spec":{"replicas":1,"replicas":2}}"#, &["spec.replicas"]);
        check(r#"{"a":[{},{"b":1,"b":2,"b":3}],"a":1}"#, &["a[1].b", "a"]);
    }

    #[test]
    fn long_keys_are_not_repeated_for_each_duplicate() {
        // A body of 3 MB: a path for each duplicate would take 200 GB.
        let text = format!(r#"{{"{}":{{{}"z":1}}}}"#, "k".repeat(1 << 20), r#""a":1,"#.repeat(200_000));
        assert_eq!(parse_strict(text.as_bytes()).unwrap().1.len(), 1);
        let many = (0..100_000).map(|n| format!(r#""{n}":1,"{n}":2,"#)).collect::<String>();
        let duplicates = parse_strict(format!(r#"{{{many}"z":1}}"#).as_bytes()).unwrap().1;
        assert_eq!(duplicates.len(), MAX_REPORTED);
    }

    #[test]
    fn refuses_what_is_not_json() {
        assert!(parse_strict(b"{} x").is_err());
        assert!(parse_strict(b"{\"a\":\xff}").is_err());
        assert!(parse_strict("[".repeat(1000).as_bytes()).is_err());
    }
}

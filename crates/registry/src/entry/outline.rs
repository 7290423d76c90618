//! The part of an object that selectors look at: names, labels, and plain fields at most two levels deep.
//!
//! When the server starts, every object is read for it. The rest is most of the text, and nearly all of the work of decoding it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Levels of objects that are read: the object, a part of it, a map in that.
const LEVELS: usize = 3;

/// The object without its lists, annotations and what lies deeper.
pub(super) fn outline(object: &[u8]) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(object);
    let value = Level(0).deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

struct Level(usize);

impl<'de> DeserializeSeed<'de> for Level {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
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

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if self.0 == LEVELS || key == "annotations" {
                fields.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = fields.next_value_seed(Level(self.0 + 1))?;
            if !value.is_null() {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn what_lies_deep_is_left_out() {
        let check = |object: Value, expected: Value| assert_eq!(outline(object.to_string().as_bytes()).unwrap(), expected);
        check(
            json!({"kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {"x": "y"}, "managedFields": [{}]},
                   "spec": {"nodeName": "n", "priority": 3, "securityContext": {"seLinuxOptions": {"level": "x"}}, "containers": [{}]}}),
            json!({"kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}},
                   "spec": {"nodeName": "n", "priority": 3, "securityContext": {"seLinuxOptions": {}}}}),
        );
        assert!(outline(b"{").is_err() && outline(b"{} x").is_err());
    }

    /// No selectable field of any kind is deeper.
    #[test]
    fn every_selectable_field_is_read() {
        for strategy in kinds::KINDS {
            for field in strategy.selectable().iter() {
                let mut object = json!({});
                let place = field.split('.').fold(&mut object, |place, name| &mut place[name]);
                *place = "x".into();
                let fields = strategy.fields(&outline(object.to_string().as_bytes()).unwrap());
                assert_eq!(fields, strategy.fields(&object), "{} of {}", field, strategy.def().kind);
            }
        }
    }
}

//! Stored objects of which only a part is decoded.
//!
//! Nothing is written as often as the status, and it is the smaller half of an object. The rest, which such a write cannot change,
//! stays the text that it is ([`Apart`]): it is neither decoded nor compared nor encoded again. So do managed fields, most of which
//! are of what such a write does not change. When the server starts, it reads of
//! every object what selectors look at ([`select`]).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};

/// The fields that a write of the status may change or that name the object: decoded as a whole.
const OWN: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// Which fields are decoded. One without fields below it is decoded as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(Box<str>, Fields)>);

impl Fields {
    /// Those at these paths, such as `spec.containers.name`: through a list a path goes on in each of its items.
    pub(crate) fn at<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        paths.for_each(|path| all.add(path));
        all
    }

    fn add(&mut self, path: &str) {
        let (name, below) = path.split_once('.').map_or((path, None), |(name, below)| (name, Some(below)));
        let at = self.0.iter().position(|(known, _)| **known == *name);
        match (at, below) {
            (Some(at), Some(below)) if !self.0[at].1.is_whole() => self.0[at].1.add(below),
            (Some(at), None) => self.0[at].1 = Self::default(),
            (Some(_), Some(_)) => {}
            (None, below) => {
                let mut fields = Self::default();
                below.into_iter().for_each(|below| fields.add(below));
                self.0.push((name.into(), fields));
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    fn get(&self, name: &str) -> Option<(&str, &Self)> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(known, fields)| (&**known, fields))
    }
}

/// An object in two parts.
pub(crate) struct Apart<'a> {
    /// What is decoded: metadata and status, and what the rules look at.
    pub(crate) object: Value,
    /// What a write of the status leaves as it is, and the managed fields.
    pub(crate) rest: Rest<'a>,
}

/// What of an object is text.
#[derive(Default)]
pub(crate) struct Rest<'a> {
    /// Fields beside those that are decoded, sorted as they are stored.
    pub(crate) fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    /// The list of managed fields, which the metadata lack.
    pub(crate) managed: Option<Cow<'a, str>>,
}

impl<'a> Apart<'a> {
    /// Reads an encoded object.
    pub(crate) fn read(encoded: &'a [u8], fields: &Fields) -> Result<Self, serde_json::Error> {
        let parts = serde_json::from_slice::<Parts<'a>>(encoded)?.0;
        let mut object = Map::new();
        let mut rest = Rest::default();
        for (name, text) in parts {
            let mut reader = serde_json::Deserializer::from_str(text.get());
            if name == "metadata" {
                let (metadata, managed) = Metadata.deserialize(&mut reader)?;
                object.insert(name.into_owned(), Value::Object(metadata));
                rest.managed = managed.map(|text| Cow::Borrowed(text.get()));
                continue;
            }
            if OWN.contains(&&*name) {
                object.insert(name.into_owned(), Value::deserialize(&mut reader)?);
                continue;
            }
            if let Some((_, fields)) = fields.get(&name) {
                object.insert(name.as_ref().to_owned(), Selected(fields).deserialize(&mut reader)?);
            }
            rest.fields.push((name, text));
        }
        Ok(Self { object: Value::Object(object), rest })
    }
}

/// The object with these fields alone.
pub(super) fn select(encoded: &[u8], fields: &Fields) -> Result<Value, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(encoded);
    let value = Selected(fields).deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

/// Whether an encoded object has no field but those that a write of the status may change or that name it.
pub(crate) fn has_own_alone(encoded: &[u8]) -> bool {
    serde_json::from_slice::<Parts<'_>>(encoded).is_ok_and(|Parts(parts)| parts.iter().all(|(name, _)| OWN.contains(&&**name)))
}

/// The fields of an object, undecoded.
struct Parts<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Parts<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Parts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::with_capacity(5);
                while let Some(part) = fields.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    parts.push(part);
                }
                Ok(Parts(parts))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Decodes metadata, of the managed fields the text.
struct Metadata;

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = (Map<String, Value>, Option<&'de RawValue>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = (Map<String, Value>, Option<&'de RawValue>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let (mut metadata, mut managed) = (Map::new(), None);
        while let Some(name) = fields.next_key::<String>()? {
            if name == "managedFields" {
                managed = Some(fields.next_value()?);
            } else {
                metadata.insert(name, fields.next_value()?);
            }
        }
        Ok((metadata, managed))
    }
}

/// Decodes some fields of a value.
struct Selected<'f>(&'f Fields);

impl<'de> DeserializeSeed<'de> for Selected<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0.is_whole() { Value::deserialize(deserializer) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Selected<'_> {
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
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(Selected(self.0))? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(known) = fields.next_key_seed(Name(self.0))? {
            match known {
                Some((name, below)) => drop(map.insert(name.to_owned(), fields.next_value_seed(Selected(below))?)),
                None => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value::Object(map))
    }
}

/// Finds a field by its name, which is not kept.
struct Name<'f>(&'f Fields);

impl<'de, 'f> DeserializeSeed<'de> for Name<'f> {
    type Value = Option<(&'f str, &'f Fields)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'f> Visitor<'_> for Name<'f> {
    type Value = Option<(&'f str, &'f Fields)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(paths: &[&str], object: Value, expected: Value) {
        let text = object.to_string();
        let apart = Apart::read(text.as_bytes(), &Fields::at(paths.iter().copied())).unwrap();
        assert_eq!(apart.object, expected);
        for (name, text) in apart.rest.fields {
            assert_eq!(serde_json::from_str::<Value>(text.get()).unwrap(), object[&*name], "{name}");
        }
    }

    #[test]
    fn what_a_status_needs_is_decoded() {
        let own = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": "Running"}});
        let with = |spec: Value| {
            let mut object = own.clone();
            object["spec"] = spec;
            object
        };
        let pod = with(json!({"nodeName": "n", "volumes": [{"name": "v"}], "os": {"name": "linux", "x": 1}, "hostNetwork": true,
            "containers": [{"name": "a", "image": "i"}, {"name": "b", "restartPolicyRules": [{"action": "x"}]}, null, 3]}));
        check(&[], pod.clone(), own.clone());
        check(&["spec"], pod.clone(), pod.clone());
        check(&["spec.nodeName", "data"], pod.clone(), with(json!({"nodeName": "n"})));
        check(
            &["spec.containers.name", "spec.os.name", "spec.hostNetwork"],
            pod.clone(),
            with(json!({"os": {"name": "linux"}, "hostNetwork": true, "containers": [{"name": "a"}, {"name": "b"}, null, 3]})),
        );
        check(&["spec.containers.name", "spec.containers"], pod.clone(), with(json!({"containers": pod["spec"]["containers"]})));
        check(&["spec.containers", "spec.containers.name"], pod.clone(), with(json!({"containers": pod["spec"]["containers"]})));
        check(&["spec.none"], pod, with(json!({})));
        check(&["spec.none"], own.clone(), own);
    }

    /// What an index is made of is read for every kind.
    #[test]
    fn every_selectable_field_is_read() {
        for strategy in kinds::KINDS {
            let selected = crate::entry::Index::fields(*strategy);
            let mut object = json!({"metadata": {"name": "n", "namespace": "s", "labels": {"a.b/c": "d"}}});
            let kept = object["metadata"].clone();
            for field in strategy.selectable().iter() {
                let place = field.split('.').fold(&mut object, |place, name| &mut place[name]);
                *place = "x".into();
            }
            object["metadata"]["annotations"] = json!({"a": "b"});
            let read = select(object.to_string().as_bytes(), &selected).unwrap();
            assert_eq!(strategy.fields(&read), strategy.fields(&object), "{}", strategy.def().kind);
            let metadata = &read["metadata"];
            assert!(
                kept.as_object().unwrap().iter().all(|(key, value)| metadata[key] == *value)
                    && metadata.get("annotations").is_none()
            );
        }
        assert!(select(b"{", &Fields::default()).is_err() && select(b"{} x", &Fields::default()).is_err());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "1", "{\"a\": 1", "{} x"] {
            assert!(Apart::read(text.as_bytes(), &Fields::default()).is_err(), "{text}");
        }
    }
}

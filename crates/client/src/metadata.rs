//! The metadata of an object, read without the rest.
//!
//! An API server writes them before the spec and the status, which are most of the text: what stands behind them is not even looked
//! at.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};

/// Reads the metadata of an object from its JSON.
///
/// # Errors
/// When there are none, or they are not what is asked for.
pub fn of<M: DeserializeOwned>(object: &[u8]) -> Result<M, serde_json::Error> {
    let mut found = None;
    // Its end is an error, when the object has not been read to the end.
    let read = serde_json::Deserializer::from_slice(object).deserialize_map(Behind { found: &mut found });
    match (found, read) {
        (Some(metadata), _) => Ok(metadata),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(serde::de::Error::missing_field("metadata")),
    }
}

/// Reads an object up to its metadata.
struct Behind<'a, M> {
    found: &'a mut Option<M>,
}

impl<'de, M: DeserializeOwned> Visitor<'de> for Behind<'_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while let Some(name) = fields.next_key::<String>()? {
            if name == "metadata" {
                *self.found = Some(fields.next_value()?);
                return Ok(());
            }
            fields.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    #[test]
    fn what_stands_behind_is_not_read() {
        let check = |object: &str, expected: Option<&str>| {
            let found = of::<ObjectMeta>(object.as_bytes()).ok();
            assert_eq!(found.map(|meta| meta.name.unwrap_or_default()).as_deref(), expected, "{object}");
        };
        check(r#"{"kind":"A","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"metadata":1}}"#, Some("a"));
        check(r#"{"spec":{"metadata":{"name":"b"}},"metadata":{"name":"a"}}"#, Some("a"));
        check(r#"{"metad\u0061ta":{"name":"a"}}"#, Some("a"));
        check(r#"{"metadata":{"name":"a"},"spec":{"#, Some("a"));
        check(r#"{"metadata":{"name":1},"spec":{}}"#, None);
        check(r#"{"metadata":{"name":"a""#, None);
        check(r#"{"spec":{}}"#, None);
        check(r#"[]"#, None);
    }
}

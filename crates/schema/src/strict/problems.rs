//! What is wrong with the keys of a JSON text, in the order in which they stand there, as upstream's strict decoder tells it
//! (`sigs.k8s.io/json`). It is asked once something is known to be wrong.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::report;
use crate::path::{Path, Segment};
use crate::types::{Schema, Type, TypeId};

/// What a text is decoded into.
#[derive(Clone, Copy, Debug)]
pub enum Shape<'s> {
    /// A struct of the table.
    Struct(&'s Schema, TypeId),
    /// A list of objects that have these keys, of any values.
    Objects(&'s [&'s str]),
}

/// Unknown and duplicate fields: `unknown field "spec.foo"`, `duplicate field "spec.replicas"`, each once. What is in an unknown field, or
/// in one that decodes itself (`RawExtension`), is not looked at.
///
/// # Errors
/// The text is not JSON, or nests deeper than 128 levels.
pub fn problems(bytes: &[u8], shape: Shape<'_>) -> Result<Vec<String>, serde_json::Error> {
    let expected = match shape {
        Shape::Struct(schema, id) => Expected::Struct(schema, id),
        Shape::Objects(keys) => Expected::Objects(keys),
    };
    let mut problems = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Reader { expected, path: Path::ROOT, problems: &mut problems }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(problems)
}

/// What is expected at a place of the text.
#[derive(Clone, Copy)]
enum Expected<'s> {
    Struct(&'s Schema, TypeId),
    /// A map of a typed object.
    Map(&'s Schema, &'s Type),
    List(&'s Schema, &'s Type),
    Objects(&'s [&'s str]),
    Keys(&'s [&'s str]),
    /// Any value, whose keys are told when they occur twice.
    Any,
    /// A value that is decoded by itself.
    Opaque,
}

impl<'s> Expected<'s> {
    fn of(schema: &'s Schema, ty: &'s Type) -> Self {
        match ty {
            Type::Struct(id) => Self::Struct(schema, *id),
            Type::List(inner) => Self::List(schema, inner),
            Type::Map(inner) => Self::Map(schema, inner),
            Type::Any => Self::Any,
            _ => Self::Opaque,
        }
    }

    /// What a key leads to, nothing where the key is not known.
    fn member(self, key: &str) -> Option<Self> {
        match self {
            Self::Struct(schema, id) => {
                let ty = schema.get(id);
                ty.field_index(key).map(|at| Self::of(schema, &ty.fields[at].ty))
            }
            Self::Map(schema, inner) => Some(Self::of(schema, inner)),
            Self::Keys(keys) => keys.contains(&key).then_some(Self::Any),
            Self::List(..) | Self::Objects(_) | Self::Any => Some(Self::Any),
            Self::Opaque => Some(Self::Opaque),
        }
    }

    fn element(self) -> Self {
        match self {
            Self::List(schema, inner) => Self::of(schema, inner),
            Self::Objects(keys) => Self::Keys(keys),
            _ => Self::Any,
        }
    }
}

struct Reader<'a, 'p, 's> {
    expected: Expected<'s>,
    path: Path<'p>,
    problems: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.expected {
            Expected::Opaque => deserializer.deserialize_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let (mut index, expected) = (0, self.expected.element());
        while seq
            .next_element_seed(Reader { expected, path: self.path.join(Segment::Index(index)), problems: &mut *self.problems })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = self.path.join(Segment::Key(&key));
            let Some(expected) = self.expected.member(&key) else {
                report(self.problems, || format!("unknown field \"{path}\""));
                access.next_value::<IgnoredAny>()?;
                continue;
            };
            if seen.contains(&key) {
                report(self.problems, || format!("duplicate field \"{path}\""));
            }
            access.next_value_seed(Reader { expected, path, problems: &mut *self.problems })?;
            seen.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Upstream: `test/integration/apiserver/field_validation_test.go`, of which these are the bodies in short.
    #[test]
    fn in_the_order_of_the_text() {
        let check = |shape: Shape<'_>, text: &str, expected: &[&str]| {
            assert_eq!(problems(text.as_bytes(), shape).unwrap(), expected, "{text}");
        };
        let schema = Schema::builtin();
        let deployment = Shape::Struct(schema, schema.kind("apps", "v1", "Deployment").unwrap());
        let text = r#"{"metadata":{"annotations":{"a":"1","a":"2"},"managedFields":[{"fieldsV1":{"f:a":{},"f:a":{}}}]},"spec":{
            "unknown1":"val1","unknownDupe":"valDupe","unknownDupe":{"a":1,"a":2},"paused":true,"paused":false,
            "template":{"spec":{"containers":[{"unknownNested":1,"imagePullPolicy":"Always","imagePullPolicy":"Never"}]}}}}"#;
        let expected = [
            r#"duplicate field "metadata.annotations.a""#,
            r#"unknown field "spec.unknown1""#,
            r#"unknown field "spec.unknownDupe""#,
            r#"duplicate field "spec.paused""#,
            r#"unknown field "spec.template.spec.containers[0].unknownNested""#,
            r#"duplicate field "spec.template.spec.containers[0].imagePullPolicy""#,
        ];
        check(deployment, text, &expected);
        check(deployment, r#"{"spec":[{"a":1,"a":2}]}"#, &[r#"duplicate field "spec[0].a""#]);
        let operations = Shape::Objects(&["op", "path", "value"]);
        let text = r#"[{"op":"add","path":"/a","foo":"bar","foo":1},{"path":"/b","path":"/c","value":{"x":1,"x":2}},null]"#;
        check(
            operations,
            text,
            &[r#"unknown field "[0].foo""#, r#"duplicate field "[1].path""#, r#"duplicate field "[1].value.x""#],
        );
        assert!(problems(b"[", operations).is_err());
    }
}

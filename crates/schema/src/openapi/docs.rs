//! Descriptions of types and fields. They are as large as the rest of the tables and only OpenAPI documents need them, so they
//! stay compressed until one is built.

use std::collections::HashMap;
use std::io::Read;

const STREAM: &[u8] = include_bytes!("../../data/v1.36.docs.gz");
const BY_HAND: [&str; 2] = [include_str!("../../data/apiregistration.docs"), include_str!("../../data/metrics.docs")];

/// The descriptions of all types. About a megabyte: drop it when the documents are built.
#[derive(Debug, Default)]
pub struct Docs(HashMap<String, TypeDocs>);

#[derive(Debug, Default)]
pub(super) struct TypeDocs {
    description: String,
    fields: HashMap<String, FieldDocs>,
}

#[derive(Debug, Default)]
pub(super) struct FieldDocs {
    description: String,
    /// The possible values, if the field is an enumeration.
    pub(super) values: Vec<String>,
}

impl Docs {
    /// Unpacks the descriptions of the built-in API (some milliseconds).
    pub fn builtin() -> Self {
        let mut text = BY_HAND.concat();
        flate2::read::GzDecoder::new(STREAM).read_to_string(&mut text).expect("the embedded descriptions are intact");
        Self::parse(&text)
    }

    /// Those of the types of one package.
    pub fn of_package(mut self, package: &str) -> Self {
        self.0.retain(|name, _| name.rsplit_once('.').is_some_and(|(of, _)| of == package));
        self.0.shrink_to_fit();
        self
    }

    /// Lines `@TYPE\tDESCRIPTION`, and after each the lines `FIELD\tDESCRIPTION\tVALUE...` of its fields.
    fn parse(text: &str) -> Self {
        let mut all = HashMap::new();
        let mut current: Option<(&str, TypeDocs)> = None;
        for line in text.lines() {
            let mut parts = line.split('\t');
            let (name, description) = (parts.next().unwrap_or_default(), unescape(parts.next().unwrap_or_default()));
            if let Some(name) = name.strip_prefix('@') {
                all.extend(current.take().map(|(name, docs)| (name.to_owned(), docs)));
                current = Some((name, TypeDocs { description, fields: HashMap::new() }));
            } else if let Some((_, docs)) = &mut current {
                docs.fields.insert(name.to_owned(), FieldDocs { description, values: parts.map(str::to_owned).collect() });
            }
        }
        all.extend(current.map(|(name, docs)| (name.to_owned(), docs)));
        Self(all)
    }

    /// What a field of a type is for; empty where nobody has said.
    pub fn field_description(&self, ty: &str, field: &str) -> &str {
        self.of(ty).and_then(|ty| ty.field(field)).map_or("", FieldDocs::description)
    }

    pub(super) fn of(&self, name: &str) -> Option<&TypeDocs> {
        self.0.get(name)
    }
}

impl TypeDocs {
    pub(super) fn description(&self) -> &str {
        &self.description
    }

    pub(super) fn field(&self, name: &str) -> Option<&FieldDocs> {
        self.fields.get(name)
    }
}

impl FieldDocs {
    pub(super) fn description(&self) -> &str {
        &self.description
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                other => other.unwrap_or('\\'),
            },
            other => other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_descriptions_and_values() {
        let docs = Docs::parse("@a.B\tOne.\\nTwo \\\\ three\nmode\tHow.\tx\ty\n@a.C\t\n");
        let ty = docs.of("a.B");
        assert_eq!(ty.map(TypeDocs::description), Some("One.\nTwo \\ three"));
        let field = ty.and_then(|ty| ty.field("mode"));
        assert_eq!(field.map(|field| field.values.clone()), Some(vec!["x".to_owned(), "y".to_owned()]));
        assert!(docs.of("a.C").is_some());
    }
}

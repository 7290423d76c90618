//! YAML as upstream reads it (`sigs.k8s.io/yaml` on go-yaml 2): YAML 1.1, turned into what is true of it in JSON.
//!
//! Scalars are resolved by [`scalar`]. Anchors, aliases and merge keys are put in place, up to a limit: a short text may stand for
//! a very long one. A key that occurs twice in a mapping counts the last time, and is told. The first document counts, as deep as
//! JSON may be.

mod scalar;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use scalar::{Scalar, ScalarError};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;

use crate::text::quote;

/// Levels of nesting: as many as of JSON.
const MAX_DEPTH: usize = 120;
/// Nodes, and bytes of text, that anchors keep and aliases repeat in all.
const MAX_REPEATED_NODES: usize = 400_000;
const MAX_REPEATED_BYTES: usize = 8 << 20;
/// What begins the text about duplicate keys; each has a line behind it.
pub const UNMARSHAL_ERRORS: &str = "yaml: unmarshal errors:";
/// Bytes of text about duplicate keys.
const MAX_TOLD: usize = 64 << 10;

/// Why a text is no YAML that can be JSON.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    #[error("yaml: {0}")]
    Syntax(#[from] ScanError),
    #[error("yaml: line {line}: {cause}")]
    Scalar { line: usize, cause: ScalarError },
    #[error("yaml: exceeded max depth of {MAX_DEPTH}")]
    TooDeep,
    #[error("yaml: document contains excessive aliasing")]
    Aliasing,
    #[error("yaml: anchor value contains itself")]
    Recursion,
    #[error("yaml: map merge requires map or sequence of maps as the value")]
    Merge,
    #[error("yaml: invalid map key")]
    Key,
    #[error("yaml: the text ends too early")]
    End,
}

/// The value of the first document, and what upstream's strict reader tells of its duplicate keys. An empty document is null.
///
/// # Errors
/// When the text is no YAML, or cannot be JSON.
pub fn parse(text: &str) -> Result<(Value, Vec<String>), YamlError> {
    let parser = Parser::new_from_str(text);
    let mut reader = Reader { parser, anchors: HashMap::new(), repeated: Size::default(), duplicates: String::new() };
    let value = reader.document()?;
    let told = (!reader.duplicates.is_empty()).then(|| format!("{UNMARSHAL_ERRORS}{}", reader.duplicates));
    Ok((value, told.into_iter().collect()))
}

/// How much a value is.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    bytes: usize,
}

impl Size {
    fn of(value: &Value) -> Self {
        let mut size = Self::default();
        size.count(value);
        size
    }

    fn count(&mut self, value: &Value) {
        self.nodes += 1;
        match value {
            Value::String(text) => self.bytes += text.len(),
            Value::Array(items) => items.iter().for_each(|item| self.count(item)),
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                self.bytes += key.len();
                self.count(value);
            }),
            _ => {}
        }
    }
}

/// A key of a mapping.
struct Key {
    text: String,
    /// Whether it was text before it became a key.
    is_text: bool,
}

impl Key {
    /// What an alias stands for.
    fn of(value: &Value) -> Result<Self, YamlError> {
        Ok(Self { text: scalar::key_of(value).ok_or(YamlError::Key)?, is_text: value.is_string() })
    }
}

struct Reader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    /// By the parser's numbers of anchors; none while the value is being read.
    anchors: HashMap<usize, Option<(Value, Size)>>,
    repeated: Size,
    duplicates: String,
}

type Next<'t> = (Event<'t>, Span);

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Next<'t>, YamlError> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(next) => return Ok(next?),
                None => return Err(YamlError::End),
            }
        }
    }

    fn document(&mut self) -> Result<Value, YamlError> {
        let value = loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(Value::Null),
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                node => break self.node(node, 0)?,
            }
        };
        // What follows the end of the document is not looked at.
        self.next()?;
        Ok(value)
    }

    fn node(&mut self, (event, span): Next<'t>, depth: usize) -> Result<Value, YamlError> {
        if depth > MAX_DEPTH {
            return Err(YamlError::TooDeep);
        }
        match event {
            Event::Alias(anchor) => self.alias(anchor),
            Event::Scalar(text, style, anchor, tag) => {
                let value = resolve(&text, style, tag, &span)?.into_json();
                self.keep(anchor, value.map_err(|cause| YamlError::Scalar { line: span.start.line(), cause })?)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.begin(anchor);
                let value = self.sequence(depth)?;
                self.keep(anchor, value)
            }
            Event::MappingStart(_, anchor, _) => {
                self.begin(anchor);
                let value = self.mapping(depth)?;
                self.keep(anchor, value)
            }
            _ => Err(YamlError::End),
        }
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            let next = self.next()?;
            if matches!(next.0, Event::SequenceEnd) {
                return Ok(Value::Array(items));
            }
            items.push(self.node(next, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut map = Map::new();
        loop {
            let next = self.next()?;
            let key = match next.0 {
                Event::MappingEnd => return Ok(Value::Object(map)),
                Event::Scalar(ref text, style, _, ref tag) if is_merge(text, style, tag.as_deref()) => None,
                Event::Scalar(ref text, style, anchor, ref tag) => {
                    Some(self.key(resolve(text, style, tag.clone(), &next.1)?, anchor)?)
                }
                Event::Alias(anchor) => Some(Key::of(&self.alias(anchor)?)?),
                _ => return Err(YamlError::Key),
            };
            let key_line = next.1.end.line();
            let next = self.next()?;
            let line = if begins_before(&next.0) { key_line } else { next.1.start.line() };
            let is_alias = matches!(next.0, Event::Alias(_));
            let value = self.node(next, depth + 1)?;
            match key {
                // An alias names one mapping; only a list that is written here names several.
                None if is_alias && !value.is_object() => return Err(YamlError::Merge),
                None => self.merge(value, &mut map, line)?,
                Some(key) => self.set(&mut map, key, value, line),
            }
        }
    }

    /// A key, which an anchor may keep.
    fn key(&mut self, scalar: Scalar, anchor: usize) -> Result<Key, YamlError> {
        let key = Key { text: scalar.to_key().ok_or(YamlError::Key)?, is_text: scalar.is_text() };
        if anchor != 0 {
            self.keep(anchor, scalar.into_json().map_err(|_| YamlError::Key)?)?;
        }
        Ok(key)
    }

    fn set(&mut self, map: &mut Map<String, Value>, Key { text, is_text }: Key, value: Value, line: usize) {
        if map.contains_key(&text) && self.duplicates.len() < MAX_TOLD {
            let told = if is_text { quote(&text) } else { text.clone() };
            self.duplicates.push_str(&format!("\n  line {line}: key {told} already set in map"));
        }
        map.insert(text, value);
    }

    /// Lays what `<<` names over a mapping: of several mappings the first counts most.
    fn merge(&mut self, value: Value, map: &mut Map<String, Value>, line: usize) -> Result<(), YamlError> {
        let all = match value {
            Value::Array(items) => items,
            one => vec![one],
        };
        for one in all.into_iter().rev() {
            let Value::Object(one) = one else { return Err(YamlError::Merge) };
            one.into_iter().for_each(|(key, value)| self.set(map, Key { text: key, is_text: true }, value, line));
        }
        Ok(())
    }

    /// An anchored collection has begun: an alias inside it would be without end.
    fn begin(&mut self, anchor: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
    }

    fn keep(&mut self, anchor: usize, value: Value) -> Result<Value, YamlError> {
        if anchor != 0 {
            let size = Size::of(&value);
            self.repeat(size)?;
            self.anchors.insert(anchor, Some((value.clone(), size)));
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: usize) -> Result<Value, YamlError> {
        let size = match self.anchors.get(&anchor) {
            Some(Some((_, size))) => *size,
            _ => return Err(YamlError::Recursion),
        };
        self.repeat(size)?;
        match self.anchors.get(&anchor) {
            Some(Some((value, _))) => Ok(value.clone()),
            _ => Err(YamlError::Recursion),
        }
    }

    fn repeat(&mut self, size: Size) -> Result<(), YamlError> {
        self.repeated.nodes += size.nodes;
        self.repeated.bytes += size.bytes;
        let too_much = self.repeated.nodes > MAX_REPEATED_NODES || self.repeated.bytes > MAX_REPEATED_BYTES;
        if too_much { Err(YamlError::Aliasing) } else { Ok(()) }
    }
}

/// Whether a node begins with something that stands before its text: an anchor, a tag, or the sign of a block of text.
fn begins_before(event: &Event<'_>) -> bool {
    match event {
        Event::Scalar(_, style, anchor, tag) => {
            matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) || *anchor != 0 || tag.is_some()
        }
        Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) => *anchor != 0 || tag.is_some(),
        _ => false,
    }
}

/// What a tag is of the names that YAML itself gives; empty for all others.
fn known(tag: Option<&Tag>) -> Option<Cow<'_, str>> {
    tag.map(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:").unwrap_or_default())
}

fn resolve(text: &str, style: ScalarStyle, tag: Option<Cow<'_, Tag>>, span: &Span) -> Result<Scalar, YamlError> {
    scalar::resolve(text, style == ScalarStyle::Plain, known(tag.as_deref()).as_deref())
        .map_err(|cause| YamlError::Scalar { line: span.start.line(), cause })
}

/// Whether a key is the one that merges: `<<`, not in quotes.
fn is_merge(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> bool {
    text == "<<" && known(tag).map_or(style == ScalarStyle::Plain, |tag| tag == "merge")
}

#[cfg(test)]
mod tests;

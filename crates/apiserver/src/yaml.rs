//! YAML as upstream reads it (`sigs.k8s.io/yaml` on go-yaml 2): YAML 1.1, turned into what is true of it in JSON.
//!
//! Scalars are resolved by [`scalar`]. Anchors, aliases and merge keys are put in place, up to a limit: a short text may stand for
//! a very long one. A key that occurs twice in a mapping counts the last time, and is told. One document, as deep as JSON may be.

mod scalar;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use scalar::{Resolved, ScalarError};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Levels of nesting: as many as of JSON.
const MAX_DEPTH: usize = 120;
/// Nodes, and bytes of text, that anchors keep and aliases repeat in all.
const MAX_REPEATED_NODES: usize = 400_000;
const MAX_REPEATED_BYTES: usize = 8 << 20;
/// Duplicate keys that are told, and bytes of their paths.
const MAX_DUPLICATES: usize = 100;
const MAX_DUPLICATE_BYTES: usize = 64 << 10;

/// Why a text is no YAML that can be JSON.
#[derive(Debug, thiserror::Error)]
pub(crate) enum YamlError {
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
    #[error("yaml: there is more than one document")]
    Documents,
    #[error("yaml: the text ends too early")]
    End,
}

/// The value of a document, and the paths of its duplicate keys. An empty document is null.
pub(crate) fn parse(text: &str) -> Result<(Value, Vec<String>), YamlError> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        repeated: Size::default(),
        path: Vec::new(),
        duplicates: Vec::new(),
    };
    let value = reader.document()?;
    Ok((value, reader.duplicates))
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

enum Step {
    Key(String),
    Index(usize),
}

struct Reader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    /// By the parser's numbers of anchors; none while the value is being read.
    anchors: HashMap<usize, Option<(Value, Size)>>,
    repeated: Size,
    path: Vec<Step>,
    duplicates: Vec<String>,
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
        let mut value = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(value.unwrap_or_default()),
                (Event::DocumentStart(..), _) if value.is_some() => return Err(YamlError::Documents),
                (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
                node => value = Some(self.node(node, 0)?),
            }
        }
    }

    fn node(&mut self, (event, span): Next<'t>, depth: usize) -> Result<Value, YamlError> {
        if depth > MAX_DEPTH {
            return Err(YamlError::TooDeep);
        }
        match event {
            Event::Alias(anchor) => self.alias(anchor),
            Event::Scalar(text, style, anchor, tag) => {
                let value = match resolve(&text, style, tag, &span)? {
                    Resolved::Value(value) => value,
                    Resolved::Merge => Value::String(text.into_owned()),
                };
                self.keep(anchor, value)
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
            self.path.push(Step::Index(items.len()));
            items.push(self.node(next, depth + 1)?);
            self.path.pop();
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut map = Map::new();
        let mut own = HashSet::new();
        loop {
            let next = self.next()?;
            let key = match next.0 {
                Event::MappingEnd => return Ok(Value::Object(map)),
                Event::Scalar(ref text, style, anchor, ref tag) => match resolve(text, style, tag.clone(), &next.1)? {
                    Resolved::Merge => None,
                    Resolved::Value(value) => {
                        let key = scalar::key(&value).ok_or(YamlError::Key)?;
                        self.keep(anchor, value)?;
                        Some(key)
                    }
                },
                Event::Alias(anchor) => Some(scalar::key(&self.alias(anchor)?).ok_or(YamlError::Key)?),
                _ => return Err(YamlError::Key),
            };
            let next = self.next()?;
            match key {
                None => merge(self.node(next, depth + 1)?, &mut map)?,
                Some(key) => {
                    if !own.insert(key.clone()) {
                        self.report(&key);
                    }
                    self.path.push(Step::Key(key.clone()));
                    let value = self.node(next, depth + 1)?;
                    self.path.pop();
                    map.insert(key, value);
                }
            }
        }
    }

    fn report(&mut self, key: &str) {
        let length: usize = self.duplicates.iter().map(String::len).sum();
        if self.duplicates.len() >= MAX_DUPLICATES || length >= MAX_DUPLICATE_BYTES {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) => path.push_str(&format!("{key}.")),
                Step::Index(index) => {
                    path.pop();
                    path.push_str(&format!("[{index}]."));
                }
            }
        }
        path.push_str(key);
        if !self.duplicates.contains(&path) {
            self.duplicates.push(path);
        }
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

fn resolve(text: &str, style: ScalarStyle, tag: Option<Cow<'_, Tag>>, span: &Span) -> Result<Resolved, YamlError> {
    let tag = tag.as_deref().map(|tag| tag.suffix_in_namespace("tag:yaml.org,2002:").unwrap_or_default());
    scalar::resolve(text, style == ScalarStyle::Plain, tag.as_deref())
        .map_err(|cause| YamlError::Scalar { line: span.start.line(), cause })
}

/// Lays what `<<` names over a mapping: of several mappings the first counts most.
fn merge(value: Value, map: &mut Map<String, Value>) -> Result<(), YamlError> {
    let all = match value {
        Value::Array(items) => items,
        one => vec![one],
    };
    for one in all.into_iter().rev() {
        match one {
            Value::Object(one) => map.extend(one),
            _ => return Err(YamlError::Merge),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;

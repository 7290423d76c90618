//! One part of a compiled schema.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::field_path::Declares;
use crate::formats::Format;
use crate::pattern::Pattern;
use crate::rule::Rule;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not given.
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
}

impl Kind {
    /// As in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }
}

/// What is known of fields that are not declared.
#[derive(Debug)]
pub(crate) enum Additional {
    /// Nothing is said.
    Unsaid,
    /// There are none.
    None,
    /// They may be anything.
    Any,
    /// They are all like this.
    Of(Box<Node>),
}

/// How a list is merged, and what is unique in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum List {
    Atomic,
    Set,
    /// By the values of these fields.
    Map(Vec<String>),
}

/// A part of a schema.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub(crate) preserves: bool,
    /// `x-kubernetes-embedded-resource`; also the root.
    pub(crate) embeds: bool,
    pub(crate) properties: BTreeMap<String, Node>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Node>>,
    pub(crate) default: Option<Value>,
    /// The default had fields that the schema does not know.
    pub(crate) default_was_pruned: bool,
    pub(crate) list: List,
    /// The fields of an object, or the entries of a map, are replaced all at once.
    pub(crate) atomic: bool,
    pub(crate) limits: Option<Box<Limits>>,
    /// `x-kubernetes-validations`.
    pub(crate) rules: Vec<Rule>,
    /// There is a default here or below.
    pub(crate) has_defaults: bool,
    /// An embedded resource is below, or this is one.
    pub(crate) has_embedded: bool,
    /// A list of which something is unique is here or below.
    pub(crate) has_unique: bool,
    /// A rule is here or below.
    pub(crate) has_rules: bool,
}

impl Node {
    /// The part of the schema that a field has.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Of(node) => Some(node),
            _ => None,
        })
    }

    /// The parts right below, but for junctors.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Self> {
        let additional = match &self.additional {
            Additional::Of(node) => Some(&**node),
            _ => None,
        };
        self.properties.values().chain(additional).chain(self.items.as_deref())
    }
}

impl Declares for &Node {
    fn has_fields(self) -> bool {
        !self.properties.is_empty()
    }

    fn field(self, name: &str) -> Option<Self> {
        self.properties.get(name)
    }

    fn has_entries(self) -> bool {
        !matches!(self.additional, Additional::Unsaid)
    }

    fn entry(self) -> Option<Self> {
        match &self.additional {
            Additional::Of(node) => Some(node),
            _ => None,
        }
    }
}

/// Formats of numbers that restrict them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberFormat {
    Int32,
    Int64,
    Float,
    Double,
}

impl NumberFormat {
    /// A format of a type; what upstream does not know has no effect.
    pub(crate) fn named(kind: &str, name: &str) -> Option<Self> {
        match (kind, name) {
            ("integer", "int32") => Some(Self::Int32),
            ("integer", "int64") => Some(Self::Int64),
            ("number", "float") => Some(Self::Float),
            ("number", "double") => Some(Self::Double),
            _ => None,
        }
    }
}

/// What values are restricted to beyond their type.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub(crate) required: Vec<String>,
    pub(crate) values: Option<Vec<Value>>,
    pub(crate) maximum: Option<f64>,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) exclusive_minimum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) unique_items: bool,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) format: Option<Format>,
    pub(crate) number_format: Option<NumberFormat>,
    /// As messages name it: with dashes, or without.
    pub(crate) format_as_written: String,
    pub(crate) all_of: Vec<Node>,
    pub(crate) any_of: Vec<Node>,
    pub(crate) one_of: Vec<Node>,
    pub(crate) not: Option<Box<Node>>,
}

impl Limits {
    /// Whether nothing is restricted.
    pub(crate) fn is_empty(&self) -> bool {
        let numbers = [self.maximum, self.minimum, self.multiple_of];
        let sizes = [self.max_length, self.min_length, self.max_items, self.min_items, self.max_properties, self.min_properties];
        let junctors = [&self.all_of, &self.any_of, &self.one_of];
        self.required.is_empty()
            && self.values.is_none()
            && numbers.iter().all(Option::is_none)
            && sizes.iter().all(Option::is_none)
            && !self.unique_items
            && self.pattern.is_none()
            && self.format.is_none()
            && self.number_format.is_none()
            && junctors.iter().all(|parts| parts.is_empty())
            && self.not.is_none()
    }
}

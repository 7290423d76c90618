//! Values: JSON that is borrowed as it is, and what expressions make.

mod json;
pub(crate) mod keys;
pub(crate) mod made;

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map as JsonMap, Value as Json};

use crate::authorization::{Decision, Question};
use crate::lexer::RESERVED;
use crate::semver::Version;
pub use json::NoJson;
use keys::Work;
use made::{Items, Made, Text};

/// What is known of a piece of JSON besides itself: the schema that it stands in.
pub trait Shape: fmt::Debug + Sync {
    /// That of a field.
    fn field(&self, name: &str) -> Option<&dyn Shape>;
    /// That of an element.
    fn element(&self) -> Option<&dyn Shape>;
    /// `date-time`, `duration`, `byte`, `number`; anything else means nothing.
    fn format(&self) -> &str;
    /// Lists of this kind are equal in any order, and added to as sets.
    fn is_set(&self) -> bool;
    /// Lists of this kind are equal in any order of elements with these keys, and added to by them.
    fn keys(&self) -> &[String];
}

/// The name of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub &'static str);

const KINDS: [&str; 12] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "uint",
    "type",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
];

impl Kind {
    /// The type that an identifier names.
    pub(crate) fn named(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|known| *known == name).map(Self)
    }
}

/// A list.
#[derive(Clone, Debug)]
pub enum List<'a> {
    /// As it stands in an object.
    Json(&'a [Json], Option<&'a dyn Shape>),
    /// As an expression made it.
    Made(Arc<Items<'a>>),
}

/// A map.
#[derive(Clone, Debug)]
pub enum Map<'a> {
    /// As it stands in an object.
    Json(&'a JsonMap<String, Json>, Option<&'a dyn Shape>),
    /// As an expression made it.
    Made(Arc<Made<'a>>),
    /// The same, where keys that are not there have an empty map.
    Lenient(Arc<Made<'a>>),
}

/// A URL that has been parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub(crate) Arc<str>);

/// A value.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    Bytes(Arc<[u8]>),
    Duration(SignedDuration),
    Time(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Type(Kind),
    Optional(Option<Arc<Value<'a>>>),
    Quantity(Quantity),
    Url(Url),
    Ip(IpAddr),
    Cidr(IpNet),
    Semver(Arc<Version>),
    /// A format that texts can be checked against, by its name.
    Format(&'static str),
    /// Who may do what, so far.
    Question(Arc<Question>),
    /// The answer.
    Decision(Arc<Decision>),
}

impl<'a> Value<'a> {
    /// A text.
    pub fn text(text: impl Into<Text<'a>>) -> Self {
        Self::Text(text.into())
    }

    /// A map of these entries.
    pub fn map(entries: Vec<(Value<'a>, Value<'a>)>) -> Self {
        Self::Map(Map::Made(Made::new(entries)))
    }

    /// A map of maps: what is not there is an empty one, so that `has(map["a"].b)` is false and no error.
    pub fn lenient(entries: Vec<(Value<'a>, Value<'a>)>) -> Self {
        Self::Map(Map::Lenient(Made::new(entries)))
    }

    /// A semantic version; none of a text that is none.
    pub fn semver(text: &str) -> Option<Self> {
        crate::semver::parse(text).ok().map(|version| Self::Semver(Arc::new(version)))
    }

    /// A list that an expression makes.
    pub(crate) fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(List::Made(Items::new(items)))
    }

    /// A piece of JSON.
    pub fn of(json: &'a Json, shape: Option<&'a dyn Shape>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), shape.map(Shape::format)) {
                (_, _, Some("number")) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
                (Some(value), ..) => Self::Int(value),
                (_, Some(value), _) => Self::Uint(value),
                _ => match number.as_f64() {
                    // A whole number stays one however it was written.
                    Some(value) if shape.is_some_and(|shape| shape.format() == "integer") => Self::Int(value as i64),
                    value => Self::Double(value.unwrap_or(f64::NAN)),
                },
            },
            Json::String(text) => formatted(text, shape).unwrap_or_else(|| Self::text(text.as_str())),
            Json::Array(items) => Self::List(List::Json(items, shape)),
            Json::Object(map) => Self::Map(Map::Json(map, shape)),
        }
    }

    /// An optional value.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// Its type.
    pub(crate) fn kind(&self) -> Kind {
        Kind(match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Question(question) => match (&question.path, &question.group, question.resource.is_empty()) {
                (Some(_), ..) => "kubernetes.authorization.PathCheck",
                (_, Some(_), true) => "kubernetes.authorization.GroupCheck",
                (_, Some(_), false) => "kubernetes.authorization.ResourceCheck",
                _ => "kubernetes.authorization.Authorizer",
            },
            Self::Decision(_) => "kubernetes.authorization.Decision",
        })
    }

    /// How deep lists, maps and optional values that expressions made are nested. What stands in an object is bounded by whoever reads objects.
    pub(crate) fn depth(&self) -> u32 {
        match self {
            Self::List(List::Made(items)) => items.depth(),
            Self::Map(Map::Made(entries) | Map::Lenient(entries)) => entries.depth(),
            Self::Optional(Some(inner)) => 1 + inner.depth(),
            _ => 0,
        }
    }

    /// Whether both are the same key of a map. Lists and maps are none (cel-spec, "Aggregate values"), and are found nowhere.
    pub(crate) fn is_key(&self, other: &Self) -> bool {
        !matches!(self, Self::List(_) | Self::Map(_) | Self::Optional(_)) && self.equals(other)
    }

    /// The text, of a text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Equality of cel-spec: numbers of all types are compared by their values, other values of different types are not equal.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        self.equals_within(other, &mut Work::any())
    }

    /// The same. When it is more work than it may be, the answer means nothing, and the work says so.
    pub(crate) fn equals_within(&self, other: &Self, work: &mut Work) -> bool {
        let bytes = match (self, other) {
            (Self::Text(a), Self::Text(b)) if a.len() == b.len() => a.len(),
            (Self::Bytes(a), Self::Bytes(b)) if a.len() == b.len() => a.len(),
            _ => 0,
        };
        if work.add(bytes) {
            return false;
        }
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Time(a), Self::Time(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a), Self::Cidr(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a.cmp(b) == Ordering::Equal,
            (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Question(a), Self::Question(b)) => a == b,
            (Self::Decision(a), Self::Decision(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals_within(b, work),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::List(a), Self::List(b)) => a.equals(b, work),
            (Self::Map(a), Self::Map(b)) => a.equals(b, work),
            _ => self.numbers(other) == Some(Ordering::Equal),
        }
    }

    /// The order of two numbers; none where one is none.
    fn numbers(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            _ => self.as_double()?.partial_cmp(&other.as_double()?),
        }
    }

    pub(crate) fn as_double(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Uint(value) => Some(*value as f64),
            Self::Double(value) => Some(*value),
            _ => None,
        }
    }

    /// The order of two values of types that have one.
    pub(crate) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            _ => self.numbers(other),
        }
    }
}

/// A text as what its format makes of it.
fn formatted<'a>(text: &str, shape: Option<&dyn Shape>) -> Option<Value<'a>> {
    match shape?.format() {
        "date-time" | "datetime" => text.parse().ok().map(Value::Time),
        "date" => {
            text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|at| Value::Time(at.timestamp()))
        }
        "duration" => crate::time::parse_duration(text).map(Value::Duration),
        "byte" => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).ok().map(|bytes| Value::Bytes(bytes.into()))
        }
        _ => None,
    }
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Json(items, shape) => items.get(index).map(|item| Value::of(item, shape.and_then(Shape::element))),
            Self::Made(items) => items.get(index).cloned(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub(crate) fn shape(&self) -> Option<&'a dyn Shape> {
        match self {
            Self::Json(_, shape) => *shape,
            Self::Made(_) => None,
        }
    }

    fn equals(&self, other: &Self, work: &mut Work) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let in_any_order = |list: &Self| list.shape().filter(|shape| shape.is_set() || !shape.keys().is_empty());
        let Some(shape) = in_any_order(self).or_else(|| in_any_order(other)) else {
            return self.iter().zip(other.iter()).all(|(a, b)| a.equals_within(&b, work));
        };
        let (own, others): (Vec<Value<'_>>, Vec<Value<'_>>) = (self.iter().collect(), other.iter().collect());
        let known = keys::identities(&others, shape);
        let places = keys::Places::new(&known);
        own.iter().zip(keys::identities(&own, shape)).all(|(item, identity)| {
            match places.as_ref().and_then(|places| places.find(&identity)) {
                Some(at) => at.is_some_and(|at| item.equals_within(&others[at], work)),
                None => others.iter().any(|other| item.equals_within(other, work)),
            }
        })
    }
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json(map, _) => map.len(),
            Self::Made(entries) | Self::Lenient(entries) => entries.all().len(),
        }
    }

    /// The value of a key, which is as it was written in the schema.
    pub(crate) fn get(&self, key: &Value<'_>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Json(..), Value::Text(key)) => self.field(key),
            (Self::Json(..), _) => None,
            (Self::Made(entries), key) => entries.get(key).cloned(),
            (Self::Lenient(entries), key) => Some(entries.get(key).cloned().unwrap_or_else(|| Value::map(Vec::new()))),
        }
    }

    fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Json(map, shape) => map.get(name).map(|value| Value::of(value, shape.and_then(|shape| shape.field(name)))),
            Self::Made(_) | Self::Lenient(_) => self.get(&Value::text(name)),
        }
    }

    /// A field as an expression names it: what is no identifier is escaped (`k8s.io/apiserver/pkg/cel/escaping.go`).
    pub(crate) fn select(&self, name: &str) -> Option<Value<'a>> {
        self.field(name).or_else(|| name.contains("__").then(|| self.field(&unescape(name))).flatten())
    }

    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json(map, _) => map.keys().map(|key| Value::text(key.as_str())).collect(),
            Self::Made(entries) | Self::Lenient(entries) => entries.all().iter().map(|(key, _)| key.clone()).collect(),
        }
    }

    /// How many keys have to be looked at to find one.
    pub(crate) fn compared(&self, key: &Value<'_>) -> usize {
        match self {
            Self::Json(..) => 0,
            Self::Made(entries) | Self::Lenient(entries) => entries.compared(key),
        }
    }

    fn equals(&self, other: &Self, work: &mut Work) -> bool {
        self.len() == other.len()
            && self.keys().iter().all(|key| match (self.get(key), other.get(key)) {
                (Some(a), Some(b)) => a.equals_within(&b, work),
                _ => false,
            })
    }
}

pub(crate) fn unescape(name: &str) -> String {
    let keyword = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    let is_known = |word: &&str| matches!(*word, "true" | "false" | "null") || RESERVED.contains(word);
    if let Some(keyword) = keyword.filter(is_known) {
        return keyword.to_owned();
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    let signs = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
    while let Some(first) = rest.chars().next() {
        match signs.iter().find(|(escaped, _)| rest.starts_with(escaped)) {
            Some((escaped, sign)) => {
                out.push_str(sign);
                rest = &rest[escaped.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

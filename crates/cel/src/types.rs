//! Types of expressions, and what is declared of the values that they speak of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; what is done with it is checked when the expression runs.
    Dyn,
    /// `null`.
    Null,
    /// `true` and `false`.
    Bool,
    /// Whole numbers.
    Int,
    /// Whole numbers that are not negative.
    Uint,
    /// Other numbers.
    Double,
    /// Texts.
    String,
    /// Bytes.
    Bytes,
    /// Spans of time.
    Duration,
    /// Points in time.
    Timestamp,
    /// A list of that.
    List(Arc<Type>),
    /// A map from that to that.
    Map(Arc<[Type; 2]>),
    /// That, or nothing.
    Optional(Arc<Type>),
    /// The type of a type.
    Type(Arc<Type>),
    /// A type of Kubernetes' libraries, of which only its functions know what is in it.
    Opaque(&'static str),
    /// An object with these fields.
    Object(Arc<Declaration>),
    /// That of what is wrong: it fits everywhere, so that one fault is told once.
    Error,
    /// A type that is not known yet.
    Variable(u32),
}

/// What is declared of a value: its type, and how large it can be.
#[derive(Debug)]
pub struct Declaration {
    /// The name of an object's type.
    pub name: String,
    /// What it is.
    pub form: Form,
    /// How many elements, entries, bytes or characters there can be.
    pub most: u64,
    /// How many bytes it has at least as JSON.
    pub least_bytes: u64,
}

/// The form of a declared value.
#[derive(Debug)]
pub enum Form {
    /// A value without parts.
    Plain(Type),
    /// A list.
    List(Arc<Declaration>),
    /// A map from texts.
    Map(Arc<Declaration>),
    /// An object: its fields by the names by which expressions select them.
    Object(BTreeMap<String, Arc<Declaration>>),
}

impl Declaration {
    /// A value without parts, of any size.
    pub fn plain(ty: Type) -> Arc<Self> {
        Arc::new(Self { name: String::new(), form: Form::Plain(ty), most: 0, least_bytes: 1 })
    }

    /// A list of any length.
    pub fn list(element: Arc<Self>) -> Arc<Self> {
        Arc::new(Self { name: String::new(), form: Form::List(element), most: u64::MAX, least_bytes: 2 })
    }

    /// A map of any size.
    pub fn map(value: Arc<Self>) -> Arc<Self> {
        Arc::new(Self { name: String::new(), form: Form::Map(value), most: u64::MAX, least_bytes: 2 })
    }

    /// An object with these fields, whose names are escaped where they have to be; what cannot be selected is left out.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Arc<Self>)>) -> Arc<Self> {
        Self::object_of(name, fields, 2)
    }

    /// The same, of so many bytes at least.
    pub fn object_of(name: &str, fields: impl IntoIterator<Item = (String, Arc<Self>)>, least_bytes: u64) -> Arc<Self> {
        let fields = fields.into_iter().filter_map(|(name, field)| Some((escape(&name)?, field))).collect();
        Arc::new(Self { name: name.to_owned(), form: Form::Object(fields), most: 0, least_bytes })
    }

    /// Its type.
    pub fn ty(self: &Arc<Self>) -> Type {
        match &self.form {
            Form::Plain(ty) => ty.clone(),
            Form::List(element) => Type::List(Arc::new(element.ty())),
            Form::Map(value) => Type::Map(Arc::new([Type::String, value.ty()])),
            Form::Object(_) => Type::Object(self.clone()),
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&Arc<Self>> {
        match &self.form {
            // Values have words that are reserved under their own names, too.
            Form::Object(fields) => fields.get(name).or_else(|| fields.get(&escape(name)?)),
            _ => None,
        }
    }

    pub(crate) fn element(&self) -> Option<&Arc<Self>> {
        match &self.form {
            Form::List(element) | Form::Map(element) => Some(element),
            _ => None,
        }
    }
}

impl Type {
    /// A list of that.
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(element))
    }

    /// A map from that to that.
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new([key, value]))
    }

    /// That, or nothing.
    pub fn optional(inner: Self) -> Self {
        Self::Optional(Arc::new(inner))
    }

    /// The types that it is made of.
    pub fn parameters(&self) -> &[Self] {
        match self {
            Self::List(inner) | Self::Optional(inner) | Self::Type(inner) => std::slice::from_ref(inner),
            Self::Map(pair) => &pair[..],
            _ => &[],
        }
    }

    /// The same type made of others.
    pub(crate) fn with(&self, mut parameters: impl FnMut(&Self) -> Self) -> Self {
        match self {
            Self::List(inner) => Self::List(Arc::new(parameters(inner))),
            Self::Optional(inner) => Self::Optional(Arc::new(parameters(inner))),
            Self::Type(inner) => Self::Type(Arc::new(parameters(inner))),
            Self::Map(pair) => Self::Map(Arc::new([parameters(&pair[0]), parameters(&pair[1])])),
            other => other.clone(),
        }
    }

    /// Whether both are of one form; what they are made of may be different.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Opaque(a), Self::Opaque(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => Arc::ptr_eq(a, b),
            (Self::Variable(a), Self::Variable(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    /// The name of its form, as values have it.
    pub(crate) fn kind_name(&self) -> &str {
        match self {
            Self::Dyn | Self::Variable(_) => "dyn",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Opaque(name) => name,
            Self::Object(declaration) => &declaration.name,
            Self::Error => "!error!",
        }
    }

    /// Whether it takes the same space whatever its value.
    pub(crate) fn is_scalar(&self) -> bool {
        match self {
            Self::Bool | Self::Double | Self::Duration | Self::Int | Self::Timestamp | Self::Uint => true,
            Self::Optional(inner) => inner.is_scalar(),
            _ => false,
        }
    }
}

impl PartialEq for Type {
    fn eq(&self, other: &Self) -> bool {
        self.is_like(other) && self.parameters() == other.parameters()
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Variable(number) => return write!(f, "_var{number}"),
            Self::Null => "null",
            Self::Duration => "duration",
            Self::Timestamp => "timestamp",
            Self::List(inner) => return write!(f, "list({inner})"),
            Self::Optional(inner) => return write!(f, "optional_type({inner})"),
            Self::Type(inner) => return write!(f, "type({inner})"),
            Self::Map(pair) => return write!(f, "map({}, {})", pair[0], pair[1]),
            other => other.kind_name(),
        })
    }
}

/// The name by which an expression selects a field; none of what cannot be selected (`k8s.io/apiserver/pkg/cel/escaping.go`).
pub fn escape(name: &str) -> Option<String> {
    let first = name.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c)) {
        return None;
    }
    if crate::lexer::RESERVED.contains(&name) || ["true", "false", "null"].contains(&name) {
        return Some(format!("__{name}__"));
    }
    let escaped = name.replace("__", "__underscores__");
    let signs = [(".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];
    Some(signs.into_iter().fold(escaped, |text, (sign, word)| text.replace(sign, word)))
}

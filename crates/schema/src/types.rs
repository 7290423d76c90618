//! The data model of the type tables.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Index of a struct type in a [`Schema`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TypeId(pub(crate) u32);

/// All types of the built-in API.
#[derive(Debug, Default)]
pub struct Schema {
    pub(crate) types: Vec<TypeDef>,
    pub(crate) names: HashMap<&'static str, TypeId>,
    pub(crate) kinds: HashMap<(&'static str, &'static str, &'static str), TypeId>,
}

/// A struct type.
#[derive(Debug)]
pub struct TypeDef {
    /// OpenAPI name: `io.k8s.api.core.v1.PodSpec`.
    pub name: &'static str,
    /// Go name: `PodSpec`.
    pub go: &'static str,
    /// The JSON fields in the order of the Go source, inlined structs expanded.
    pub fields: Vec<Field>,
    /// `+structType=atomic`: server-side apply replaces the struct as a whole.
    pub atomic: bool,
    /// Group and version when the type is a kind of its own (has `apiVersion` and `kind`).
    pub kind: Option<(&'static str, &'static str)>,
    /// JSON names and indices of `fields`, sorted by length and name: comparing lengths first makes the search cheap.
    pub(crate) by_name: Vec<(&'static str, u16)>,
    /// Indices of the fields that Go writes even when nothing was given.
    pub(crate) always: Vec<u16>,
    /// Protobuf layout, sorted by field number.
    pub(crate) wire: Vec<Wire>,
}

/// A member of the protobuf message of a struct.
#[derive(Debug, Clone)]
pub(crate) enum Wire {
    /// An index into `TypeDef::fields`.
    Field(u32, u16),
    /// A message of its own in protobuf, of which JSON shows the fields inline.
    Embedded(u32, Vec<Wire>),
}

impl Wire {
    pub(crate) fn number(&self) -> u32 {
        match self {
            Self::Field(number, _) | Self::Embedded(number, _) => *number,
        }
    }
}

/// A JSON field of a struct.
#[derive(Debug, Clone)]
pub struct Field {
    /// JSON name.
    pub name: &'static str,
    /// Protobuf field number in the innermost message; 0 when protobuf does not carry the field (`apiVersion`, `kind`).
    pub number: u32,
    /// Protobuf numbers of the inlined messages around the field, outermost first; mostly empty.
    pub via: Vec<u32>,
    pub ty: Type,
    /// A Go pointer: absent and zero differ.
    pub pointer: bool,
    /// JSON leaves a zero value out (structs and special types are written all the same, as Go does).
    pub omit_empty: bool,
    /// JSON leaves a zero struct out as well (`omitzero`).
    pub omit_zero: bool,
    /// Required in OpenAPI.
    pub required: bool,
    /// The list is wrapped in a message of its own in protobuf (`type Verbs []string`); also for lists that are map values.
    pub wrapped: bool,
    /// How server-side apply merges the field, if it is a list.
    pub list: ListKind,
    /// How strategic merge patch treats the field.
    pub patch: Patch,
    /// `+mapType=atomic` or `+structType=atomic` at the field.
    pub atomic: bool,
    /// `+default=`, JSON text.
    pub default: Option<&'static str>,
    /// The Go type as reflection prints it without the pointer (`v1.PullPolicy`), if it does not follow from `ty`.
    pub go: Option<&'static str>,
    /// `+listType` was declared, and does not only follow from the patch strategy.
    pub list_declared: bool,
    /// `+mapType` or `+structType` was declared: without `atomic` the field is granular, even if its struct type is atomic.
    pub map_declared: bool,
}

/// The type of a field, an element or a map value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int32,
    Int64,
    Float64,
    String,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// A Go duration such as `1m30s`.
    Duration,
    /// Any object, kept as JSON bytes in protobuf.
    RawExtension,
    /// A managed-fields set, kept as JSON bytes in protobuf.
    FieldsV1,
    /// Any JSON value; not in protobuf.
    Any,
    /// Any JSON value, kept as JSON bytes in protobuf (`apiextensions.JSON`).
    Json,
    /// A JSON schema (the type) or something simpler in its place.
    SchemaOr(Alternative, TypeId),
    Struct(TypeId),
    List(Box<Type>),
    /// String keys.
    Map(Box<Type>),
}

/// What may stand in the place of a JSON schema in a CustomResourceDefinition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alternative {
    /// `additionalProperties: true`.
    Bool,
    /// `items: [SCHEMA, ...]`.
    List,
    /// `dependencies: {a: [b, c]}`.
    Strings,
}

/// How server-side apply merges a list. Only lists have something else than `Atomic`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ListKind {
    #[default]
    Atomic,
    Set,
    /// Elements are identified by the values of these fields.
    Map(Vec<&'static str>),
}

/// Strategic merge patch tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Patch {
    pub merge: bool,
    pub merge_key: Option<&'static str>,
    pub retain_keys: bool,
    pub replace: bool,
}

/// Kinds of `meta/v1` that every API group shares.
const SHARED: &[&str] =
    &["CreateOptions", "DeleteOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions", "WatchEvent"];

impl Schema {
    /// The built-in API, read on first use (about a millisecond).
    pub fn builtin() -> &'static Self {
        static BUILTIN: LazyLock<Schema> = LazyLock::new(crate::table::builtin);
        &BUILTIN
    }

    /// The type of a kind. The shared kinds of `meta/v1` (`DeleteOptions`, `WatchEvent` and so on) are found in every group;
    /// `Status`, `Table` and the like under the empty group and under `meta.k8s.io`, both `v1`.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        let find = |group, version| self.kinds.get(&(group, version, kind)).copied();
        find(group, version).or_else(|| {
            let shared = SHARED.contains(&kind) || (group.is_empty() && version == "v1");
            if shared { find("meta.k8s.io", "v1") } else { None }
        })
    }

    /// All kinds: group, version, kind, type.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str, TypeId)> + '_ {
        self.kinds.iter().map(|(key, id)| (key.0, key.1, key.2, *id))
    }

    /// The definition behind an id of this schema.
    pub fn get(&self, id: TypeId) -> &TypeDef {
        &self.types[id.0 as usize]
    }

    /// The type of an OpenAPI name such as `io.k8s.api.core.v1.PodSpec`.
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// All types, in the order of their ids.
    pub fn types(&self) -> impl Iterator<Item = (TypeId, &TypeDef)> {
        (0..).map(TypeId).zip(&self.types)
    }
}

impl TypeDef {
    /// A field by its JSON name. Names are case-sensitive.
    pub fn field(&self, json_name: &str) -> Option<&Field> {
        self.field_index(json_name).map(|index| &self.fields[index])
    }

    pub(crate) fn field_index(&self, name: &str) -> Option<usize> {
        let order = |(known, _): &(&str, u16)| (known.len(), *known).cmp(&(name.len(), name));
        self.by_name.binary_search_by(order).ok().map(|at| self.by_name[at].1 as usize)
    }
}

impl Field {
    /// Whether Go writes the field when it has the zero value: only pointers, lists, maps and scalars honour `omitempty`.
    pub(crate) fn always_written(&self) -> bool {
        if self.omit_zero {
            return false;
        }
        let struct_like = matches!(
            self.ty,
            Type::Struct(_)
                | Type::Quantity
                | Type::IntOrString
                | Type::Time
                | Type::MicroTime
                | Type::Duration
                | Type::RawExtension
                | Type::FieldsV1
        );
        !self.omit_empty || (struct_like && !self.pointer)
    }
}

//! One version of a resource, as the registry serves it.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::{GroupResource, Status, gvk};
use kinds::{Behaviour, Conversion, KindDef, Strategy};
use schema::{Schema, TypeId};
use serde_json::Value;

use crate::context::{Context, FieldValidation};
use crate::entry::{Encoding, Entry, Index};
use crate::storage::Storage;

/// One version of a resource as it is served.
pub struct Served {
    /// Constant facts.
    pub def: &'static KindDef,
    /// Rules.
    pub strategy: &'static dyn Strategy,
    /// Group and resource, for messages.
    pub group_resource: GroupResource,
    /// Where its objects are, maybe shared with other versions.
    pub(crate) storage: Arc<Storage>,
    pub(crate) ty: TypeId,
    /// How this version is encoded.
    encoding: Encoding,
}

impl Served {
    /// The version of `strategy`, over `storage`.
    pub(crate) fn new(strategy: &'static dyn Strategy, storage: Arc<Storage>) -> Result<Self, String> {
        let def = strategy.def();
        let ty = schema_type(def)?;
        let group_resource = storage.group_resource.clone();
        Ok(Self { def, strategy, group_resource, storage, ty, encoding: Encoding::new(def) })
    }

    fn conversion(&self) -> Option<&'static Conversion> {
        self.strategy.conversion()
    }

    /// How many objects are stored, and their bytes. None for what is not stored, or not as this version.
    pub fn stored(&self) -> Option<(usize, usize)> {
        let own = self.def.stored && std::ptr::eq(self.def, self.storage.def);
        own.then(|| self.storage.cache.size())
    }

    /// Whether objects have to be converted to be read.
    pub(crate) fn is_converted(&self) -> bool {
        self.conversion().is_some()
    }

    /// An entry of the cache in this version.
    pub(crate) fn show(&self, entry: &Arc<Entry>) -> Arc<Entry> {
        if !self.is_converted() {
            return entry.clone();
        }
        match self.encoding.encode(&self.value(entry)) {
            Ok(bytes) => Arc::new(entry.with_json(self.encoding.stamp(&bytes, entry.revision))),
            // What has been decoded can be encoded.
            Err(_) => entry.clone(),
        }
    }

    /// A bookmark of the cache, whose object has metadata only, in this version.
    pub(crate) fn show_bookmark(&self, entry: &Arc<Entry>) -> Arc<Entry> {
        let mut object = entry.value();
        apimachinery::meta::set_type(&mut object, &self.def.api_version(), self.def.kind);
        Arc::new(entry.with_json(object.to_string().into()))
    }

    /// An entry of the cache, decoded, in this version.
    pub(crate) fn value(&self, entry: &Entry) -> Value {
        let mut object = entry.value();
        self.show_stored(&mut object);
        object
    }

    /// Makes an object of the stored version one of this version.
    pub(crate) fn show_stored(&self, object: &mut Value) {
        if let Some(conversion) = self.conversion() {
            (conversion.from_stored)(object);
            apimachinery::meta::set_type(object, &self.def.api_version(), self.def.kind);
            canonicalize(self.ty, object);
        }
    }

    /// Makes an object of this version one of the stored version.
    pub(crate) fn store(&self, object: &mut Value) {
        if let Some(conversion) = self.conversion() {
            (conversion.to_stored)(object);
            self.storage.set_type(object);
        }
    }

    /// An object of this version as it is stored, and what selectors need of it.
    pub(crate) fn stored_form<'a>(&self, object: &'a Value) -> (Cow<'a, Value>, Arc<Index>) {
        if !self.is_converted() {
            return (Cow::Borrowed(object), Arc::new(Index::of(self.strategy, object)));
        }
        let mut stored = object.clone();
        self.store(&mut stored);
        let index = Arc::new(Index::of(self.storage.strategy, &stored));
        (Cow::Owned(stored), index)
    }

    /// The name under which the cache knows a field of a field selector.
    pub(crate) fn stored_field(&self, field: &str) -> String {
        self.conversion().map_or_else(|| field.to_owned(), |conversion| (conversion.stored_field)(field))
    }

    /// The object's type in the schema.
    pub fn schema_type(&self) -> TypeId {
        self.ty
    }

    /// The type of a body for the object or one of its subresources.
    pub fn body_type(&self, sub: &str) -> Option<TypeId> {
        match self.def.subresource(sub).and_then(|sub| sub.kind) {
            Some((group, version, kind)) => Schema::builtin().kind(group, version, kind),
            None => Some(self.ty),
        }
    }

    /// What a sub-resource is, none for the object itself.
    pub fn behaviour(&self, sub: &str) -> Option<&'static Behaviour> {
        self.def.subresource(sub).map(|sub| &sub.behaviour)
    }

    /// Whether the body of a sub-resource is an object of this kind, which then has this kind's defaults.
    pub(crate) fn is_own_body(&self, sub: &str) -> bool {
        matches!(self.behaviour(sub), None | Some(Behaviour::Status | Behaviour::Part(_)))
    }

    /// Decodes a body against the schema: type errors are refused, unknown fields and what `duplicates` tells by
    /// `cx.field_validation`.
    pub fn decode(&self, cx: &Context, sub: &str, value: &mut Value, duplicates: Vec<String>) -> Result<(), Status> {
        let expected = self.def.body_kind(self.def.subresource(sub));
        let ty = self.body_type(sub).ok_or_else(|| Status::internal(format!("no schema for subresource {sub}")))?;
        check_kind(value, expected)?;
        let unknown = schema::decode(Schema::builtin(), ty, value).map_err(|error| {
            let api_version = gvk::api_version(expected.0, expected.1);
            let version = api_version.rsplit('/').next().unwrap_or_default().to_owned();
            Status::bad_request(format!("{} in version \"{version}\" cannot be handled as a {}: {error}", expected.2, expected.2))
        })?;
        apimachinery::meta::set_type(value, &gvk::api_version(expected.0, expected.1), expected.2);
        let texts = unknown.into_iter().map(|path| format!("unknown field \"{path}\""));
        strict(cx, texts.chain(duplicates).collect(), expected)
    }
}

/// The type of a kind in the schema.
pub(crate) fn schema_type(def: &KindDef) -> Result<TypeId, String> {
    let ty = Schema::builtin().kind(def.group, def.version, def.kind);
    ty.ok_or_else(|| format!("no schema for {} {}", def.api_version(), def.kind))
}

/// Brings an object that has changed its version into the form in which Go would write it.
pub(crate) fn canonicalize(ty: TypeId, object: &mut Value) {
    // The same values under other names have the right types.
    let _ = schema::decode(Schema::builtin(), ty, object);
}

/// `namespace/name`, or `name` alone.
pub(crate) fn object_path(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

/// The body's kind is the path's kind, or is left out.
fn check_kind(value: &Value, (group, version, kind): kinds::GroupVersionKindRef) -> Result<(), Status> {
    if !value.is_object() {
        let detail = format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            json_type(value)
        );
        return Err(Status::bad_request(detail));
    }
    let (given_version, given_kind) = (apimachinery::meta::api_version(value), apimachinery::meta::kind(value));
    let expected = gvk::api_version(group, version);
    if !given_version.is_empty() && given_version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({expected})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        return Err(Status::bad_request(format!(
            "the kind in the data ({given_kind}) does not match the expected kind ({kind})"
        )));
    }
    Ok(())
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null | Value::Object(_) => "object",
    }
}

fn strict(cx: &Context, problems: Vec<String>, (_, version, kind): kinds::GroupVersionKindRef) -> Result<(), Status> {
    match cx.field_validation {
        FieldValidation::Strict if !problems.is_empty() => Err(Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            problems.join(", ")
        ))),
        FieldValidation::Warn => {
            cx.warn_of(&problems);
            Ok(())
        }
        _ => Ok(()),
    }
}

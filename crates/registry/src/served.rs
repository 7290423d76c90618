//! One version of a resource, as the registry serves it.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::{GroupResource, Status, gvk};
use bytes::Bytes;
use kinds::{Behaviour, Conversion, GroupVersionKindRef, KindDef, Names, Rules};
use schema::Schema;
use serde_json::Value;

use crate::context::{Context, FieldValidation};
use crate::converted::Converted;
use crate::decode_error::DecodeError;
use crate::derived::Derived;
use crate::entry::parts::{Apart, Fields, Rest};
use crate::entry::{Encoding, Entry, Index};
use crate::form::Form;
use crate::storage::Storage;
use crate::{Converter, ObjectSchema, Patch};

/// Most objects that a webhook is asked to convert at once.
const CONVERTED_AT_ONCE: usize = 500;
/// Bytes of them: objects are decoded meanwhile, and the answer has a largest size.
const BYTES_AT_ONCE: usize = 4 << 20;
/// Changes that are converted one by one, so that those who see the same one wait for one answer: of one change, that is the object now and
/// before.
const FEW_CHANGES: usize = 2;

/// An object as it is stored, its index, and the stored version where it is another one.
type StoredForm<'a> = (Cow<'a, Value>, Arc<Index>, Option<Arc<Form>>);

/// One version of a resource as it is served.
pub struct Served {
    /// Constant facts.
    pub def: Arc<KindDef>,
    /// Rules.
    pub strategy: Rules,
    /// Shape of its objects.
    pub schema: ObjectSchema,
    /// Group and resource, for messages.
    pub group_resource: GroupResource,
    /// Where its objects are, maybe shared with other versions.
    pub(crate) storage: Arc<Storage>,
    /// How this version is encoded.
    encoding: Encoding,
    /// What a write of the status decodes besides metadata and status; none where that is everything.
    status_reads: Option<Fields>,
    /// It is not the version that is stored.
    converted: bool,
    /// When its definition came into force, see [`crate::form::Form`].
    epoch: u64,
    /// Who converts between the versions, where it is not this program.
    converter: Option<Arc<dyn Converter>>,
    /// What that one has converted for those who read the same again: watches, and admission.
    lately: Converted,
    /// Its parts of documents.
    pub derived: Derived,
}

impl Served {
    /// The version with these rules, over `storage`; `converted` when another version is stored.
    pub(crate) fn new(strategy: Rules, storage: Arc<Storage>, converted: bool, epoch: u64) -> Result<Self, String> {
        let def = Arc::new(strategy.def().clone());
        let schema = ObjectSchema::of(&strategy)?;
        let group_resource = storage.group_resource.clone();
        let reads = def.status_reads.filter(|_| !converted);
        Ok(Self {
            encoding: Encoding::new(&def),
            status_reads: reads.map(|paths| Fields::at(paths.iter().copied().chain(strategy.selectable().iter()))),
            def,
            strategy,
            schema,
            group_resource,
            storage,
            converted,
            epoch,
            converter: None,
            lately: Converted::default(),
            derived: Derived::default(),
        })
    }

    /// The same, where somebody else converts.
    pub(crate) fn converted_by(self, converter: Option<Arc<dyn Converter>>) -> Self {
        Self { converter, ..self }
    }

    /// Whether somebody else converts, which takes time.
    pub(crate) fn is_converted_elsewhere(&self) -> bool {
        self.converter.is_some()
    }

    fn conversion(&self) -> Option<&'static Conversion> {
        self.strategy.conversion()
    }

    /// How many objects are stored, and their bytes. None for what is not stored, or not as this version.
    pub fn stored(&self) -> Option<(usize, usize)> {
        (self.def.stored && !self.converted).then(|| self.storage.cache.size())
    }

    /// How many objects a list goes through, and their bytes, in whatever version they are stored. None for what is not stored.
    pub fn listed(&self) -> Option<(usize, usize)> {
        self.def.stored.then(|| self.storage.cache.size())
    }

    /// How many watch its objects, in whatever version.
    pub fn watchers(&self) -> usize {
        self.storage.cache.watchers()
    }

    /// Group, version and kind of the version that is stored.
    pub fn stored_kind(&self) -> (String, String, String) {
        let form = self.storage.form();
        let (group, version, kind) = form.def.own_kind();
        (group.to_owned(), version.to_owned(), kind.to_owned())
    }

    /// Whether users have defined this kind.
    pub fn is_custom(&self) -> bool {
        self.def.is_custom()
    }

    /// Whether objects have to be converted to be read.
    pub(crate) fn is_converted(&self) -> bool {
        self.converted
    }

    /// Whether all entries of the cache are shown as they are.
    pub(crate) fn shows_what_is_stored(&self) -> bool {
        !self.converted && !self.is_custom()
    }

    /// Whether an entry of the cache is shown as it is.
    pub(crate) fn is_shown(&self, entry: &Entry) -> bool {
        !self.converted && entry.index.epoch == self.epoch && (self.converter.is_none() || self.encoding.is_of(&entry.json))
    }

    /// An entry of the cache in this version.
    pub(crate) async fn show(&self, entry: &Arc<Entry>) -> Result<Arc<Entry>, Status> {
        if self.is_shown(entry) {
            return Ok(entry.clone());
        }
        let object = self.value(entry).await?;
        Ok(self.encoded(entry, &object))
    }

    /// The same, where no webhook converts.
    pub(crate) fn show_here(&self, entry: &Arc<Entry>) -> Arc<Entry> {
        if self.is_shown(entry) { entry.clone() } else { self.encoded(entry, &self.own_value(entry)) }
    }

    /// Entries of the cache in this version. Who converts is asked once for many.
    pub(crate) async fn show_all(&self, entries: &mut [Arc<Entry>]) -> Result<(), Status> {
        let (mut objects, mut bytes) = (0, 0);
        let together = |one: &Arc<Entry>, next: &Arc<Entry>| {
            (objects, bytes) = (objects + 1, bytes + one.json.len());
            let fits = objects < CONVERTED_AT_ONCE && bytes + next.json.len() <= BYTES_AT_ONCE;
            if !fits {
                (objects, bytes) = (0, 0);
            }
            fits
        };
        for some in entries.chunk_by_mut(together) {
            // Others get their turn between: nothing waits where this program converts.
            tokio::task::yield_now().await;
            let others: Vec<usize> = (0..some.len()).filter(|at| !self.is_shown(&some[*at])).collect();
            let objects = self.to_this(others.iter().map(|at| some[*at].value()).collect()).await?;
            for (at, object) in others.into_iter().zip(objects) {
                some[at] = self.encoded(&some[at], &object);
            }
        }
        Ok(())
    }

    /// Entries in this version that others look at, too, such as those of changes, and parameters of policies: what a webhook has converted for
    /// one of them it has converted for all.
    pub(crate) async fn show_changes(&self, entries: &mut [Arc<Entry>]) -> Result<(), Status> {
        let mut missing = Vec::new();
        for (at, entry) in entries.iter_mut().enumerate().filter(|(_, entry)| !self.is_shown(entry)) {
            match self.lately.known(entry) {
                Some(shown) => *entry = shown,
                None => missing.push(at),
            }
        }
        if missing.len() <= FEW_CHANGES {
            // Who comes meanwhile waits for the same answer.
            for at in missing {
                let entry = entries[at].clone();
                entries[at] = self.lately.get(&entry, self.show(&entry)).await?;
            }
            return Ok(());
        }
        let mut shown: Vec<Arc<Entry>> = missing.iter().map(|at| entries[*at].clone()).collect();
        self.show_all(&mut shown).await?;
        for (at, shown) in missing.into_iter().zip(shown) {
            self.lately.keep(&entries[at], shown.clone());
            entries[at] = shown;
        }
        Ok(())
    }

    /// An object of this version with another resource version.
    pub(crate) fn restamp(&self, shown: &Entry, revision: u64) -> Entry {
        self.encoding.restamp(shown, revision)
    }

    /// Where versions have fields of their own for selectors, the index is of this one.
    fn encoded(&self, entry: &Arc<Entry>, object: &Value) -> Arc<Entry> {
        // Whoever converts may change labels.
        let may_differ = !self.strategy.selectable().is_empty() || self.is_converted_elsewhere();
        let index = match self.is_custom() && may_differ {
            true => Arc::new(Index::of(&*self.strategy, object, self.epoch)),
            false => entry.index.clone(),
        };
        match self.encoding.encode(object) {
            Ok(bytes) => Arc::new(Entry { index, revision: entry.revision, json: self.encoding.stamp(&bytes, entry.revision) }),
            // What has been decoded can be encoded.
            Err(_) => entry.clone(),
        }
    }

    /// An object that is computed and has no version.
    pub(crate) fn compute(&self, object: &Value, revision: u64) -> Result<Entry, serde_json::Error> {
        let index = Arc::new(Index::of(&*self.strategy, object, self.epoch));
        Ok(Entry { index, revision, json: self.encoding.encode(object)? })
    }

    /// A bookmark of the cache, whose object has metadata only, in this version.
    pub(crate) fn show_bookmark(&self, entry: &Arc<Entry>) -> Arc<Entry> {
        let mut object = entry.value();
        apimachinery::meta::set_type(&mut object, &self.def.api_version(), &self.def.kind);
        Arc::new(entry.with_json(object.to_string().into()))
    }

    /// An entry of the cache, decoded, in this version.
    pub(crate) async fn value(&self, entry: &Entry) -> Result<Value, Status> {
        if self.is_shown(entry) {
            return Ok(entry.value());
        }
        let objects = self.to_this(vec![entry.value()]).await?;
        objects.into_iter().next().ok_or_else(|| Status::internal("a conversion has lost an object"))
    }

    /// An entry of the cache as a write of its status needs it; none where that has to decode all of it.
    pub(crate) fn apart<'a>(&self, entry: &'a Entry) -> Option<Apart<'a>> {
        let reads = self.status_reads.as_ref().filter(|_| self.is_shown(entry))?;
        Apart::read(&entry.json, reads).ok()
    }

    /// The same, of a kind that no webhook converts.
    pub(crate) fn own_value(&self, entry: &Entry) -> Value {
        let mut object = entry.value();
        if !self.is_shown(entry) {
            self.show_stored(&mut object);
        }
        object
    }

    /// Makes stored objects, which are not shown as they are, ones of this version.
    async fn to_this(&self, mut objects: Vec<Value>) -> Result<Vec<Value>, Status> {
        if let Some(converter) = &self.converter {
            objects = convert(&**converter, objects, &self.def.api_version()).await?;
        }
        objects.iter_mut().for_each(|object| self.show_stored(object));
        Ok(objects)
    }

    /// Makes an object of the stored version one of this version, where no webhook has to.
    pub(crate) fn show_stored(&self, object: &mut Value) {
        if let Some(conversion) = self.conversion() {
            (conversion.from_stored)(object);
        }
        apimachinery::meta::set_type(object, &self.def.api_version(), &self.def.kind);
        self.schema.settle(object);
    }

    /// An object of this version as one of another version of the resource.
    pub(crate) async fn convert_to(&self, version: &Self, mut object: Value) -> Result<Value, Status> {
        match self.converter.as_ref().or(version.converter.as_ref()) {
            Some(converter) => {
                let converted = convert(&**converter, vec![object], &version.def.api_version()).await?;
                object = converted.into_iter().next().ok_or_else(|| Status::internal("a conversion has lost an object"))?;
                version.schema.settle(&mut object);
            }
            None => {
                self.store(&mut object);
                if version.is_converted() {
                    version.show_stored(&mut object);
                }
            }
        }
        Ok(object)
    }

    /// Makes an object of this version one of the stored version.
    pub(crate) fn store(&self, object: &mut Value) {
        if let Some(conversion) = self.conversion() {
            (conversion.to_stored)(object);
        }
        if self.converted {
            self.storage.form().settle(object);
        }
    }

    /// An object of this version as it is stored, what selectors need of it, and the stored version where that is another one. It is
    /// the same all the time: the definition may change while a webhook converts.
    pub(crate) async fn stored_form<'a>(&self, object: &'a Value) -> Result<StoredForm<'a>, Status> {
        if !self.converted {
            return Ok((Cow::Borrowed(object), Arc::new(Index::of(&*self.strategy, object, self.epoch)), None));
        }
        let (mut stored, form) = (object.clone(), Arc::clone(&self.storage.form()));
        if let Some(converter) = &self.converter {
            let converted = convert(&**converter, vec![stored], &form.def.api_version()).await?;
            stored = converted.into_iter().next().ok_or_else(|| Status::internal("a conversion has lost an object"))?;
        }
        if let Some(conversion) = self.conversion() {
            (conversion.to_stored)(&mut stored);
        }
        form.settle(&mut stored);
        let index = Arc::new(form.index(&stored));
        Ok((Cow::Owned(stored), index, Some(form)))
    }

    /// The bytes to store of what [`Served::stored_form`] has made.
    pub(crate) fn encode(&self, object: &Value, form: Option<&Form>) -> Result<Bytes, serde_json::Error> {
        form.map_or(&self.encoding, |form| &form.encoding).encode(object)
    }

    /// The bytes to store after a write of the status, where the `rest` is as it was stored.
    pub(crate) fn encode_apart(&self, object: &Value, rest: &Rest<'_>) -> Result<Bytes, serde_json::Error> {
        self.encoding.encode_apart(object, rest)
    }

    /// The name under which the cache knows a field of a field selector.
    pub(crate) fn stored_field(&self, field: &str) -> String {
        self.conversion().map_or_else(|| field.to_owned(), |conversion| (conversion.stored_field)(field))
    }

    /// The fields that are known of what a selector is held against: the stored object, or of a custom resource the one that is shown.
    pub(crate) fn known_fields(&self) -> Names {
        match self.is_custom() {
            true => self.strategy.selectable().clone(),
            false => self.storage.form().rules.selectable().clone(),
        }
    }

    /// The value of a field for field selectors, empty when the object has none.
    pub fn field<'a>(&self, entry: &'a Entry, name: &str) -> &'a str {
        entry.field(self.storage.form().rules.selectable(), name)
    }

    /// The shape of a body for the object or one of its subresources.
    pub fn body_schema(&self, sub: &str) -> Option<ObjectSchema> {
        match self.def.subresource(sub).and_then(|sub| sub.kind) {
            Some((group, version, kind)) => Schema::builtin().kind(group, version, kind).map(ObjectSchema::Builtin),
            None => Some(self.schema.clone()),
        }
    }

    /// The media types of patches that it takes.
    pub fn patch_types(&self) -> &'static [&'static str] {
        if self.is_custom() { Patch::ANY } else { Patch::BUILTIN }
    }

    /// What a sub-resource is, none for the object itself.
    pub fn behaviour(&self, sub: &str) -> Option<&Behaviour> {
        self.def.subresource(sub).map(|sub| &sub.behaviour)
    }

    /// Whether the body of a sub-resource is an object of this kind, which then has this kind's defaults.
    pub fn is_own_body(&self, sub: &str) -> bool {
        matches!(self.behaviour(sub), None | Some(Behaviour::Status | Behaviour::Part(_)))
    }

    /// Decodes an object against the schema: type errors are refused, unknown fields by `cx.field_validation`.
    pub fn decode(&self, cx: &Context, sub: &str, value: &mut Value) -> Result<(), Status> {
        let decoded = self.settle(sub, value).and_then(|unknown| Ok(cx.strictly(unknown)?));
        decoded.map_err(|why| self.undecodable(sub, why))
    }

    /// As [`Self::decode`], of a body. `duplicates` is told of its keys; `json` is its text, where upstream finds unknown fields and
    /// duplicate ones in one pass and so tells them in the order of the text. Elsewhere those of the text come first.
    pub fn decode_body(
        &self,
        cx: &Context,
        sub: &str,
        value: &mut Value,
        mut duplicates: Vec<String>,
        json: Option<&[u8]>,
    ) -> Result<(), Status> {
        let unknown = self.settle(sub, value).map_err(|why| self.undecodable(sub, why))?;
        let is_told = cx.field_validation != FieldValidation::Ignore && (!duplicates.is_empty() || unknown.len() > 1);
        let one_pass = match (self.body_schema(sub), json) {
            (Some(ObjectSchema::Builtin(ty)), Some(text)) if is_told => {
                schema::problems(text, schema::Shape::Struct(Schema::builtin(), ty)).ok()
            }
            _ => None,
        };
        let problems = one_pass.unwrap_or_else(|| {
            duplicates.extend(unknown);
            duplicates
        });
        cx.strictly(problems).map_err(|why| self.undecodable(sub, why.into()))
    }

    fn undecodable(&self, sub: &str, why: DecodeError) -> Status {
        why.bad_request(self.def.body_kind(self.def.subresource(sub)))
    }

    /// Brings what a client sent into the form in which objects are kept. What is told of the fields that are not known, which go.
    pub(crate) fn settle(&self, sub: &str, value: &mut Value) -> Result<Vec<String>, DecodeError> {
        let (path, expected) = (self.def.subresource(sub), self.def.body_kind(self.def.subresource(sub)));
        let schema = self.body_schema(sub).ok_or_else(|| DecodeError::NoSchema(sub.to_owned()))?;
        check_kind(value, expected, path.map_or(&[], |sub| sub.accepts))?;
        let unknown = schema.decode(value)?;
        apimachinery::meta::set_type(value, &gvk::api_version(expected.0, expected.1), expected.2);
        Ok(unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect())
    }
}

/// Has those objects converted that are of another version.
async fn convert(converter: &dyn Converter, mut objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, Status> {
    let is_other = |object: &Value| apimachinery::meta::api_version(object) != api_version;
    let others: Vec<usize> = (0..objects.len()).filter(|at| is_other(&objects[*at])).collect();
    if others.is_empty() {
        return Ok(objects);
    }
    let converted = converter.convert(others.iter().map(|at| objects[*at].take()).collect(), api_version).await?;
    others.into_iter().zip(converted).for_each(|(at, object)| objects[at] = object);
    Ok(objects)
}

/// The body's kind is the path's kind, or is left out; `others` are API versions that are as good.
fn check_kind(value: &Value, (group, version, kind): GroupVersionKindRef<'_>, others: &[&str]) -> Result<(), DecodeError> {
    if !value.is_object() {
        let detail = format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            json_type(value)
        );
        return Err(DecodeError::Kind(detail));
    }
    let (given_version, given_kind) = (apimachinery::meta::api_version(value), apimachinery::meta::kind(value));
    let expected = gvk::api_version(group, version);
    if !given_version.is_empty() && given_version != expected && !others.contains(&given_version) {
        return Err(DecodeError::Kind(format!(
            "the API version in the data ({given_version}) does not match the expected API version ({expected})"
        )));
    }
    if !given_kind.is_empty() && given_kind != kind {
        return Err(DecodeError::Kind(format!("the kind in the data ({given_kind}) does not match the expected kind ({kind})")));
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

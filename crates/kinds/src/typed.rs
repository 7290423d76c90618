//! From typed kinds to the object-safe [`Strategy`].

use std::collections::BTreeMap;
use std::marker::PhantomData;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::table::ColumnDefinition;
use codec::Decode;
use jiff::Timestamp;
use serde_json::Value;

use crate::columns::{Cell, Column};
use crate::conversion::Conversion;
use crate::def::{KindDef, Names};
use crate::gates;
use crate::strategy::{Fields, Strategy};

/// Who makes a request, and when: what a kind may note of it in the object.
pub struct Requester<'a> {
    /// Name of the user.
    pub name: &'a str,
    /// Unique identifier of the user, may be empty.
    pub uid: &'a str,
    /// Groups of the user.
    pub groups: &'a [String],
    /// Further attributes of the user.
    pub extra: &'a BTreeMap<String, Vec<String>>,
    /// The time, as objects show it.
    pub now: &'a str,
}

/// A built-in kind. Every function has a default that does nothing, so that a plain kind is one constant.
pub trait Kind: Decode + 'static {
    /// Constant facts.
    const DEF: KindDef;

    /// Selectable fields beyond `metadata.name` and `metadata.namespace`.
    const SELECTABLE: &'static [&'static str] = &[];

    /// How this version becomes the stored one, none when it is the stored one.
    const CONVERSION: Option<Conversion> = None;

    /// Fills in what the user left out.
    fn apply_defaults(_object: &mut Value) {}

    /// Clears what a creator may not set, beyond status.
    fn prepare_create(_object: &mut Value) {}

    /// Carries over what an update may not change silently, beyond status.
    fn prepare_update(_object: &mut Value, _old: &Value) {}

    /// Carries over what an update of the status may not take away.
    fn prepare_status(_object: &mut Value, _old: &Value) {}

    /// Notes who writes, and when, in a new object or (with `old`) in a changed one.
    fn record(_object: &mut Value, _old: Option<&Value>, _by: &Requester<'_>) {}

    /// Seconds that the object is given to end when it is deleted; `asked` by whoever deletes it.
    fn grace_seconds(_object: &Value, _asked: Option<i64>) -> i64 {
        0
    }

    /// Whether something besides finalizers keeps a deleted object.
    fn is_kept(_object: &Value) -> bool {
        false
    }

    /// Changes an object that is marked as deleted.
    fn prepare_delete(_object: &mut Value) {}

    /// Rules for an object, new or changed, beyond metadata.
    fn validate(&self, _errors: &mut Errors) {}

    /// Rules for a new object, beyond those of [`Kind::validate`], which run too.
    fn validate_create(&self, _errors: &mut Errors) {}

    /// Rules for a changed object, beyond metadata and those of [`Kind::validate`], which run too.
    fn validate_update(&self, _old: &Self, _errors: &mut Errors) {}

    /// Rules for an update through a subresource.
    fn validate_sub(&self, _sub: &str, _old: &Self, _errors: &mut Errors) {}

    /// What a creator should know of an object that is right: deprecated fields, and what will not do what it seems to.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// What somebody who changed an object should know.
    fn warnings_on_update(&self, _old: &Self) -> Vec<String> {
        Vec::new()
    }

    /// What somebody who changed an object through a sub-resource should know.
    fn warnings_on_sub(&self, _sub: &str) -> Vec<String> {
        Vec::new()
    }

    /// Values of [`Kind::SELECTABLE`], from the JSON form: this runs on every write and needs no decoding.
    fn field(_object: &Value, _name: &'static str) -> String {
        String::new()
    }

    /// Columns between Name and Age; all columns in their order when Name is among them.
    fn columns() -> &'static [Column<Self>] {
        &[]
    }

    /// The `conditions` of a row of the table.
    fn row_conditions(_object: &Value) -> Vec<Value> {
        Vec::new()
    }
}

/// Adapts a [`Kind`].
pub struct Typed<K>(PhantomData<fn() -> K>);

impl<K> Typed<K> {
    /// The adapter, for the list of kinds.
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K> Default for Typed<K> {
    fn default() -> Self {
        Self::new()
    }
}

/// Decodes an object that the schema has accepted; a failure here is a defect of the schema table and is reported, not hidden.
pub(crate) fn typed<K: Decode>(object: &Value, errors: &mut Errors) -> Option<K> {
    match K::from_tree(object) {
        Ok(typed) => Some(typed),
        Err(error) => {
            errors.push(Error::internal(&Path::root(), error.to_string()));
            None
        }
    }
}

/// Leaves out what a younger rule says of an object that broke it in the same way before, as an update that changes nothing shows.
fn ratchet<K: Kind>(old: &K, errors: &mut Errors) {
    if errors.0.iter().any(|error| error.is_ratcheted) {
        let mut before = Errors::new();
        old.validate(&mut before);
        old.validate_update(old, &mut before);
        errors.0.retain(|error| !error.is_ratcheted || !before.0.contains(error));
    }
}

impl<K: Kind> Strategy for Typed<K> {
    fn def(&self) -> &KindDef {
        const { &K::DEF }
    }

    fn conversion(&self) -> Option<&'static Conversion> {
        const { &K::CONVERSION }.as_ref()
    }

    fn apply_defaults(&self, object: &mut Value) {
        K::apply_defaults(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        gates::drop_disabled(self.def(), object, None);
        K::prepare_create(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        gates::drop_disabled(self.def(), object, Some(old));
        K::prepare_update(object, old);
    }

    fn prepare_status(&self, object: &mut Value, old: &Value) {
        gates::drop_disabled(self.def(), object, Some(old));
        K::prepare_status(object, old);
    }

    fn record(&self, object: &mut Value, old: Option<&Value>, by: &Requester<'_>) {
        K::record(object, old, by);
    }

    fn grace_seconds(&self, object: &Value, asked: Option<i64>) -> i64 {
        K::grace_seconds(object, asked)
    }

    fn is_kept(&self, object: &Value) -> bool {
        K::is_kept(object)
    }

    fn prepare_delete(&self, object: &mut Value) {
        K::prepare_delete(object);
    }

    fn validate(&self, object: &Value, warnings: &mut Vec<String>) -> Errors {
        let mut errors = Errors::new();
        if let Some(typed) = typed::<K>(object, &mut errors) {
            typed.validate(&mut errors);
            typed.validate_create(&mut errors);
            warnings.extend(typed.warnings());
            warnings.extend(K::DEF.without_effect.map(str::to_owned));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors {
        let mut errors = Errors::new();
        if let (Some(new), Some(old)) = (typed::<K>(object, &mut errors), typed::<K>(old, &mut errors)) {
            new.validate(&mut errors);
            new.validate_update(&old, &mut errors);
            ratchet(&old, &mut errors);
            warnings.extend(new.warnings_on_update(&old));
        }
        errors
    }

    fn validate_sub(&self, sub: &str, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors {
        let mut errors = Errors::new();
        if let (Some(new), Some(old)) = (typed::<K>(object, &mut errors), typed::<K>(old, &mut errors)) {
            new.validate_sub(sub, &old, &mut errors);
            ratchet(&old, &mut errors);
            warnings.extend(new.warnings_on_sub(sub));
        }
        errors
    }

    fn selectable(&self) -> &Names {
        const { &Names::Fixed(K::SELECTABLE) }
    }

    fn fields(&self, object: &Value) -> Fields {
        K::SELECTABLE.iter().map(|name| K::field(object, name)).enumerate().filter(|(_, value)| !value.is_empty()).collect()
    }

    fn columns(&self) -> Vec<ColumnDefinition> {
        all_columns::<K>().into_iter().map(|column| column.def.definition()).collect()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let metadata = |name: &str| object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).unwrap_or_default();
        let typed = K::from_tree(object).ok();
        let cell = |column: &Column<K>| match column.cell {
            Cell::Name => metadata("name").into(),
            Cell::Age => apimachinery::table::age(metadata("creationTimestamp"), now).into(),
            Cell::Created => metadata("creationTimestamp").into(),
            Cell::Of(cell) => typed.as_ref().map_or(Value::Null, |typed| cell(typed, now)),
        };
        all_columns::<K>().into_iter().map(cell).collect()
    }

    fn row_conditions(&self, object: &Value) -> Vec<Value> {
        K::row_conditions(object)
    }
}

/// The columns of a kind, Name and Age included.
fn all_columns<K: Kind>() -> Vec<&'static Column<K>> {
    let own = K::columns().iter();
    if own.clone().any(|column| column.def.format == "name") {
        return own.collect();
    }
    let (narrow, wide): (Vec<_>, Vec<_>) = own.partition(|column| column.def.priority == 0);
    let (name, age): (&'static Column<K>, &'static Column<K>) = const { (&Column::NAME, &Column::AGE) };
    std::iter::once(name).chain(narrow).chain([age]).chain(wide).collect()
}

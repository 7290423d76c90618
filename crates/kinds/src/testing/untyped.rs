//! What tables of tests say about an object: it is found by its apiVersion and kind, decoded and given its defaults as a request's.

use apimachinery::meta;
use schema::Schema;
use serde_json::Value;

use crate::{KINDS, Strategy};

/// The rules of an object's kind, and the object decoded and with defaults.
#[track_caller]
pub(crate) fn prepared(mut object: Value) -> (&'static dyn Strategy, Value) {
    let (version, kind) = (meta::api_version(&object).to_owned(), meta::kind(&object).to_owned());
    let found = KINDS.iter().find(|strategy| strategy.def().kind == kind && strategy.def().api_version() == version);
    let strategy = *found.unwrap_or_else(|| panic!("no {version} {kind}"));
    let def = strategy.def();
    let schema = Schema::builtin();
    let ty = schema.kind(&def.group, &def.version, &def.kind).unwrap_or_else(|| panic!("no schema of {kind}"));
    let unknown = schema::decode(schema, ty, &mut object).unwrap_or_else(|error| panic!("{kind}: {error}"));
    assert!(unknown.is_empty(), "{kind}: {unknown:?}");
    strategy.apply_defaults(&mut object);
    (strategy, object)
}

/// What is wrong with a new object. It is prepared for storage, as a creation does.
#[track_caller]
pub(crate) fn created(object: Value) -> Vec<String> {
    let (strategy, mut object) = prepared(object);
    strategy.prepare_create(&mut object);
    strategy.validate(&object, &mut Vec::new()).iter().map(ToString::to_string).collect()
}

/// What is wrong with an object in the place of another one.
#[track_caller]
pub(crate) fn updated(old: Value, new: Value) -> Vec<String> {
    let ((strategy, old), (_, new)) = (prepared(old), prepared(new));
    strategy.validate_update(&new, &old, &mut Vec::new()).iter().map(ToString::to_string).collect()
}

/// What is wrong with an object that comes through a sub-resource.
#[track_caller]
pub(crate) fn updated_through(sub: &str, old: Value, new: Value) -> Vec<String> {
    let ((strategy, old), (_, new)) = (prepared(old), prepared(new));
    strategy.validate_sub(sub, &new, &old, &mut Vec::new()).iter().map(ToString::to_string).collect()
}

/// Cells of an object's row, without its age.
#[track_caller]
pub(crate) fn row(object: Value) -> Vec<Value> {
    let (strategy, object) = prepared(object);
    let columns = strategy.columns();
    let cells = strategy.row(&object, jiff::Timestamp::UNIX_EPOCH).into_iter();
    columns.iter().zip(cells).filter(|(column, _)| column.name != "Age").map(|(_, cell)| cell).collect()
}

/// The object with the value at a JSON pointer replaced, or removed for null.
#[track_caller]
pub(crate) fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_else(|| panic!("{pointer} is no pointer"));
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}"));
    match (parent, value) {
        (Value::Object(map), Value::Null) => drop(map.remove(key)),
        (Value::Object(map), value) => drop(map.insert(key.to_owned(), value)),
        (other, value) => {
            let index: usize = key.parse().unwrap_or_else(|_| panic!("{key} is no index"));
            other[index] = value;
        }
    }
    object
}

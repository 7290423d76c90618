//! How tests of kinds ask: an object as a client sends it, what is wrong with it, how it is shown.

#![allow(clippy::unwrap_used)]

pub(crate) mod untyped;

use apimachinery::field::Errors;
use apimachinery::patch;
use jiff::Timestamp;
use serde_json::Value;

use crate::strategy::Strategy;
use crate::typed::{Kind, Typed};

/// An object with its defaults.
pub(crate) fn defaulted<K: Kind>(mut object: Value) -> Value {
    K::apply_defaults(&mut object);
    object
}

/// `base` with what a merge patch says.
pub(crate) fn with(base: &Value, change: Value) -> Value {
    patch::merge(base, &change).unwrap()
}

fn texts(errors: Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What is wrong with a new object.
pub(crate) fn wrong_with<K: Kind>(object: Value) -> Vec<String> {
    let mut created = defaulted::<K>(object);
    Typed::<K>::new().prepare_create(&mut created);
    texts(Typed::<K>::new().validate(&created, &mut Vec::new()))
}

/// The same, compared.
#[track_caller]
pub(crate) fn check<K: Kind>(object: Value, expected: &[&str]) {
    assert_eq!(wrong_with::<K>(object.clone()), expected, "{object}");
}

/// What is wrong with a change.
#[track_caller]
pub(crate) fn check_update<K: Kind>(old: Value, new: Value, expected: &[&str]) {
    let (old, mut changed) = (defaulted::<K>(old), defaulted::<K>(new.clone()));
    Typed::<K>::new().prepare_update(&mut changed, &old);
    let errors = Typed::<K>::new().validate_update(&changed, &old, &mut Vec::new());
    // Differences are many lines; the first says what it is about.
    let lines: Vec<_> = texts(errors).iter().filter_map(|text| text.lines().next().map(str::to_owned)).collect();
    assert_eq!(lines, expected, "{new}");
}

/// What is wrong with a new status.
#[track_caller]
pub(crate) fn check_status<K: Kind>(old: Value, status: Value, expected: &[&str]) {
    let old = defaulted::<K>(old);
    let mut new = old.clone();
    new["status"] = status;
    Typed::<K>::new().prepare_status(&mut new, &old);
    assert_eq!(texts(Typed::<K>::new().validate_sub("status", &new, &old, &mut Vec::new())), expected, "{new}");
}

/// What the writer of its status is warned of.
#[track_caller]
pub(crate) fn check_status_warnings<K: Kind>(object: Value, expected: &[&str]) {
    let (old, mut warnings) = (defaulted::<K>(object), Vec::new());
    let mut new = old.clone();
    Typed::<K>::new().prepare_status(&mut new, &old);
    let errors = Typed::<K>::new().validate_sub("status", &new, &old, &mut warnings);
    assert_eq!((texts(errors), warnings.iter().map(String::as_str).collect::<Vec<_>>()), (Vec::new(), expected.to_vec()));
}

/// What its creator is warned of.
#[track_caller]
pub(crate) fn check_warnings<K: Kind>(object: Value, expected: &[&str]) {
    let mut warnings = Vec::new();
    let errors = Typed::<K>::new().validate(&defaulted::<K>(object), &mut warnings);
    assert_eq!((texts(errors), warnings.iter().map(String::as_str).collect::<Vec<_>>()), (Vec::new(), expected.to_vec()));
}

/// The cells of a stored object, those of wide output in brackets; as old as the epoch.
#[track_caller]
pub(crate) fn check_row<K: Kind>(object: Value, expected: &str) {
    let strategy = Typed::<K>::new();
    let show = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned);
    let cells = strategy.row(&object, Timestamp::from_second(60).unwrap());
    let cells = strategy
        .columns()
        .iter()
        .zip(&cells)
        .map(|(column, cell)| if column.priority > 0 { format!("[{}]", show(cell)) } else { show(cell) })
        .collect::<Vec<_>>();
    assert_eq!(cells.join("|"), expected);
}

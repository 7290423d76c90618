//! Event (events.k8s.io/v1): the objects of core/v1 Event, under stricter rules (KEP-383).

use apimachinery::field::{Error, Errors, Path};
use apimachinery::table::ColumnDefinition;
use jiff::Timestamp;
use k8s_openapi::Resource;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Map, Value};

use crate::conversion::Conversion;
use crate::def::{KindDef, NameRule, Names, UnqualifiedFinalizers};
use crate::strategy::{Fields, Strategy};
use crate::typed::{Kind, Typed, typed};
use crate::util::text;

/// `events.k8s.io/v1 Event`. Its errors name fields as the stored kind does, as upstream's do.
pub(crate) struct EventsV1;

static STORED: Typed<Event> = Typed::new();

static CONVERSION: Conversion = Conversion {
    stored: (<Event as Resource>::GROUP, <Event as Resource>::VERSION, <Event as Resource>::KIND),
    from_stored: |event| convert(event, FIELDS.iter().map(|(own, stored)| (*stored, *own)), "events.k8s.io/v1"),
    to_stored: |event| convert(event, FIELDS.iter().copied(), "v1"),
    stored_field,
};

/// Names of fields: here, and in core/v1.
const FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// `involvedObject.name` for `regarding.name`.
fn stored_field(field: &str) -> String {
    let (first, rest) = field.split_at(field.find('.').unwrap_or(field.len()));
    let stored = FIELDS.iter().find(|(own, _)| *own == first).map_or(first, |(_, stored)| *stored);
    format!("{stored}{rest}")
}

/// Renames fields. Managed fields are renamed too, so their entries always carry the version in which the object is read.
fn convert<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)> + Clone, api_version: &str) {
    if let Some(fields) = object.as_object_mut() {
        rename(fields, names.clone());
    }
    let managed = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for entry in managed.into_iter().flatten() {
        entry["apiVersion"] = api_version.into();
        if let Some(fields) = entry.get_mut("fieldsV1").and_then(Value::as_object_mut) {
            let prefixed: Vec<(String, String)> =
                names.clone().map(|(from, to)| (format!("f:{from}"), format!("f:{to}"))).collect();
            rename(fields, prefixed.iter().map(|(from, to)| (from.as_str(), to.as_str())));
        }
    }
}

fn rename<'a>(fields: &mut Map<String, Value>, names: impl Iterator<Item = (&'a str, &'a str)>) {
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}

impl EventsV1 {
    fn stored(object: &Value) -> Value {
        let mut stored = object.clone();
        (CONVERSION.to_stored)(&mut stored);
        apimachinery::meta::set_type(&mut stored, &Event::DEF.api_version(), &Event::DEF.kind);
        stored
    }
}

/// Fields that an update through events.k8s.io/v1 may not change, by the stored kind's names.
const FIXED: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

impl Strategy for EventsV1 {
    fn def(&self) -> &KindDef {
        const { &Event::DEF.group("events.k8s.io").name(NameRule::Subdomain).unqualified_finalizers(UnqualifiedFinalizers::Refused) }
    }

    fn conversion(&self) -> Option<&'static Conversion> {
        Some(&CONVERSION)
    }

    fn apply_defaults(&self, _: &mut Value) {}

    fn prepare_create(&self, _: &mut Value) {}

    fn prepare_update(&self, _: &mut Value, _: &Value) {}

    fn validate(&self, object: &Value, warnings: &mut Vec<String>) -> Errors {
        let stored = Self::stored(object);
        let mut errors = STORED.validate(&stored, warnings);
        if let Some(event) = typed::<Event>(&stored, &mut errors) {
            check_strictly(&event, &mut errors);
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Errors {
        let (new, old) = (Self::stored(object), Self::stored(old));
        let mut errors = STORED.validate(&new, warnings);
        if let Some(event) = typed::<Event>(&new, &mut errors).filter(|_| new.get("series") != old.get("series")) {
            check_series(&event, &mut errors);
        }
        for field in FIXED.into_iter().filter(|field| new.get(field) != old.get(field)) {
            let name = if field == "reportingComponent" { "reportingController" } else { field };
            let value = new.get(field).cloned().unwrap_or_default();
            errors.push(Error::invalid(&Path::new(name), value, "field is immutable"));
        }
        errors
    }

    fn validate_sub(&self, _: &str, _: &Value, _: &Value, _: &mut Vec<String>) -> Errors {
        Errors::new()
    }

    fn selectable(&self) -> &Names {
        &Names::Fixed(&[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ])
    }

    fn fields(&self, object: &Value) -> Fields {
        let stored = Self::stored(object);
        let value = |name: &str| text(&stored, &format!("/{}", stored_field(name).replace('.', "/"))).to_owned();
        self.selectable().iter().map(value).enumerate().collect()
    }

    fn columns(&self) -> Vec<ColumnDefinition> {
        STORED.columns()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        STORED.row(&Self::stored(object), now)
    }
}

/// What a creation through events.k8s.io/v1 must say, and may not.
fn check_strictly(event: &Event, errors: &mut Errors) {
    check_series(event, errors);
    if event.event_time.is_none() {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    let kind = event.type_.as_deref().unwrap_or_default();
    if !["Normal", "Warning"].contains(&kind) {
        errors.push(Error::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
    }
    let source = event.source.iter().flat_map(|source| [&source.component, &source.host]).flatten();
    let set = [
        ("firstTimestamp", event.first_timestamp.is_some()),
        ("lastTimestamp", event.last_timestamp.is_some()),
        ("count", event.count.unwrap_or(0) != 0),
        ("source", source.into_iter().any(|text| !text.is_empty())),
    ];
    for (name, _) in set.into_iter().filter(|(_, set)| *set) {
        errors.push(Error::invalid(&Path::new(name), "", "needs to be unset"));
    }
}

fn check_series(event: &Event, errors: &mut Errors) {
    let Some(series) = &event.series else { return };
    if series.count.unwrap_or(0) < 2 {
        errors.push(Error::invalid(&Path::new("series.count"), "", "should be at least 2"));
    }
    if series.last_observed_time.is_none() {
        errors.push(Error::required(&Path::new("series.lastObservedTime"), ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(extra: &[(&str, Value)]) -> Value {
        let mut event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "c-1",
            "action": "Do", "reason": "Done", "type": "Normal", "regarding": {"kind": "Pod", "name": "p", "namespace": "n"},
            "note": "it is done",
        });
        for (name, value) in extra {
            event[*name] = value.clone();
        }
        event
    }

    fn texts(errors: &Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_object_in_two_shapes() {
        let mut shown = event(&[("deprecatedCount", json!(3))]);
        shown["metadata"]["managedFields"] =
            json!([{"manager": "m", "apiVersion": "events.k8s.io/v1", "fieldsV1": {"f:note": {}, "f:type": {}}}]);
        let mut stored = shown.clone();
        (CONVERSION.to_stored)(&mut stored);
        assert_eq!((&stored["message"], &stored["count"]), (&json!("it is done"), &json!(3)));
        assert_eq!((&stored["involvedObject"]["name"], stored.get("regarding")), (&json!("p"), None));
        let managed = json!([{"manager": "m", "apiVersion": "v1", "fieldsV1": {"f:message": {}, "f:type": {}}}]);
        assert_eq!(stored["metadata"]["managedFields"], managed);
        (CONVERSION.from_stored)(&mut stored);
        assert_eq!(stored, shown);
        assert_eq!(stored_field("regarding.name"), "involvedObject.name");
        assert_eq!(stored_field("metadata.name"), "metadata.name");
    }

    #[test]
    fn both_kinds_are_kept_alike() {
        let (own, stored) = (EventsV1.def(), STORED.def());
        let facts = |def: &KindDef| (def.version.clone(), def.plural.clone(), def.namespaced, def.ephemeral, def.expires);
        assert_eq!(facts(own), facts(stored));
        let selectable = STORED.selectable();
        assert!(EventsV1.selectable().iter().all(|field| selectable.contains(stored_field(field).as_str())));
        let fields = EventsV1.fields(&event(&[]));
        assert!(fields.contains(&(2, "p".to_owned())) && fields.contains(&(8, "example.com/c".to_owned())));
    }

    fn check(extra: &[(&str, Value)], expected: &[&str]) {
        assert_eq!(texts(&EventsV1.validate(&event(extra), &mut Vec::new())), expected, "{extra:?}");
    }

    #[test]
    fn creation_is_strict() {
        check(&[], &[]);
        check(
            &[("reportingController", "".into())],
            &[
                "reportingController: Required value",
                "reportingController: Invalid value: \"\": name part must be non-empty",
                "reportingController: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ],
        );
        check(&[("action", Value::Null)], &["action: Required value"]);
        check(&[("reason", "x".repeat(129).into())], &["reason: Invalid value: \"\": can have at most 128 characters"]);
        check(&[("note", "x".repeat(1025).into())], &["message: Invalid value: \"\": can have at most 1024 characters"]);
        check(&[("type", "Loud".into())], &["type: Invalid value: \"\": has invalid value: Loud"]);
        check(&[("eventTime", Value::Null)], &["eventTime: Required value"]);
        check(&[("deprecatedCount", 1.into())], &["count: Invalid value: \"\": needs to be unset"]);
        check(&[("deprecatedSource", json!({"host": "h"}))], &["source: Invalid value: \"\": needs to be unset"]);
        let series = json!({"count": 1, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
        check(&[("series", series)], &["series.count: Invalid value: \"\": should be at least 2"]);
        check(
            &[("regarding", json!({"kind": "Node", "name": "n"}))],
            &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"],
        );
    }

    #[test]
    fn updates_change_the_series_only() {
        let old = event(&[]);
        let series = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"});
        assert!(EventsV1.validate_update(&event(&[("series", series)]), &old, &mut Vec::new()).is_empty());
        let errors = EventsV1.validate_update(&event(&[("note", "other".into())]), &old, &mut Vec::new());
        assert_eq!(texts(&errors), ["message: Invalid value: \"other\": field is immutable"]);
        // The core API changes what it likes.
        let (mut old, mut new) = (old, event(&[("note", "other".into())]));
        for event in [&mut old, &mut new] {
            *event = EventsV1::stored(event);
        }
        assert!(STORED.validate_update(&new, &old, &mut Vec::new()).is_empty());
    }
}

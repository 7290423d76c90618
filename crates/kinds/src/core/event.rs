//! Event (core/v1). Events go by themselves, after an hour unless the server is told otherwise (`--event-ttl`).

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use serde_json::Value;

use crate::columns::Column;
use crate::def::{Dependents, KindDef, NameRule, UnqualifiedFinalizers};
use crate::typed::Kind;
use crate::util::{age_of, text};

impl Kind for Event {
    const DEF: KindDef = KindDef::new("", "v1", "Event", "events", "event")
        .short(&["ev"])
        // Recorders name them after objects of any name; upstream is strict about those of events.k8s.io alone.
        .name(NameRule::PathSegment)
        .expiring()
        .create_on_update()
        .unqualified_finalizers(UnqualifiedFinalizers::Kept)
        .dependents(Dependents::None);
    const SELECTABLE: &'static [&'static str] = &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];

    fn field(object: &Value, name: &'static str) -> String {
        match name {
            "source" => match text(object, "/source/component") {
                "" => text(object, "/reportingComponent").to_owned(),
                component => component.to_owned(),
            },
            _ => text(object, &format!("/{}", name.replace('.', "/"))).to_owned(),
        }
    }

    fn validate(&self, errors: &mut Errors) {
        check_namespace(self, errors);
        if self.event_time.is_some() {
            check_new_style(self, errors);
        }
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        errors.invalid_each(&Path::new("namespace"), namespace, names::dns1123_subdomain(namespace));
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Last Seen", "Time when this event was last observed.", |event, now| last_seen(event, now).into()),
                Column::new(
                    "Type",
                    "Type of this event (Normal, Warning), new types could be added in the future",
                    |event, _| event.type_.clone().unwrap_or_default().into(),
                ),
                Column::new(
                    "Reason",
                    "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
                    |event, _| event.reason.clone().unwrap_or_default().into(),
                ),
                Column::new("Object", "The object that this event is about.", |event, _| object(&event.involved_object).into()),
                Column::wide("Subobject", "The part of the object.", |event, _| {
                    event.involved_object.field_path.clone().unwrap_or_default().into()
                }),
                Column::wide("Source", "The component reporting this event.", |event, _| source(event).into()),
                Column::new("Message", "A human-readable description of the status of this operation.", |event, _| {
                    event.message.as_deref().unwrap_or_default().trim().into()
                }),
                Column::wide("First Seen", "The time at which the event was first recorded.", |event, now| {
                    age_of(first_seen(event), now).into()
                }),
                Column::wide("Count", "The number of times this event has occurred.", |event, _| count(event).into()),
                Column::WIDE_NAME,
            ]
        }
    }
}

/// Most characters of `reportingInstance`, `action` and `reason` of an event with `eventTime`.
const MAX_WORD: usize = 128;
/// Most bytes of its `message`.
const MAX_NOTE: usize = 1024;

/// An event lives in the namespace of what it is about; what is outside of namespaces has its events in `default`.
fn check_namespace(event: &Event, errors: &mut Errors) {
    let about = event.involved_object.namespace.as_deref().unwrap_or_default();
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let fits = match (about, event.event_time.is_some()) {
        ("", false) => ["", "default"].contains(&namespace),
        ("", true) => ["default", "kube-system"].contains(&namespace),
        (about, false) => about == namespace,
        (_, true) => true,
    };
    if !fits {
        let path = Path::new("involvedObject").child("namespace");
        errors.push(Error::invalid(&path, about, "does not match event.namespace"));
    }
}

/// Rules for events that carry `eventTime`, through whichever API they come.
fn check_new_style(event: &Event, errors: &mut Errors) {
    let word = |text: &Option<String>| text.clone().unwrap_or_default();
    let controller = word(&event.reporting_component);
    let path = Path::new("reportingController");
    if controller.is_empty() {
        errors.push(Error::required(&path, ""));
    }
    errors.invalid_each(&path, &controller, names::qualified_name(&controller));
    let words = [("reportingInstance", &event.reporting_instance), ("action", &event.action), ("reason", &event.reason)];
    for (name, text) in words {
        let (path, length) = (Path::new(name), text.as_deref().unwrap_or_default().len());
        if length == 0 {
            errors.push(Error::required(&path, ""));
        } else if length > MAX_WORD {
            errors.push(Error::invalid(&path, "", format!("can have at most {MAX_WORD} characters")));
        }
    }
    if word(&event.message).len() > MAX_NOTE {
        errors.push(Error::invalid(&Path::new("message"), "", format!("can have at most {MAX_NOTE} characters")));
    }
}

fn first_seen(event: &Event) -> Option<Timestamp> {
    event.first_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0))
}

fn last_seen(event: &Event, now: Timestamp) -> String {
    let last = event.last_timestamp.as_ref().map(|time| time.0).or(first_seen(event));
    let series = event.series.as_ref().map(|series| series.last_observed_time.as_ref().map(|time| time.0));
    age_of(series.unwrap_or(last), now)
}

/// How often it happened; an event of the new style that happened once has no count.
fn count(event: &Event) -> i32 {
    match &event.series {
        Some(series) => series.count.unwrap_or(0),
        None => event.count.filter(|count| *count != 0).unwrap_or(1),
    }
}

fn object(reference: &ObjectReference) -> String {
    let kind = reference.kind.as_deref().unwrap_or_default().to_lowercase();
    match reference.name.as_deref().unwrap_or_default() {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Event) -> String {
    let EventSource { component, host } = event.source.clone().unwrap_or_default();
    let first = |texts: [Option<String>; 2]| texts.into_iter().flatten().find(|text| !text.is_empty()).unwrap_or_default();
    let component = first([component, event.reporting_component.clone()]);
    match first([host, event.reporting_instance.clone()]).as_str() {
        "" => component,
        instance => format!("{component}, {instance}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::strategy::Strategy;
    use crate::typed::Typed;
    use serde_json::json;

    #[test]
    fn rows() {
        let kind = Typed::<Event>::new();
        let check = |event: Value, expected: Value| {
            assert_eq!(Value::Array(kind.row(&event, "2026-01-01T01:00:00Z".parse().unwrap())), expected, "{event}");
        };
        check(
            json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"}, "type": "Normal",
                   "reason": "R", "message": " m ", "source": {"component": "kubelet", "host": "n"}, "count": 3,
                   "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:59:00Z"}),
            json!(["60s", "Normal", "R", "pod/p", "spec", "kubelet, n", "m", "60m", 3, "e"]),
        );
        check(
            json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "eventTime": "2026-01-01T00:50:00.000000Z",
                   "reportingComponent": "c", "reportingInstance": "c-1",
                   "series": {"count": 5, "lastObservedTime": "2026-01-01T00:59:30.000000Z"}}),
            json!(["30s", "", "", "pod", "", "c, c-1", "", "10m", 5, "e"]),
        );
    }
}

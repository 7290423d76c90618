//! What was told about an object.

use apimachinery::table::human_duration;
use apimachinery::time::seconds_since;
use jiff::Timestamp;
use serde_json::Value;

use super::generic::word;
use super::layout::Node;
use crate::discovery::escaped;
use crate::error::{Error, Result};
use crate::lists::list;
use crate::session::{JSON, Session};

/// The events about an object, oldest first; none where they may not be read.
///
/// # Errors
/// The API does not answer.
pub(super) async fn of(session: &Session, object: &Value) -> Result<Vec<Value>> {
    let Ok(events) = session.resources().await?.named("events.v1.") else { return Ok(Vec::new()) };
    let metadata = &object["metadata"];
    let fields = format!("involvedObject.kind={},involvedObject.name={}", word(&object["kind"]), word(&metadata["name"]));
    let path = events.collection(metadata["namespace"].as_str());
    let mut found = match list(session, &path, &format!("fieldSelector={}", escaped(&fields)), JSON).await {
        Ok(found) => found,
        Err(Error::Api(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut told = match found["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    told.retain(|event| is_about(event, object));
    told.sort_by_key(|event| last(event).to_owned());
    Ok(told)
}

/// Whether an event is about this object and not one before it of the same name. Who tells of nodes knows their names alone.
fn is_about(event: &Value, object: &Value) -> bool {
    let uid = event["involvedObject"]["uid"].as_str().unwrap_or_default();
    uid.is_empty() || object["metadata"]["uid"] == uid || object["metadata"]["name"] == uid
}

fn first(event: &Value) -> &str {
    event["firstTimestamp"].as_str().or(event["eventTime"].as_str()).unwrap_or_default()
}

fn last(event: &Value) -> &str {
    let series = event["series"]["lastObservedTime"].as_str();
    series.or(event["lastTimestamp"].as_str()).or(event["eventTime"].as_str()).unwrap_or_default()
}

/// Events as a table.
pub(super) fn table(events: &[Value], now: Timestamp) -> Node {
    let mut rows = vec![["Type", "Reason", "Age", "From", "Message"].map(str::to_owned).to_vec()];
    rows.extend(events.iter().map(|event| {
        let from = [&event["source"]["component"], &event["reportingComponent"]].map(word);
        let from = from.into_iter().find(|from| !from.is_empty()).unwrap_or_default();
        let message = word(&event["message"]).trim().replace('\n', " ");
        vec![word(&event["type"]), word(&event["reason"]), age(event, now), from, message]
    }));
    Node::Table(rows)
}

/// How long ago; how often since when, if more than once.
fn age(event: &Value, now: Timestamp) -> String {
    let since = |time: &str| seconds_since(time, now).map_or_else(|| "<unknown>".to_owned(), human_duration);
    let count = event["series"]["count"].as_i64().or(event["count"].as_i64()).unwrap_or(1);
    if count > 1 { format!("{} (x{count} over {})", since(last(event)), since(first(event))) } else { since(last(event)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ages() {
        let now = apimachinery::time::parse("2026-01-01T00:10:00Z").unwrap_or_default();
        let check = |event: Value, expected: &str| assert_eq!(age(&event, now), expected);
        check(json!({"lastTimestamp": "2026-01-01T00:09:00Z", "firstTimestamp": "2026-01-01T00:09:00Z", "count": 1}), "60s");
        check(
            json!({"lastTimestamp": "2026-01-01T00:09:00Z", "firstTimestamp": "2026-01-01T00:00:00Z", "count": 4}),
            "60s (x4 over 10m)",
        );
        check(json!({"eventTime": "2026-01-01T00:09:30.5Z", "lastTimestamp": null}), "29s");
        check(
            json!({"eventTime": "2026-01-01T00:09:00Z", "series": {"count": 2, "lastObservedTime": "2026-01-01T00:09:50Z"}}),
            "10s (x2 over 60s)",
        );
    }

    #[test]
    fn events_of_the_object_itself() {
        let object = json!({"metadata": {"name": "n1", "uid": "u"}});
        let check = |uid: &str, expected: bool| {
            assert_eq!(is_about(&json!({"involvedObject": {"uid": uid}}), &object), expected, "{uid}")
        };
        check("u", true);
        check("n1", true);
        check("", true);
        check("other", false);
    }
}

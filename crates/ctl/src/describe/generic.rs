//! Any object in words: who it is, then all of its fields.

use apimachinery::table::age;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::layout::{Fields, Node, text};

/// What kubectl notes at objects that it applies; it says the object once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Fields whose names are of the object's author, and stay as they are.
const OWN_NAMES: [&str; 13] = [
    "annotations",
    "allocatable",
    "binaryData",
    "capacity",
    "data",
    "hard",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "requests",
    "selector",
    "used",
];
/// Words that are written in capitals.
const CAPITALS: [&str; 14] = ["api", "cidr", "cidrs", "dns", "http", "id", "ip", "ips", "os", "tcp", "ttl", "uid", "url", "uri"];
/// What is left out of the object's fields, since it stands at the beginning.
const SHOWN: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Its fields.
pub(super) fn fields(object: &Value, now: Timestamp) -> Fields {
    let mut fields = identity(object);
    fields.push(text("API Version", word(&object["apiVersion"])));
    fields.push(text("Kind", word(&object["kind"])));
    fields.extend(bookkeeping(object, now));
    let map = object.as_object();
    let rest = map.into_iter().flatten().filter(|(key, _)| !SHOWN.contains(&key.as_str()));
    // What is wanted stands before what is.
    let (status, others): (Vec<_>, Vec<_>) = rest.partition(|(key, _)| *key == "status");
    let is_secret = object["kind"] == "Secret" && object["apiVersion"] == "v1";
    for (key, value) in others.into_iter().chain(status) {
        let node = if is_secret && key == "data" { sizes(value) } else { node(key, value, now) };
        fields.push((label(key), node));
    }
    fields
}

/// Name, namespace, labels and annotations.
pub(super) fn identity(object: &Value) -> Fields {
    let metadata = &object["metadata"];
    let mut fields = vec![text("Name", word(&metadata["name"]))];
    fields.extend(metadata["namespace"].as_str().map(|namespace| text("Namespace", namespace)));
    fields.push(("Labels".to_owned(), pairs(&metadata["labels"], "=")));
    fields.push(("Annotations".to_owned(), pairs(&metadata["annotations"], ": ")));
    fields
}

/// Who made it when, and what happens to it.
pub(super) fn bookkeeping(object: &Value, now: Timestamp) -> Fields {
    let metadata = &object["metadata"];
    let mut fields = Vec::new();
    if let Some(created) = metadata["creationTimestamp"].as_str() {
        fields.push(text("Created", format!("{created} ({} ago)", age(created, now))));
    }
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    if let Some(owner) = owners.into_iter().find(|owner| owner["controller"] == true) {
        fields.push(text("Controlled By", format!("{}/{}", word(&owner["kind"]), word(&owner["name"]))));
    }
    let finalizers = metadata["finalizers"].as_array().filter(|finalizers| !finalizers.is_empty());
    fields.extend(finalizers.map(|finalizers| ("Finalizers".to_owned(), Node::Lines(finalizers.iter().map(word).collect()))));
    if let Some(end) = metadata["deletionTimestamp"].as_str() {
        fields.push(text("Deleted", format!("{end} ({} ago)", age(end, now))));
    }
    fields
}

/// Pairs as lines, in order.
pub(super) fn pairs(value: &Value, between: &str) -> Node {
    let pairs = value.as_object().into_iter().flatten().filter(|(key, _)| *key != LAST_APPLIED);
    let whole = pairs.map(|(key, value)| format!("{key}{between}{}", word(value)));
    let lines: Vec<_> = whole.flat_map(|whole| whole.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    if lines.is_empty() { Node::none() } else { Node::Lines(lines) }
}

/// A value as a word; nothing for null.
pub(super) fn word(value: &Value) -> String {
    crate::template::shown(value)
}

/// What is secret is told by its length alone.
fn sizes(value: &Value) -> Node {
    let size = |value: &Value| {
        let text = value.as_str().unwrap_or_default().trim_end_matches('=');
        format!("{} bytes", text.len() * 3 / 4)
    };
    Node::Block(value.as_object().into_iter().flatten().map(|(key, value)| text(key, size(value))).collect())
}

/// A field's value.
pub(super) fn node(key: &str, value: &Value, now: Timestamp) -> Node {
    match value {
        Value::Object(map) => {
            let own = OWN_NAMES.contains(&key);
            let name = |key: &str| if own { key.to_owned() } else { label(key) };
            Node::Block(map.iter().map(|(key, value)| (name(key), node(key, value, now))).collect())
        }
        Value::Array(items) if key == "conditions" && items.iter().all(|item| item["type"].is_string()) => conditions(items, now),
        Value::Array(items) => Node::List(items.iter().map(|item| node("", item, now)).collect()),
        other => Node::text(word(other)),
    }
}

/// Conditions as a table.
pub(super) fn conditions(items: &[Value], now: Timestamp) -> Node {
    if items.is_empty() {
        return Node::none();
    }
    let mut rows = vec![["Type", "Status", "Age", "Reason", "Message"].map(str::to_owned).to_vec()];
    rows.extend(items.iter().map(|item| {
        let since = item["lastTransitionTime"].as_str().unwrap_or_default();
        let message = word(&item["message"]).replace('\n', " ");
        vec![word(&item["type"]), word(&item["status"]), age(since, now), word(&item["reason"]), message]
    }));
    Node::Table(rows)
}

/// The name of a field for people: `clusterIP` is `Cluster IP`. What is no such name stays.
pub(super) fn label(key: &str) -> String {
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) || key.is_empty() {
        return key.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let chars: Vec<char> = key.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        let after = at.checked_sub(1).map(|before| chars[before]);
        // A capital begins a word, but inside of a word of capitals, unless a small letter follows.
        let begins = c.is_uppercase()
            && (after.is_some_and(|before| !before.is_uppercase())
                || (at > 0 && chars.get(at + 1).is_some_and(|next| next.is_lowercase() && *next != 's')));
        match words.last_mut().filter(|_| !begins) {
            Some(word) => word.push(*c),
            None => words.push(c.to_string()),
        }
    }
    let written = |word: &String| {
        if CAPITALS.contains(&word.to_lowercase().as_str()) {
            let plural = word.len() > 2 && word.ends_with('s') && !matches!(word.to_lowercase().as_str(), "dns");
            let capitals = word.to_uppercase();
            return if plural { format!("{}s", &capitals[..capitals.len() - 1]) } else { capitals };
        }
        let mut chars = word.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    words.iter().map(written).collect::<Vec<_>>().join(" ")
}

/// A map's fields as text, for limits and the like: `cpu: 1`.
pub(super) fn block(map: &Map<String, Value>) -> Node {
    Node::Block(map.iter().map(|(key, value)| text(key, word(value))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::layout::render;
    use super::*;

    fn now() -> Timestamp {
        apimachinery::time::parse("2026-01-01T00:10:00Z").unwrap_or_default()
    }

    #[test]
    fn labels_of_fields() {
        let check = |key: &str, expected: &str| assert_eq!(label(key), expected);
        check("replicas", "Replicas");
        check("clusterIP", "Cluster IP");
        check("podCIDRs", "Pod CIDRs");
        check("apiVersion", "API Version");
        check("dnsPolicy", "DNS Policy");
        check("hostIPs", "Host IPs");
        check("httpGet", "HTTP Get");
        check("uid", "UID");
        check("tls.crt", "tls.crt");
        check("externalIPPolicy", "External IP Policy");
        check("x", "X");
    }

    #[test]
    fn custom_resources() {
        let object = json!({
            "apiVersion": "example.com/v1", "kind": "Ship",
            "metadata": {"name": "knarr", "namespace": "sea", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {LAST_APPLIED: "{}"}, "finalizers": ["example.com/sink"],
                "ownerReferences": [{"controller": true, "kind": "Fleet", "name": "f"}]},
            "spec": {"crew": ["one", "two"], "sails": [{"area": 5}], "selector": {"matchLabels": {"someKey": "v"}}, "text": "two\nlines"},
            "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "m", "lastTransitionTime": "2026-01-01T00:09:00Z"}]},
        });
        let expected = "\
Name:           knarr
Namespace:      sea
Labels:         a=b
Annotations:    <none>
API Version:    example.com/v1
Kind:           Ship
Created:        2026-01-01T00:00:00Z (10m ago)
Controlled By:  Fleet/f
Finalizers:     example.com/sink
Spec:
  Crew:
    one
    two
  Sails:
    - Area:  5
  Selector:
    matchLabels:
      someKey:  v
  Text:  two
         lines
Status:
  Conditions:
    Type   Status  Age  Reason  Message
    ----   ------  ---  ------  -------
    Ready  True    60s  R       m
";
        assert_eq!(render(&fields(&object, now())), expected);
    }

    /// kubectl's describe of a Secret does not show what is in it.
    #[test]
    fn secrets_are_not_shown() {
        let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque", "data": {"key": "c2VjcmV0"}});
        let told = render(&fields(&object, now()));
        assert!(told.contains("key:  6 bytes") && !told.contains("c2VjcmV0"), "{told}");
    }
}

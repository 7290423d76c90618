//! `[sig-api-machinery] Watchers`.

use serde_json::{Value, json};

use super::{CONFIG_MAPS, get, labelled, send, version};
use crate::server::{namespace, start};
use crate::watch::Watch;

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

/// Conformance: [sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps [Conformance]
#[tokio::test]
async fn notifications_of_three_selectors() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let mut watches = Vec::new();
    for selector in ["kind%3Da", "kind%3Db", "kind+in+%28a,b%29"] {
        watches.push(Watch::start(api, &format!("{CONFIG_MAPS}?labelSelector={selector}")).await);
    }
    for (name, seen_by) in [("a", [0, 2]), ("b", [1, 2])] {
        send(api, 201, &format!("POST {CONFIG_MAPS}"), &labelled(name, "kind", name)).await;
        for change in ["1", "2"] {
            send(api, 200, &format!("PATCH {CONFIG_MAPS}/{name}"), &json!({"data": {"change": change}})).await;
        }
        send(api, 200, &format!("DELETE {CONFIG_MAPS}/{name}"), &Value::Null).await;
        for index in seen_by {
            for (kind, change) in [("ADDED", None), ("MODIFIED", Some("1")), ("MODIFIED", Some("2")), ("DELETED", Some("2"))] {
                let seen = watches[index].next().await;
                let object = &seen["object"];
                assert_eq!(
                    (&seen["type"], &object["metadata"]["name"], object["data"]["change"].as_str()),
                    (&json!(kind), &json!(name), change)
                );
            }
        }
    }
}

/// Conformance: [sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the selector [Conformance]
#[tokio::test]
async fn an_object_leaves_the_selector_and_comes_back() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let mut watch = Watch::start(api, &format!("{CONFIG_MAPS}?labelSelector=watched%3Dyes")).await;
    let relabel = |value: &str| json!({"metadata": {"labels": {"watched": value}}, "data": {"label": value}});
    send(api, 201, &format!("POST {CONFIG_MAPS}"), &labelled("m", "watched", "yes")).await;
    for value in ["no", "never", "yes"] {
        send(api, 200, &format!("PATCH {CONFIG_MAPS}/m"), &relabel(value)).await;
    }
    send(api, 200, &format!("PATCH {CONFIG_MAPS}/m"), &json!({"data": {"more": "x"}})).await;
    send(api, 200, &format!("DELETE {CONFIG_MAPS}/m"), &Value::Null).await;
    for kind in ["ADDED", "DELETED", "ADDED", "MODIFIED", "DELETED"] {
        assert_eq!(watch.next_named().await, event(kind, "m"));
    }
}

/// Conformance: [sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]
/// Conformance: [sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the previous watch [Conformance]
#[tokio::test]
async fn from_a_version() {
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let mut first = Watch::start(api, CONFIG_MAPS).await;
    send(api, 201, &format!("POST {CONFIG_MAPS}"), &labelled("m", "a", "b")).await;
    send(api, 200, &format!("PATCH {CONFIG_MAPS}/m"), &json!({"data": {"change": "1"}})).await;
    // A namespace gets its certificates' ConfigMap from a controller, which this server does not run.
    assert_eq!(first.next_named().await, event("ADDED", "m"));
    let seen = first.next().await;
    drop(first);
    send(api, 200, &format!("PATCH {CONFIG_MAPS}/m"), &json!({"data": {"change": "2"}})).await;
    send(api, 200, &format!("DELETE {CONFIG_MAPS}/m"), &Value::Null).await;
    let since = version(&seen["object"]);
    let mut second = Watch::start(api, &format!("{CONFIG_MAPS}?resourceVersion={since}")).await;
    let changed = second.next().await;
    assert_eq!((&changed["type"], &changed["object"]["data"]["change"]), (&json!("MODIFIED"), &json!("2")));
    assert_eq!(second.next_named().await, event("DELETED", "m"));
}

/// Conformance: [sig-api-machinery] Watchers should receive events on concurrent watches in same order [Conformance]
#[tokio::test]
async fn one_order_for_all() {
    const CHANGES: usize = 40;
    let server = start(true).await;
    let api = &server.api;
    namespace(api, "n").await;
    let writer = async {
        for number in 0..CHANGES {
            let name = format!("m{}", number % 7);
            match number / 7 % 3 {
                0 => send(api, 201, &format!("POST {CONFIG_MAPS}"), &labelled(&name, "a", "b")).await,
                1 => {
                    let change = json!({"data": {"change": number.to_string()}});
                    send(api, 200, &format!("PATCH {CONFIG_MAPS}/{name}"), &change).await
                }
                _ => send(api, 200, &format!("DELETE {CONFIG_MAPS}/{name}"), &Value::Null).await,
            };
        }
    };
    let since = version(&get(api, CONFIG_MAPS).await).to_owned();
    let mut first = Watch::start(api, &format!("{CONFIG_MAPS}?resourceVersion={since}")).await;
    let reader = async {
        let (mut versions, mut watches) = (Vec::new(), Vec::new());
        for _ in 0..CHANGES {
            let seen = version(&first.next().await["object"]).to_owned();
            // Each watch begins where this one is, while more is written.
            watches.push(Watch::start(api, &format!("{CONFIG_MAPS}?resourceVersion={seen}")).await);
            versions.push(seen);
        }
        (versions, watches)
    };
    let ((), (versions, watches)) = tokio::join!(writer, reader);
    for (index, mut watch) in watches.into_iter().enumerate() {
        for expected in &versions[index + 1..] {
            assert_eq!(version(&watch.next().await["object"]), expected, "watch {index}");
        }
    }
}

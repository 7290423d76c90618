#![allow(clippy::unwrap_used)]
use super::*;
use http::Uri;
use registry::User;
use serde_json::{Value, json};

/// A server of so many seats, one level and one schema for everybody.
fn server(seats: u32, queuing: Value) -> Fairness {
    let fairness = Fairness::new(seats);
    fairness.digest(objects(queuing));
    fairness
}

fn objects(queuing: Value) -> Objects {
    let response = match queuing {
        Value::Null => json!({"type": "Reject"}),
        queuing => json!({"type": "Queue", "queuing": queuing}),
    };
    let limited = json!({"nominalConcurrencyShares": 1_000_000, "lendablePercent": 0, "limitResponse": response});
    let level = json!({"metadata": {"name": "all", "uid": "level"}, "spec": {"type": "Limited", "limited": limited}});
    let schema = json!({"metadata": {"name": "all", "uid": "schema"}, "spec": {
        "matchingPrecedence": 100, "priorityLevelConfiguration": {"name": "all"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "Group", "group": {"name": "*"}}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}],
        }],
    }});
    Objects { levels: vec![level], schemas: vec![schema] }
}

fn queuing() -> Value {
    json!({"queues": 8, "handSize": 2, "queueLengthLimit": 2})
}

fn enter(fairness: &Fairness, user: &Arc<User>) -> Entry {
    let (uri, asked) = (
        Uri::from_static("/api/v1/pods?limit=1"),
        Digest { user, verb: "list", is_resource: true, group: "", resource: "pods", sub: "", namespace: "", path: "" },
    );
    fairness.enter(&asked, Who { user, uri: &uri, verb: "list" }, || Kind::Other).unwrap()
}

fn user(name: &str) -> Arc<User> {
    Arc::new(crate::authn::user(name, Vec::new()))
}

/// What a dump says of the level.
fn row(fairness: &Fairness) -> String {
    row_of(fairness, "all,")
}

fn row_of(fairness: &Fairness, level: &str) -> String {
    let page = dump::page(fairness, "dump_priority_levels", false).unwrap();
    let row = page.lines().find(|line| line.starts_with(level)).unwrap_or_default();
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn who_waits_is_seated_when_somebody_leaves() {
    let (fairness, jane) = (server(1, queuing()), user("jane"));
    let Entry::Seated(first) = enter(&fairness, &jane) else { panic!("not seated") };
    let Entry::Waits(second, turn) = enter(&fairness, &jane) else { panic!("does not wait") };
    assert_eq!(row(&fairness), "all, 1, false, false, 1, 1, 1, 0, 0, 0");
    assert_eq!(first.uids(), ("schema".parse().unwrap(), "level".parse().unwrap()));
    drop(first);
    turn.await.unwrap();
    drop(second);
    assert_eq!(row(&fairness), "all, 0, true, false, 0, 0, 2, 0, 0, 0");
}

#[tokio::test]
async fn who_gives_up_leaves_its_place() {
    let (fairness, jane) = (server(1, queuing()), user("jane"));
    let first = enter(&fairness, &jane);
    let Entry::Waits(mut second, turn) = enter(&fairness, &jane) else { panic!("does not wait") };
    let Entry::Waits(third, third_turn) = enter(&fairness, &jane) else { panic!("does not wait") };
    second.give_up();
    assert_eq!(second.retry_after(), Some(1));
    assert!(turn.await.is_err());
    // Whose connection ends is gone as well.
    drop((third, third_turn));
    assert_eq!(row(&fairness), "all, 0, false, false, 0, 1, 1, 2, 0, 2");
    drop(first);
    assert_eq!(row(&fairness), "all, 0, true, false, 0, 0, 1, 2, 0, 2");
}

#[test]
fn who_finds_no_room_is_refused() {
    let (fairness, jane) = (server(1, Value::Null), user("jane"));
    let first = enter(&fairness, &jane);
    assert!(matches!(enter(&fairness, &jane), Entry::Refused(seat) if seat.retry_after() == Some(1)));
    drop(first);
    assert!(matches!(enter(&fairness, &jane), Entry::Seated(_)));
}

/// KEP-1040: exempt requests are never limited.
#[test]
fn what_is_exempt_is_never_refused() {
    let fairness = server(1, Value::Null);
    let admin = Arc::new(crate::authn::user("admin", vec![crate::authn::MASTERS.into()]));
    let all: Vec<Entry> = (0..100).map(|_| enter(&fairness, &admin)).collect();
    assert!(all.iter().all(|entry| matches!(entry, Entry::Seated(_))));
    assert_eq!(row_of(&fairness, "exempt,"), "exempt, 0, false, false, 0, 100, 0, 0, 0, 0");
    drop(all);
    assert_eq!(row_of(&fairness, "exempt,"), "exempt, 0, true, false, 0, 0, 100, 0, 0, 0");
}

#[tokio::test]
async fn a_level_whose_object_is_gone_serves_who_is_there() {
    let (fairness, jane) = (server(1, queuing()), user("jane"));
    let first = enter(&fairness, &jane);
    let Entry::Waits(second, turn) = enter(&fairness, &jane) else { panic!("does not wait") };
    fairness.digest(Objects::default());
    assert_eq!(row(&fairness), "all, 1, false, true, 1, 1, 1, 0, 0, 0");
    drop(first);
    turn.await.unwrap();
    drop(second);
    fairness.emptied().await;
    fairness.digest(Objects::default());
    assert_eq!(row(&fairness), "");
}

#[test]
fn requests_are_shown() {
    let (fairness, jane) = (server(1, queuing()), user("jane"));
    let _first = enter(&fairness, &jane);
    let _second = enter(&fairness, &jane);
    let page = dump::page(&fairness, "dump_requests", true).unwrap();
    let rows: Vec<Vec<&str>> = page.lines().skip(1).map(|line| line.split(',').map(str::trim).collect()).collect();
    assert_eq!(rows.len(), 2, "{page}");
    for (row, (index, waits)) in rows.iter().zip([("-1", false), ("0", true)]) {
        assert_eq!((row[1], row[3], row[4], row[9].starts_with("0001")), ("all", index, "jane", waits), "{page}");
        assert_eq!(row[10..], ["jane", "list", "/api/v1/pods", "", "", "v1", "pods", ""], "{page}");
    }
    let page = dump::page(&fairness, "dump_queues", false).unwrap();
    assert!(page.lines().skip(1).any(|line| line.split(',').map(str::trim).nth(2) == Some("1")), "{page}");
    assert!(dump::page(&fairness, "other", false).is_none());
}

/// Limits are adjusted while requests come, and rest when none do.
#[tokio::test]
async fn limits_follow_demand() {
    let (fairness, jane) = (server(10, queuing()), user("jane"));
    let held: Vec<Entry> = (0..3).map(|_| enter(&fairness, &jane)).collect();
    fairness.awakened(Duration::from_secs(10)).await;
    assert!(fairness.adjust());
    drop(held);
    // The period that is over began with them.
    assert!(fairness.adjust());
    assert!(!fairness.adjust());
    assert!(!fairness.is_awake.load(Ordering::Relaxed));
}

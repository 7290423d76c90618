#![allow(clippy::unwrap_used)]
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::Full;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::*;

const END: &str = r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
const GONE: &str = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old","reason":"Expired","code":410}}"#;

const HALF: &str = r#"{"type":"ADDED","object":{"meta"#;

/// What follows a line: nothing when the connection broke within it.
fn ending(line: &str) -> &'static str {
    if line == HALF { "" } else { "\n" }
}

fn event(kind: &str, name: &str, version: u32) -> String {
    format!(r#"{{"type":"{kind}","object":{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}}}"#)
}

/// Answers each connection with the next script, `(code, lines)`; and never after the last. What was asked, and what the
/// watch said until all scripts were used up.
async fn check(scripts: &[(u16, &[&str])], asked: &[&str], said: &[&str]) {
    let urls: Arc<Mutex<Vec<String>>> = Arc::default();
    let scripts: Vec<(u16, String)> =
        scripts.iter().map(|(code, lines)| (*code, lines.iter().map(|line| line.to_string() + ending(line)).collect())).collect();
    let (noted, used_up) = (urls.clone(), Arc::new(Notify::new()));
    let (told_used_up, ends) = (used_up.clone(), asked.len() > scripts.len());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let mut urls = noted.lock();
        let script = scripts.get(urls.len()).cloned();
        urls.push(request.uri().query().unwrap_or_default().to_owned());
        let told_used_up = told_used_up.clone();
        async move {
            let Some((code, body)) = script else {
                told_used_up.notify_one();
                std::future::pending().await
            };
            let mut response = http::Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    let client = Client::new(service, "default");
    let watch = Watch::all::<ConfigMap>(client, "metadata.name=a");
    let mut events = std::pin::pin!(watch.events::<ConfigMap>());
    let mut told = Vec::new();
    while told.len() < said.len() {
        let name = |object: ConfigMap| object.metadata.name.unwrap_or_default();
        told.push(match events.next().await.unwrap() {
            Ok(Event::Init) => "init".to_owned(),
            Ok(Event::InitApply(object)) => format!("has {}", name(object)),
            Ok(Event::InitDone(version)) => {
                assert_eq!(version, 9);
                "done".to_owned()
            }
            Ok(Event::Apply(object)) => format!("apply {}", name(object)),
            Ok(Event::Delete(object)) => format!("delete {}", name(object)),
            Err(error) => error.to_string(),
        });
    }
    assert_eq!(told, said);
    if ends {
        tokio::select! {
            event = events.next() => panic!("more came than expected: {event:?}"),
            () = used_up.notified() => {}
        }
    }
    let versions: Vec<String> = urls.lock().iter().map(|query| place(query)).collect();
    assert_eq!(versions, asked);
}

/// Where a request begins: "all" objects, or after a resource version.
fn place(query: &str) -> String {
    assert!(query.contains("watch=true") && query.contains("fieldSelector=metadata.name%3Da"), "{query}");
    assert!(query.contains("allowWatchBookmarks=true") && query.contains("timeoutSeconds=290"), "{query}");
    if query.contains("sendInitialEvents=true") {
        assert!(query.contains("resourceVersionMatch=NotOlderThan"), "{query}");
        return "all".to_owned();
    }
    query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap().to_owned()
}

/// KEP-3157: the initial events end with a bookmark that carries the annotation k8s.io/initial-events-end.
#[tokio::test]
async fn all_objects_come_first_and_then_what_happens() {
    let (a, b, c) = (event("ADDED", "a", 3), event("MODIFIED", "a", 10), event("DELETED", "a", 11));
    check(&[(200, &[&a, END, &b, &c])], &["all", "11"], &["init", "has a", "done", "apply a", "delete a"]).await;
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let (a, b) = (event("ADDED", "a", 10), event("ADDED", "b", 12));
    let said = ["init", "done", "apply a", "apply b"];
    check(&[(200, &[END, &a]), (200, &[&b])], &["all", "10", "12"], &said).await;
    // Half an event is none.
    check(&[(200, &[END, &a, HALF]), (200, &[&b])], &["all", "10", "12"], &said).await;
}

#[tokio::test]
async fn a_list_that_breaks_begins_again() {
    let a = event("ADDED", "a", 3);
    check(&[(200, &[&a]), (200, &[&a, END])], &["all", "all", "9"], &["init", "has a", "init", "has a", "done"]).await;
}

/// API concepts, 410 Gone: clients clear their cache and list again.
#[tokio::test]
async fn lost_history_begins_again() {
    let said = ["init", "done", "too old", "init", "done"];
    check(&[(200, &[END, GONE]), (200, &[END])], &["all", "all", "9"], &said).await;
}

#[tokio::test]
async fn a_bookmark_moves_the_place() {
    let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"40"}}}"#;
    check(&[(200, &[END, bookmark])], &["all", "40"], &["init", "done"]).await;
}

#[tokio::test]
async fn errors_are_told_and_tried_again() {
    let refused = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"no such thing","code":404}"#;
    check(&[(404, &[refused])], &["all"], &["no such thing"]).await;
    let refused = &refused.replace("404", "500");
    check(&[(500, &[refused]), (200, &[END])], &["all", "all", "9"], &["no such thing", "init", "done"]).await;
    check(&[(200, &[]), (200, &[END])], &["all", "all", "9"], &["init", "the watch ended before anything came", "init", "done"])
        .await;
    let other = r#"{"type":"ADDED","object":{"metadata":{"name":7}}}"#;
    let next = event("ADDED", "b", 12);
    let wrong = "what came is no event of the watch: invalid type: integer `7`, expected a string at line 1 column 21";
    check(&[(200, &[END, other, &next])], &["all", "12"], &["init", "done", wrong, "apply b"]).await;
}

//! A definition goes with very many objects, while others read and write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::*;

/// As many as are made in some seconds without optimisation.
const MANY: usize = 3000;

/// The time below which 99 of 100 are.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// Issue 8: the "deletion of a CRD with 100,000 objects under load" ends with all of them gone, and "the API answers others" meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_answered_while_many_objects_go() {
    let server = with_spec(json!({"type": "object", OPEN: true})).await;
    let api = &server.api;
    futures::stream::iter(0..MANY)
        .map(|number| async move { ask(api, 201, &format!("POST {FOOS}"), &foo(&format!("f{number}"), json!({"n": number}))).await })
        .buffer_unordered(64)
        .for_each(|_| async {})
        .await;
    assert_eq!(get(api, &format!("{FOOS}?limit=1")).await["metadata"]["remainingItemCount"], MANY - 1);
    let over = AtomicBool::new(false);
    let others = async {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        for number in 0.. {
            let begin = Instant::now();
            ask(api, 201, "POST /api/v1/namespaces/ns/configmaps", &crate::server::config_map(&format!("m{number}"))).await;
            writes.push(begin.elapsed());
            let begin = Instant::now();
            get(api, &format!("/api/v1/namespaces/ns/configmaps/m{number}")).await;
            reads.push(begin.elapsed());
            if over.load(Ordering::SeqCst) {
                break;
            }
        }
        (reads, writes)
    };
    let deletion = async {
        ask(api, 200, &format!("DELETE {DEFINITIONS}/foos.example.com"), &Value::Null).await;
        while admin(api, &format!("GET {DEFINITIONS}/foos.example.com")).await.code != 404 {
            tokio::task::yield_now().await;
        }
        over.store(true, Ordering::SeqCst);
    };
    let ((reads, writes), ()) = tokio::join!(others, deletion);
    let (read, write) = (p99(reads), p99(writes));
    assert!(read < Duration::from_secs(2) && write < Duration::from_secs(2), "read {read:?}, write {write:?}");
    // Nothing of them is found by who has the same name.
    define(api, &definition("foos", "Foo", json!({"type": "object"}))).await;
    let list = get(api, FOOS).await;
    assert_eq!(list["items"], json!([]));
}

/// A definition that serves no version takes its objects with it all the same (upstream: `crd_finalizer.go` deletes by the storage version).
#[tokio::test]
async fn objects_that_are_not_served_go_with_their_definition() {
    let server = with_spec(json!({"type": "object", OPEN: true})).await;
    let api = &server.api;
    ask(api, 201, &format!("POST {FOOS}"), &foo("a", json!({}))).await;
    let mut hidden = get(api, &format!("{DEFINITIONS}/foos.example.com")).await;
    hidden["spec"]["versions"][0]["served"] = false.into();
    ask(api, 200, &format!("PUT {DEFINITIONS}/foos.example.com"), &hidden).await;
    while admin(api, &format!("GET {FOOS}")).await.code != 404 {
        tokio::task::yield_now().await;
    }
    ask(api, 200, &format!("DELETE {DEFINITIONS}/foos.example.com"), &Value::Null).await;
    while admin(api, &format!("GET {DEFINITIONS}/foos.example.com")).await.code != 404 {
        tokio::task::yield_now().await;
    }
    define(api, &definition("foos", "Foo", json!({"type": "object", OPEN: true}))).await;
    assert_eq!(get(api, FOOS).await["items"], json!([]));
}

/// `kubectl replace --force`: whoever is deleted and made again at once can be deleted again, however often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_of_the_same_name_can_be_deleted_again() {
    let server = with_spec(json!({"type": "object", OPEN: true})).await;
    let api = &server.api;
    for round in 0..20 {
        ask(api, 200, &format!("DELETE {DEFINITIONS}/foos.example.com"), &Value::Null).await;
        // As soon as the old one has gone, which who follows definitions may not have seen yet.
        let again = definition("foos", "Foo", json!({"type": "object", OPEN: true}));
        while send(api, &format!("POST {DEFINITIONS}"), &again).await.code != 201 {
            assert!(round < 20);
            tokio::task::yield_now().await;
        }
    }
    ask(api, 200, &format!("DELETE {DEFINITIONS}/foos.example.com"), &Value::Null).await;
    while admin(api, &format!("GET {DEFINITIONS}/foos.example.com")).await.code != 404 {
        tokio::task::yield_now().await;
    }
}

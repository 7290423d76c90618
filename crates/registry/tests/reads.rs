//! What lists and watches promise (API concepts: resource versions, chunks, efficient detection of changes), also while the
//! store is compacted, restarted and written by itself.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Reason, Status, labels, meta};
use base64::Engine as _;
use common::{Directory, Hooked, config_map, config_maps, create, cx, open, raw};
use futures::FutureExt;
use futures::future::join_all;
use registry::{DeleteOptions, EventType, List, ListOptions, Registry, Watch};
use serde_json::json;
use store::Engine;

fn names(list: &List) -> String {
    list.entries.iter().map(|entry| entry.name()).collect::<Vec<_>>().join(" ")
}

/// `limit=1&resourceVersion=5&match=Exact&continue=X&labels=a=b`
fn options(text: &str) -> ListOptions {
    let mut options = ListOptions::default();
    for (key, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        let text = Some(value.to_owned());
        match key {
            "limit" => options.limit = value.parse().unwrap(),
            "resourceVersion" => options.resource_version = text,
            "match" => options.resource_version_match = text,
            "continue" => options.continue_token = text,
            "labels" => options.labels = Some(labels::Selector::parse(value).unwrap()),
            "timeout" => options.timeout = Some(Duration::from_millis(value.parse().unwrap())),
            "bookmarks" => options.allow_bookmarks = value == "true",
            "initial" => options.send_initial_events = Some(value == "true"),
            other => panic!("{other}"),
        }
    }
    options
}

async fn list(registry: &Registry, text: &str) -> Result<List, Status> {
    registry.list(&config_maps(registry), Some("ns"), &options(text)).await
}

async fn watch(registry: &Registry, text: &str) -> Result<Watch, Status> {
    registry.watch(&config_maps(registry), Some("ns"), &options(text)).await
}

/// `TYPE name@revision` of what there is to see now.
async fn seen(watch: &mut Watch) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(Some(event)) = watch.next().now_or_never() {
        let name = if event.kind == EventType::Error { "error" } else { event.entry.name() };
        seen.push(format!("{} {name}@{}", event.kind.as_str(), event.entry.revision));
    }
    seen
}

/// a and b, then b is changed, c made, a deleted: the revisions of the five writes.
async fn some_writes(registry: &Registry) -> [u64; 5] {
    let a = create(registry, "a", "x=1").await.revision;
    let b = create(registry, "b", "x=2").await.revision;
    let changed = config_map("b", "x=1");
    let changed = registry.update(&cx(), &config_maps(registry), "", "ns", "b", changed).await.unwrap().entry.revision;
    let c = create(registry, "c", "x=1").await.revision;
    registry.delete(&cx(), &config_maps(registry), "ns", "a", DeleteOptions::default()).await.unwrap();
    [a, b, changed, c, registry.revision()]
}

/// The same from the watch cache, and from the store's history after a restart.
#[tokio::test]
async fn lists_by_resource_version() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    let [a, b, changed, c, deleted] = some_writes(&registry).await;
    let check = async |registry: &Registry| {
        let cases = [
            ("".into(), "b c", deleted),
            ("resourceVersion=0".into(), "b c", deleted),
            (format!("resourceVersion={a}"), "b c", deleted),
            (format!("resourceVersion={a}&match=NotOlderThan"), "b c", deleted),
            (format!("resourceVersion={a}&match=NotOlderThan&limit=1"), "b", deleted),
            (format!("resourceVersion={a}&match=Exact"), "a", a),
            (format!("resourceVersion={b}&match=Exact"), "a b", b),
            (format!("resourceVersion={c}&match=Exact"), "a b c", c),
            (format!("resourceVersion={deleted}&match=Exact"), "b c", deleted),
            // A limit asks for the very version.
            (format!("resourceVersion={c}&limit=2"), "a b", c),
            ("resourceVersion=0&limit=1".into(), "b", deleted),
            (format!("resourceVersion={b}&match=Exact&labels=x=1"), "a", b),
            (format!("resourceVersion={changed}&match=Exact&labels=x=1"), "a b", changed),
            (format!("resourceVersion={changed}&match=Exact&labels=x=2"), "", changed),
        ];
        for (text, expected, revision) in cases {
            let list = list(registry, &text).await.unwrap();
            assert_eq!((names(&list).as_str(), list.revision), (expected, revision), "{text}");
        }
        let version = |list: &List, name: &str| list.entries.iter().find(|entry| entry.name() == name).unwrap().revision;
        assert_eq!(version(&list(registry, &format!("resourceVersion={b}&match=Exact")).await.unwrap(), "b"), b);
        assert_eq!(version(&list(registry, "").await.unwrap(), "b"), changed);
    };
    check(&registry).await;
    drop(registry);
    engine.close().await;
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    check(&registry).await;

    engine.compact(changed).await.unwrap();
    let gone = list(&registry, &format!("resourceVersion={b}&match=Exact")).await.unwrap_err();
    assert_eq!((gone.code, gone.reason), (410, Reason::Expired));
    // Each waits a while for what may come.
    let future = deleted + 1;
    let (not_older, exact) = (format!("resourceVersion={future}"), format!("resourceVersion={future}&match=Exact"));
    let refused = tokio::join!(list(&registry, &not_older), list(&registry, &exact), watch(&registry, &not_older));
    for status in [refused.0.unwrap_err(), refused.1.unwrap_err(), refused.2.err().unwrap()] {
        assert_eq!(
            (status.code, &status.message[..]),
            (504, &format!("Timeout: Too large resource version: {future}, current: {deleted}")[..])
        );
        assert!(status.cause("ResourceVersionTooLarge").is_some());
    }
    // What comes in time is waited for.
    let (waited, _) = tokio::join!(list(&registry, &not_older), create(&registry, "d", ""));
    assert_eq!(names(&waited.unwrap()), "b c d");
    assert_eq!(list(&registry, "resourceVersion=x").await.unwrap_err().code, 400);
}

/// Upstream's `DecodeContinue`: a token says where below the namespace of the request a list goes on, also one that a client has made up. Objects
/// of another namespace are neither read nor deleted by it, from the cache, from the store's history, and from that after a restart.
#[tokio::test]
async fn a_token_that_was_made_up_leads_into_no_other_namespace() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    for namespace in ["aaa", "mmm", "zzz"] {
        for name in ["a", "b"] {
            registry.create(&cx(), &config_maps(&registry), namespace, None, config_map(name, "x=1")).await.unwrap();
        }
    }
    let past = registry.revision();
    create(&registry, "later", "").await;
    let check = async |registry: &Registry| {
        for at in [-1, i64::try_from(past).unwrap()] {
            for start in ["a", "aaa/a", "lll", "mm", "mmm", "mmm/../aaa/a", "../secrets/aaa/a", "zzz/a", "mmm/a", "mmm/0"] {
                let token = json!({"v": "meta.k8s.io/v1", "rv": at, "start": start}).to_string();
                let continue_token = Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token));
                for labels in [None, Some(apimachinery::labels::Selector::parse("x=1").unwrap())] {
                    let options =
                        ListOptions { continue_token: continue_token.clone(), limit: 500, labels, ..ListOptions::default() };
                    let found = registry.list(&config_maps(registry), Some("mmm"), &options).await;
                    let found = found.map(|list| {
                        list.entries.iter().map(|entry| format!("{}/{}", entry.namespace(), entry.name())).collect::<Vec<_>>()
                    });
                    match start {
                        "mmm/a" => assert_eq!(found.unwrap(), ["mmm/b"], "{at}"),
                        "mmm/0" => assert_eq!(found.unwrap(), ["mmm/a", "mmm/b"], "{at}"),
                        _ => assert_eq!(found.map_err(|status| status.code), Err(400), "{start} {at}"),
                    }
                }
            }
        }
    };
    check(&registry).await;
    drop(registry);
    engine.close().await;
    let registry = open(directory.engine().await).await;
    check(&registry).await;
}

/// Selectors of many terms select what short ones do, from the present and from the past, in pages and watches; of more than enough they are
/// refused.
#[tokio::test]
async fn selectors_of_many_terms() {
    let directory = Directory::new();
    let registry = open(directory.engine().await).await;
    let [_, b, changed, ..] = some_writes(&registry).await;
    let many = |count: usize| (1..count).map(|number| format!("!k{number},")).collect::<String>();
    for terms in [1, 10, 20, 256] {
        let check = async |text: &str, expected: &str, more: bool| {
            let found = list(&registry, &format!("{text}&labels={}x=1", many(terms))).await.unwrap();
            assert_eq!((names(&found).as_str(), found.continue_token.is_some()), (expected, more), "{terms} {text}");
            found.continue_token.unwrap_or_default()
        };
        let next = check("limit=1", "b", true).await;
        check(&format!("limit=1&continue={next}"), "c", false).await;
        check("", "b c", false).await;
        check(&format!("resourceVersion={b}&match=Exact"), "a", false).await;
        check(&format!("resourceVersion={changed}&match=Exact"), "a b", false).await;
        let mut watch = watch(&registry, &format!("labels={}x=1", many(terms))).await.unwrap();
        assert_eq!(seen(&mut watch).await.len(), 2, "{terms}");
    }
    let text = format!("labels={}x=1", many(257));
    for status in [list(&registry, &text).await.unwrap_err(), watch(&registry, &text).await.err().unwrap()] {
        assert_eq!((status.code, &status.message[..]), (400, "selectors of 257 terms: there must be at most 256"));
    }
    // The same term again is no other one.
    assert_eq!(names(&list(&registry, &format!("labels={}x=1", "!a,".repeat(1000))).await.unwrap()), "b c");
}

/// A list in pages takes no more of what comes after a page than that one needs: each would look at the whole rest otherwise. It shows one state
/// though it is not taken at once.
#[tokio::test]
async fn pages_of_long_selectors_take_a_part_at_a_time() {
    let directory = Directory::new();
    let registry = open(directory.engine().await).await;
    let made = (0..1200).map(|number| {
        let labels = if [0, 600, 1199].contains(&number) { "x=1" } else { "" };
        let (registry, name) = (&registry, format!("m{number:04}"));
        async move { create(registry, &name, labels).await }
    });
    let last = join_all(made).await.pop().unwrap();
    let selector = format!("labels={}x=1", (1..20).map(|number| format!("!k{number},")).collect::<String>());
    let kept = Arc::strong_count(&last);
    let (first, all) = (format!("limit=2&{selector}"), registry.revision());
    let mut page = std::pin::pin!(list(&registry, &first));
    assert!(futures::poll!(&mut page).is_pending());
    assert_eq!(Arc::strong_count(&last), kept, "it is not looked at yet");
    for name in ["m0600", "m1199"] {
        registry.delete(&cx(), &config_maps(&registry), "ns", name, DeleteOptions::default()).await.unwrap();
    }
    create(&registry, "m0601-new", "x=1").await;
    let page = page.await.unwrap();
    assert_eq!((names(&page).as_str(), page.revision), ("m0000 m0600", all));
    let next = page.continue_token.unwrap();
    let page = list(&registry, &format!("limit=2&continue={next}&{selector}")).await.unwrap();
    assert_eq!((names(&page).as_str(), page.revision, page.continue_token), ("m1199", all, None));
    let page = list(&registry, &first).await.unwrap();
    assert_eq!((names(&page).as_str(), page.continue_token), ("m0000 m0601-new", None));
}

/// Conformance: [sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version has been compacted away, though the list is inconsistent [Slow] [Conformance]
#[tokio::test]
async fn pages_show_one_state_until_it_is_forgotten() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    let [.., c, _] = some_writes(&registry).await;
    let first = list(&registry, &format!("resourceVersion={c}&match=Exact&limit=1")).await.unwrap();
    assert_eq!((names(&first), first.remaining), ("a".into(), Some(2)));
    let token = first.continue_token.unwrap();
    let with_version = list(&registry, &format!("continue={token}&resourceVersion={c}")).await.unwrap_err();
    assert_eq!(with_version.message, "specifying resource version is not allowed when using continue");
    drop(registry);
    engine.close().await;
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    let second = list(&registry, &format!("continue={token}&limit=1")).await.unwrap();
    assert_eq!((names(&second), second.revision, second.remaining), ("b".into(), c, Some(1)));
    create(&registry, "bb", "").await;
    engine.compact(engine.revision()).await.unwrap();
    let expired = list(&registry, &format!("continue={token}")).await.unwrap_err();
    assert_eq!((expired.code, &expired.reason), (410, &Reason::Expired));
    let rest = expired.details.unwrap().continue_token;
    let second = list(&registry, &format!("continue={rest}&limit=1")).await.unwrap();
    assert_eq!((names(&second), second.remaining), ("b".into(), Some(2)));
    assert_eq!(second.revision, registry.revision(), "inconsistent, as the message says");
    let rest = second.continue_token.unwrap();
    create(&registry, "bc", "").await;
    let rest = list(&registry, &format!("continue={rest}&limit=5")).await.unwrap();
    assert_eq!((names(&rest), rest.revision, rest.remaining), ("bb c".into(), second.revision, None), "consistent from here on");
}

#[tokio::test]
async fn watches_by_resource_version() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    let [a, b, changed, c, deleted] = some_writes(&registry).await;
    let now = |bookmark: &[&str]| {
        let state = [format!("ADDED b@{changed}"), format!("ADDED c@{c}")];
        state.into_iter().chain(bookmark.iter().map(|kind| format!("{kind} @{deleted}"))).collect::<Vec<_>>()
    };
    let all = [format!("MODIFIED b@{changed}"), format!("ADDED c@{c}"), format!("DELETED a@{deleted}")].to_vec();
    let check = async |registry: &Registry| {
        let cases = [
            ("".into(), now(&[])),
            ("resourceVersion=0".into(), now(&[])),
            (format!("resourceVersion={b}"), all.clone()),
            (format!("resourceVersion={changed}"), all[1..].to_vec()),
            (format!("resourceVersion={deleted}"), Vec::new()),
            ("initial=true&bookmarks=true&match=NotOlderThan".into(), now(&["BOOKMARK"])),
            (format!("initial=true&bookmarks=true&match=NotOlderThan&resourceVersion={a}"), now(&["BOOKMARK"])),
            // Who takes no bookmarks gets none.
            ("initial=true&match=NotOlderThan".into(), now(&[])),
            ("initial=false&match=NotOlderThan".into(), Vec::new()),
            (format!("initial=false&match=NotOlderThan&resourceVersion={c}"), all[2..].to_vec()),
            // Objects come and go by the selector too, and leave under the revision of the change.
            (format!("resourceVersion={a}&labels=x=2"), vec![format!("ADDED b@{b}"), format!("DELETED b@{changed}")]),
            (
                format!("resourceVersion={b}&labels=x=1"),
                vec![format!("ADDED b@{changed}"), format!("ADDED c@{c}"), format!("DELETED a@{deleted}")],
            ),
        ];
        for (text, expected) in cases {
            let mut watch = watch(registry, &text).await.unwrap();
            let mut events = seen(&mut watch).await;
            // What is read from the store takes a moment.
            while events.len() < expected.len() {
                tokio::task::yield_now().await;
                events.extend(seen(&mut watch).await);
            }
            assert_eq!(events, expected, "{text}");
        }
    };
    check(&registry).await;
    drop(registry);
    engine.close().await;
    let engine = directory.engine().await;
    let registry = open(engine.clone()).await;
    check(&registry).await;
    engine.compact(b).await.unwrap();
    assert_eq!(watch(&registry, &format!("resourceVersion={a}")).await.err().unwrap().reason, Reason::Expired);
}

#[tokio::test]
async fn a_watch_says_where_it_ends() {
    let directory = Directory::new();
    let registry = open(directory.engine().await).await;
    let from = create(&registry, "a", "").await.revision;
    let mut quiet = watch(&registry, &format!("resourceVersion={from}&timeout=2200&bookmarks=true")).await.unwrap();
    let mut silent = watch(&registry, &format!("resourceVersion={from}&timeout=2200")).await.unwrap();
    let last = create(&registry, "b", "").await.revision;
    let (quiet, silent) = tokio::join!(async { [quiet.next().await, quiet.next().await, quiet.next().await] }, async {
        [silent.next().await, silent.next().await]
    });
    let show =
        |event: Option<registry::Event>| event.map(|event| (event.kind, meta::resource_version(&event.entry.value()).to_owned()));
    assert_eq!(
        quiet.map(show),
        [Some((EventType::Added, last.to_string())), Some((EventType::Bookmark, last.to_string())), None]
    );
    assert_eq!(silent.map(show), [Some((EventType::Added, last.to_string())), None]);
}

/// After a long stop the store deletes what has expired while the caches are loaded.
#[tokio::test]
async fn what_the_store_deletes_while_caches_load_is_gone() {
    let directory = Directory::new();
    let engine = directory.engine().await;
    for (name, put) in [("early", true), ("late", true), ("kept", true)] {
        engine.commit(raw("events", name, put)).await.unwrap();
    }
    let mut hooked = Hooked::new(engine);
    hooked.after_range = Some(Box::new(|engine, call| {
        async move {
            // Before, or after, events are read.
            if call == 0 {
                engine.commit(raw("events", "early", false)).await.unwrap();
            }
            for (name, put) in [("late", false), ("new", true), ("brief", true), ("brief", false)] {
                let _ = engine.commit(raw("events", name, put)).await;
            }
        }
        .boxed()
    }));
    let registry = open(hooked).await;
    let events = &registry.resource("", "v1", "events").unwrap();
    let found = registry.list(events, None, &ListOptions::default()).await.unwrap();
    assert_eq!((names(&found).as_str(), found.revision), ("kept new", registry.revision()));
}

/// A watch goes from history to the ring, and back when the ring has moved on meanwhile; when history has, it ends and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_from_history_has_no_gap() {
    const OLD: usize = 600;
    let directory = Directory::new();
    let engine = directory.engine().await;
    for result in join_all((0..OLD).map(|n| engine.commit(raw("configmaps", &format!("old-{n}"), true)))).await {
        result.unwrap();
    }
    let check = async |hooked: Hooked, expected: usize| {
        let registry = open(hooked).await;
        let mut watch = watch(&registry, "resourceVersion=1").await.unwrap();
        let end = format!("end-{}", engine.revision());
        create(&registry, &end, "").await;
        let (mut last, mut count) = (1, 0);
        loop {
            let event = watch.next().await.unwrap();
            if event.kind == EventType::Error {
                assert_eq!(event.status.unwrap().reason, Reason::Expired);
                assert!(watch.next().await.is_none());
                break;
            }
            assert_eq!(event.entry.revision, last + 1, "no gap");
            (last, count) = (last + 1, count + 1);
            if event.entry.name() == end {
                break;
            }
        }
        assert_eq!(count, expected);
    };
    check(Hooked::new(engine.clone()), OLD).await;

    // The ring overflows while history is read.
    let mut hooked = Hooked::new(engine.clone());
    hooked.before_changes = Some(Box::new(|engine, call| {
        async move {
            if call == 0 {
                let writes = (0..8300).map(|n| engine.commit(raw("configmaps", &format!("new-{n}"), true)));
                join_all(writes).await;
            }
        }
        .boxed()
    }));
    check(hooked, OLD + 8300 + 1).await;

    // History is compacted while it is read.
    let mut hooked = Hooked::new(engine.clone());
    hooked.before_changes = Some(Box::new(|engine, call| {
        async move {
            if call == 1 {
                engine.compact(engine.revision()).await.unwrap();
            }
        }
        .boxed()
    }));
    check(hooked, 256).await;
}

#![allow(clippy::unwrap_used)]
use base::tasks::{OnFailure, Tasks};
use store::memory::{Memory, Reliable};
use store::{Change, Changes, Expect, Fjall, Lane, Options, Page, Record, Revision, Sink, Transformed, Write};
use tokio::sync::Semaphore;

use super::*;

const KEY: &[u8] = b"/registry/core/secrets/ns/map";

fn configuration(providers: &str) -> String {
    format!(
        "{{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{{resources: [secrets], providers: [{providers}]}}]}}"
    )
}

fn encryption(providers: &str) -> Encryption {
    let configuration = Configuration::parse(&configuration(providers)).unwrap();
    Encryption { configuration: ArcSwap::from_pointee(configuration), ..Encryption::default() }
}

/// A provider with keys, each of which is its letter 32 times.
fn provider(kind: &str, keys: &str) -> String {
    use base64::Engine as _;
    let key = |letter: char| {
        let secret = base64::engine::general_purpose::STANDARD.encode([letter as u8; 32]);
        format!("{{name: {letter}, secret: {secret}}}")
    };
    format!("{{{kind}: {{keys: [{}]}}}}", keys.chars().map(key).collect::<Vec<_>>().join(","))
}

const IDENTITY: &str = "{identity: {}}";

#[test]
fn what_is_written_and_read() {
    let of = |kind: &str, keys: &str| encryption(&provider(kind, keys));
    for kind in ["aesgcm", "aescbc", "secretbox"] {
        let (first, second) = (of(kind, "a"), of(kind, "ba"));
        let stored = first.transform_to_storage(KEY, b"treasure").unwrap().unwrap();
        assert!(stored.starts_with(format!("k8s:enc:{kind}:v1:a:").as_bytes()));
        assert_eq!(first.transform_from_storage(KEY, &stored).unwrap().unwrap(), "treasure");
        assert_eq!((first.is_stale(KEY, &stored), second.is_stale(KEY, &stored)), (false, true), "{kind}");
        assert_eq!(second.transform_from_storage(KEY, &stored).unwrap().unwrap(), "treasure");
        let lost = of(kind, "b").transform_from_storage(KEY, &stored).unwrap_err().to_string();
        assert_eq!(
            lost,
            format!(
                "the value of /registry/core/secrets/ns/map cannot be read: it was encrypted with the key \"a\" of {kind}, which no encryption configuration has"
            )
        );
        let none = Encryption::default().transform_from_storage(KEY, &stored).unwrap_err().to_string();
        assert_eq!(none, lost, "never what is stored");
    }
    let maps = b"/registry/core/configmaps/ns/map";
    assert_eq!(of("aesgcm", "a").transform_to_storage(maps, b"{}"), Ok(None));
    assert_eq!(of("aesgcm", "a").transform_from_storage(maps, b"{}"), Ok(None));
}

#[test]
fn what_is_not_encrypted() {
    let check = |providers: &str, reads: bool, writes: bool| {
        let encryption = encryption(providers);
        assert_eq!(encryption.transform_from_storage(KEY, b"{}").is_ok(), reads, "{providers}");
        assert_eq!(encryption.transform_to_storage(KEY, b"{}").unwrap().is_some(), writes, "{providers}");
        assert_eq!(encryption.is_stale(KEY, b"{}"), writes, "{providers}");
    };
    let keys = provider("aesgcm", "a");
    check(&keys, false, true);
    check(&format!("{keys}, {IDENTITY}"), true, true);
    check(&format!("{IDENTITY}, {keys}"), true, false);
    let stored = encryption(&keys).transform_to_storage(KEY, b"{}").unwrap().unwrap();
    assert!(encryption(&format!("{IDENTITY}, {keys}")).is_stale(KEY, &stored), "it is to be as the first provider has it");
}

fn put(value: &'static str) -> Write {
    let (key, change) = (Bytes::from_static(KEY), Change::Put(Bytes::from_static(value.as_bytes())));
    Write::new(key, Expect::Anything, change, Lane::Durable)
}

#[tokio::test]
async fn a_changed_file_is_in_force_when_it_can_read_what_is_stored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("encryption.yaml");
    let write = |providers: &str| {
        let next = directory.path().join("next");
        std::fs::write(&next, configuration(providers)).unwrap();
        std::fs::rename(next, &path).unwrap();
    };
    write(&provider("aesgcm", "a"));
    let (tasks, _failures) = Tasks::root();
    let fjall = Fjall::open(Options { reserve: 1 << 20, ..Options::new(directory.path().join("store")) }, &tasks).await.unwrap();
    let encryption = Encryption::load(Some(&path)).unwrap();
    let engine = Transformed::new(fjall.clone(), encryption.clone());
    engine.commit(put("one")).await.unwrap();
    tasks.spawn_until_cancelled("follow", OnFailure::Log, encryption.clone().follow(path.clone(), Arc::new(fjall)));
    // A key that cannot read what is there is not taken; one that comes before it is.
    write(&provider("aesgcm", "b"));
    write(&provider("aesgcm", "ba"));
    while !engine.is_stale(KEY).await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert_eq!(engine.get(KEY).await.unwrap().unwrap().value, "one");
    let alone = Configuration::parse(&configuration(&provider("aesgcm", "b"))).unwrap();
    let tried = async || try_on(&alone, &encryption.configuration.load_full(), engine.inner()).await;
    assert!(matches!(tried().await, Err(store::Error::Untransformed { .. })));
    engine.commit(put("one")).await.unwrap();
    assert!(!engine.is_stale(KEY).await.unwrap());
    assert_eq!(tried().await, Ok(()), "all is written with the key that stays");
}

/// An engine in which reading all takes until it is let go on.
struct Large {
    engine: Memory,
    begun: Semaphore,
    read: Semaphore,
}

#[async_trait::async_trait]
impl Engine for Large {
    fn revision(&self) -> Revision {
        self.engine.revision()
    }

    fn compacted(&self) -> Revision {
        self.engine.compacted()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Record>, store::Error> {
        self.engine.get(key).await
    }

    async fn range(&self, start: &[u8], end: &[u8], at: Option<Revision>, limit: usize) -> Result<Page, store::Error> {
        let page = self.engine.range(start, end, at, limit).await;
        self.begun.add_permits(1);
        self.read.acquire().await.unwrap().forget();
        page
    }

    async fn changes(&self, prefix: &[u8], after: Revision, upto: Revision) -> Result<Changes, store::Error> {
        self.engine.changes(prefix, after, upto).await
    }

    async fn commit(&self, write: Write) -> Result<Revision, store::Error> {
        self.engine.commit(write).await
    }

    fn subscribe(&self, sink: Arc<dyn Sink>) -> Revision {
        self.engine.subscribe(sink)
    }

    async fn compact(&self, revision: Revision) -> Result<(), store::Error> {
        self.engine.compact(revision).await
    }
}

/// With a million Secrets reading them takes long, and each request that writes anything would wait for it.
#[tokio::test]
async fn writes_go_on_while_a_configuration_is_tried_and_are_tried_with_it() {
    let (tasks, _failures) = Tasks::root();
    let check = async |lane: Lane, next: &str, stays: bool, taken: bool| {
        let encryption = Arc::new(encryption(&provider("aesgcm", "a")));
        let stored = Memory::open(Arc::default(), Arc::new(Reliable), &tasks);
        let engine = Transformed::new(stored.clone(), encryption.clone());
        let large = Large { engine: stored, begun: Semaphore::new(0), read: Semaphore::new(0) };
        let next = Configuration::parse(&configuration(next)).unwrap();
        let trying = encryption.take(next, &large);
        let others = async {
            large.begun.acquire().await.unwrap().forget();
            engine.commit(Write { lane, ..put("one") }).await.unwrap();
            if !stays {
                engine.commit(Write { change: Change::Delete, lane, ..put("one") }).await.unwrap();
            }
            let other = Bytes::from_static(b"/registry/core/secrets/ns/b");
            let refused = engine.commit(Write { key: other, expect: Expect::At(99), lane, ..put("one") }).await;
            assert_eq!(refused, Err(store::Error::Conflict(None)));
            large.read.add_permits(10);
        };
        let (tried, ()) = tokio::join!(trying, others);
        assert_eq!(tried.is_ok(), taken, "{lane:?} {stays}: {tried:?}");
        assert!(encryption.trial.load().is_none());
        // What is stored can be read with the one in force, whichever it is.
        assert_eq!(engine.get(KEY).await.unwrap().is_some(), stays);
    };
    for lane in [Lane::Durable, Lane::Ephemeral] {
        check(lane, &provider("aesgcm", "b"), true, false).await;
        check(lane, &provider("aesgcm", "b"), false, true).await;
        check(lane, &provider("aesgcm", "ba"), true, true).await;
    }
}

#[test]
fn keys_of_the_store() {
    let check = |key: &str, expected: Option<(&str, &str)>| assert_eq!(resource_of(key.as_bytes()), expected, "{key}");
    check("/registry/core/secrets/ns/a", Some(("secrets", "")));
    check("/registry/apps/deployments/ns/a", Some(("deployments", "apps")));
    check("/registry/core/nodes/n1", Some(("nodes", "")));
    check("/registry/health", None);
    check("/other", None);
}

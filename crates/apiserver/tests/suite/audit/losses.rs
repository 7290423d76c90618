//! Back ends that are full, gone, or do not answer: requests go on, and every event that is lost is counted.

use std::path::{Path, PathBuf};
use std::time::Instant;

use base::metrics::samples::samples;
use base::metrics::{Format, Page};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::https::Answering;
use crate::server::{Server, serve_with};

/// Creations of objects in the core group.
const CREATIONS: &str = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [{level: Metadata, resources: [{group: ''}], verbs: [create]}]}";

/// A counter of the audit; 0 before there is one.
fn counter(name: &str, plugin: &str) -> u64 {
    let page = Page::Server.encode(Format::Text);
    let found = samples(&page).find(|sample| sample.name == name && sample.label("plugin") == plugin);
    found.map_or(0, |sample| sample.value as u64)
}

fn told() -> u64 {
    counter("apiserver_audit_event_total", "")
}

fn lost(plugin: &str) -> u64 {
    counter("apiserver_audit_error_total", plugin)
}

async fn audited(dir: &Path, log: Option<LogOptions>, webhook: Option<WebhookOptions>) -> Server {
    let policy = dir.join("policy.yaml");
    std::fs::write(&policy, CREATIONS).unwrap();
    let server = serve_with(|options| options.audit = Some(AuditOptions { policy, log, webhook })).await;
    namespace(&server.api, "n").await;
    server
}

async fn create(server: &Server, name: &str) {
    let made = admin(&server.api, &format!("POST /api/v1/namespaces/n/configmaps\n\n{}", config_map(name))).await;
    assert_eq!(made.code, 201, "{:?}", made.body);
}

/// A disk of 256 KiB that nobody else sees: this thread, and those that it starts, get a mount namespace of their own.
fn small_disk(at: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("disk"), at, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
}

/// Takes all room of a disk but `left` bytes.
fn fill(disk: &Path, left: usize) -> PathBuf {
    let file = disk.join("filler");
    // Refused by the last piece, for the disk is smaller.
    let _ = std::fs::write(&file, vec![b'x'; 1 << 20]);
    let size = std::fs::metadata(&file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(size - left as u64).unwrap();
    file
}

/// The documentation, "Auditing": a backend "persists audit events"; what the log cannot persist is in `apiserver_audit_error_total`,
/// and what it has persisted is whole lines.
#[test]
fn a_full_disk_costs_no_request() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root may mount a small disk");
        return;
    }
    let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    small_disk(disk.path());
    // The threads of this runtime are children of this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let path = disk.path().join("audit.log");
        let log = LogOptions { path: path.clone(), ..LogOptions::default() };
        let server = audited(dir.path(), Some(log), None).await;
        let filler = fill(disk.path(), 8 << 10);
        let mut number = 0;
        while lost("log") == 0 {
            create(&server, &format!("full-{number}")).await;
            number += 1;
        }
        std::fs::remove_file(filler).unwrap();
        create(&server, "again").await;
        assert!(server.tasks.drain(Duration::from_secs(30)).await);
        let text = std::fs::read_to_string(&path).unwrap();
        let names: Vec<String> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .map(|event| event["objectRef"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert!(names.contains(&"again".to_owned()), "{names:?}");
        assert_eq!(names.len() as u64 + lost("log"), told());
    });
    drop(runtime);
    umount(disk.path()).unwrap();
}

fn options(file: PathBuf) -> WebhookOptions {
    WebhookOptions { file, buffer: 4, batch: 2, wait: Duration::from_millis(10), backoff: Duration::from_millis(10) }
}

/// A webhook that takes requests and never answers: what finds no room in the buffer is lost, and at the end what is still there.
#[tokio::test]
async fn a_webhook_that_hangs_costs_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let https = Https::start("localhost", None, 0, |_, _| Box::pin(std::future::pending())).await;
    let server = audited(dir.path(), None, Some(options(https.kubeconfig(dir.path())))).await;
    let started = Instant::now();
    for number in 0..30 {
        create(&server, &format!("m{number}")).await;
    }
    // Four wait, and two are being sent.
    assert!(lost("webhook") >= 31 - 6, "{}", lost("webhook"));
    assert!(started.elapsed() < Duration::from_secs(30), "no request waits for it: {:?}", started.elapsed());
    assert!(server.tasks.drain(Duration::from_secs(30)).await);
    assert_eq!((told(), lost("webhook")), (31, 31));
}

/// A webhook that is not there: a batch is tried again, then lost, and the next ones arrive once it is back.
#[tokio::test]
async fn a_webhook_that_is_gone_costs_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let got: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = got.clone();
    let take = move |request: http::Request<hyper::body::Incoming>, _| -> Answering {
        let seen = seen.clone();
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let batch: Value = serde_json::from_slice(&body).unwrap();
            let names = batch["items"].as_array().unwrap().iter().map(|event| event["objectRef"]["name"].clone());
            seen.lock().extend(names.map(|name| name.as_str().unwrap().to_owned()));
            Response::new(Empty::<Bytes>::new().boxed())
        })
    };
    let https = Https::start("localhost", None, 0, take.clone()).await;
    let server = audited(dir.path(), None, Some(options(https.kubeconfig(dir.path())))).await;
    while got.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(https.tasks.drain(Duration::from_secs(60)).await);
    let mut number = 0;
    while lost("webhook") == 0 {
        create(&server, &format!("gone-{number}")).await;
        number += 1;
    }
    let back = Https::start_again(https.authority.clone(), "localhost", None, https.port, take).await;
    let is_back = || got.lock().iter().any(|name| name.starts_with("back-"));
    while !is_back() {
        create(&server, &format!("back-{number}")).await;
        number += 1;
    }
    assert!(server.tasks.drain(Duration::from_secs(30)).await);
    assert_eq!(got.lock().len() as u64 + lost("webhook"), told(), "{:?}", got.lock());
    drop(back);
}

//! Writers, readers and watchers over TLS while the server is killed again and again: every acknowledged write is in history
//! where its answer said, every read shows one state of it that is not older than what was acknowledged before, and every watcher sees
//! every change once and in order, wherever it was interrupted.
//!
//! The test runs itself again as a child, the server, which it kills.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apiserver::Service;
use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use base::tls::{Authority, Request as Identity, Resolver};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::server::options;

const DIRECTORY: &str = "KNARR_API_HISTORY";
const KILLS: usize = 6;
/// Acknowledged writes between two kills.
const WRITES: u64 = 150;
const WRITERS: usize = 8;
const PATH: &str = "/api/v1/namespaces/default/configmaps";
const END: &str = "end";

/// The child: serves until it is killed, and says where.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (tasks, mut failures) = Tasks::root();
        let store = store::Options { reserve: 1 << 20, ..store::Options::new(dir.join("store")) };
        let engine = Arc::new(store::Fjall::open(store, &tasks).await.unwrap());
        let authority = Arc::new(Authority::load_or_create(&dir.join("pki"), "ca", "test-ca").unwrap());
        let options = options(dir.join("pki"), false);
        let service = Service::new(engine, authority, options, Readiness::default(), &tasks).await.unwrap();
        let port = service.handle().unwrap().address.port();
        let own = tasks.clone();
        tasks.spawn("apiserver", OnFailure::Shutdown, async move { service.run(own).await });
        eprintln!("listening {port}");
        panic!("{:?}", failures.recv().await);
    });
}

/// Starts a server; it listens at the returned port.
fn serve(dir: &Path) -> (Child, u16) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "history::child", "--nocapture"])
        .env(DIRECTORY, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut text = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if let Some(port) = line.strip_prefix("listening ") {
            return (child, port.parse().unwrap());
        }
        text += &line;
    }
    let status = child.wait().unwrap();
    panic!("no server, {status}: {text}");
}

/// A change as a watcher sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    kind: String,
    name: String,
    revision: u64,
    /// What the writer wrote.
    id: String,
}

/// An acknowledged write.
#[derive(Debug)]
struct Acked {
    name: String,
    /// None for a deletion, whose answer does not say.
    revision: Option<u64>,
    id: String,
    /// The revision that the write replaced, 0 for a creation.
    base: u64,
    /// Acknowledged to anybody before this write began.
    floor: u64,
}

/// Revision and content of the objects, by name.
type State = BTreeMap<String, (u64, String)>;

/// A list.
struct Listed {
    revision: u64,
    floor: u64,
    items: State,
}

/// What the clients share.
struct World {
    tls: tokio_rustls::TlsConnector,
    port: watch::Sender<u16>,
    tasks: Tasks,
    /// The newest revision that was acknowledged to anybody.
    floor: AtomicU64,
    count: watch::Sender<u64>,
    over: watch::Sender<bool>,
    acked: Mutex<Vec<Acked>>,
    lists: Mutex<Vec<Listed>>,
}

struct Client {
    world: Arc<World>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    fn new(world: &Arc<World>) -> Self {
        Self { world: world.clone(), connection: None }
    }

    async fn connect(&self, port: u16) -> Option<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = self.world.tls.connect(name, stream).await.ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        self.world.tasks.spawn("connection", OnFailure::Log, async move {
            // Its end is met by the request.
            let _ = connection.await;
            Ok::<_, std::convert::Infallible>(())
        });
        Some(sender)
    }

    /// Sends a request to the server that there is, or comes. None when the answer is lost.
    async fn send(&mut self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Incoming)> {
        let mut port = self.world.port.subscribe();
        let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => loop {
                let at = *port.borrow_and_update();
                match self.connect(at).await {
                    Some(connection) => break connection,
                    None => port.changed().await.unwrap(),
                }
            },
        };
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from(body))).unwrap();
        connection.ready().await.ok()?;
        let response = connection.send_request(request).await.ok()?;
        self.connection = Some(connection);
        Some((response.status().as_u16(), response.into_body()))
    }

    async fn ask(&mut self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let (code, body) = self.send(method, path, body).await?;
        let bytes = body.collect().await.ok()?.to_bytes();
        Some((code, serde_json::from_slice(&bytes).unwrap()))
    }

    /// One write of an object in whatever state it is; none when the answer is lost or somebody was quicker.
    async fn write(&mut self, name: &str, id: &str, delete: bool) -> Option<Acked> {
        let floor = self.world.floor.load(Ordering::SeqCst);
        let path = format!("{PATH}/{name}");
        let (code, current) = self.ask("GET", &path, None).await?;
        let exists = code == 200;
        let base = if exists { revision(&current) } else { 0 };
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"id": id}});
        let answer = match (exists, delete) {
            (true, true) => {
                let condition =
                    json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"resourceVersion": base.to_string()}});
                self.ask("DELETE", &path, Some(&condition)).await?
            }
            (true, false) => {
                object["metadata"]["resourceVersion"] = base.to_string().into();
                self.ask("PUT", &path, Some(&object)).await?
            }
            (false, _) => self.ask("POST", PATH, Some(&object)).await?,
        };
        let deleted = exists && delete;
        match answer.0 {
            200 | 201 => {
                let revision = (!deleted).then(|| revision(&answer.1));
                Some(Acked { name: name.into(), revision, id: id.into(), base, floor })
            }
            404 | 409 => None,
            _ => panic!("{answer:?}"),
        }
    }
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Some objects are the writer's own, some are everybody's.
async fn writer(world: Arc<World>, number: usize) {
    let mut client = Client::new(&world);
    let mut n = 0;
    while !*world.over.borrow() {
        n += 1;
        let name = if n % 3 == 0 { format!("shared-{}", n % 2) } else { format!("own-{number}-{}", n % 4) };
        if let Some(acked) = client.write(&name, &format!("{number}-{n}"), n % 5 == 4).await {
            world.floor.fetch_max(acked.revision.unwrap_or(0), Ordering::SeqCst);
            world.acked.lock().push(acked);
            world.count.send_modify(|count| *count += 1);
        }
    }
}

/// Lists, whole and in pages.
async fn reader(world: Arc<World>, limit: usize) {
    let mut client = Client::new(&world);
    'lists: while !*world.over.borrow() {
        let floor = world.floor.load(Ordering::SeqCst);
        let (mut items, mut token, mut first) = (BTreeMap::new(), String::new(), None);
        loop {
            let path = format!("{PATH}?limit={limit}&continue={token}");
            let Some((code, list)) = client.ask("GET", &path, None).await else { continue 'lists };
            assert_eq!(code, 200, "{list}");
            assert_eq!(*first.get_or_insert(revision(&list)), revision(&list), "pages are of one list");
            for item in list["items"].as_array().unwrap() {
                items.insert(text(&item["metadata"]["name"]), (revision(item), text(&item["data"]["id"])));
            }
            token = text(&list["metadata"]["continue"]);
            if token.is_empty() {
                break;
            }
        }
        world.lists.lock().push(Listed { revision: first.unwrap(), floor, items });
    }
}

/// Follows the objects from a revision until the last one is made.
async fn watcher(world: Arc<World>, mut last: u64) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    loop {
        let mut client = Client::new(&world);
        let path = format!("{PATH}?watch=true&resourceVersion={last}&allowWatchBookmarks=true");
        let Some((code, mut body)) = client.send("GET", &path, None).await else { continue };
        assert_eq!(code, 200);
        let mut buffer = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            buffer.extend_from_slice(frame.data_ref().unwrap());
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let (kind, object) = (text(&event["type"]), &event["object"]);
                assert_ne!(kind, "ERROR", "{event}");
                last = revision(object);
                if kind != "BOOKMARK" {
                    let (name, id) = (text(&object["metadata"]["name"]), text(&object["data"]["id"]));
                    seen.push(Seen { kind, name, revision: last, id });
                }
                if seen.last().is_some_and(|seen| seen.name == END) {
                    return seen;
                }
            }
        }
    }
}

/// Checks what the clients saw against history. Returns the states that it went through.
fn check_history(history: &[Seen], acked: &[Acked]) -> Vec<(u64, State)> {
    let mut state = State::new();
    let mut states = vec![(0, state.clone())];
    // What each change replaced, and what each deletion deleted.
    let (mut written, mut deleted) = (HashMap::new(), HashMap::new());
    for event in history {
        assert!(event.revision > states.last().unwrap().0, "revisions rise: {event:?}");
        let before = state.get(&event.name).cloned();
        match (event.kind.as_str(), &before) {
            ("ADDED", None) | ("MODIFIED", Some(_)) => {
                state.insert(event.name.clone(), (event.revision, event.id.clone()));
            }
            ("DELETED", Some((_, id))) => {
                assert_eq!(id, &event.id, "a deletion shows what was deleted");
                state.remove(&event.name);
            }
            _ => panic!("{event:?} after {before:?}"),
        }
        let base = before.map_or(0, |(revision, _)| revision);
        match event.kind.as_str() {
            "DELETED" => deleted.insert(base, event).map(|event| (event, base)),
            _ => written.insert(event.id.as_str(), (event, base)),
        };
        states.push((event.revision, state.clone()));
    }
    for write in acked {
        let event = match write.revision {
            Some(revision) => {
                let (event, base) = written.get(write.id.as_str()).unwrap_or_else(|| panic!("lost: {write:?}"));
                assert_eq!((event.revision, *base, &event.name), (revision, write.base, &write.name), "{write:?}");
                event
            }
            None => deleted.get(&write.base).unwrap_or_else(|| panic!("lost: {write:?}")),
        };
        assert!(event.revision > write.floor, "after what was acknowledged before it began: {write:?} {event:?}");
    }
    states
}

fn check_lists(lists: &[Listed], states: &[(u64, State)]) {
    for list in lists {
        assert!(list.revision >= list.floor, "a list at {} misses {}, which was acknowledged", list.revision, list.floor);
        let at = states.partition_point(|(revision, _)| *revision <= list.revision);
        assert_eq!(list.items, states[at - 1].1, "the list at {}", list.revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_one_line_through_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (tasks, _failures) = Tasks::root();
    let (mut child, port) = tokio::task::block_in_place(|| serve(dir.path()));
    let authority = Arc::new(Authority::load_or_create(&dir.path().join("pki"), "ca", "test-ca").unwrap());
    let admin = Identity::Client { user: "admin".into(), groups: vec!["system:masters".into()] };
    let config = base::tls::client(authority.bundle(), Some(Resolver::memory(authority.clone(), admin).unwrap())).unwrap();
    let world = Arc::new(World {
        tls: Arc::new(config).into(),
        port: watch::Sender::new(port),
        tasks: tasks.clone(),
        floor: AtomicU64::new(0),
        count: watch::Sender::new(0),
        over: watch::Sender::new(false),
        acked: Mutex::default(),
        lists: Mutex::default(),
    });
    let mut client = Client::new(&world);
    let start = revision(&client.ask("GET", PATH, None).await.unwrap().1);
    let writers = (0..WRITERS).map(|number| writer(world.clone(), number));
    let readers = [0, 3].map(|limit| reader(world.clone(), limit));
    let watchers = (0..3).map(|_| watcher(world.clone(), start));
    let killer = async {
        let mut count = world.count.subscribe();
        for kill in 1..=KILLS as u64 {
            count.wait_for(|count| *count >= kill * WRITES).await.unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            let port;
            (child, port) = tokio::task::block_in_place(|| serve(dir.path()));
            world.port.send_replace(port);
        }
        count.wait_for(|count| *count >= (KILLS as u64 + 1) * WRITES).await.unwrap();
        world.over.send_replace(true);
    };
    let work = async {
        tokio::join!(futures::future::join_all(writers), futures::future::join_all(readers), killer);
        let end = Client::new(&world).write(END, END, false).await.unwrap();
        world.acked.lock().push(end);
    };
    let (seen, ()) = tokio::join!(futures::future::join_all(watchers), work);
    let history = watcher(world.clone(), start).await;
    child.kill().unwrap();
    child.wait().unwrap();

    let (acked, lists) = (world.acked.lock(), world.lists.lock());
    println!("{} changes, {} acknowledged, {} lists", history.len(), acked.len(), lists.len());
    for seen in seen {
        assert_eq!(seen, history, "each watcher sees each change once, in order");
    }
    let states = check_history(&history, &acked);
    check_lists(&lists, &states);
    assert!(lists.len() > KILLS);
}

//! Scheduler extenders: a server of somebody else that decides about pods, binds them, and fails in every way.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use testing::{Api, Cluster, eventually, machine};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

const CONFIGURATION: &str = "
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
podMaxBackoffSeconds: 2
extenders:
  - urlPrefix: http://127.0.0.1:9900/cards
    filterVerb: filter
    prioritizeVerb: prioritize
    weight: 10
    bindVerb: bind
    httpTimeout: 2s
    nodeCacheCapable: true
    managedResources: [{name: example.com/card, ignoredByScheduler: true}]
";

/// How the extender behaves.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Well,
    Hanging,
    Lying,
    /// It binds, and never says so.
    Silent,
}

/// A binding that is to be made, and where to say that it is.
type Order = (Value, Sender<u16>);

/// One request of a connection; none when that has ended.
fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim() {
            "" => break,
            text => lines.push(text.to_ascii_lowercase()),
        }
    }
    let length = lines.iter().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let verb = lines[0].split_whitespace().nth(1)?.rsplit('/').next()?.to_owned();
    Some((verb, serde_json::from_slice(&body).unwrap()))
}

/// The last node by its name is the only one with cards.
fn answer(mood: Mood, verb: &str, asked: &Value, orders: &Sender<Order>) -> Option<Value> {
    match (mood, verb) {
        (Mood::Hanging, _) => None,
        (Mood::Lying, _) => Some(json!({"NodeNames": ["somewhere-else"]})),
        (_, "bind") => {
            let (done, bound) = mpsc::channel();
            orders.send((asked.clone(), done)).unwrap();
            let status = bound.recv().unwrap();
            let error = if status < 300 { String::new() } else { format!("the API answers {status}") };
            matches!(mood, Mood::Well).then(|| json!({"Error": error}))
        }
        _ => {
            let mut names: Vec<&str> = asked["NodeNames"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            names.sort_unstable();
            let last = names.pop().unwrap();
            let failed: serde_json::Map<String, Value> =
                names.iter().map(|name| ((*name).to_owned(), json!("no cards"))).collect();
            Some(json!({"NodeNames": [last], "FailedNodes": failed}))
        }
    }
}

fn serve(stream: TcpStream, mood: &Mutex<Mood>, orders: &Sender<Order>) {
    let mut stream = BufReader::new(stream);
    while let Some((verb, asked)) = request(&mut stream) {
        let mood = *mood.lock().unwrap();
        let Some(answer) = answer(mood, &verb, &asked, orders) else {
            // Until the other end has had enough.
            let _ = stream.read(&mut [0]);
            return;
        };
        let text = answer.to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.get_mut().write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

/// The extender, in the server's network. It binds by way of a thread in the test's.
fn extender(server: i32, kubeconfig: PathBuf, mood: Arc<Mutex<Mood>>) {
    let (orders, ordered) = mpsc::channel::<Order>();
    thread::spawn(move || {
        let api = Api::of_kubeconfig(&kubeconfig);
        for (asked, done) in ordered {
            let (namespace, name) = (asked["PodNamespace"].as_str().unwrap(), asked["PodName"].as_str().unwrap());
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "uid": asked["PodUID"]},
                "target": {"kind": "Node", "name": asked["Node"]}});
            let answer = api.post(&format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"), &binding);
            let _ = done.send(answer.status);
        }
    });
    drop(machine::in_network_of(server, move || {
        let listener = TcpListener::bind("127.0.0.1:9900").unwrap();
        for stream in listener.incoming().flatten() {
            let (mood, orders) = (mood.clone(), orders.clone());
            thread::spawn(move || serve(stream, &mood, &orders));
        }
    }));
}

fn wants_card(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: main, image: none,
        resources: {{requests: {{example.com/card: 1}}, limits: {{example.com/card: 1}}}}}}]}}}}"
    )
}

fn node_of(c: &Cluster, pod: &str) -> String {
    c.k(&format!("get pod {pod} -o jsonpath={{.spec.nodeName}}"))
}

/// Upstream's KubeSchedulerConfiguration: "Filter timeout fails the scheduling of the pod"; `managedResources`: "A pod will be sent to the extender on
/// the Filter, Prioritize and Bind (if the extender is the binder) phases iff the pod requests at least one of the extended resources in this list."
#[test]
fn an_extender_decides_about_its_pods_and_holds_up_no_others() {
    let mut c = Cluster::prepare(KNARR);
    let file = c.scratch().join("scheduler.yaml");
    std::fs::write(&file, CONFIGURATION).unwrap();
    c.start_server_with(&["--no-agent", "--hollow-nodes", "3", "--scheduler-config", file.to_str().unwrap()]);
    let names = || -> Vec<String> {
        let mut names: Vec<String> =
            c.k("get nodes -o jsonpath={.items[*].metadata.name}").split_whitespace().map(str::to_owned).collect();
        names.sort();
        names
    };
    let last = eventually("all nodes are registered", || (names().len() == 3).then(|| names().remove(2)));
    c.k("wait --for=condition=Ready node --all --timeout=30s");

    // Nobody is there yet.
    c.k_with("apply -f -", &wants_card("first"));
    c.told(
        "--field-selector involvedObject.name=first",
        &["FailedScheduling", "127.0.0.1:9900/cards/filter", "connect: connection refused"],
    );
    let reason = "get pod first -o jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    eventually("the condition says it", || (c.k(reason) == "SchedulerError").then_some(()));
    c.k("run plain --image=none");
    c.k("wait --for=jsonpath={.status.phase}=Running pod/plain --timeout=30s");

    // It comes: its pods go where it says, by its hand, though no node has the resource.
    let mood = Arc::new(Mutex::new(Mood::Well));
    extender(c.server_pid(), c.kubeconfig(), mood.clone());
    eventually("it decides", || (node_of(&c, "first") == last).then_some(()));
    c.told(
        "--field-selector involvedObject.name=first",
        &["Scheduled", &format!("Successfully assigned default/first to {last}")],
    );

    let set = |next: Mood| *mood.lock().unwrap() = next;
    set(Mood::Hanging);
    c.k_with("apply -f -", &wants_card("second"));
    c.k("create deployment plain --image=none --replicas=20");
    c.k("rollout status deployment/plain --timeout=30s");
    c.told("--field-selector involvedObject.name=second", &["context deadline exceeded"]);

    set(Mood::Lying);
    c.told("--field-selector involvedObject.name=second", &["claims a filtered node", "somewhere-else"]);
    assert_eq!(node_of(&c, "second"), "");

    // A binding whose answer never comes is one.
    set(Mood::Silent);
    eventually("it is bound", || (node_of(&c, "second") == last).then_some(()));
    set(Mood::Well);
    c.k_with("apply -f -", &wants_card("third"));
    eventually("it goes on", || (node_of(&c, "third") == last).then_some(()));
    assert_eq!(node_of(&c, "second"), last);
}

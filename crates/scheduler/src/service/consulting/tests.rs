#![allow(clippy::unwrap_used)]
//! Against a server that answers, and does not, over real connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use base::tls::{Authority, Request as CertificateRequest, Resolver, Verifier};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::Api;
use client::Informers;
use client::fake::Fake;
use client::kube::api::PostParams;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Binding, Event, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::configuration::Configuration;
use crate::extenders::call::Extender;
use crate::testing::{node, pod};

/// What an extender answers to a verb and a body: a status and a text; it hangs while the future does.
type Answers = Arc<dyn Fn(&str, Value) -> BoxFuture<'static, (u16, String)> + Send + Sync>;

/// Serves answers and keeps what was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    tasks: Tasks,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>, answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tasks, _) = Tasks::root();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Self { address: listener.local_addr().unwrap(), asked: asked.clone(), tasks: tasks.clone() };
        let connections = tasks.clone();
        tasks.spawn_until_cancelled("an extender", OnFailure::Log, async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, asked, tls) = (answers.clone(), asked.clone(), tls.clone());
                connections.spawn_until_cancelled("a connection", OnFailure::Log, async move {
                    let service = hyper::service::service_fn(move |request| answer(request, answers.clone(), asked.clone()));
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                    Ok::<_, std::convert::Infallible>(())
                });
            }
            Ok::<_, std::convert::Infallible>(())
        });
        server
    }

    fn asked(&self, verb: &str) -> Vec<Value> {
        self.asked.lock().iter().filter(|(one, _)| one == verb).map(|(_, body)| body.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let verb = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap();
    asked.lock().push((verb.clone(), body.clone()));
    let (status, text) = answers(&verb, body).await;
    Ok(Response::builder().status(status).body(Full::from(text)).unwrap())
}

fn answers(answers: impl Fn(&str, &Value) -> Option<Value> + Send + Sync + 'static) -> Answers {
    Arc::new(move |verb, body| {
        let answer = answers(verb, &body);
        Box::pin(async move {
            match answer {
                Some(answer) => (200, answer.to_string()),
                None => std::future::pending().await,
            }
        })
    })
}

/// A scheduler with these extenders, as their file says it.
fn start(fake: &Fake, extenders: &Value) -> (Tasks, base::tasks::Failures) {
    let file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 1, "extenders": extenders});
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scheduler.yaml");
    std::fs::write(&path, file.to_string()).unwrap();
    let configuration = Configuration::read(&path).unwrap();
    let (tasks, failures) = Tasks::root();
    let informers = Informers::new(fake.client(), tasks.clone());
    let options = crate::Options { informers, client: fake.client(), configuration };
    crate::run(&options, &tasks, Readiness::default().gate("scheduler"));
    (tasks, failures)
}

fn nodes(fake: &Fake, names: &[&str]) {
    for name in names {
        fake.put::<Node>(&node(
            name,
            json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "1", "a.b/gpu": "9"}}}),
        ));
    }
}

fn wants_gpu() -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"a.b/gpu": "1"}, "limits": {"a.b/gpu": "1"}}}]})
}

fn node_of<'a>(pods: &'a [Pod], name: &str) -> Option<&'a str> {
    let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name))?;
    pod.spec.as_ref()?.node_name.as_deref()
}

async fn told(fake: &Fake, text: &str) {
    let says = |event: &Event| event.message.as_deref().is_some_and(|message| message.contains(text));
    fake.until::<Event>(|events| events.iter().any(says)).await;
}

async fn bind(fake: &Fake, asked: &Value) {
    let api: Api<Pod> = Api::namespaced(fake.client(), asked["PodNamespace"].as_str().unwrap());
    let name = asked["PodName"].as_str().unwrap();
    let binding: Binding = serde_json::from_value(
        json!({"metadata": {"name": name, "uid": asked["PodUID"]}, "target": {"kind": "Node", "name": asked["Node"]}}),
    )
    .unwrap();
    api.create_subresource::<_, Status>("binding", name, &PostParams::default(), &binding).await.unwrap();
}

#[tokio::test]
async fn an_extender_filters_scores_and_binds() {
    let fake = Fake::default();
    nodes(&fake, &["a", "b", "c"]);
    let api = fake.clone();
    let server = Server::start(
        None,
        Arc::new(move |verb, body| {
            let (verb, api) = (verb.to_owned(), api.clone());
            Box::pin(async move {
                let text = match verb.as_str() {
                    "filter" => json!({"NodeNames": ["b", "c"], "FailedNodes": {"a": "too far"}}),
                    "prioritize" => json!([{"Host": "c", "Score": 10}, {"Host": "nowhere", "Score": 1_000_000}]),
                    _ => {
                        bind(&api, &body).await;
                        json!({})
                    }
                };
                (200, text.to_string())
            })
        }),
    )
    .await;
    let url = format!("http://{}/x", server.address);
    let (_tasks, _failures) = start(
        &fake,
        &json!([{"urlPrefix": url, "filterVerb": "filter", "prioritizeVerb": "prioritize", "weight": 5,
        "bindVerb": "bind", "nodeCacheCapable": true}]),
    );
    fake.put(&pod("p", json!({})));
    fake.until::<Pod>(|pods| node_of(pods, "p") == Some("c")).await;
    told(&fake, "Successfully assigned a/p to c").await;
    let asked = &server.asked("filter")[0];
    assert_eq!((asked["Pod"]["metadata"]["name"].as_str(), asked["NodeNames"].as_array().unwrap().len()), (Some("p"), 3));
    assert_eq!(server.asked("bind"), [json!({"PodName": "p", "PodNamespace": "a", "PodUID": "p", "Node": "c"})]);
}

/// `FailedNodes` are reasons like those of plugins.
#[tokio::test]
async fn whole_nodes_are_sent_and_refusals_are_told() {
    let fake = Fake::default();
    nodes(&fake, &["a", "b"]);
    let server = Server::start(
        None,
        answers(|_, _| Some(json!({"Nodes": {"items": []}, "FailedNodes": {"a": "too far", "b": "too far"}}))),
    )
    .await;
    let url = format!("http://{}", server.address);
    let (_tasks, _failures) = start(&fake, &json!([{"urlPrefix": url, "filterVerb": "filter"}]));
    fake.put(&pod("p", json!({})));
    told(&fake, "0/2 nodes are available: 2 too far.").await;
    let asked = &server.asked("filter")[0];
    let sent: Vec<&Value> =
        asked["Nodes"]["items"].as_array().unwrap().iter().map(|node| &node["status"]["allocatable"]["cpu"]).collect();
    assert_eq!((sent, &asked["NodeNames"]), (vec![&json!("1"), &json!("1")], &Value::Null));
}

/// Who hangs, breaks or lies keeps back the pods that it is there for, with a reason, and no others; who may fail is passed over.
#[tokio::test]
async fn one_that_fails_holds_up_its_own_pods_only() {
    let fake = Fake::default();
    nodes(&fake, &["a", "b", "c"]);
    let server = Server::start(
        None,
        Arc::new(|verb, _| {
            let answer = match verb {
                "hang" => None,
                "broken" => Some((500, String::new())),
                "garbage" => Some((200, "<html>".to_owned())),
                _ => Some((200, json!({"NodeNames": ["mine"]}).to_string())),
            };
            Box::pin(async move {
                match answer {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            })
        }),
    )
    .await;
    let url = format!("http://{}", server.address);
    let one = |verb: &str, resource: &str, ignorable: bool| {
        json!({"urlPrefix": url, "filterVerb": verb, "prioritizeVerb": verb, "weight": 1, "ignorable": ignorable, "httpTimeout": "50ms",
            "managedResources": [{"name": resource, "ignoredByScheduler": true}]})
    };
    let (_tasks, _failures) = start(
        &fake,
        &json!([
            {"urlPrefix": url, "filterVerb": "hang", "httpTimeout": "1h", "managedResources": [{"name": "a.b/gpu"}]},
            one("hang", "a.b/late", false), one("broken", "a.b/broken", false), one("garbage", "a.b/garbage", false), one("lie", "a.b/lie", false),
            one("hang", "a.b/may-be-late", true), one("lie", "a.b/may-lie", true),
            {"urlPrefix": "http://127.0.0.1:1", "filterVerb": "f", "managedResources": [{"name": "a.b/gone", "ignoredByScheduler": true}]},
        ]),
    );
    fake.put(&pod("hangs", wants_gpu()));
    fake.put(&pod("waits", wants_gpu()));
    let asking = |name: &str| json!({"containers": [{"name": "c", "resources": {"requests": {(format!("a.b/{name}")): "1"}}}]});
    for (name, text) in [
        ("late", "context deadline exceeded"),
        ("broken", "failed broken with extender at URL"),
        ("garbage", "its answer cannot be read"),
        ("lie", "it claims a filtered node \"mine\""),
        ("gone", "connect: connection refused"),
    ] {
        fake.put(&pod(name, asking(name)));
        told(&fake, text).await;
        let waits = |pod: &Pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
            pod.metadata.name.as_deref() == Some(name)
                && conditions.iter().any(|one| one.reason.as_deref() == Some("SchedulerError"))
        };
        fake.until::<Pod>(|pods| pods.iter().any(waits)).await;
    }
    fake.put(&pod("plain", json!({})));
    fake.put(&pod("may-be-late", asking("may-be-late")));
    fake.put(&pod("may-lie", asking("may-lie")));
    let all = ["plain", "may-be-late", "may-lie"];
    fake.until::<Pod>(|pods| all.iter().all(|name| node_of(pods, name).is_some())).await;
    let gpu = server.asked("hang").iter().filter(|asked| asked["Pod"]["spec"].to_string().contains("a.b/gpu")).count();
    assert_eq!((gpu, node_of(&fake.all::<Pod>(), "hangs")), (1, None), "an extender is asked for one pod at a time");
}

/// An extender that has bound a pod and dies before it says so has bound it.
#[tokio::test]
async fn a_binding_whose_answer_is_lost_is_one() {
    let fake = Fake::default();
    nodes(&fake, &["a"]);
    let api = fake.clone();
    let server = Server::start(
        None,
        Arc::new(move |_, body| {
            let api = api.clone();
            Box::pin(async move {
                bind(&api, &body).await;
                std::future::pending().await
            })
        }),
    )
    .await;
    let url = format!("http://{}", server.address);
    let (_tasks, _failures) = start(
        &fake,
        &json!([{"urlPrefix": url, "bindVerb": "bind", "httpTimeout": "1h", "managedResources": [{"name": "a.b/gpu"}]}]),
    );
    fake.put(&pod("p", wants_gpu()));
    fake.until::<Pod>(|pods| node_of(pods, "p") == Some("a")).await;
    // Its room is taken, though nobody has answered.
    fake.put(&pod("next", json!({})));
    told(&fake, "0/1 nodes are available: 1 Too many pods").await;
    server.tasks.token().cancel();
    fake.put(&pod("last", json!({})));
    fake.until::<Event>(|events| events.iter().any(|event| event.involved_object.name.as_deref() == Some("last"))).await;
    let pods = fake.all::<Pod>();
    assert_eq!((server.asked("bind").len(), node_of(&pods, "next"), node_of(&pods, "last")), (1, None, None));
}

/// A binding that fails, and one that an extender which may fail leaves to the scheduler.
#[tokio::test]
async fn bindings_that_an_extender_refuses() {
    let fake = Fake::default();
    nodes(&fake, &["a", "b"]);
    let server = Server::start(None, answers(|_, _| Some(json!({"Error": "no card is left"})))).await;
    let url = format!("http://{}", server.address);
    let binder = |ignorable: bool| json!([{"urlPrefix": url, "bindVerb": "bind", "ignorable": ignorable}]);
    let (tasks, _failures) = start(&fake, &binder(false));
    fake.put(&pod("p", json!({})));
    told(&fake, "no card is left").await;
    assert_eq!(node_of(&fake.all::<Pod>(), "p"), None);
    tasks.token().cancel();
    let (_tasks, _failures) = start(&fake, &binder(true));
    fake.until::<Pod>(|pods| node_of(pods, "p").is_some()).await;
}

/// Upstream, preemption.go: "Interact with registered Extenders to filter out some candidates if needed."
#[tokio::test]
async fn an_extender_says_where_room_may_be_made() {
    let fake = Fake::default();
    nodes(&fake, &["n", "m"]);
    fake.put(&pod("on-n", json!({"nodeName": "n"})));
    fake.put(&pod("on-m", json!({"nodeName": "m"})));
    let server = Server::start(
        None,
        answers(|_, body| {
            let named = |node: &str| body["NodeNameToVictims"][node]["Pods"][0]["metadata"]["uid"].clone();
            assert_eq!(named("n"), "on-n");
            let uid = if body["Pod"]["metadata"]["name"] == "lied-about" { json!("on-n") } else { named("m") };
            Some(json!({"NodeNameToMetaVictims": {"m": {"Pods": [{"UID": uid}]}}}))
        }),
    )
    .await;
    let url = format!("http://{}", server.address);
    let (_tasks, _failures) = start(&fake, &json!([{"urlPrefix": url, "preemptVerb": "preempt"}]));
    fake.put(&pod("lied-about", json!({"priority": 1000})));
    told(&fake, "it claims to preempt pod (UID: on-n) on node: m, but the pod is not found on that node").await;
    fake.put(&pod("high", json!({"priority": 2000})));
    fake.until::<Pod>(|pods| {
        node_of(pods, "high") == Some("m") && node_of(pods, "on-n") == Some("n") && node_of(pods, "on-m").is_none()
    })
    .await;
}

#[tokio::test]
async fn certificates_are_looked_at_on_both_sides() {
    let authority = Arc::new(Authority::in_memory("extenders").unwrap());
    let server = CertificateRequest::Server { name: "e".into(), sans: vec!["extender.example.com".into()] };
    let (resolver, verifier) = (Resolver::memory(authority.clone(), server).unwrap(), Verifier::new(authority.bundle()).unwrap());
    let acceptor = TlsAcceptor::from(base::tls::server(resolver, Some(verifier)).unwrap());
    let server = Server::start(Some(acceptor), answers(|_, _| Some(json!({"fine": true})))).await;
    let client = authority.issue(&CertificateRequest::Client { user: "scheduler".into(), groups: vec![] }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    client.store(path("c.crt").as_ref(), path("c.key").as_ref()).unwrap();
    std::fs::write(path("ca.crt"), authority.bundle()).unwrap();
    let url = format!("https://{}", server.address);
    let check = async |tls: Value, enable: bool, expected: &str| {
        let value = json!({"urlPrefix": url, "enableHTTPS": enable, "tlsConfig": tls});
        let told = match Extender::new(serde_json::from_value(value).unwrap()) {
            Ok(extender) => match extender.post("filter", b"{}".to_vec()).await {
                Ok(answer) => String::from_utf8_lossy(&answer).into_owned(),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        assert!(told.contains(expected), "{tls}: {told}");
    };
    let fine = "{\"fine\":true}";
    let data = |text: &str| STANDARD.encode(text);
    check(json!({"caFile": path("ca.crt"), "serverName": "extender.example.com", "certFile": path("c.crt"), "keyFile": path("c.key")}), true, fine).await;
    check(json!({"caData": data(authority.bundle()), "caFile": "/nowhere", "serverName": "extender.example.com", "certData": data(&client.certificate),
        "keyData": data(&client.key)}), true, fine).await;
    check(json!({}), true, fine).await;
    check(json!({"insecure": true}), false, fine).await;
    check(json!({}), false, "certificate").await;
    check(json!({"caFile": path("ca.crt")}), true, "x509: certificate is valid for extender.example.com, not 127.0.0.1").await;
    check(json!({"caFile": path("none.crt")}), true, "No such file").await;
    check(json!({"caFile": path("ca.crt"), "insecure": true}), true, "not allowed").await;
    check(json!({"certFile": path("c.crt")}), true, "both a certificate and a key").await;
}

#[tokio::test]
async fn answers_have_a_largest_size_and_a_time() {
    let server = Server::start(
        None,
        Arc::new(|verb, _| {
            let large = verb == "large";
            Box::pin(async move { if large { (200, "x".repeat(5 << 20)) } else { std::future::pending().await } })
        }),
    )
    .await;
    let value = json!({"urlPrefix": format!("http://{}", server.address), "httpTimeout": "2s"});
    let extender = Extender::new(serde_json::from_value(value).unwrap()).unwrap();
    let error = extender.post("large", b"{}".to_vec()).await.unwrap_err().to_string();
    assert!(error.contains("is larger than 4194308 bytes"), "{error}");
    let started = tokio::time::Instant::now();
    assert!(extender.post("hang", b"{}".to_vec()).await.unwrap_err().to_string().contains("context deadline exceeded"));
    assert!(started.elapsed() >= Duration::from_secs(2));
}

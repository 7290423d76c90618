//! Admission webhooks: real servers, over TLS, that the API server calls.

mod hostile;
mod metadata;
mod mutating;
mod validating;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::Api;
use base::tasks::{OnFailure, Tasks};
use base::tls::{Authority, Request as Identity, Resolver};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::server::{Answer, Server, admin, namespace, start};

pub(crate) const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/ns/configmaps";

/// What a webhook does with a question.
pub(crate) enum Reply {
    /// Answers it: fields of the response besides its uid.
    Response(Value),
    /// Answers with this body.
    Raw(u16, String),
    /// Never answers.
    Hang,
    /// Sends bytes without an end.
    Endless,
}

type Behaviour = dyn Fn(&str, &Value) -> Reply + Send + Sync;

/// A server of webhooks: what is asked at a path is answered by a function.
#[derive(Clone)]
pub(crate) struct Hooks {
    authority: Arc<Authority>,
    port: u16,
    /// All questions so far, each with the path as `path`.
    pub(crate) asked: Arc<Mutex<Vec<Value>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

/// A body of zeros without an end.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[b'0'; 64 << 10])))))
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    hooks: Hooks,
    behaviour: Arc<Behaviour>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&review["kind"], &review["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    let mut question = review["request"].clone();
    let reply = behaviour(&path, &question);
    question["path"] = path.into();
    hooks.asked.lock().push(question);
    Ok(match reply {
        Reply::Response(mut response) => {
            response["uid"] = review["request"]["uid"].clone();
            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            Response::new(BodyExt::boxed(Full::from(review.to_string())))
        }
        Reply::Raw(code, body) => Response::builder().status(code).body(BodyExt::boxed(Full::from(body))).unwrap(),
        Reply::Hang => std::future::pending().await,
        Reply::Endless => Response::new(BodyExt::boxed(Endless)),
    })
}

impl Hooks {
    pub(crate) async fn serve(tasks: &Tasks, behaviour: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let authority = Arc::new(Authority::in_memory("hooks").unwrap());
        let identity = Identity::Server { name: "hook".into(), sans: vec!["127.0.0.1".into()] };
        let config = base::tls::server(Resolver::memory(authority.clone(), identity).unwrap(), None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hooks = Self { authority, port, asked: Arc::default(), connections: Arc::default() };
        let (own, acceptor) = (tasks.clone(), tokio_rustls::TlsAcceptor::from(config));
        let (served, behaviour): (_, Arc<Behaviour>) = (hooks.clone(), Arc::new(behaviour));
        tasks.spawn_until_cancelled("webhooks", OnFailure::Log, async move {
            loop {
                let stream = listener.accept().await?.0;
                served.connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, hooks, behaviour) = (acceptor.clone(), served.clone(), behaviour.clone());
                own.spawn_until_cancelled("connection", OnFailure::Log, async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return Ok(()) };
                    let service = hyper::service::service_fn(move |request| answer(request, hooks.clone(), behaviour.clone()));
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                    Ok::<_, Infallible>(())
                });
            }
            #[allow(unreachable_code)]
            Ok::<_, std::io::Error>(())
        });
        hooks
    }

    /// A webhook at this path, for these operations and resources of any group; fields of `change` are set besides.
    pub(crate) fn hook(&self, path: &str, operations: &[&str], resources: &[&str], change: Value) -> Value {
        let bundle = base64::engine::general_purpose::STANDARD.encode(self.authority.bundle());
        let mut hook = json!({
            "name": format!("{path}.webhook.example"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://127.0.0.1:{}/{path}", self.port), "caBundle": bundle},
            "rules": [{"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}],
        });
        change.as_object().into_iter().flatten().for_each(|(key, value)| hook[key] = value.clone());
        hook
    }

    /// The questions that came to a path.
    pub(crate) fn asked_at(&self, path: &str) -> Vec<Value> {
        self.asked.lock().iter().filter(|question| question["path"] == path).cloned().collect()
    }
}

/// A server with a namespace `ns`, and webhooks that behave so.
pub(crate) async fn with_hooks(behaviour: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> (Server, Hooks) {
    let server = start(true).await;
    namespace(&server.api, "ns").await;
    let hooks = Hooks::serve(&server.tasks, behaviour).await;
    (server, hooks)
}

/// The collection of a kind of configurations.
pub(crate) fn collection(kind: &str) -> String {
    format!("{GROUP}/{}s", kind.to_lowercase())
}

/// Registers webhooks under a name.
pub(crate) async fn register(api: &Api, kind: &str, name: &str, hooks: &[Value]) {
    let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "labels": {"of": "test"}}, "webhooks": hooks});
    send(api, 201, &format!("POST {}", collection(kind)), &object).await;
}

/// Sends a request and expects its code.
pub(crate) async fn send(api: &Api, code: u16, request: &str, body: &Value) -> Value {
    let answer = answer_of(api, request, body).await;
    assert_eq!(answer.code, code, "{request} {body}: {:?}", answer.body);
    answer.json()
}

pub(crate) async fn answer_of(api: &Api, request: &str, body: &Value) -> Answer {
    let content_type = if request.starts_with("PATCH ") { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    admin(api, &format!("{request}\ncontent-type: {content_type}\n\n{body}")).await
}

pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// A JSON patch as a response.
pub(crate) fn patch(operations: &Value) -> Reply {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    Reply::Response(json!({"allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

pub(crate) fn deny(message: &str) -> Reply {
    Reply::Response(json!({"allowed": false, "status": {"message": message, "code": 403, "reason": "Forbidden"}}))
}

pub(crate) fn allow() -> Reply {
    Reply::Response(json!({"allowed": true}))
}

pub(crate) const MUTATING: &str = "MutatingWebhookConfiguration";
pub(crate) const VALIDATING: &str = "ValidatingWebhookConfiguration";

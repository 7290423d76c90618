//! The kubelet's HTTPS endpoint, for the API server and for who has rights on the node's sub-resources.

mod access;
pub mod api;
mod auth;
mod cache;
mod configz;
mod health;
mod held;
mod node_logs;
pub mod query;
mod sharing;
pub mod stream;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apimachinery::Status;
use base::budgets::connections::Connections;
use base::budgets::descriptors;
use base::listen::{self, Listener};
use base::metrics::{Format, Page};
use base::patience::Patient;
use base::tasks::{OnFailure, Tasks};
use base::tls::Peer;
use base::unread::{self, Lent};
use base::zpages;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use prometheus_client::registry::Registry;
use runtime::api::ExecRequest;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use self::auth::Auth;
use self::held::{ClientLimits, Held};
use self::sharing::Question;
pub use api::{Api, ApiError};

use crate::options::Server;
use crate::stats;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Most connections at a time.
const CONNECTIONS: usize = 1024;
/// Where to look for what the kubelet is and does, as `/statusz` says.
pub const PLACES: &[&str] =
    &["/configz", "/flagz", "/healthz", "/metrics", "/metrics/cadvisor", "/metrics/probes", "/metrics/resource", "/statusz"];
/// Time for a handshake, and for the headers of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a layer may wait for another node that does not read. Who follows a log may look at a page for as long as he likes.
const WRITE: Duration = Duration::from_secs(60);

/// Serves on `listener` until cancelled.
pub async fn serve(server: Server, listener: Listener, api: Api, tasks: Tasks) -> Result<(), Infallible> {
    let all = descriptors::share(descriptors::limit(), descriptors::percent::KUBELET, CONNECTIONS);
    let limits = ClientLimits::new(all);
    let connections = Connections::new("kubelet_connections", limits.unproven());
    // Protocol upgrades need HTTP/1.1: nothing else is offered.
    let mut tls = rustls::ServerConfig::clone(&server.tls);
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let server = Arc::new(Server { tls: Arc::new(tls), ..server });
    let (client, node) = api.identity();
    let auth = Arc::new(Auth::new(client, node, server.callers.clone()));
    loop {
        let (stream, peer) = listen::accepted(|| listener.accept()).await;
        let Some(place) = connections.admit(peer.ip()).map(|place| Arc::new(limits.hold(place))) else { continue };
        let (server, api, auth, streams) = (server.clone(), api.clone(), auth.clone(), tasks.clone());
        tasks.spawn_until_cancelled("kubelet connection", OnFailure::Log, async move {
            let ended = place.place.ended().clone();
            let served = ended.run_until_cancelled(connection(&server, stream, api, auth, (streams, place))).await;
            if let Some(Err(error)) = served {
                tracing::debug!(error, "connection to the kubelet ended");
            }
            Ok::<_, Infallible>(())
        });
    }
}

async fn connection(
    server: &Server,
    stream: TcpStream,
    api: Api,
    auth: Arc<Auth>,
    (tasks, place): (Tasks, Arc<Held>),
) -> Result<(), String> {
    let acceptor = TlsAcceptor::from(server.tls.clone());
    let stream = tokio::time::timeout(PATIENCE, base::tls::accept(&acceptor, stream))
        .await
        .map_err(|_| "no handshake in time")?
        .map_err(|e| e.to_string())?;
    let peer = Arc::new(server.verifier.peer(stream.get_ref().1.peer_certificates()));
    let exempt = Arc::new(AtomicBool::new(true));
    let stream = Patient::new(stream, WRITE, exempt.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (api, tasks, auth, peer) = (api.clone(), tasks.clone(), auth.clone(), peer.clone());
        let place = place.clone();
        exempt.store(!sharing::is_for_nodes(request.uri().path()), Ordering::Relaxed);
        async move {
            let (request, rest) = unread::lend(request);
            let mut response = admitted(request, (&auth, &peer), place, api, tasks).await;
            rest.settle(&mut response).await;
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await.map_err(|error| error.to_string())
}

/// Answers whoever may ask.
async fn admitted(
    request: Request<Lent>,
    (auth, peer): (&Auth, &Peer),
    place: Arc<Held>,
    api: Api,
    tasks: Tasks,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if peer.credential().is_some_and(|credential| credential.has_ended(Timestamp::now())) {
        return last(StatusCode::UNAUTHORIZED, "Unauthorized: the certificate has ended");
    }
    match auth.check(peer, &parts).await {
        Err((status, why)) => text(status, why),
        Ok(client) if !place.prove(&client) => last(StatusCode::TOO_MANY_REQUESTS, "too many connections"),
        Ok(client) => {
            let mut request = Request::from_parts(parts, body);
            request.extensions_mut().insert(client);
            request.extensions_mut().insert(place);
            answer(request, api, tasks).await
        }
    }
}

/// A refusal with which the connection ends.
fn last(status: StatusCode, why: &'static str) -> Response<Body> {
    let mut refused = text(status, why);
    refused.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    refused
}

fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn failure(error: &ApiError) -> Response<Body> {
    text(error.status(), error.to_string())
}

/// Where a request leads.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Route {
    Healthz(Option<health::Check>),
    Pods,
    RunningPods,
    Configz,
    Zpage(zpages::Page),
    Metrics,
    /// What probes found.
    Probes,
    Usage(Usage),
    /// Of the node itself: a path below its log directory.
    NodeLogs(String),
    Logs {
        namespace: String,
        pod: String,
        container: String,
    },
    Exec {
        attach: bool,
        namespace: String,
        pod: String,
        container: String,
    },
    PortForward {
        namespace: String,
        pod: String,
    },
    Checkpoint {
        namespace: String,
        pod: String,
        container: String,
    },
    /// Of other nodes.
    Shared(Question),
    /// Of the provisioner of local volumes.
    Volume {
        name: String,
    },
}

/// The forms in which the kubelet says what pods use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    Summary,
    Resource,
    Cadvisor,
}

/// Finds the route; a UID between pod and container is taken as upstream takes it.
fn route(path: &str) -> Option<Route> {
    if let Some(below) = path.trim_start_matches('/').strip_prefix("logs") {
        return match below {
            "" => Some(Route::NodeLogs(String::new())),
            _ => below.strip_prefix('/').map(|path| Route::NodeLogs(path.to_owned())),
        };
    }
    let parts: Vec<String> = path.trim_matches('/').split('/').map(str::to_owned).collect();
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    let own = |word: &str| word.to_owned();
    Some(match words.as_slice() {
        ["healthz"] => Route::Healthz(None),
        ["healthz", name] => Route::Healthz(Some(health::Check::named(name)?)),
        ["pods"] => Route::Pods,
        ["runningpods"] => Route::RunningPods,
        ["configz"] => Route::Configz,
        ["statusz" | "flagz"] => Route::Zpage(zpages::Page::at(path.trim_end_matches('/'))?),
        ["metrics"] => Route::Metrics,
        ["metrics", "probes"] => Route::Probes,
        ["metrics", "resource"] => Route::Usage(Usage::Resource),
        ["metrics", "cadvisor"] => Route::Usage(Usage::Cadvisor),
        ["stats", "summary"] => Route::Usage(Usage::Summary),
        ["knarr", "images", rest @ ..] => Route::Shared(sharing::question(rest)?),
        ["knarr", "volumes", name] => Route::Volume { name: own(name) },
        ["containerLogs", namespace, pod, container] => {
            Route::Logs { namespace: own(namespace), pod: own(pod), container: own(container) }
        }
        [verb @ ("exec" | "attach"), namespace, pod, container] | [verb @ ("exec" | "attach"), namespace, pod, _, container] => {
            Route::Exec { attach: *verb == "attach", namespace: own(namespace), pod: own(pod), container: own(container) }
        }
        ["checkpoint", namespace, pod, container] => {
            Route::Checkpoint { namespace: own(namespace), pod: own(pod), container: own(container) }
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
            Route::PortForward { namespace: own(namespace), pod: own(pod) }
        }
        _ => return None,
    })
}

fn accepted(request: &Request<Lent>) -> &str {
    request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A page of the node, with what it tells of the present.
fn metrics(request: &Request<Lent>, page: Page, present: &Registry) -> Response<Body> {
    let format = Format::accepted(accepted(request));
    let mut response = text(StatusCode::OK, page.encode_with(format, present));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(format.media_type()));
    response
}

async fn answer(request: Request<Lent>, api: Api, tasks: Tasks) -> Response<Body> {
    let Some(route) = route(request.uri().path()) else { return text(StatusCode::NOT_FOUND, "404 page not found") };
    if let Route::Volume { name } = route {
        return volume(request.method(), &api, &name).await;
    }
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are served");
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    match route {
        Route::Healthz(check) => health::answer(&api, check, &query).await,
        Route::Metrics => match api.state().await {
            Ok(state) => {
                let mut present = Registry::default();
                present.register_collector(Box::new(state));
                metrics(&request, Page::Node, &present)
            }
            Err(error) => failure(&error),
        },
        Route::Probes => metrics(&request, Page::Probes, &Registry::default()),
        Route::Pods => pods(&api.pods()),
        Route::RunningPods => match api.running_pods().await {
            Ok(pods) => document("application/json", list(&pods).to_string()),
            Err(error) => failure(&error),
        },
        Route::Configz => document("application/json", configz::document(api.options()).to_string()),
        Route::Zpage(page) => zpage(&request, &api, page),
        Route::Usage(form) => usage(&api, form, &query).await,
        Route::NodeLogs(_) if request.method() != Method::GET => text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served"),
        Route::NodeLogs(path) => {
            let query = api.options().node_log_query.then_some(query.as_str());
            node_logs::answer(api.options().node_logs_dir.clone(), &path, request.headers(), query).await
        }
        Route::Logs { namespace, pod, container } => {
            let options = match query::log_options(&query, Timestamp::now()) {
                Ok(options) => options,
                Err(why) => return text(StatusCode::BAD_REQUEST, why),
            };
            match api.logs(&namespace, &pod, &container, options).await {
                Ok(stream) => Response::new(StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync()),
                Err(error) => failure(&error),
            }
        }
        Route::Exec { attach, namespace, pod, container } => {
            exec(request, api, tasks, &query, (attach, namespace, pod, container)).await
        }
        Route::Checkpoint { .. } if request.method() != Method::POST => {
            text(StatusCode::METHOD_NOT_ALLOWED, "only POST is served")
        }
        Route::Checkpoint { namespace, pod, container } => {
            let timeout = query::pairs(&query).filter(|(name, _)| name == "timeout").last().map(|(_, value)| value);
            failure(&api.no_checkpoint((&namespace, &pod, &container), timeout.as_deref()))
        }
        Route::PortForward { namespace, pod } => port_forward(request, api, tasks, namespace, pod),
        Route::Shared(question) => match api.serving() {
            Some((serving, cx)) => serving.answer(cx, question, request, &tasks).await,
            None => text(StatusCode::NOT_FOUND, "this node shares no images"),
        },
        Route::Volume { .. } => text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn zpage(request: &Request<Lent>, api: &Api, page: zpages::Page) -> Response<Body> {
    match api.options().zpages.answer(page, accepted(request), Timestamp::now()) {
        Some((media_type, text)) => document(media_type, text),
        None => text(StatusCode::NOT_ACCEPTABLE, Status::not_acceptable(&zpages::ACCEPTED).message),
    }
}

/// PUT makes the directory of a volume, DELETE removes it.
async fn volume(method: &Method, api: &Api, name: &str) -> Response<Body> {
    let is_wanted = match *method {
        Method::PUT => true,
        Method::DELETE => false,
        _ => return text(StatusCode::METHOD_NOT_ALLOWED, "only PUT and DELETE are served"),
    };
    match api.keep_volume(name, is_wanted).await {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(error) => failure(&error),
    }
}

fn pods(pods: &[Arc<Pod>]) -> Response<Body> {
    let items: Vec<&Pod> = pods.iter().map(Arc::as_ref).collect();
    document("application/json", list(&items).to_string())
}

fn list(items: &[impl Serialize]) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

fn document(media_type: &'static str, body: String) -> Response<Body> {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    response
}

/// What the node and its pods use now.
async fn usage(api: &Api, form: Usage, query: &str) -> Response<Body> {
    let page = |text| document(Format::Text.media_type(), text);
    let answer = match form {
        Usage::Summary => {
            let short = query::pairs(query).any(|(name, value)| name == "only_cpu_and_memory" && value == "true");
            api.summary(short).await.map(|summary| document("application/json", summary.to_string()))
        }
        Usage::Resource => api.usage().await.map(|snapshot| page(stats::resource(&snapshot))),
        Usage::Cadvisor => api.cadvisor().await.map(page),
    };
    answer.unwrap_or_else(|error| failure(&error))
}

async fn exec(
    mut request: Request<Lent>,
    api: Api,
    tasks: Tasks,
    query: &str,
    (attach, namespace, pod, container): (bool, String, String, String),
) -> Response<Body> {
    let wanted = streaming::exec::Streams::from_query(query);
    let ask = ExecRequest {
        command: query::command(query),
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    if !attach && ask.command.is_empty() {
        return text(StatusCode::BAD_REQUEST, "a command is required");
    }
    if let Err(error) = api.check_running(&namespace, &pod, &container).await {
        return failure(&error);
    }
    let (response, session) = match streaming::exec::accept(&mut request, wanted, &tasks) {
        Ok(accepted) => accepted,
        Err(refusal) => return text(refusal.status, refusal.message),
    };
    let name = format!("{} in {namespace}/{pod}/{container}", if attach { "attach" } else { "exec" });
    tasks.spawn_until_cancelled(name, OnFailure::Log, async move {
        let session = session.await?;
        let streams = if attach {
            api.attach(&namespace, &pod, &container, ask).await
        } else {
            api.exec(&namespace, &pod, &container, ask).await
        };
        stream::join(session, streams, attach).await;
        Ok::<_, streaming::Error>(())
    });
    upgraded(response)
}

fn port_forward(mut request: Request<Lent>, api: Api, tasks: Tasks, namespace: String, pod: String) -> Response<Body> {
    if let Err(error) = api.check_pod(&namespace, &pod) {
        return failure(&error);
    }
    let (response, mut connections) = match streaming::portforward::accept(&mut request, &tasks) {
        Ok(accepted) => accepted,
        Err(refusal) => return text(refusal.status, refusal.message),
    };
    let group = tasks.clone();
    tasks.spawn_until_cancelled(format!("port-forward to {namespace}/{pod}"), OnFailure::Log, async move {
        while let Some(connection) = connections.recv().await {
            let work = stream::forward(api.clone(), namespace.clone(), pod.clone(), connection);
            group.spawn_until_cancelled("forwarded connection", OnFailure::Log, async move {
                work.await;
                Ok::<_, Infallible>(())
            });
        }
        Ok::<_, Infallible>(())
    });
    upgraded(response)
}

fn upgraded(response: Response<()>) -> Response<Body> {
    response.map(|()| Full::default().map_err(|never| match never {}).boxed_unsync())
}

#[cfg(test)]
mod tests;

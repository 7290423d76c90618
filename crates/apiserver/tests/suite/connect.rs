//! exec and logs through the API server to a kubelet, over TLS on both legs.

use std::net::SocketAddr;
use std::sync::Arc;

use base::tasks::{OnFailure, Tasks};
use base::tls::{Authority, Request as Identity, Resolver};
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use registry::User;
use serde_json::{Value, json};
use streaming::exec::{self, Outcome, Streams};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::Service as _;

use crate::server::{admin, config_map, grant, start};

/// Answers logs with the request's path, and exec with the command's query.
async fn kubelet(
    mut request: Request<hyper::body::Incoming>,
    tasks: Tasks,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().to_string();
    if path.starts_with("/containerLogs/") {
        return Ok(Response::new(Full::new(path.into())));
    }
    if path == "/metrics/resource" {
        return Ok(Response::new(Full::new(resource_metrics().into())));
    }
    let streams = Streams::from_query(request.uri().query().unwrap_or_default());
    let (response, session) = exec::accept(&mut request, streams, &tasks).unwrap();
    tasks.spawn("session", OnFailure::Log, async move {
        let mut session = session.await?;
        session.stdout.take().unwrap().write_all(path.as_bytes()).await?;
        session.finisher.finish(Outcome::Exit(7));
        Ok::<_, streaming::Error>(())
    });
    Ok(response.map(|()| Full::default()))
}

/// A node on which half a core is used, all of it by the container `c` of the pod `ns/busy`.
fn resource_metrics() -> String {
    let now = jiff::Timestamp::now();
    let (used, millis) = (now.as_duration().as_secs_f64() / 2.0, now.as_millisecond());
    let labels = "{container=\"c\",namespace=\"ns\",pod=\"busy\"}";
    format!(
        "node_cpu_usage_seconds_total {used} {millis}\nnode_memory_working_set_bytes 1048576 {millis}\n\
         container_cpu_usage_seconds_total{labels} {used} {millis}\n\
         container_memory_working_set_bytes{labels} 2048 {millis}\ncontainer_start_time_seconds{labels} 0\n"
    )
}

/// Listens with a certificate for 127.0.0.1.
pub(crate) async fn serve_kubelet(authority: &Arc<Authority>, tasks: &Tasks) -> SocketAddr {
    let request = Identity::Server { name: "node".into(), sans: vec!["127.0.0.1".into()] };
    let config = base::tls::server(Resolver::memory(authority.clone(), request).unwrap(), None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    let own = tasks.clone();
    tasks.spawn_until_cancelled("kubelet", OnFailure::Log, async move {
        loop {
            let stream = acceptor.accept(listener.accept().await?.0).await?;
            let tasks = own.clone();
            let service = hyper::service::service_fn(move |request| kubelet(request, tasks.clone()));
            own.spawn_until_cancelled("connection", OnFailure::Log, async move {
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await
            });
        }
        #[allow(unreachable_code)]
        Ok::<_, std::io::Error>(())
    });
    address
}

async fn create(service: &apiserver::Api, path: &str, object: Value) {
    let request = Request::post(path).body(Full::new(Bytes::from(object.to_string()))).unwrap();
    let user = User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() };
    let response = service.as_user(user).call(request).await.unwrap();
    let (code, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
    assert_eq!(code, 201, "{body:?}");
}

async fn connect(
    authority: &Arc<Authority>,
    address: SocketAddr,
    is_admin: bool,
) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {
    let identity = Identity::Client { user: "admin".into(), groups: vec!["system:masters".into()] };
    let resolver = is_admin.then(|| Resolver::memory(authority.clone(), identity).unwrap());
    let config = base::tls::client(authority.bundle(), resolver).unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await.unwrap()).await.unwrap()
}

/// Sends a request and reads until `end` has come.
async fn talk(authority: &Arc<Authority>, address: SocketAddr, request: &str, end: &str) -> String {
    talk_over(connect(authority, address, true).await, request, end).await
}

async fn talk_over(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, request: &str, end: &str) -> String {
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let mut received = Vec::new();
    while stream.read_buf(&mut received).await.unwrap() > 0 {
        if String::from_utf8_lossy(&received).contains(end) {
            break;
        }
    }
    String::from_utf8_lossy(&received).into_owned()
}

#[tokio::test]
async fn exec_and_logs() {
    let mut server = start(false).await;
    let (tasks, authority) = (server.tasks.clone(), server.authority.clone());
    let service = server.service.take().unwrap();
    let handle = service.handle().unwrap();
    let own = tasks.clone();
    tasks.spawn("apiserver", OnFailure::Log, async move { service.run(own).await });
    let node = serve_kubelet(&authority, &tasks).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}, "status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": node.port()}}}});
    create(&handle.api, "/api/v1/nodes", node).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(&handle.api, "/api/v1/namespaces/default/serviceaccounts", account).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": "node", "containers": [{"name": "c", "image": "i"}]}});
    create(&handle.api, "/api/v1/namespaces/default/pods", pod).await;

    let base = "/api/v1/namespaces/default/pods/p";
    let log = talk(&authority, handle.address, &format!("GET {base}/log?tailLines=5 HTTP/1.1\nhost: x\n\n"), "tailLines=5").await;
    assert!(log.ends_with("/containerLogs/default/p/c?tailLines=5"), "{log}");
    let upgrade = "connection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-protocol: v5.channel.k8s.io";
    let exec = format!("GET {base}/exec?command=a%20b&stdout=true HTTP/1.1\nhost: x\n{upgrade}\n\n");
    let answer = talk(&authority, handle.address, &exec, r#""message":"7""#).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("/exec/default/p/c?output=1&command=a%20b"), "{answer}");
    assert!(answer.contains(r#""reason":"NonZeroExitCode""#), "{answer}");
    let plain =
        talk(&authority, handle.address, &format!("GET {base}/exec?command=a&stdout=true HTTP/1.1\nhost: x\n\n"), "required")
            .await;
    assert!(plain.contains("Upgrade request required"), "{plain}");
    assert!(tasks.drain(std::time::Duration::from_secs(60)).await);
}

/// Dashboards watch over WebSocket, with their token as a subprotocol: a message for each event
/// (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`).
#[tokio::test]
async fn watches_of_browsers() {
    let mut server = start(true).await;
    let (tasks, authority) = (server.tasks.clone(), server.authority.clone());
    let service = server.service.take().unwrap();
    let handle = service.handle().unwrap();
    let own = tasks.clone();
    tasks.spawn("apiserver", OnFailure::Log, async move { service.run(own).await });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(&handle.api, "/api/v1/namespaces/default/serviceaccounts", account).await;
    create(&handle.api, "/api/v1/namespaces/default/configmaps", config_map("seen")).await;

    let path = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1";
    let upgrade =
        "connection: Upgrade\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    let watch = format!("GET {path} HTTP/1.1\nhost: x\n{upgrade}\n\n");
    let answer = talk(&authority, handle.address, &watch, r#""name":"seen""#).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(!answer.contains("sec-websocket-protocol"), "{answer}");
    // The frame of a text says so in its first byte.
    assert!(answer.contains(r#"{"type":"ADDED","object":{"#) && !answer.contains("transfer-encoding"), "{answer}");

    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let issued = admin(&handle.api, &format!("POST /api/v1/namespaces/default/serviceaccounts/default/token\n\n{request}")).await;
    let token = issued.json()["status"]["token"].as_str().unwrap().to_owned();
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["watch"]}]);
    let user = "system:serviceaccount:default:default";
    grant(&handle.api, user, rules, &format!("GET {path}&resourceVersion=1")).await;
    let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&token);
    let ask = async |protocols: &str| {
        let watch = format!("GET {path} HTTP/1.1\nhost: x\norigin: http://x\n{upgrade}\n{protocols}\n\n");
        talk_over(connect(&authority, handle.address, false).await, &watch, "\r\n\r\n").await
    };
    let good =
        ask(&format!("sec-websocket-protocol: base64.binary.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}")).await;
    assert!(good.starts_with("HTTP/1.1 101") && good.contains("sec-websocket-protocol: base64.binary.k8s.io\r\n"), "{good}");
    let alone = ask(&format!("sec-websocket-protocol: base64url.bearer.authorization.k8s.io.{encoded}")).await;
    assert!(alone.starts_with("HTTP/1.1 401"), "{alone}");
    assert!(ask("sec-websocket-protocol: base64.binary.k8s.io").await.starts_with("HTTP/1.1 403"));
    assert!(tasks.drain(std::time::Duration::from_secs(60)).await);
}

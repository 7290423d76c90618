//! Many clients at once over TLS, each on a connection that it keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use base::tasks::Tasks;
use bytes::Bytes;
use futures::future::try_join_all;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;

use crate::api::Endpoint;

/// Connections of the load generator.
pub const CLIENTS: usize = 64;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Creates ConfigMaps of 2 KB for so long; how many a second.
///
/// # Errors
/// When the server refuses one.
pub async fn creates(endpoint: &Endpoint, time: Duration) -> Result<f64> {
    let data = "x".repeat(2048);
    let request = move |number: u64| {
        let object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("load-{number}")}, "data": {"d": data}});
        (Method::POST, MAPS.to_owned(), Bytes::from(object.to_string()))
    };
    Ok(run(endpoint, CLIENTS, time, Arc::new(request)).await?.0)
}

/// Gets objects that `creates` made; how many a second.
///
/// # Errors
/// When the server refuses one.
pub async fn gets(endpoint: &Endpoint, time: Duration) -> Result<f64> {
    let request = |number: u64| (Method::GET, format!("{MAPS}/load-{}", number % 1000), Bytes::new());
    Ok(run(endpoint, CLIENTS, time, Arc::new(request)).await?.0)
}

/// Lists 3,000 objects that `creates` made with two clients; bytes a second.
///
/// # Errors
/// When the server refuses one.
pub async fn lists(endpoint: &Endpoint, time: Duration) -> Result<f64> {
    let request = |_| (Method::GET, format!("{MAPS}?limit=3000"), Bytes::new());
    Ok(run(endpoint, 2, time, Arc::new(request)).await?.1)
}

type Make = dyn Fn(u64) -> (Method, String, Bytes) + Send + Sync;

/// Requests and bytes a second.
async fn run(endpoint: &Endpoint, clients: usize, time: Duration, make: Arc<Make>) -> Result<(f64, f64)> {
    let (tasks, _failures) = Tasks::root();
    let (next, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let connections = try_join_all((0..clients).map(|_| endpoint.connect(&tasks))).await?;
    let start = Instant::now();
    let client = |mut connection: hyper::client::conn::http1::SendRequest<Full<Bytes>>| {
        let (next, bytes, make) = (&next, &bytes, &make);
        async move {
            while start.elapsed() < time {
                let (method, path, body) = make(next.fetch_add(1, Ordering::Relaxed));
                let request = Request::builder()
                    .method(method)
                    .uri(path)
                    .header("host", "knarr")
                    .header("content-type", "application/json");
                connection.ready().await?;
                let answer = connection.send_request(request.body(Full::new(body))?).await?;
                let status = answer.status();
                let mut body = answer.into_body();
                while let Some(frame) = body.frame().await {
                    let length = frame?.data_ref().map_or(0, Bytes::len);
                    bytes.fetch_add(length as u64, Ordering::Relaxed);
                }
                if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
                    bail!("the server answered {status}");
                }
            }
            Ok(())
        }
    };
    try_join_all(connections.into_iter().map(client)).await?;
    let seconds = start.elapsed().as_secs_f64();
    tasks.drain(Duration::from_secs(1)).await;
    Ok((next.into_inner() as f64 / seconds, bytes.into_inner() as f64 / seconds))
}

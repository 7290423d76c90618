//! Whether another API server answers, and what it serves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::ACCEPT;
use http_body_util::Full;
use registry::{Registry, Remote};
use serde_json::{Map, Value, json};

use super::Servers;
use crate::remote::{Error, Limits};

/// Upstream's time for a server to tell its resources.
const TIME: Duration = Duration::from_secs(5);
/// The largest list of resources, and the largest OpenAPI document.
const LIST: usize = 4 << 20;
const DOCUMENT: usize = 16 << 20;

/// What is found: a condition `Available`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) available: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Found {
    fn missing(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }
}

/// Asks a server for the resources of its group version.
pub(super) async fn resources(registry: &Registry, servers: &Servers, remote: &Remote) -> (Found, Option<Value>) {
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let endpoint = servers.endpoint(remote);
    let url = format!("https://{}{path}", endpoint.target().authority());
    let failed = |why: String| {
        let message = format!("failing or missing response from {url}: {why}");
        (Found::missing("FailedDiscoveryCheck", message), None)
    };
    let answer = match get(registry, &endpoint, &path, LIST).await {
        Ok(answer) => answer,
        Err(error) => {
            return explain(&error, remote).map_or_else(|| failed(format!("Get \"{url}\": {error}")), |found| (found, None));
        }
    };
    // Who may not look has answered.
    if !answer.status().is_success() && !matches!(answer.status().as_u16(), 401 | 403) {
        return failed(format!("bad status from {url}: {}", answer.status().as_u16()));
    }
    let list = serde_json::from_slice(answer.body()).ok().filter(|list: &Value| list["resources"].is_array());
    (Found { available: true, reason: "Passed", message: "all checks passed".to_owned() }, list)
}

/// What it adds to the OpenAPI document of version 2; nothing when it has none.
pub(super) async fn openapi(registry: &Registry, servers: &Servers, remote: &Remote) -> Option<Value> {
    let answer = get(registry, &servers.endpoint(remote), "/openapi/v2", DOCUMENT).await.ok()?;
    let document: Value = serde_json::from_slice(answer.body()).ok().filter(|_| answer.status().is_success())?;
    let own = format!("/apis/{}/{}/", remote.group, remote.version);
    let group = format!("/apis/{}/", remote.group);
    let is_own = |path: &str| path == group || path.starts_with(&own);
    let paths: Map<String, Value> = document["paths"].as_object()?.iter().filter(|(path, _)| is_own(path)).map(owned).collect();
    Some(json!({"paths": paths, "definitions": document["definitions"]}))
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

async fn get(
    registry: &Registry,
    endpoint: &Arc<crate::remote::Endpoint>,
    path: &str,
    bytes: usize,
) -> Result<http::Response<Bytes>, Error> {
    let mut request = Request::get(path).header(ACCEPT, "application/json");
    // The API server itself looks.
    for (name, value) in [("x-remote-user", "system:kube-aggregator"), ("x-remote-group", "system:masters")] {
        request = request.header(name, value);
    }
    let request = request.body(Full::default()).map_err(|error| Error::Http(error.to_string()))?;
    endpoint.call(registry, request, Limits { time: TIME, bytes }).await
}

/// What is wrong with a service.
fn explain(error: &Error, remote: &Remote) -> Option<Found> {
    let (name, namespace) = (&remote.service, &remote.namespace);
    match error {
        Error::NoService(_) => {
            Some(Found::missing("ServiceNotFound", format!("service/{name} in \"{namespace}\" is not present")))
        }
        Error::NoPort { port, .. } => {
            Some(Found::missing("ServicePortError", format!("service/{name} in \"{namespace}\" is not listening on port {port}")))
        }
        Error::NoEndpoints(_) => {
            let message = format!("endpoints for service/{name} in \"{namespace}\" have no addresses");
            Some(Found::missing("MissingEndpoints", message))
        }
        _ => None,
    }
}

//! Requests to kubelets.

use apimachinery::Status;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use serde_json::Value;

use super::backend::Backend;
use super::log_options;
use crate::body::{Body, RequestBody};
use crate::call::{Inner, On};
use crate::query::Query;
use crate::route;

impl Inner {
    pub(super) async fn kubelet_of(&self, name: &str) -> Result<Backend, Status> {
        let nodes = self.registry.resource("", "v1", "nodes").ok_or_else(Status::page_not_found)?;
        let node = self.registry.get(&nodes, "", name, None).await?;
        self.kubelets.backend(&node.value()).ok_or_else(|| Status::internal(format!("node {name} has no address")))
    }
}

/// Bytes of a page that are read at most.
const MAX_PAGE: usize = 16 << 20;

impl Inner {
    /// What a kubelet answers to a GET.
    pub(crate) async fn kubelet_page(&self, node: &str, path: &str) -> Result<bytes::Bytes, Status> {
        let backend = self.kubelet_of(node).await?;
        let (parts, ()) = http::Request::get(path).body(()).map_err(Status::internal)?.into_parts();
        let empty = RequestBody::new(Empty::new().map_err(|never| match never {}));
        let response = backend.send(&parts, path, empty, self.way()).await.map_err(|failure| failure.or(Status::internal))?;
        if !response.status().is_success() {
            return Err(refused(response).await);
        }
        let page = crate::decode::collect(response.into_body(), MAX_PAGE).await;
        page.ok().flatten().ok_or_else(|| Status::internal(format!("the kubelet of node {node} has no answer for {path}")))
    }
}

/// A pod's logs.
pub(super) async fn log(api: &Inner, on: &On<'_>) -> Result<Response<Body>, Status> {
    let query = Query::parse(on.call.query);
    log_options::check(&query, on.target.name)?;
    let pod = api.registry.get(on.resource, on.target.namespace, on.target.name, None).await?.value();
    let container = container(&pod, query.get("container"))?;
    let Some(node) = node_name(&pod) else {
        return Ok(crate::respond::text(StatusCode::OK, Body::Empty));
    };
    let backend = api.kubelet_of(node).await?;
    let path = format!("/containerLogs/{}/{}/{container}", on.target.namespace, on.target.name);
    let path = with_query(&path, on.call.query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("container=")));
    let failed = |error: String| Status::internal(format!("Get \"https://{}:{}{path}\": {error}", backend.host, backend.port));
    let empty = || RequestBody::new(Empty::new().map_err(|never| match never {}));
    if streaming::is_websocket(&on.call.parts.headers) {
        return log_over_websocket(api, on, &backend, &path, empty()).await;
    }
    let mut response =
        backend.send(on.call.parts, &path, empty(), api.way_of(&on.call)).await.map_err(|failure| failure.or(failed))?;
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    response.headers_mut().remove(http::header::CONTENT_LENGTH);
    response.headers_mut().entry(http::header::CONTENT_TYPE).or_insert(http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

async fn log_over_websocket(
    api: &Inner,
    on: &On<'_>,
    backend: &Backend,
    path: &str,
    empty: RequestBody,
) -> Result<Response<Body>, Status> {
    let mut plain = on.call.parts.clone();
    plain.headers.clear();
    plain.extensions.clear();
    let response =
        backend.send(&plain, path, empty, api.way_of(&on.call)).await.map_err(|failure| failure.or(Status::internal))?;
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    let mut request = http::Request::from_parts(on.call.parts.clone(), ());
    let (answer, copy) = streaming::logs::accept(&mut request).map_err(|refusal| Status::bad_request(refusal.message))?;
    let (copying, ongoing) = (copy(response.into_body()), on.call.ongoing.clone());
    let copying = async move {
        let _ongoing = ongoing;
        copying.await
    };
    api.tasks.spawn_until_cancelled("log stream", base::tasks::OnFailure::Log, copying);
    Ok(answer.map(|()| Body::Empty))
}

/// What a kubelet says when it refuses: its text becomes the message.
async fn refused(response: Response<Body>) -> Status {
    let code = response.status().as_u16();
    let bytes = crate::decode::collect(response.into_body(), 64 << 10).await.ok().flatten().unwrap_or_default();
    Status::from_response(code, &bytes)
}

/// exec, attach, portforward: an upgrade that the kubelet answers.
pub(super) async fn stream(api: &Inner, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
    let (namespace, name, sub) = (on.target.namespace, on.target.name, on.target.sub);
    let pod = api.registry.get(on.resource, namespace, name, None).await?.value();
    let query = Query::parse(on.call.query);
    let path = match sub {
        "portforward" => {
            let ports = query.all("ports").flat_map(|ports| ports.split(',')).filter(|port| !port.is_empty());
            let ports: Vec<String> = ports.map(|port| format!("port={}", route::encode(port))).collect();
            with_query(&format!("/portForward/{namespace}/{name}"), ports.iter().map(String::as_str))
        }
        _ => exec_path(on, &pod, &query)?,
    };
    let node = node_name(&pod).ok_or_else(|| Status::bad_request(format!("pod {name} does not have a host assigned")))?;
    if !streaming::is_upgrade(&on.call.parts.headers) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let backend = api.kubelet_of(node).await?;
    let response = backend.send(on.call.parts, &path, body, api.way_of(&on.call)).await;
    let failed = |error: String| Status::internal(format!("error dialing backend: {error}"));
    let response = response.map_err(|failure| failure.or(failed))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS { Ok(response) } else { Err(refused(response).await) }
}

fn exec_path(on: &On<'_>, pod: &Value, query: &Query) -> Result<String, Status> {
    let container = container(pod, query.get("container"))?;
    let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let wanted: Vec<&str> = streams.iter().filter(|(name, _)| query.flag(name)).map(|(_, own)| *own).collect();
    if !wanted.iter().any(|stream| *stream != "tty") {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let mut pairs: Vec<String> = wanted.iter().map(|stream| format!("{stream}=1")).collect();
    if on.target.sub == "exec" {
        pairs.extend(query.all("command").map(|word| format!("command={}", route::encode(word))));
        if query.get("command").is_none() {
            return Err(Status::bad_request("you must specify a command for the container"));
        }
    }
    let path = format!("/{}/{}/{}/{container}", on.target.sub, on.target.namespace, on.target.name);
    Ok(with_query(&path, pairs.iter().map(String::as_str)))
}

fn with_query<'a>(path: &str, pairs: impl Iterator<Item = &'a str>) -> String {
    let pairs: Vec<&str> = pairs.collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

fn node_name(pod: &Value) -> Option<&str> {
    pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|name| !name.is_empty())
}

/// The container that the request is about.
fn container(pod: &Value, wanted: Option<&str>) -> Result<String, Status> {
    let name = apimachinery::meta::name(pod);
    let names = |key: &str| -> Vec<&str> {
        let list = pod["spec"][key].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    match wanted.filter(|wanted| !wanted.is_empty()) {
        Some(wanted) if main.iter().chain(&init).chain(&ephemeral).any(|known| *known == wanted) => Ok(wanted.to_owned()),
        Some(wanted) => Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        None if main.len() == 1 => Ok(main[0].to_owned()),
        None => {
            let mut message = format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn containers() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, Some("b")).unwrap(), "b");
        assert_eq!(container(&pod, Some("i")).unwrap(), "i");
        let message = "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        assert_eq!(container(&pod, None).unwrap_err().message, message);
        assert_eq!(container(&pod, Some("x")).unwrap_err().message, "container x is not valid for pod p");
    }
}

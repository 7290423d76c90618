//! Whether another API server answers, and what it serves.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::json_syntax;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, StatusCode};
use http_body_util::Full;
use registry::{Registry, Remote};
use serde_json::{Map, Value, json};

use super::Servers;
use crate::remote::{Error, Limits};

/// Upstream's time for a server to tell its resources.
const TIME: Duration = Duration::from_secs(5);
/// The largest list of resources: one of a thousand has 300 KiB. What is told of it to clients is up to 25 times as large.
const LIST: usize = 1 << 20;
/// The largest OpenAPI document.
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

    /// What is served here is always available.
    pub(super) fn local() -> Self {
        Self { available: true, reason: "Local", message: "Local APIServices are always available".to_owned() }
    }

    /// Who answers is there. Why its list cannot be read is no other condition upstream, and is said all the same.
    fn passed(unread: Option<String>) -> Self {
        let checks = "all checks passed".to_owned();
        let message = unread.map_or_else(|| checks.clone(), |why| format!("{checks}, but its resources cannot be read: {why}"));
        Self { available: true, reason: "Passed", message }
    }
}

/// Asks a server for the resources of its group version. As upstream, the status of the answer says whether the server is available,
/// whatever its body; without a list in the body there are no resources.
pub(super) async fn resources(registry: &Registry, servers: &Servers, remote: &Remote) -> (Found, Option<Value>) {
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let endpoint = servers.endpoint(remote);
    let url = format!("https://{}{path}", endpoint.target().authority());
    let failed = |why: String| {
        let message = format!("failing or missing response from {url}: {why}");
        (Found::missing("FailedDiscoveryCheck", message), None)
    };
    let bad_status = |status: StatusCode| failed(format!("bad status from {url}: {}", status.as_u16()));
    match get(registry, &endpoint, &path, LIST).await {
        Ok(answer) if !answer.status().is_success() => bad_status(answer.status()),
        Ok(answer) => match list(answer.body()) {
            Ok(list) => (Found::passed(None), Some(list)),
            Err(why) => (Found::passed(Some(why)), None),
        },
        Err(Error::Body { status, .. }) if !status.is_success() => bad_status(status),
        Err(Error::Body { why, .. }) => (Found::passed(Some(why.to_string())), None),
        Err(error) => explain(&error, remote).map_or_else(|| failed(format!("Get \"{url}\": {error}")), |found| (found, None)),
    }
}

/// An `APIResourceList`, or why it is none.
fn list(body: &[u8]) -> Result<Value, String> {
    let list: Value =
        serde_json::from_slice(body).map_err(|error| format!("json parse error: {}", json_syntax::told(body, &error)))?;
    let resources = list["resources"].as_array().ok_or("the answer is no APIResourceList")?;
    let is_named =
        |resource: &Value| ["name", "kind"].iter().all(|key| resource[key].as_str().is_some_and(|text| !text.is_empty()));
    if resources.iter().all(is_named) { Ok(list) } else { Err("a resource without a name or a kind".to_owned()) }
}

/// What it adds to the OpenAPI document of version 2; nothing when it has none.
pub(super) async fn openapi(registry: &Registry, servers: &Servers, remote: &Remote) -> Option<Value> {
    let answer = get(registry, &servers.endpoint(remote), "/openapi/v2", DOCUMENT).await.ok()?;
    let own = format!("/apis/{}/{}/", remote.group, remote.version);
    let read = move || {
        let document: Value = serde_json::from_slice(answer.body()).ok().filter(|_| answer.status().is_success())?;
        Some(part(&document, &own))
    };
    // As much as that is not read where others wait.
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// The paths of a document below `own`, and the definitions that they lead to.
fn part(document: &Value, own: &str) -> Value {
    let none = Map::new();
    let member = |key: &str| document[key].as_object().unwrap_or(&none);
    let paths = member("paths").iter().filter(|(path, item)| path.starts_with(own) && item.is_object());
    let paths: Map<String, Value> = paths.map(owned).collect();
    let mut due: Vec<&Value> = paths.values().collect();
    let mut definitions = Map::new();
    while let Some(value) = due.pop() {
        match value {
            Value::Array(items) => due.extend(items),
            Value::Object(map) => {
                due.extend(map.values());
                let name = map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/definitions/"));
                if let Some((name, schema)) = name.and_then(|name| member("definitions").get_key_value(name))
                    && schema.is_object()
                    && !definitions.contains_key(name)
                {
                    definitions.insert(name.clone(), schema.clone());
                    due.push(schema);
                }
            }
            _ => {}
        }
    }
    json!({"paths": paths, "definitions": definitions})
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let check = |body: &str, expected: Result<(), &str>| {
            assert_eq!(list(body.as_bytes()).map(drop), expected.map_err(str::to_owned), "{body}");
        };
        check(r#"{"resources": [{"name": "a", "kind": "A", "verbs": ["get"]}]}"#, Ok(()));
        check(r#"{"resources": []}"#, Ok(()));
        for body in ["{}", "[]", "5", "null", r#"{"resources": {}}"#] {
            check(body, Err("the answer is no APIResourceList"));
        }
        for resource in ["1", "null", "{}", r#"{"name": "a"}"#, r#"{"name": "", "kind": "A"}"#, r#"{"name": ["a"], "kind": "A"}"#]
        {
            check(&format!(r#"{{"resources": [{resource}]}}"#), Err("a resource without a name or a kind"));
        }
        check("<html>", Err("json parse error: invalid character '<' looking for beginning of value"));
        assert!(list("[".repeat(100_000).as_bytes()).is_err_and(|why| why.contains("exceeded max depth")));
    }

    /// Upstream: `FilterSpecByPaths` leaves the definitions that the paths lead to.
    #[test]
    fn parts_of_documents() {
        let to = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
        let get = json!({"get": {"responses": {"200": {"schema": to("A")}}}});
        let document = json!({
            "paths": {"/apis/g/v1/as": get, "/apis/g/v2/as": get, "/api/v1/pods": get, "/apis/g/v1/x": 5, "/apis/g/v1": get},
            "definitions": {
                "A": {"properties": {"own": to("A"), "b": {"items": to("B")}, "lost": to("Lost"), "no": to("No")}},
                "B": {"type": "string"}, "No": "schema", "io.k8s.api.core.v1.Pod": {"type": "object"},
            },
        });
        let expected = json!({
            "paths": {"/apis/g/v1/as": get},
            "definitions": {"A": document["definitions"]["A"], "B": {"type": "string"}},
        });
        assert_eq!(part(&document, "/apis/g/v1/"), expected);
        for document in [json!(null), json!([]), json!({"paths": 5, "definitions": []})] {
            assert_eq!(part(&document, "/apis/g/v1/"), json!({"paths": {}, "definitions": {}}));
        }
    }
}

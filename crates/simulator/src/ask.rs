//! Requests in JSON, as the users and kubelets of the simulation make them.

use client::kube::{self, Client};
use http::{Method, Request};
use serde_json::Value;

pub(crate) const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// Sends a request and gives the object that is answered.
pub(crate) async fn ask(client: &Client, method: Method, path: &str, body: Option<&Value>) -> kube::Result<Value> {
    let content = if method == Method::PATCH { MERGE } else { JSON };
    let body = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("content-type", content).body(body);
    let request = request.map_err(|error| kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error)))?;
    client.request(request).await
}

/// The status of the answer that is an error; none when nobody answered.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

//! One call of a webhook.

use apimachinery::{Status, names, patch};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http_body_util::Full;
use registry::{Request, Served};
use serde_json::Value;

use super::hook::Hook;
use super::review::{self, Review};
use crate::admission::attributes::Attributes;
use crate::remote::Limits;

/// Most of an answer: a patch that replaces the largest object, in base64, and as much again.
const MAX_ANSWER: usize = 8 << 20;
/// Most of an error page that is told.
const MAX_TOLD: usize = 1024;

/// Why a request does not go on.
#[derive(Debug)]
pub(super) enum Failure {
    /// The call failed: what comes of it the failure policy says.
    Call(String),
    /// The webhook says no.
    Refused(Status),
    /// What the webhook wants cannot be done.
    Internal(Status),
}

/// What a webhook that admits a request has made of its object.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// The patched object, none when nothing is patched.
    pub(super) object: Option<Value>,
    /// The operations that were asked for.
    pub(super) patch: Option<Value>,
}

/// Asks a webhook about a request, as a version of its resource.
pub(super) async fn call(hook: &Hook, a: &Request<'_>, version: &Served, is_mutating: bool) -> Result<Verdict, Failure> {
    if a.dry_run && !hook.bears_dry_run {
        let why = format!("admission webhook \"{}\" does not support dry run", hook.name);
        return Err(Failure::Internal(Status::bad_request(why)));
    }
    let (object, old) = a.seen_as(version).await.map_err(|status| Failure::Internal(Status::internal(status.message)))?;
    let uid = names::new_uid();
    let body = {
        let attributes = Attributes::new(a, version);
        let review = Review::new(hook.version, &uid, &attributes, (object.as_deref(), old.as_deref()));
        serde_json::to_vec(&review).map_err(|error| Failure::Call(format!("could not create admission objects: {error}")))?
    };
    let reply = post(hook, a, body).await.map_err(Failure::Call)?;
    let answer = review::read(&reply, hook.version, &uid, &hook.name, is_mutating).map_err(Failure::Call)?;
    let cx = a.context();
    for (key, value) in answer.audit_annotations {
        cx.annotations.add(format!("{}/{key}", hook.name), value);
    }
    answer.warnings.into_iter().for_each(|text| cx.warnings.push(text));
    if let Some(status) = answer.refused {
        return Err(Failure::Refused(status));
    }
    match answer.patch {
        Some(operations) => patched(&hook.name, object.as_deref(), &operations),
        None => Ok(Verdict::default()),
    }
}

/// The object with the patch. What is no patch is no answer; one that does not fit is told of with the reason.
fn patched(hook: &str, object: Option<&Value>, operations: &[u8]) -> Result<Verdict, Failure> {
    let undecodable = |status: Status| {
        let why = status.message.trim_start_matches("error decoding patch: ");
        Failure::Call(format!("received undecodable patch in webhook response: {why}"))
    };
    let operations = patch::parse_operations(operations).map_err(undecodable)?;
    if operations.as_array().is_none_or(Vec::is_empty) {
        return Ok(Verdict::default());
    }
    let Some(object) = object else {
        let why =
            format!("admission webhook \"{hook}\" attempted to modify the object, which is not supported for this operation");
        return Err(Failure::Internal(Status::internal(why)));
    };
    let object = patch::apply_json(object, &operations).map_err(|error| Failure::Internal(Status::internal(error)))?;
    Ok(Verdict { object: Some(object), patch: Some(operations) })
}

/// Sends the question; the body of the answer.
async fn post(hook: &Hook, a: &Request<'_>, body: Vec<u8>) -> Result<Bytes, String> {
    let endpoint = hook.endpoint.as_ref().map_err(|why| format!("could not get REST client: {why}"))?;
    let query = format!("timeout={}s", hook.timeout.as_secs());
    let failed =
        |why: &dyn std::fmt::Display| format!("failed to call webhook: Post \"{}\": {why}", endpoint.target().url(&query));
    let request = http::Request::post(format!("{}?{query}", endpoint.target().path))
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Full::from(body))
        .map_err(|error| failed(&error))?;
    let limits = Limits { time: hook.timeout, bytes: MAX_ANSWER };
    let response = endpoint.call(a.registry, request, limits).await.map_err(|error| failed(&error))?;
    match response.status().as_u16() {
        200..=299 => Ok(response.into_body()),
        code => Err(format!("failed to call webhook: {}", refused(code, response.body()))),
    }
}

/// What client-go says of an answer that is no success.
fn refused(code: u16, body: &[u8]) -> String {
    let told = String::from_utf8_lossy(&body[..body.len().min(MAX_TOLD)]);
    let told = told.trim();
    match code {
        404 => "the server could not find the requested resource".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => format!("forbidden: {told}"),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request".to_owned()
        }
        500.. => format!("an error on the server ({told:?}) has prevented the request from succeeding"),
        300..=399 => format!("the server answers with the redirect {code}, which is not followed"),
        _ => "the server rejected our request for an unknown reason".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a webhook's patch makes of an object with one label, or what is said of it.
    #[track_caller]
    fn check(object: Option<Value>, operations: &str, expected: Result<Option<Value>, &str>) {
        let found = patched("a.b.c", object.as_ref(), operations.as_bytes()).map_err(|failure| match failure {
            Failure::Call(why) => format!("call: {why}"),
            Failure::Refused(status) | Failure::Internal(status) => format!("{}: {}", status.code, status.message),
        });
        let patch = found.as_ref().ok().and_then(|verdict| verdict.patch.clone());
        assert_eq!(patch, expected.as_ref().ok().and_then(Option::as_ref).and_then(|_| serde_json::from_str(operations).ok()));
        assert_eq!(found.map(|verdict| verdict.object), expected.map_err(str::to_owned), "{operations}");
    }

    /// `admission/plugin/webhook/mutating/dispatcher.go`: what is no patch goes by the failure policy, what does not apply is an error with its reason.
    #[test]
    fn patches() {
        let object = || Some(json!({"metadata": {"labels": {"x": "1"}}}));
        let add = r#"[{"op": "add", "path": "/metadata/labels/y", "value": "2"}]"#;
        check(object(), add, Ok(Some(json!({"metadata": {"labels": {"x": "1", "y": "2"}}}))));
        check(object(), "[]", Ok(None));
        let missing = r#"[{"op": "add", "path": "/metadata/annotations/y", "value": "2"}]"#;
        let why = "500: Internal error occurred: add operation does not apply: doc is missing path: \"/metadata/annotations/y\": missing value";
        check(object(), missing, Err(why));
        let test = r#"[{"op": "test", "path": "/metadata/labels/x", "value": "2"}]"#;
        check(object(), test, Err("500: Internal error occurred: testing value /metadata/labels/x failed: test failed"));
        let none = "500: Internal error occurred: admission webhook \"a.b.c\" attempted to modify the object, which is not supported for this operation";
        check(None, add, Err(none));
        let undecodable = "call: received undecodable patch in webhook response: json: cannot unmarshal object into Go value of type jsonpatch.Patch";
        check(object(), "{}", Err(undecodable));
    }
}

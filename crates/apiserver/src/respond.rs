//! Answers: objects, lists, tables and Statuses in the form that the client asked for.

mod list;
mod shape;

use apimachinery::{Status, meta};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use registry::{Served, Warnings};
use schema::{Ordered, Schema};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::body::Body;
use crate::negotiate::{Accept, Format, Shape};

pub(crate) use list::list;
pub(crate) use shape::{include, metadata, metadata_json, table};

/// A response of `code` with `body`.
pub(crate) fn bytes(code: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A plain-text answer.
pub(crate) fn text(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", body)
}

/// The plain answer for paths that nobody serves.
pub(crate) fn page_not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The plain answer to who should come again in so many seconds.
pub(crate) fn too_many_requests(seconds: u64) -> Response<Body> {
    let mut response = text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A failure.
pub(crate) fn failure(accept: Accept, status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match encode(accept, &status.to_value()) {
        Ok(body) => bytes(code, accept.format.media_type(), body),
        Err(_) => bytes(code, Format::Json.media_type(), status.to_json()),
    };
    if let Some(seconds) = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An object of a resource, from its shared bytes.
pub(crate) fn object(accept: Accept, code: StatusCode, resource: &Served, object: &Bytes, query: &str) -> Response<Body> {
    if accept.is_plain() {
        return bytes(code, "application/json", object.clone());
    }
    match serde_json::from_slice(object) {
        Ok(parsed) => value(accept, code, Some(resource), parsed, query),
        Err(error) => failure(accept, &Status::internal(error)),
    }
}

/// An object that is not in the cache.
pub(crate) fn value(accept: Accept, code: StatusCode, resource: Option<&Served>, object: Value, query: &str) -> Response<Body> {
    let shaped = match shaped(accept, resource, object, query) {
        Ok(shaped) => shaped,
        Err(status) => return failure(accept, &status),
    };
    match encode(accept, &shaped) {
        Ok(body) => bytes(code, accept.format.media_type(), body),
        Err(status) => failure(accept, &status),
    }
}

fn shaped(accept: Accept, resource: Option<&Served>, object: Value, query: &str) -> Result<Value, Status> {
    let Some(resource) = resource else { return Ok(object) };
    Ok(match accept.shape {
        Shape::Object => object,
        Shape::Metadata { beta } => metadata(&object, beta),
        Shape::MetadataList { .. } => {
            return Err(shape::mismatch("PartialObjectMetadataList", "is not a list", &resource.def.kind));
        }
        Shape::Table { beta } => {
            let own = meta::metadata(&object).and_then(|m| m.get("resourceVersion")).cloned();
            let mut metadata = Map::new();
            metadata.extend(own.map(|version| ("resourceVersion".to_owned(), version)));
            table(resource, vec![object], metadata, include(query)?, beta)
        }
    })
}

/// Encodes a shaped value.
pub(crate) fn encode(accept: Accept, value: &Value) -> Result<Vec<u8>, Status> {
    match accept.format {
        Format::Json => json(accept, &Ordered::new(Schema::builtin(), value)),
        Format::Yaml => serde_saphyr::to_string(value).map(String::into_bytes).map_err(Status::internal),
        Format::Protobuf => protobuf(value),
    }
}

/// Anything as JSON: on one line that ends, or indented and without an end, as Go's encoders do it.
pub(crate) fn json(accept: Accept, value: &impl Serialize) -> Result<Vec<u8>, Status> {
    if accept.pretty {
        return serde_json::to_vec_pretty(value).map_err(Status::internal);
    }
    let mut encoded = serde_json::to_vec(value).map_err(Status::internal)?;
    encoded.push(b'\n');
    Ok(encoded)
}

/// The enveloped protobuf form of a value that carries its kind.
pub(crate) fn protobuf(value: &Value) -> Result<Vec<u8>, Status> {
    let (api_version, kind) = (meta::api_version(value), meta::kind(value));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    // `APIVersions` has no version of its own in JSON; in an envelope it is v1.
    let version = if version.is_empty() { "v1" } else { version };
    // The older version of metadata has the same message.
    let known = if (group, kind) == ("meta.k8s.io", "PartialObjectMetadata") { "v1" } else { version };
    let ty = Schema::builtin().kind(group, known, kind);
    let ty = ty.ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))?;
    let raw = schema::protobuf::encode(Schema::builtin(), ty, value).map_err(Status::internal)?;
    Ok(schema::protobuf::wrap_envelope(if api_version.is_empty() { version } else { api_version }, kind, &raw))
}

/// Characters of all warnings of a response, as upstream: they repeat what a client sent, and headers should be short.
const MAX_WARNINGS: usize = 4096;

/// Adds the `Warning` headers (RFC 7234, code 299) of a request.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &Warnings) {
    let mut left = MAX_WARNINGS;
    for warning in warnings.take() {
        if left == 0 {
            return;
        }
        let mut text = String::with_capacity(warning.len().min(left) + 10);
        let shown = warning.chars().filter(|c| !c.is_control()).take(left);
        for c in shown {
            left -= 1;
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn warnings_stay_short() {
        let warnings = Warnings::default();
        warnings.push("a\"b");
        warnings.push("x".repeat(1 << 20));
        warnings.push("none of this");
        let mut response = Response::new(Body::Empty);
        warn(&mut response, &warnings);
        let lengths: Vec<usize> = response.headers().get_all(WARNING).iter().map(|value| value.len()).collect();
        // `299 - ""` around each, and a backslash before the quote.
        assert_eq!(lengths, [8 + 4, 8 + MAX_WARNINGS - 3]);
    }

    fn check(document: Value, api_version: &str) {
        let encoded = protobuf(&document).unwrap();
        let (version, kind, _) = schema::protobuf::unwrap_envelope(&encoded).unwrap();
        assert_eq!((version, kind), (api_version, meta::kind(&document)));
    }

    #[test]
    fn discovery_documents_exist_in_protobuf() {
        check(json!({"kind": "APIVersions", "versions": ["v1"]}), "v1");
        check(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}), "v1");
        check(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "apps/v1", "resources": []}), "v1");
    }
}

//! Answers: objects, lists, tables and Statuses in the form that the client asked for.

use apimachinery::table::{IncludeObject, Row, Table, partial_object_metadata};
use apimachinery::{Status, meta};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use registry::{List, Served, Warnings};
use schema::Schema;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::io::Write;

use crate::body::{Body, ListBody};
use crate::negotiate::{Accept, Format, Shape};

/// Lists above this size are compressed for clients that take gzip.
const GZIP_FROM: u64 = 128 << 10;

/// Bytes within which the metadata of an encoded object begin.
const HEAD: usize = 256;

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

/// A failure.
pub(crate) fn failure(accept: Accept, status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let accept = Accept { shape: Shape::Object, ..accept };
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
    let shaped = match (resource, accept.shape) {
        (None, _) | (_, Shape::Object) => object,
        (_, Shape::Metadata { beta }) => metadata(&object, beta),
        (Some(resource), Shape::Table { beta }) => {
            let own = meta::metadata(&object).and_then(|m| m.get("resourceVersion")).cloned();
            let mut metadata = Map::new();
            metadata.extend(own.map(|version| ("resourceVersion".to_owned(), version)));
            table(resource, vec![object], metadata, include(query), beta)
        }
    };
    match encode(accept, &shaped) {
        Ok(body) => bytes(code, accept.format.media_type(), body),
        Err(status) => failure(accept, &status),
    }
}

/// A list of a resource.
pub(crate) async fn list(accept: Accept, resource: &Served, list: List, query: &str) -> Response<Body> {
    let mut own = Map::new();
    own.insert("resourceVersion".into(), list.revision.to_string().into());
    own.extend(list.continue_token.map(|token| ("continue".to_owned(), token.into())));
    own.extend(list.remaining.map(|count| ("remainingItemCount".to_owned(), count.into())));
    if accept.is_plain() {
        let (kind, version, own) = (resource.def.kind, resource.def.api_version(), Value::Object(own));
        let head = format!(r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{own},"items":["#);
        let items = list.entries.iter().map(|entry| entry.json.clone()).collect();
        let body = ListBody::new(head.into(), items, Bytes::from_static(b"]}\n"));
        return send_list(accept, body).await;
    }
    let objects: Vec<Value> = list.entries.iter().map(|entry| entry.value()).collect();
    let whole = match accept.shape {
        Shape::Table { beta } => table(resource, objects, own, include(query), beta),
        Shape::Metadata { beta } => {
            let items: Vec<Value> = objects.iter().map(|object| metadata(object, beta)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": meta_version(beta), "metadata": own, "items": items})
        }
        Shape::Object => {
            json!({"kind": resource.def.list_kind(), "apiVersion": resource.def.api_version(), "metadata": own, "items": objects})
        }
    };
    match encode(accept, &whole) {
        Ok(body) => compress(accept, bytes(StatusCode::OK, accept.format.media_type(), body)).await,
        Err(status) => failure(accept, &status),
    }
}

async fn send_list(accept: Accept, body: ListBody) -> Response<Body> {
    if accept.gzip && body.len() > GZIP_FROM {
        return compress(accept, bytes(StatusCode::OK, "application/json", body.concat())).await;
    }
    bytes(StatusCode::OK, "application/json", Body::List(Box::new(body)))
}

/// Compresses a large whole body off the runtime's threads.
async fn compress(accept: Accept, mut response: Response<Body>) -> Response<Body> {
    let Body::Whole(plain) = response.body() else { return response };
    if !accept.gzip || (plain.len() as u64) <= GZIP_FROM {
        return response;
    }
    let plain = plain.clone();
    let packed = tokio::task::spawn_blocking(move || gzip(&plain)).await;
    if let Ok(Ok(packed)) = packed {
        *response.body_mut() = packed.into();
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// The gzip form of bytes, at the fastest level.
pub(crate) fn gzip(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 4), flate2::Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

/// Encodes a shaped value.
pub(crate) fn encode(accept: Accept, value: &Value) -> Result<Vec<u8>, Status> {
    match accept.format {
        Format::Json => {
            let encoded = if accept.pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
            let mut encoded = encoded.map_err(Status::internal)?;
            encoded.push(b'\n');
            Ok(encoded)
        }
        Format::Yaml => serde_saphyr::to_string(value).map(String::into_bytes).map_err(Status::internal),
        Format::Protobuf => protobuf(value),
    }
}

/// The enveloped protobuf form of a value that carries its kind.
pub(crate) fn protobuf(value: &Value) -> Result<Vec<u8>, Status> {
    let (api_version, kind) = (meta::api_version(value), meta::kind(value));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    // `APIVersions` has no version of its own in JSON; in an envelope it is v1.
    let version = if version.is_empty() { "v1" } else { version };
    let ty = Schema::builtin().kind(group, version, kind);
    // Shapes of meta.k8s.io exist in JSON and YAML only where the type table has no such kind.
    let ty = ty.ok_or_else(|| Status::not_acceptable(&["application/json", "application/yaml"]))?;
    let raw = schema::protobuf::encode(Schema::builtin(), ty, value).map_err(Status::internal)?;
    Ok(schema::protobuf::wrap_envelope(if api_version.is_empty() { version } else { api_version }, kind, &raw))
}

fn meta_version(beta: bool) -> &'static str {
    if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

/// The object's metadata alone.
pub(crate) fn metadata(object: &Value, beta: bool) -> Value {
    let mut partial = partial_object_metadata(object);
    partial["apiVersion"] = meta_version(beta).into();
    partial
}

/// The metadata alone of an encoded object, as JSON. Nothing else of the object is read: metadata stand at its beginning.
/// None when they are not there, as in a bookmark's object.
pub(crate) fn metadata_json(object: &[u8], beta: bool) -> Option<Vec<u8>> {
    const KEY: &[u8] = br#","metadata":"#;
    let at = memchr::memmem::find(object, KEY)?;
    // Before it are only apiVersion and kind, which are plain words.
    if at > HEAD || !object.starts_with(br#"{"apiVersion":""#) {
        return None;
    }
    let rest = object.get(at + KEY.len()..)?;
    let own: &RawValue = serde_json::Deserializer::from_slice(rest).into_iter().next()?.ok()?;
    let version = meta_version(beta);
    let mut out = Vec::with_capacity(own.get().len() + 80);
    // Writing to a Vec cannot fail.
    let _ = write!(out, r#"{{"kind":"PartialObjectMetadata","apiVersion":"{version}","metadata":{}}}"#, own.get());
    Some(out)
}

/// What a table's rows carry of their objects (`includeObject`).
pub(crate) fn include(query: &str) -> IncludeObject {
    let text = query.split('&').find_map(|pair| pair.strip_prefix("includeObject=")).unwrap_or_default();
    IncludeObject::parse(text).unwrap_or_default()
}

/// `meta.k8s.io` Table of objects.
pub(crate) fn table(
    resource: &Served,
    objects: Vec<Value>,
    own: Map<String, Value>,
    include: IncludeObject,
    beta: bool,
) -> Value {
    let now = Timestamp::now();
    let is_scale = objects.first().is_some_and(|object| meta::kind(object) == "Scale");
    let columns = if is_scale { kinds::scale_columns() } else { resource.strategy.columns() };
    let cells = |object: &Value| if is_scale { kinds::scale_row(object, now) } else { resource.strategy.row(object, now) };
    let row = |object: Value| Row { cells: cells(&object), object };
    let table = Table { columns, rows: objects.into_iter().map(row).collect(), metadata: own };
    let mut value = table.to_value(include);
    if beta {
        value["apiVersion"] = meta_version(beta).into();
        for row in value["rows"].as_array_mut().into_iter().flatten().filter(|_| include == IncludeObject::Metadata) {
            row["object"]["apiVersion"] = meta_version(beta).into();
        }
    }
    value
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

    #[track_caller]
    fn check_cut(object: &str, cut: bool) {
        let found = metadata_json(object.as_bytes(), false).map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
        assert_eq!(found, cut.then(|| metadata(&serde_json::from_str(object).unwrap(), false)));
    }

    #[test]
    fn metadata_are_cut_out_of_encoded_objects() {
        check_cut(r#"{"apiVersion":"v1","kind":"Map","metadata":{"name":"a","labels":{"x":"}"}},"data":{"k":"v"}}"#, true);
        check_cut(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#, true);
        check_cut(r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}"#, false);
        check_cut(r#"{"apiVersion":"v1","kind":"Pod"}"#, false);
    }
}

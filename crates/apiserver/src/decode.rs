//! Request bodies.

use std::time::Duration;

use apimachinery::{Status, gvk, json_syntax, yaml};
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use schema::Schema;
use serde_json::Value;

use crate::body::RequestBody;
use crate::negotiate::{self, Format};

/// The largest body of a request (upstream's default).
pub(crate) const MAX_BODY: usize = 3 << 20;

/// How long a body may take to arrive: upstream's timeout of a request.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Bytes of a refused body that are read and thrown away.
const MAX_DISCARDED: usize = 16 << 20;

/// The kind of a deletion's body.
pub(crate) const DELETE_OPTIONS: (&str, &str, &str) = ("meta.k8s.io", "v1", "DeleteOptions");

/// A parsed body and what is to be told of its duplicate keys.
pub(crate) type Parsed = (Value, Vec<String>);

/// Reads the whole body.
pub(crate) async fn read(body: RequestBody) -> Result<Bytes, Status> {
    read_within(body, MAX_TIME).await
}

async fn read_within(body: RequestBody, limit: Duration) -> Result<Bytes, Status> {
    let Ok(collected) = tokio::time::timeout(limit, collect(body, MAX_BODY)).await else {
        return Err(Status::timeout(format!("the body of the request did not arrive within {limit:?}"), 0));
    };
    match collected {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Status::too_large(format!("limit is {MAX_BODY}"))),
        Err(error) => Err(Status::bad_request(format!("unable to read the body of the request: {error}"))),
    }
}

/// All bytes of a body, none when there are more than `limit`.
pub(crate) async fn collect<B>(body: B, limit: usize) -> Result<Option<Bytes>, B::Error>
where
    B: http_body::Body<Data = Bytes>,
{
    let mut body = std::pin::pin!(body);
    if body.size_hint().lower() > limit as u64 {
        discard(body.as_mut()).await;
        return Ok(None);
    }
    let mut first = Bytes::new();
    let mut all: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            discard(body.as_mut()).await;
            return Ok(None);
        }
        // Most bodies come in one piece, which needs no copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(Some(if all.is_empty() { first } else { all.into() }))
}

/// Reads what a client still sends, within reason: many look at the answer only after they have sent everything.
async fn discard<B: http_body::Body<Data = Bytes>>(mut body: std::pin::Pin<&mut B>) {
    let mut left = MAX_DISCARDED;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Parses a body of the Content-Type that the headers name. `expected` is the (group, version, kind) of a protobuf body
/// that does not say.
pub(crate) fn parse(headers: &HeaderMap, bytes: &[u8], expected: (&str, &str, &str)) -> Result<Parsed, Status> {
    match negotiate::body_format(headers)? {
        Format::Json => parse_json(bytes),
        Format::Yaml => parse_yaml(bytes),
        Format::Protobuf => parse_protobuf(bytes, expected).map(|value| (value, Vec::new())),
    }
}

/// Whether the body is JSON by its Content-Type.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    matches!(negotiate::body_format(headers), Ok(Format::Json))
}

/// Custom resources have no protobuf form.
pub(crate) fn refuse_protobuf(headers: &HeaderMap) -> Result<(), Status> {
    match negotiate::body_format(headers)? {
        Format::Protobuf => Err(Status::unsupported_media_type(&[Format::Json.media_type(), Format::Yaml.media_type()])),
        Format::Json | Format::Yaml => Ok(()),
    }
}

/// Parses JSON.
pub(crate) fn parse_json(bytes: &[u8]) -> Result<Parsed, Status> {
    let told = |path: String| format!("duplicate field \"{path}\"");
    let parsed = schema::parse_strict(bytes).map(|(value, duplicates)| (value, duplicates.into_iter().map(told).collect()));
    parsed.map_err(|error| {
        let text = "couldn't get version/kind; json parse error";
        Status::bad_request(format!("{text}: {}", json_syntax::told(bytes, &error)))
    })
}

/// Parses YAML, of which JSON is a part.
pub(crate) fn parse_yaml(bytes: &[u8]) -> Result<Parsed, Status> {
    if bytes.trim_ascii_start().starts_with(b"{")
        && let Ok(parsed) = parse_json(bytes)
        && parsed.1.is_empty()
    {
        return Ok(parsed);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?;
    yaml::parse(text).map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))
}

/// Parses enveloped protobuf. `expected` is the (group, version, kind) of one that does not say.
pub(crate) fn parse_protobuf(bytes: &[u8], expected: (&str, &str, &str)) -> Result<Value, Status> {
    let bad = |error: &dyn std::fmt::Display| Status::bad_request(error.to_string());
    let (api_version, kind, raw) = schema::protobuf::unwrap_envelope(bytes).map_err(|error| bad(&error))?;
    let own = gvk::api_version(expected.0, expected.1);
    let (api_version, kind) =
        (if api_version.is_empty() { own.as_str() } else { api_version }, if kind.is_empty() { expected.2 } else { kind });
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let ty = Schema::builtin().kind(group, version, kind);
    let ty = ty.ok_or_else(|| Status::bad_request(format!("no kind {kind:?} is registered for version {api_version:?}")))?;
    let mut value = schema::protobuf::decode(Schema::builtin(), ty, raw).map_err(|error| bad(&error))?;
    apimachinery::meta::set_type(&mut value, api_version, kind);
    Ok(value)
}

/// The options in the body of a deletion. Fields of a wrong type are refused, as they may be what keeps the object: a `dryRun` or
/// `preconditions` that cannot be read must not delete. Fields that are not known go, and any `apiVersion` is good: clients send the
/// one of the group that they delete in.
pub(crate) fn delete_options(mut value: Value) -> Result<Value, Status> {
    if !value.is_object() {
        return Err(Status::bad_request("the body of a deletion must be an object: DeleteOptions"));
    }
    let (_, version, kind) = DELETE_OPTIONS;
    match apimachinery::meta::kind(&value) {
        "" => {}
        given if given == kind => {}
        other => {
            return Err(Status::bad_request(format!("decoded object cannot be converted to {kind}: it is a {other}")));
        }
    }
    let schema = Schema::builtin();
    let ty = schema.kind(DELETE_OPTIONS.0, version, kind).ok_or_else(|| Status::internal(format!("no schema for {kind}")))?;
    schema::decode(schema, ty, &mut value).map_err(|error| {
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::StreamExt;
    use http_body::Frame;
    use http_body_util::StreamBody;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let drips = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"{")))]).chain(futures::stream::pending());
        let status = read_within(RequestBody::new(StreamBody::new(drips)), Duration::from_millis(20)).await.unwrap_err();
        assert_eq!((status.code, status.message.ends_with("did not arrive within 20ms")), (504, true), "{status:?}");
    }

    /// API conventions: `dryRun` and `preconditions` keep what is there, so that they are never left out unread.
    #[test]
    fn deletions_whose_options_cannot_be_read_are_refused() {
        let check = |body: &str, expected: Result<Value, u16>| {
            let options = parse_yaml(body.as_bytes()).and_then(|(value, _)| delete_options(value));
            assert_eq!(options.map_err(|status| status.code), expected, "{body}");
        };
        for bad in [
            r#"{"dryRun": "All"}"#,
            "dryRun: All",
            r#"{"dryRun": [5]}"#,
            r#"{"preconditions": {"uid": 5}}"#,
            r#"{"preconditions": {"resourceVersion": 5}}"#,
            r#"{"preconditions": []}"#,
            r#"{"propagationPolicy": 5}"#,
            r#"{"orphanDependents": "true"}"#,
            r#"{"gracePeriodSeconds": "5"}"#,
            r#"{"gracePeriodSeconds": 1.5}"#,
            r#"{"kind": "Pod"}"#,
            r#"{"kind": 5}"#,
            r#"{"apiVersion": 5}"#,
            "[]",
        ] {
            check(bad, Err(400));
        }
        let text = delete_options(serde_json::json!({"dryRun": "All"})).unwrap_err().message;
        let told = "json: cannot unmarshal string into Go struct field DeleteOptions.dryRun of type []string";
        assert_eq!(text, format!("DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: {told}"));
        check("{}", Ok(serde_json::json!({})));
        check("dryRun: null", Ok(serde_json::json!({})));
        let options = serde_json::json!({"kind": "DeleteOptions", "apiVersion": "example.com/v1", "dryRun": ["All"]});
        check(&options.to_string(), Ok(options.clone()));
    }

    #[test]
    fn hostile_yaml() {
        let check = |text: &str| parse_yaml(text.as_bytes()).map(drop).map_err(|status| status.code);
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..30 {
            let before = format!("*a{}", n - 1);
            laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [before.as_str(); 9].join(", ")));
        }
        assert_eq!(check(&laughs), Err(400));
        assert_eq!(check(&"[".repeat(100_000)), Err(400));
        assert_eq!(check(&"- ".repeat(100_000)), Err(400));
        assert_eq!(check(&format!("{}a: b", "a: {".repeat(50_000))), Err(400));
        assert_eq!(check("a: b\na: c\n"), Ok(()));
        assert_eq!(check("a: &a [*a]\n"), Err(400));
        assert_eq!(check("a: !!binary x\n---\nb: c\n"), Err(400));
        assert_eq!(check("a: .nan\n"), Err(400));
    }

    #[test]
    fn hostile_json() {
        let check =
            |text: &str| parse_json(text.as_bytes()).map(|(_, duplicates)| duplicates.len()).map_err(|status| status.code);
        assert_eq!(check(&"[".repeat(1_000_000)), Err(400));
        assert_eq!(check(&r#"{"a":"#.repeat(500_000)), Err(400));
        assert_eq!(check(r#"{"a": NaN}"#), Err(400));
        assert_eq!(check(r#"{"a": 1e999}"#), Err(400));
        assert_eq!(check(r#"{"a": 1, "a": 2}"#), Ok(1));
        assert_eq!(check("{\"a\": \"\\ud800\"}"), Err(400));
        let digits = "9".repeat(100_000);
        assert!(check(&format!("{{\"a\": {digits}}}")).is_err());
        assert_eq!(parse_json(b"{\"a\": \"\xff\"}").map_err(|status| status.code), Err(400));
        let told = |text: &str| parse_json(text.as_bytes()).unwrap_err().message;
        let couldnt = "couldn't get version/kind; json parse error";
        assert_eq!(told(""), format!("{couldnt}: unexpected end of JSON input"));
        assert_eq!(told("kind: Pod"), format!("{couldnt}: invalid character 'k' looking for beginning of value"));
    }
}

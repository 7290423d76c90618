//! What a request is answered with, read again from what is sent: the log has JSON whatever the client has asked for. That costs only those
//! requests whose answers the policy wants.

use std::io::Read;

use base::budgets::heavy::{self, HEAVY};
use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::{StreamExt, stream};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response};
use serde_json::Value;

use super::MAX_BODY;
use crate::body::Body;
use crate::decode;
use crate::negotiate::Format;

/// What is told of an answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The object, list, table or Status.
    Object(Value),
    /// It has no such form.
    None,
    /// More than is told, see [`MAX_BODY`].
    TooLarge,
}

/// Reads what a response is. One that `lasts`, and what comes from another server, is none. The response stays what it was.
pub(super) async fn read(response: &mut Response<Body>, lasts: bool) -> Answer {
    let Some(format) = format(response.headers()) else { return Answer::None };
    let gzip = match response.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None => false,
        Some(b"gzip") => true,
        Some(_) => return Answer::None,
    };
    let Some(bytes) = whole(response.body_mut(), lasts).await else { return Answer::TooLarge };
    if bytes.is_empty() {
        return Answer::None;
    }
    heavy::work(if gzip { HEAVY } else { bytes.len() }, move || decoded(format, &bytes, gzip)).await
}

fn format(headers: &HeaderMap) -> Option<Format> {
    let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let main = media_type.split(';').next()?.trim();
    [Format::Json, Format::Yaml, Format::Protobuf].into_iter().find(|format| format.media_type() == main)
}

/// All bytes of a body, none of one that is passed on; None when there are too many. What is taken from the body is put back.
async fn whole(body: &mut Body, lasts: bool) -> Option<Bytes> {
    match body {
        Body::Whole(bytes) => Some(bytes.clone()).filter(|bytes| bytes.len() <= MAX_BODY),
        Body::List(list) if list.len() > MAX_BODY as u64 => None,
        Body::List(list) => Some(list.look()),
        Body::Stream(_) if !lasts => {
            let Body::Stream(mut rest) = std::mem::take(body) else { return None };
            let (mut pieces, mut size) = (Vec::new(), 0);
            let over = loop {
                match rest.next().await {
                    None => break true,
                    Some(piece) => {
                        size += piece.as_ref().map_or(MAX_BODY, Bytes::len);
                        pieces.push(piece);
                    }
                }
                if size > MAX_BODY {
                    break false;
                }
            };
            let mut all = BytesMut::new();
            if over {
                pieces.iter().flatten().for_each(|piece| all.extend_from_slice(piece));
            }
            *body = Body::Stream(stream::iter(pieces).chain(rest).boxed());
            over.then(|| all.freeze())
        }
        _ => Some(Bytes::new()),
    }
}

fn decoded(format: Format, bytes: &[u8], gzip: bool) -> Answer {
    let mut text = Vec::new();
    let bytes = if gzip {
        let read = GzDecoder::new(bytes).take(MAX_BODY as u64 + 1).read_to_end(&mut text);
        if read.is_ok_and(|size| size > MAX_BODY) {
            return Answer::TooLarge;
        }
        &text
    } else {
        bytes
    };
    let parsed = match format {
        Format::Json => serde_json::from_slice(bytes).ok(),
        Format::Yaml => decode::parse_yaml(bytes).ok().map(|(value, _)| value),
        Format::Protobuf => decode::parse_protobuf(bytes, ("", "", "")).ok(),
    };
    parsed.filter(Value::is_object).map_or(Answer::None, Answer::Object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::ListBody;
    use http_body_util::BodyExt;
    use serde_json::json;

    fn pieces(all: &[&'static str]) -> Body {
        let all: Vec<_> = all.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        Body::Stream(stream::iter(all).boxed())
    }

    /// What is read is still sent.
    async fn check(media_type: &'static str, body: Body, lasts: bool, expected: Answer, sent: &[u8]) {
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, media_type.parse().unwrap());
        assert_eq!(read(&mut response, lasts).await, expected, "{media_type}");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), sent, "{media_type}");
    }

    #[tokio::test]
    async fn answers_of_every_form_are_read() {
        let (text, object) = (r#"{"kind":"List","items":[1,2]}"#, json!({"kind": "List", "items": [1, 2]}));
        let list = || {
            Body::List(Box::new(ListBody::new(r#"{"kind":"List","items":["#.into(), vec!["1".into(), "2".into()], "]}".into())))
        };
        let told = || Answer::Object(object.clone());
        check("application/json", text.into(), false, told(), text.as_bytes()).await;
        check("application/json", list(), false, told(), text.as_bytes()).await;
        check("application/json", pieces(&[&text[..9], &text[9..]]), false, told(), text.as_bytes()).await;
        check("application/json", pieces(&[text]), true, Answer::None, text.as_bytes()).await;
        check("application/yaml", "kind: List\nitems: [1, 2]\n".into(), false, told(), b"kind: List\nitems: [1, 2]\n").await;
        check("text/plain; charset=utf-8", text.into(), false, Answer::None, text.as_bytes()).await;
        check("application/json", Body::Empty, false, Answer::None, b"").await;
        let status = apimachinery::Status::bad_request("why").to_value();
        let encoded = crate::respond::protobuf(&status).unwrap();
        let Answer::Object(found) = decoded(Format::Protobuf, &encoded, false) else { panic!("nothing") };
        assert_eq!((&found["reason"], &found["message"], &found["code"]), (&json!("BadRequest"), &json!("why"), &json!(400)));
    }

    #[tokio::test]
    async fn of_what_is_too_large_nothing_is_told_and_all_is_sent() {
        let text: &'static str = Box::leak(format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_BODY)).into_boxed_str());
        check("application/json", text.into(), false, Answer::TooLarge, text.as_bytes()).await;
        check("application/json", pieces(&[text, "more"]), false, Answer::TooLarge, format!("{text}more").as_bytes()).await;
        let list = Body::List(Box::new(ListBody::of(std::iter::once(text.into()), text.len())));
        check("application/json", list, false, Answer::TooLarge, text.as_bytes()).await;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text.as_bytes()).unwrap();
        assert_eq!(decoded(Format::Json, &packed.finish().unwrap(), true), Answer::TooLarge);
    }
}

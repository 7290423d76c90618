//! One answer to a watch request, event by event.
//!
//! The API server of this process sends an event in three pieces, the middle one of which is the object as its cache has it: who keeps
//! it shares the memory with the cache.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use memchr::memchr;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Error, Type};
use crate::lean;

/// The longest event: an object may have a few MiB, and grows when it is shown.
const LINE: usize = 64 << 20;

pub(super) struct Connection {
    body: Body,
    /// Of the line that is coming in, and their bytes.
    parts: Vec<Bytes>,
    length: usize,
    ready: VecDeque<Vec<Bytes>>,
}

impl Connection {
    /// Sends the request; an answer that is no success is an error.
    pub(super) async fn open(client: &Client, mut request: http::Request<Vec<u8>>) -> kube::Result<Self> {
        // Compressing one event at a time costs both sides more than it saves.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let response = client.send(request.map(Body::from)).await?;
        let (code, body) = (response.status(), response.into_body());
        if code.is_success() {
            return Ok(Self { body, parts: Vec::new(), length: 0, ready: VecDeque::new() });
        }
        let text = body.collect_bytes().await?;
        let unreadable = |_| Status::failure(&String::from_utf8_lossy(&text), "").with_code(code.as_u16());
        Err(kube::Error::Api(Box::new(serde_json::from_slice(&text).unwrap_or_else(unreadable))))
    }

    /// Type and object of the next event; none at the end. What a connection leaves of a line when it breaks counts as its end.
    pub(super) async fn event(&mut self) -> Result<Option<(Type, Bytes)>, Error> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(Some(parse(&line)?));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                self.split(data)?;
            }
        }
    }

    fn split(&mut self, mut data: Bytes) -> io::Result<()> {
        while let Some(end) = memchr(b'\n', &data) {
            let mut line = std::mem::take(&mut self.parts);
            self.length = 0;
            line.push(data.split_to(end));
            let _newline = data.split_to(1);
            self.ready.push_back(line);
        }
        if !data.is_empty() {
            self.length += data.len();
            self.parts.push(data);
        }
        if self.length > LINE { Err(io::Error::other("an event of the watch is too long")) } else { Ok(()) }
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

fn parse(line: &[Bytes]) -> Result<(Type, Bytes), serde_json::Error> {
    let kind = |text: &str| Type::deserialize(serde::de::value::StrDeserializer::new(text));
    if let [head, object, tail] = line
        && tail.as_ref() == b"}"
        && let Some(text) = head.strip_prefix(br#"{"type":""#).and_then(|rest| rest.strip_suffix(br#"","object":"#))
    {
        return Ok((kind(&String::from_utf8_lossy(text))?, object.clone()));
    }
    let text = line.concat();
    let line: Line<'_> = serde_json::from_slice(&text)?;
    // Not a slice: the line may have come with many others.
    Ok((kind(&line.r#type)?, Bytes::copy_from_slice(&lean::text(line.object.get().as_bytes()))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn lines_may_be_cut_anywhere() {
        let text = b"{\"type\":\"ADDED\",\"object\":{\"a\":1}}\n{\"type\":\"DELETED\",\"object\":{\"b\":[2]}}\n";
        let object = |text: &'static str| Bytes::from_static(text.as_bytes());
        for size in 1..=text.len() {
            let mut connection = Connection { body: Body::empty(), parts: Vec::new(), length: 0, ready: VecDeque::new() };
            text.chunks(size).for_each(|part| connection.split(Bytes::copy_from_slice(part)).unwrap());
            assert!(connection.event().await.unwrap() == Some((Type::Added, object(r#"{"a":1}"#))), "pieces of {size}");
            assert!(connection.event().await.unwrap() == Some((Type::Deleted, object(r#"{"b":[2]}"#))), "pieces of {size}");
            assert!(connection.event().await.unwrap().is_none());
        }
    }

    #[test]
    fn an_object_that_comes_alone_is_kept_as_it_came() {
        let object = Bytes::from_static(br#"{"metadata":{"managedFields":[1],"name":"n"}}"#);
        let line = |last: &'static [u8]| {
            parse(&[Bytes::from_static(br#"{"type":"MODIFIED","object":"#), object.clone(), Bytes::from_static(last)]).unwrap().1
        };
        assert_eq!(line(b"}").as_ptr(), object.as_ptr());
        assert_eq!(line(b" }"), Bytes::from_static(br#"{"metadata":{"name":"n"}}"#));
        assert!(parse(&[Bytes::from_static(br#"{"type":"OTHER","object":{}}"#)]).is_err());
    }
}

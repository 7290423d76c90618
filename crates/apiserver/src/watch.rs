//! Watch streams.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use apimachinery::table::IncludeObject;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{Response, StatusCode};
use registry::{Event, EventType, Served, Watch};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::body::Body;
use crate::negotiate::{Accept, Format, Shape};
use crate::respond;

/// How long a watch lasts that does not say, at least; up to twice that, so that clients do not come back all at once.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// How long a watch lasts that does not say.
pub(crate) fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT.mul_f64(1.0 + spread())
}

/// The stream of a watch, until its end or the end of the server.
pub(crate) fn stream(
    accept: Accept,
    resource: &Arc<Served>,
    watch: Watch,
    query: &str,
    end: CancellationToken,
) -> Response<Body> {
    let (resource, embed) = (resource.clone(), respond::include(query));
    let mut columns_sent = false;
    let frames = watch.into_stream().take_until(end.cancelled_owned()).map(move |event| {
        let first = !std::mem::replace(&mut columns_sent, true);
        Ok(frame(accept, &resource, &event, embed, first))
    });
    respond::bytes(StatusCode::OK, accept.format.stream_type(), Body::Stream(frames.boxed()))
}

/// A number in [0, 1) that differs from watch to watch.
fn spread() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) % 1000) as f64 / 1000.0
}

fn frame(accept: Accept, resource: &Served, event: &Event, embed: IncludeObject, first: bool) -> Bytes {
    if accept.shape == Shape::Object && accept.format != Format::Protobuf {
        return event.frame();
    }
    if let (Shape::Metadata { beta }, None, true) = (accept.shape, &event.status, accept.format != Format::Protobuf)
        && let Some(object) = respond::metadata_json(&event.entry.json, beta)
    {
        let (before, kind, between) = (br#"{"type":""#, event.kind.as_str().as_bytes(), br#"","object":"#);
        return [before, kind, between, &object, b"}\n"].concat().into();
    }
    let object = match &event.status {
        Some(status) => status.to_value(),
        None => shape(accept.shape, resource, event, embed, first),
    };
    let kind = event.kind.as_str();
    if accept.format != Format::Protobuf {
        let mut line = json!({"type": kind, "object": object}).to_string();
        line.push('\n');
        return line.into();
    }
    let enveloped = respond::protobuf(&object).or_else(|status| respond::protobuf(&status.to_value())).unwrap_or_default();
    let message = schema::protobuf::watch_event(kind, &enveloped);
    let mut frame = BytesMut::with_capacity(message.len() + 4);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

fn shape(shape: Shape, resource: &Served, event: &Event, embed: IncludeObject, first: bool) -> Value {
    let object = event.entry.value();
    match shape {
        Shape::Object => object,
        Shape::Metadata { beta } => respond::metadata(&object, beta),
        Shape::Table { beta } => {
            let mut own = Map::new();
            own.insert("resourceVersion".into(), event.entry.revision.to_string().into());
            if event.kind == EventType::Bookmark {
                let annotations = object.pointer("/metadata/annotations").cloned();
                let row = json!({"cells": [], "object": respond::metadata(&object, beta)});
                let mut table = respond::table(resource, Vec::new(), own, embed, beta);
                table["rows"] = json!([row]);
                if let Some(annotations) = annotations {
                    table["metadata"]["annotations"] = annotations;
                }
                return table;
            }
            let mut table = respond::table(resource, vec![object], own, embed, beta);
            // Only the first event repeats the columns.
            if !first {
                table["columnDefinitions"] = json!(null);
            }
            table
        }
    }
}

/// The watch could not start: clients expect an HTTP error for what they sent, and an event for an expired version.
pub(crate) fn refused(accept: Accept, status: Status) -> Response<Body> {
    if status.code != 410 {
        return respond::failure(accept, &status);
    }
    let event = json!({"type": "ERROR", "object": status.to_value()}).to_string() + "\n";
    match accept.format {
        Format::Protobuf => respond::failure(accept, &status),
        format => respond::bytes(StatusCode::OK, format.stream_type(), event),
    }
}

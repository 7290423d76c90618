//! Watch streams.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use apimachinery::table::IncludeObject;
use base::tasks::{OnFailure, Tasks};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use http::{Response, StatusCode};
use registry::{Event, EventType, Served, Watch};
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::call::On;
use crate::metrics::load::Ongoing;
use crate::negotiate::{Accept, Format, Shape};
use crate::query::Query;
use crate::respond;
use crate::stages::InProcess;

/// How long a watch lasts that does not say, at least; up to twice that, so that clients do not come back all at once.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// How long a watch lasts that does not say.
pub(crate) fn default_timeout() -> Duration {
    DEFAULT_TIMEOUT.mul_f64(1.0 + spread())
}

/// The answer to a watch, until its end or the end of the server: a stream of events, or a WebSocket for who asks for one.
pub(crate) fn stream(on: &On<'_>, watch: Watch, tasks: &Tasks) -> Result<Response<Body>, Status> {
    let accept = on.call.accept;
    let stream_type = accept.format.stream_type().unwrap_or_default();
    let embed = match accept.shape {
        Shape::Table { .. } => respond::include(on.call.query)?,
        _ => IncludeObject::default(),
    };
    let query = Query::parse(on.call.query);
    let mut events = Events {
        accept,
        resource: on.resource.clone(),
        embed,
        columns_sent: false,
        lists: query.flag("sendInitialEvents") && query.flag("allowWatchBookmarks"),
        ongoing: on.call.ongoing.clone(),
    };
    // A token of this watch alone: asking one takes its lock.
    let watch = watch.into_stream().take_until(tasks.token().child_token().cancelled_owned());
    if !streaming::is_websocket(&on.call.parts.headers) {
        // A component of this process that keeps the object shares it with the cache.
        if on.call.parts.extensions.get::<InProcess>().is_some() && events.is_plain() {
            let pieces = watch.flat_map(move |event| futures::stream::iter(events.pieces(&event).map(Ok)));
            return Ok(respond::bytes(StatusCode::OK, stream_type, Body::Stream(pieces.boxed())));
        }
        let frames = watch.map(move |event| Ok(events.frame(&event)));
        return Ok(respond::bytes(StatusCode::OK, stream_type, Body::Stream(frames.boxed())));
    }
    let mut request = http::Request::from_parts(on.call.parts.clone(), ());
    let accepted = streaming::messages::accept(&mut request, accept.format != Format::Protobuf);
    let (answer, send) = accepted.map_err(|refusal| Status::bad_request(refusal.message))?;
    let sending = send(watch.map(move |event| events.message(&event)).boxed());
    tasks.spawn_until_cancelled("watch over websocket", OnFailure::Log, sending);
    Ok(answer.map(|()| Body::Empty))
}

/// A number in [0, 1) that differs from watch to watch.
fn spread() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(0) % 1000) as f64 / 1000.0
}

/// How events are shown.
struct Events {
    accept: Accept,
    resource: Arc<Served>,
    embed: IncludeObject,
    columns_sent: bool,
    /// What there is is being shown; the first bookmark ends it.
    lists: bool,
    /// Held as long as the watch lasts.
    ongoing: Option<Arc<Ongoing>>,
}

impl Events {
    /// An event as a part of a stream: a line of JSON, or a message behind its length.
    fn frame(&mut self, event: &Event) -> Bytes {
        let message = self.message(event);
        if self.accept.format != Format::Protobuf {
            return message;
        }
        let mut frame = BytesMut::with_capacity(message.len() + 4);
        frame.put_u32(message.len() as u32);
        frame.put_slice(&message);
        frame.freeze()
    }

    /// Whether events are sent as their lines of JSON.
    fn is_plain(&self) -> bool {
        self.accept.format == Format::Json && matches!(self.accept.shape, Shape::Object | Shape::MetadataList { .. })
    }

    /// The line of an event in three pieces, the middle one of which is the object as the cache has it.
    fn pieces(&mut self, event: &Event) -> [Bytes; 3] {
        let object = match &event.status {
            Some(status) => Bytes::from(status.to_json()),
            None => event.entry.json.clone(),
        };
        let head = format!(r#"{{"type":"{}","object":"#, event.kind.as_str());
        self.sent(event, head.len() + object.len() + 2);
        [head.into(), object, Bytes::from_static(b"}\n")]
    }

    fn message(&mut self, event: &Event) -> Bytes {
        let message = self.encode(event);
        self.sent(event, message.len());
        message
    }

    /// Counts an event.
    fn sent(&mut self, event: &Event, bytes: usize) {
        let ends_list = event.kind == EventType::Bookmark && std::mem::take(&mut self.lists);
        if let Some(ongoing) = &self.ongoing {
            ongoing.sent(bytes);
            if ends_list {
                ongoing.listed();
            }
        }
    }

    fn encode(&mut self, event: &Event) -> Bytes {
        let (accept, first) = (self.accept, !std::mem::replace(&mut self.columns_sent, true));
        let is_json = accept.format != Format::Protobuf;
        if is_json && matches!(accept.shape, Shape::Object | Shape::MetadataList { .. }) {
            return event.frame();
        }
        if let (Shape::Metadata { beta }, None, true) = (accept.shape, &event.status, is_json)
            && let Some(object) = respond::metadata_json(&event.entry.json, beta)
        {
            let (before, kind, between) = (br#"{"type":""#, event.kind.as_str().as_bytes(), br#"","object":"#);
            return [before, kind, between, &object, b"}\n"].concat().into();
        }
        let kind = event.kind.as_str();
        let object = match &event.status {
            Some(status) if is_json => return error_line(status).into(),
            Some(status) => status.to_value(),
            None => shape(accept.shape, &self.resource, event, self.embed, first),
        };
        if is_json {
            let mut line = json!({"type": kind, "object": object}).to_string();
            line.push('\n');
            return line.into();
        }
        let enveloped = respond::protobuf(&object).or_else(|status| respond::protobuf(&status.to_value())).unwrap_or_default();
        schema::protobuf::watch_event(kind, &enveloped).into()
    }
}

fn error_line(status: &Status) -> String {
    format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", status.to_json())
}

fn shape(shape: Shape, resource: &Served, event: &Event, embed: IncludeObject, first: bool) -> Value {
    let object = event.entry.value();
    match shape {
        // A list of one event is none: the object stays as it is, as upstream.
        Shape::Object | Shape::MetadataList { .. } => object,
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
    match (status.code, accept.format, accept.format.stream_type()) {
        (410, Format::Json, Some(stream_type)) => respond::bytes(StatusCode::OK, stream_type, error_line(&status)),
        _ => respond::failure(accept, &status),
    }
}

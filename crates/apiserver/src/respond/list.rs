//! Lists, put together while they are sent.
//!
//! Objects are encoded already, so a list in JSON is a row of shared bytes. In any other form each object is decoded and
//! rendered on its own, in pieces, off the runtime's threads and only as fast as the client reads: the memory that a list
//! takes does not grow with its length. Protobuf alone needs a length at its beginning, so its message is built whole, once.

use std::io::Write;
use std::sync::Arc;

use apimachinery::Status;
use apimachinery::table::IncludeObject;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use registry::{Entry, List, Served};
use schema::{Ordered, Schema};
use serde_json::{Map, Value, json};

use super::shape::{self, meta_version};
use super::{bytes, failure};
use crate::body::{Body, BoxError, ListBody};
use crate::negotiate::{Accept, Format, Shape};

/// Lists above this size are compressed for clients that take gzip, as upstream.
const GZIP_FROM: usize = 128 << 10;
/// Lists of objects up to this size are rendered at once.
const INLINE: usize = 32 << 10;
/// How much is rendered in one go.
const PIECE: usize = 64 << 10;
/// How many objects, at most.
const OBJECTS: usize = 256;

/// A list of a resource.
pub(crate) async fn list(accept: Accept, resource: &Arc<Served>, mut list: List, query: &str) -> Response<Body> {
    if let (Shape::Table { .. }, Some(number)) = (&accept.shape, resource.def.rows_by) {
        // Names are in order already.
        list.entries.sort_by_cached_key(|entry| entry.value().pointer(number).and_then(Value::as_i64));
    }
    let mut own = Map::new();
    own.insert("resourceVersion".into(), list.revision.to_string().into());
    own.extend(list.continue_token.map(|token| ("continue".to_owned(), token.into())));
    own.extend(list.remaining.map(|count| ("remainingItemCount".to_owned(), count.into())));
    let size: usize = list.entries.iter().map(|entry| entry.json.len()).sum();
    let gzip = accept.gzip && size > GZIP_FROM;
    let include = match accept.shape {
        Shape::Table { .. } => super::include(query),
        Shape::Metadata { .. } => Err(shape::mismatch("PartialObjectMetadata", "is a list", &resource.def.list_kind())),
        Shape::Object | Shape::MetadataList { .. } => Ok(IncludeObject::None),
    };
    let include = match include {
        Ok(include) => include,
        Err(status) => return failure(accept, &status),
    };
    let items = Items { accept, resource: resource.clone(), include, now: Timestamp::now() };
    if accept.is_plain() && !gzip {
        let (head, tail) = items.frame(&own);
        let entries = list.entries.iter().map(|entry| entry.json.clone()).collect();
        return bytes(StatusCode::OK, "application/json", Body::List(Box::new(ListBody::new(head.into(), entries, tail))));
    }
    let rendering = Rendering::new(items, own, list.entries, gzip);
    let mut response = match rendering {
        Rendering { whole: false, .. } if size > INLINE => {
            bytes(StatusCode::OK, accept.format.media_type(), Body::Stream(rendering.stream()))
        }
        _ => match rendering.all(size > INLINE).await {
            Ok(body) => bytes(StatusCode::OK, accept.format.media_type(), body),
            Err(status) => return failure(accept, &status),
        },
    };
    if gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// How the objects of a list are shown.
struct Items {
    accept: Accept,
    resource: Arc<Served>,
    include: IncludeObject,
    now: Timestamp,
}

impl Items {
    /// Kind and version of the list.
    fn kind(&self) -> (String, String) {
        match self.accept.shape {
            Shape::Object => (self.resource.def.list_kind().into_owned(), self.resource.def.api_version()),
            Shape::Table { beta } => ("Table".into(), meta_version(beta).into()),
            Shape::Metadata { beta } | Shape::MetadataList { beta } => {
                ("PartialObjectMetadataList".into(), meta_version(beta).into())
            }
        }
    }

    /// What stands before and behind the items.
    fn frame(&self, own: &Map<String, Value>) -> (Vec<u8>, Bytes) {
        let (kind, api_version) = self.kind();
        let mut list = json!({"kind": kind, "apiVersion": api_version, "metadata": own});
        let rows = match self.accept.shape {
            Shape::Table { .. } => "rows",
            _ => "items",
        };
        if rows == "rows" {
            list["columnDefinitions"] = shape::columns(&self.resource);
        }
        if self.accept.format == Format::Yaml {
            return yaml_frame(&list, rows);
        }
        let mut head = super::json(self.accept, &Ordered::new(Schema::builtin(), &list)).unwrap_or_default();
        // Without its last brace.
        head.truncate(head.iter().rposition(|byte| *byte == b'}').unwrap_or(0));
        if self.accept.pretty {
            head.truncate(head.trim_ascii_end().len());
            head.extend_from_slice(format!(",\n  \"{rows}\": [").as_bytes());
            return (head, Bytes::from_static(b"]\n}"));
        }
        head.extend_from_slice(format!(",\"{rows}\":[").as_bytes());
        (head, Bytes::from_static(b"]}\n"))
    }

    /// One item as JSON on one line.
    fn compact(&self, entry: &Entry) -> Vec<u8> {
        let metadata = |beta| {
            shape::metadata_json(&entry.json, beta)
                .unwrap_or_else(|| shape::metadata(&entry.value(), beta).to_string().into_bytes())
        };
        match self.accept.shape {
            Shape::Object => entry.json.to_vec(),
            Shape::Metadata { beta } | Shape::MetadataList { beta } => metadata(beta),
            Shape::Table { beta } => {
                let (object, strategy) = (entry.value(), &self.resource.strategy);
                let cells = Value::from(strategy.row(&object, self.now)).to_string();
                let conditions = match strategy.row_conditions(&object) {
                    none if none.is_empty() => String::new(),
                    conditions => format!(r#","conditions":{}"#, Value::from(conditions)),
                };
                let object = match self.include {
                    IncludeObject::None => b"null".to_vec(),
                    IncludeObject::Object => entry.json.to_vec(),
                    IncludeObject::Metadata => metadata(beta),
                };
                [br#"{"cells":"#, cells.as_bytes(), conditions.as_bytes(), br#","object":"#, &object, b"}"].concat()
            }
        }
    }

    /// Appends one item.
    fn write(&self, entry: &Entry, first: bool, out: &mut Vec<u8>) -> Result<(), Status> {
        let compact = self.compact(entry);
        if self.accept.format == Format::Json && !self.accept.pretty {
            if !first {
                out.push(b',');
            }
            out.extend_from_slice(&compact);
            return Ok(());
        }
        let value: Value = serde_json::from_slice(&compact).map_err(Status::internal)?;
        if self.accept.format == Format::Yaml {
            let text = serde_saphyr::to_string(&value).map_err(Status::internal)?;
            indent(text.trim_end(), if first { "- " } else { "\n- " }, "\n  ", out);
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&Ordered::new(Schema::builtin(), &value)).map_err(Status::internal)?;
        indent(&text, if first { "\n    " } else { ",\n    " }, "\n    ", out);
        Ok(())
    }

    /// The whole list in protobuf.
    fn protobuf(&self, own: Map<String, Value>, entries: &[Arc<Entry>]) -> Result<Vec<Bytes>, Status> {
        let (kind, api_version) = self.kind();
        let (schema, beta) = (Schema::builtin(), api_version == meta_version(true));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let ty = schema.kind(group, if beta { "v1" } else { version }, &kind);
        let item = match self.accept.shape {
            Shape::Object => self.resource.schema.type_id(),
            _ => schema.kind("meta.k8s.io", "v1", "PartialObjectMetadata"),
        };
        let (Some(ty), Some(item)) = (ty, item) else {
            return Err(Status::not_acceptable(&["application/json", "application/yaml"]));
        };
        // The older list of metadata has its two fields the other way round.
        let (metadata, number) = if beta { (2, 1) } else { (1, 2) };
        let head = schema::protobuf::encode(schema, ty, &json!({"metadata": own})).map_err(Status::internal)?;
        let mut raw = if beta { Vec::new() } else { head.clone() };
        for entry in entries {
            let value: Value = serde_json::from_slice(&self.compact(entry)).map_err(Status::internal)?;
            let message = schema::protobuf::encode(schema, item, &value).map_err(Status::internal)?;
            schema::protobuf::put_message(&mut raw, number, &message);
        }
        if beta {
            // The same message under the other number.
            raw.push(metadata << 3 | 2);
            raw.extend_from_slice(&head[1..]);
        }
        let (before, behind) = schema::protobuf::envelope(&api_version, &kind, raw.len());
        Ok(vec![before.into(), raw.into(), Bytes::from_static(behind)])
    }
}

/// The frame of a list in YAML, whose keys are sorted.
fn yaml_frame(list: &Value, rows: &str) -> (Vec<u8>, Bytes) {
    let part = |keys: &[&str]| {
        let picked: Map<String, Value> =
            keys.iter().filter_map(|key| Some(((*key).to_owned(), list.get(*key)?.clone()))).collect();
        let text = if picked.is_empty() { Ok(String::new()) } else { serde_saphyr::to_string(&picked) };
        text.unwrap_or_default()
    };
    let (before, behind): (&[&str], &[&str]) = match rows {
        "rows" => (&["apiVersion", "columnDefinitions", "kind", "metadata"], &[]),
        _ => (&["apiVersion"], &["kind", "metadata"]),
    };
    (format!("{}{rows}:\n", part(before)).into_bytes(), format!("\n{}", part(behind)).into())
}

/// Appends a text of several lines.
fn indent(text: &str, before_first: &str, before_others: &str, out: &mut Vec<u8>) {
    for (number, line) in text.split('\n').enumerate() {
        out.extend_from_slice(if number == 0 { before_first } else { before_others }.as_bytes());
        out.extend_from_slice(line.as_bytes());
    }
}

/// A list that is being rendered.
struct Rendering {
    items: Items,
    own: Map<String, Value>,
    entries: std::vec::IntoIter<Arc<Entry>>,
    /// It cannot be rendered in pieces.
    whole: bool,
    /// What stands before the items, until it is written.
    head: Option<Vec<u8>>,
    tail: Bytes,
    out: Output,
}

impl Rendering {
    fn new(items: Items, own: Map<String, Value>, entries: Vec<Arc<Entry>>, gzip: bool) -> Self {
        let whole = items.accept.format == Format::Protobuf;
        let (head, mut tail) = items.frame(&own);
        match (items.accept.format, items.accept.pretty) {
            (Format::Yaml, _) if entries.is_empty() => tail = [b"  []", &tail[..]].concat().into(),
            (Format::Json, true) if !entries.is_empty() => tail = [b"\n  ", &tail[..]].concat().into(),
            _ => {}
        }
        Self { items, own, entries: entries.into_iter(), whole, head: Some(head), tail, out: Output::new(gzip) }
    }

    /// The next piece, none at the end.
    fn piece(&mut self) -> Result<Option<Bytes>, Status> {
        if self.out.is_over() {
            return Ok(None);
        }
        let (mut first, mut text) = (self.head.is_some(), self.head.take().unwrap_or_default());
        for _ in 0..OBJECTS {
            if text.len() >= PIECE {
                break;
            }
            let Some(entry) = self.entries.next() else { break };
            self.items.write(&entry, first, &mut text)?;
            first = false;
        }
        let over = self.entries.len() == 0;
        if over {
            text.extend_from_slice(&self.tail);
        }
        self.out.put(text, over).map(Some)
    }

    /// Pieces as the client reads them. Nothing is held while it does not read, neither a thread nor more than a piece.
    fn stream(self) -> BoxStream<'static, Result<Bytes, BoxError>> {
        let next = |mut rendering: Self| async move {
            let rendered = tokio::task::spawn_blocking(move || (rendering.piece(), rendering)).await;
            let (piece, rendering) = rendered.map_err(BoxError::from)?;
            Ok::<_, BoxError>(piece?.map(|piece| (piece, rendering)))
        };
        futures::stream::try_unfold(self, next).boxed()
    }

    /// All of it; off the runtime's threads where it is `much`.
    async fn all(mut self, much: bool) -> Result<Body, Status> {
        let render = move || {
            let mut pieces = Vec::new();
            if self.whole {
                let entries: Vec<_> = self.entries.collect();
                let parts = self.items.protobuf(self.own, &entries)?;
                let last = parts.len() - 1;
                for (number, part) in parts.into_iter().enumerate() {
                    pieces.push(self.out.put(part, number == last)?);
                }
            } else {
                while let Some(piece) = self.piece()? {
                    pieces.push(piece);
                }
            }
            Ok::<_, Status>(pieces)
        };
        let mut pieces: Vec<Bytes> =
            if much { tokio::task::spawn_blocking(render).await.map_err(Status::internal)?? } else { render()? };
        Ok(match pieces.len() {
            1 => pieces.remove(0).into(),
            _ if much => Body::Stream(futures::stream::iter(pieces.into_iter().map(Ok)).boxed()),
            _ => pieces.concat().into(),
        })
    }
}

/// Where a list goes: as it is, or compressed.
enum Output {
    Plain { over: bool },
    Gzip(Option<Box<GzEncoder<Vec<u8>>>>),
}

impl Output {
    fn new(gzip: bool) -> Self {
        if gzip {
            Self::Gzip(Some(Box::new(GzEncoder::new(Vec::new(), Compression::fast()))))
        } else {
            Self::Plain { over: false }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self, Self::Plain { over: true } | Self::Gzip(None))
    }

    /// What comes out when `text` goes in, the last of it or not.
    fn put(&mut self, text: impl Into<Bytes>, last: bool) -> Result<Bytes, Status> {
        let text = text.into();
        match self {
            Self::Plain { over } => {
                *over = last;
                Ok(text)
            }
            Self::Gzip(encoder) => {
                let Some(mut writer) = encoder.take() else { return Ok(Bytes::new()) };
                writer.write_all(&text).map_err(Status::internal)?;
                if last {
                    return writer.finish().map(Bytes::from).map_err(Status::internal);
                }
                let packed = std::mem::take(writer.get_mut());
                *encoder = Some(writer);
                Ok(packed.into())
            }
        }
    }
}

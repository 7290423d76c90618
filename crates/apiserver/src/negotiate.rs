//! Content negotiation: how a client wants its answer, and how it sent its body. The rules are upstream's
//! (`k8s.io/apiserver/pkg/endpoints/handlers/negotiation`).

use apimachinery::Status;
use apimachinery::text::parse_bool;
use base::accept::{Clause, clauses};
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};

use crate::route;

/// Encodings of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What becomes of the object before it is encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// Nothing.
    #[default]
    Object,
    /// `as=Table;g=meta.k8s.io`, version v1 or v1beta1.
    Table {
        /// v1beta1, for clients from before 1.15.
        beta: bool,
    },
    /// `as=PartialObjectMetadata`.
    Metadata {
        /// v1beta1.
        beta: bool,
    },
    /// `as=PartialObjectMetadataList`.
    MetadataList {
        /// v1beta1.
        beta: bool,
    },
}

/// How the client wants its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Encoding.
    pub format: Format,
    /// Shape.
    pub shape: Shape,
    /// Indented JSON.
    pub pretty: bool,
    /// The client takes gzip.
    pub gzip: bool,
}

impl Accept {
    /// How a client is answered that takes nothing which is served.
    pub const RAW: Self = Self { format: Format::Json, shape: Shape::Object, pretty: true, gzip: false };

    /// The bytes of the cache can be sent as they are.
    pub fn is_plain(self) -> bool {
        self.format == Format::Json && self.shape == Shape::Object && !self.pretty
    }
}

impl Format {
    const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of watch streams; there are none of YAML.
    pub fn stream_type(self) -> Option<&'static str> {
        match self {
            Self::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
            Self::Json => Some("application/json"),
            Self::Yaml => None,
        }
    }

    fn is_asked_for(self, clause: &Clause<'_>) -> bool {
        let (main, sub) = self.media_type().split_once('/').unwrap_or_default();
        clause.takes(main, sub)
    }
}

const ACCEPTED: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMS: &[&str] = &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// What a resource can be shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restrictions<'a> {
    /// Tables and metadata exist.
    pub shapes: bool,
    /// The version that `sv` may name; empty for none.
    pub version: &'a str,
    /// Objects have a protobuf form. Those of custom resources have none; their metadata have.
    pub protobuf: bool,
}

/// Reads the Accept and Accept-Encoding headers, `?pretty` and the user agent.
pub fn accept(headers: &HeaderMap, query: &str, restrictions: Restrictions<'_>) -> Result<Accept, Status> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (format, shape, pretty) = match text(ACCEPT) {
        "" | "*/*" | "application/json" => (Format::Json, Shape::Object, false),
        list => choose(list, restrictions).ok_or_else(|| Status::not_acceptable(ACCEPTED))?,
    };
    let gzip = text(ACCEPT_ENCODING).split(',').any(|encoding| encoding.trim() == "gzip");
    Ok(Accept { format, shape, pretty: pretty || is_pretty(query, text(USER_AGENT)), gzip })
}

/// The best of some media types by an Accept header, of documents that are no API objects.
pub fn best(header: &str, served: &[&'static str]) -> Option<&'static str> {
    clauses(header).iter().find_map(|clause| {
        let takes = |media: &&str| media.split_once('/').is_some_and(|(main, sub)| clause.takes(main, sub));
        served.iter().copied().find(|media| takes(media))
    })
}

/// Refuses a watch in a format that has no streams.
pub fn check_stream(accept: Accept) -> Result<(), Status> {
    accept.format.stream_type().map(drop).ok_or_else(|| Status::not_acceptable(STREAMS))
}

/// `?pretty` says it; without it, people get indented JSON: users of these clients.
fn is_pretty(query: &str, agent: &str) -> bool {
    if query.contains("pretty") {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let said = pairs.map(|(name, value)| (route::decode(name, true), value)).find(|(name, _)| name == "pretty");
        if let Some((_, value)) = said.filter(|(_, value)| !value.is_empty()) {
            return parse_bool(&route::decode(value, true)) == Some(true);
        }
    }
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))
}

/// The first format and shape, by the order of the clauses and then ours, that is served.
fn choose(list: &str, restrictions: Restrictions<'_>) -> Option<(Format, Shape, bool)> {
    clauses(list).iter().find_map(|clause| {
        let pretty = clause.parameter("pretty") == Some("1");
        let mut formats = Format::ALL.into_iter().filter(|format| format.is_asked_for(clause));
        formats.find_map(|format| Some((format, shape(format, clause, restrictions)?, pretty)))
    })
}

/// The shape that a clause asks for, if it may be had in that format.
fn shape(format: Format, clause: &Clause<'_>, restrictions: Restrictions<'_>) -> Option<Shape> {
    let given = |name| clause.parameter(name);
    let stream = given("stream").unwrap_or_default();
    let version = given("sv").unwrap_or_default();
    if !stream.is_empty() && (stream != "watch" || format.stream_type().is_none()) {
        return None;
    }
    if !version.is_empty() && version != restrictions.version {
        return None;
    }
    let (None, None, None) = (given("as"), given("g"), given("v")) else {
        let beta = match (given("g"), given("v")) {
            (Some("meta.k8s.io"), Some("v1")) => false,
            (Some("meta.k8s.io"), Some("v1beta1")) => true,
            _ => return None,
        };
        return match given("as").filter(|_| restrictions.shapes)? {
            "Table" if format != Format::Protobuf => Some(Shape::Table { beta }),
            "PartialObjectMetadata" => Some(Shape::Metadata { beta }),
            "PartialObjectMetadataList" => Some(Shape::MetadataList { beta }),
            _ => None,
        };
    };
    (format != Format::Protobuf || restrictions.protobuf).then_some(Shape::Object)
}

/// The media type of the request's body, without parameters.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The encoding of the request's body; JSON when it does not say.
pub fn body_format(headers: &HeaderMap) -> Result<Format, Status> {
    match content_type(headers) {
        "" | "application/json" | "*/*" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Format::Protobuf),
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

#[cfg(test)]
mod tests;

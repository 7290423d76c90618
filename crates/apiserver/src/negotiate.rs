//! Content negotiation: how a client wants its answer, and how it sent its body.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};

use apimachinery::Status;

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
    /// `as=PartialObjectMetadata` or `as=PartialObjectMetadataList`.
    Metadata {
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
    /// The bytes of the cache can be sent as they are.
    pub fn is_plain(self) -> bool {
        self.format == Format::Json && self.shape == Shape::Object && !self.pretty
    }
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of watch streams.
    pub fn stream_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            // Streams of YAML do not exist.
            Self::Json | Self::Yaml => "application/json",
        }
    }
}

const ACCEPTED: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Reads the Accept and Accept-Encoding headers and `?pretty`. `shapes` says whether objects are served, for which
/// tables and metadata exist.
pub fn accept(headers: &HeaderMap, query: &str, shapes: bool) -> Result<Accept, Status> {
    let gzip = headers.get(ACCEPT_ENCODING).is_some_and(|value| value.as_bytes().windows(4).any(|w| w == b"gzip"));
    let wanted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (format, shape) = match wanted {
        "" | "*/*" | "application/json" => (Format::Json, Shape::Object),
        list => choose(list, shapes).ok_or_else(|| Status::not_acceptable(ACCEPTED))?,
    };
    let pretty = !query.is_empty() && query.split('&').any(|pair| matches!(pair, "pretty" | "pretty=1" | "pretty=true"));
    Ok(Accept { format, shape, pretty, gzip })
}

fn choose(list: &str, shapes: bool) -> Option<(Format, Shape)> {
    let mut clauses: Vec<(u32, &str)> = list.split(',').map(|clause| (quality(clause), clause)).collect();
    clauses.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    clauses.iter().filter(|(quality, _)| *quality > 0).find_map(|(_, clause)| read_clause(clause, shapes))
}

/// The q parameter, in thousandths.
fn quality(clause: &str) -> u32 {
    let parameter = clause.split(';').map(str::trim).find_map(|parameter| parameter.strip_prefix("q="));
    parameter.and_then(|q| q.parse::<f32>().ok()).map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32)
}

fn read_clause(clause: &str, shapes: bool) -> Option<(Format, Shape)> {
    let mut parts = clause.split(';').map(str::trim);
    let format = match parts.next()? {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        "application/vnd.kubernetes.protobuf" => Format::Protobuf,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        match name {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    let beta = match version {
        "" | "v1" => false,
        "v1beta1" => true,
        _ => return None,
    };
    match kind {
        "" => Some((format, Shape::Object)),
        _ if !shapes || group != "meta.k8s.io" => None,
        "Table" => Some((format, Shape::Table { beta })),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some((format, Shape::Metadata { beta })),
        _ => None,
    }
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(header: &str, expected: Option<(Format, Shape)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, header.parse().unwrap());
        let got = accept(&headers, "", true).ok().map(|accept| (accept.format, accept.shape));
        assert_eq!(got, expected, "{header}");
    }

    #[test]
    fn accept_headers() {
        let table = Shape::Table { beta: false };
        check("application/json", Some((Format::Json, Shape::Object)));
        check("application/vnd.kubernetes.protobuf,application/json", Some((Format::Protobuf, Shape::Object)));
        check("application/json;q=0.5, application/yaml", Some((Format::Yaml, Shape::Object)));
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some((Format::Json, table)));
        check("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", Some((Format::Json, Shape::Object)));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        check(partial, Some((Format::Protobuf, Shape::Metadata { beta: false })));
        check("text/html, */*;q=0.1", Some((Format::Json, Shape::Object)));
        check("text/html", None);
        check("application/cbor", None);
    }

    #[test]
    fn bodies() {
        let mut headers = HeaderMap::new();
        assert_eq!(body_format(&headers).unwrap(), Format::Json);
        headers.insert(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
        assert_eq!(body_format(&headers).unwrap(), Format::Json);
        headers.insert(CONTENT_TYPE, "application/cbor".parse().unwrap());
        assert_eq!(body_format(&headers).unwrap_err().code, 415);
    }
}

//! What a proxied server says of its own address, seen from outside: links, redirects and headers (upstream: `proxy.Transport`).

use std::io::Write;

use bytes::Bytes;
use flate2::write::{DeflateDecoder, GzDecoder};
use futures::StreamExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::BodyExt;

use super::html::Rewriter;
use crate::body::{Body, BoxError};

/// Compressed pages are unpacked in pieces of this size, each of which is at most a thousand times as long then.
const PACKED_PIECE: usize = 4 << 10;

const CORS: [HeaderName; 4] = [
    http::header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    http::header::ACCESS_CONTROL_ALLOW_HEADERS,
    http::header::ACCESS_CONTROL_ALLOW_METHODS,
    http::header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// How the outside sees a proxied server.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// Path under which it is found.
    pub(super) prefix: String,
    /// Hosts that mean the server itself: its own, and the one that the client asked.
    pub(super) hosts: Vec<String>,
}

impl Links {
    /// Adapts an answer.
    pub(super) fn adapt(self, mut response: Response<Body>) -> Response<Body> {
        let is_empty = http_body::Body::is_end_stream(response.body());
        let headers = response.headers_mut();
        CORS.iter().for_each(|name| drop(headers.remove(name)));
        if let Some(location) = text(headers, &LOCATION) {
            if let Some(new) = self.rewrite(location).and_then(|new| HeaderValue::try_from(new).ok()) {
                headers.insert(LOCATION, new);
            }
            return response;
        }
        let kind = text(headers, &CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or_default();
        if kind.trim() != "text/html" || is_empty {
            return response;
        }
        // A page in an encoding that nobody here reads passes as it is.
        let Some(unpacker) = Unpacker::of(text(headers, &CONTENT_ENCODING).unwrap_or_default()) else { return response };
        headers.remove(CONTENT_LENGTH);
        headers.remove(CONTENT_ENCODING);
        response.map(|body| self.page(body, unpacker))
    }

    fn page(self, body: Body, unpacker: Unpacker) -> Body {
        let rewriter = Rewriter::new(move |link: &str| self.rewrite(link));
        let parts = body.into_data_stream();
        let state = Page { parts, queue: Bytes::new(), unpacker, rewriter, over: false };
        Body::Stream(futures::stream::unfold(state, |mut page| async move { page.next().await.map(|part| (part, page)) }).boxed())
    }

    /// The new form of a link that is the server's own and absolute; none when it stays.
    pub(super) fn rewrite(&self, link: &str) -> Option<String> {
        let end = link.find(['?', '#']).unwrap_or(link.len());
        let (head, rest) = link.split_at(end);
        let without_scheme = match head.split_once("://") {
            Some((scheme, after)) if scheme.bytes().all(|c| c.is_ascii_alphanumeric()) => Some(after),
            _ => head.strip_prefix("//"),
        };
        let path = match without_scheme {
            None => head,
            Some(after) => {
                let (host, path) = after.split_at(after.find('/').unwrap_or(after.len()));
                if !self.hosts.iter().any(|own| own == host) {
                    return None;
                }
                path
            }
        };
        if !path.starts_with('/') {
            return None;
        }
        let joined = if path.starts_with(&self.prefix) { path.to_owned() } else { join(&self.prefix, path) };
        Some(format!("{}{rest}", escape(&joined))).filter(|new| new != link)
    }
}

/// Go's `path.Join`, with the slash at the end kept.
fn join(prefix: &str, path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in prefix.split('/').chain(path.split('/')) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let end = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{end}", segments.join("/"))
}

/// What would end an attribute's value.
fn escape(path: &str) -> String {
    path.replace('"', "%22").replace('\'', "%27").replace('<', "%3C").replace('>', "%3E")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Unpacks a page piece by piece.
enum Unpacker {
    Plain,
    Gzip(GzDecoder<Vec<u8>>),
    Deflate(DeflateDecoder<Vec<u8>>),
}

impl Unpacker {
    fn of(encoding: &str) -> Option<Self> {
        match encoding {
            "" => Some(Self::Plain),
            "gzip" => Some(Self::Gzip(GzDecoder::new(Vec::new()))),
            "deflate" => Some(Self::Deflate(DeflateDecoder::new(Vec::new()))),
            _ => None,
        }
    }

    fn unpack(&mut self, piece: &[u8]) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Plain => return Ok(piece.to_vec()),
            Self::Gzip(decoder) => decoder.write_all(piece)?,
            Self::Deflate(decoder) => decoder.write_all(piece)?,
        }
        self.ready()
    }

    /// What has been unpacked and not taken.
    fn ready(&mut self) -> std::io::Result<Vec<u8>> {
        Ok(match self {
            Self::Plain => Vec::new(),
            Self::Gzip(decoder) => {
                decoder.flush()?;
                std::mem::take(decoder.get_mut())
            }
            Self::Deflate(decoder) => {
                decoder.flush()?;
                std::mem::take(decoder.get_mut())
            }
        })
    }

    fn finish(&mut self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Plain => {}
            Self::Gzip(decoder) => decoder.try_finish()?,
            Self::Deflate(decoder) => decoder.try_finish()?,
        }
        self.ready()
    }
}

/// A page on its way.
struct Page<S, F> {
    parts: S,
    /// Received, not unpacked yet.
    queue: Bytes,
    unpacker: Unpacker,
    rewriter: Rewriter<F>,
    over: bool,
}

impl<S, F> Page<S, F>
where
    S: futures::Stream<Item = Result<Bytes, BoxError>> + Unpin,
    F: Fn(&str) -> Option<String>,
{
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        while !self.over {
            let out = if self.queue.is_empty() {
                match self.parts.next().await {
                    Some(Ok(part)) => {
                        self.queue = part;
                        continue;
                    }
                    Some(Err(error)) => {
                        self.over = true;
                        return Some(Err(error));
                    }
                    None => self.finish(),
                }
            } else {
                let piece = self.queue.split_to(self.queue.len().min(PACKED_PIECE));
                self.unpacker.unpack(&piece).map(|plain| self.rewriter.push(&plain))
            };
            match out {
                Ok(out) if out.is_empty() => {}
                Ok(out) => return Some(Ok(out.into())),
                Err(error) => {
                    self.over = true;
                    return Some(Err(error.into()));
                }
            }
        }
        None
    }

    fn finish(&mut self) -> std::io::Result<Vec<u8>> {
        self.over = true;
        let mut out = self.rewriter.push(&self.unpacker.finish()?);
        out.extend(self.rewriter.finish());
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn links() -> Links {
        let hosts = vec!["10.0.0.7:80".to_owned(), "api:6443".to_owned()];
        Links { prefix: "/api/v1/namespaces/n/pods/p/proxy".into(), hosts }
    }

    #[test]
    fn own_absolute_links_get_the_prefix() {
        let prefix = links().prefix;
        let check = |link: &str, expected: Option<&str>| {
            let expected = expected.map(|path| format!("{prefix}{path}"));
            assert_eq!(links().rewrite(link), expected, "{link}");
        };
        check("/x", Some("/x"));
        check("/x/?a=/b#c", Some("/x/?a=/b#c"));
        check("/", Some("/"));
        check("/a/./b//../c", Some("/a/c"));
        check("http://10.0.0.7:80/x", Some("/x"));
        check("//api:6443/x", Some("/x"));
        check("http://example.com/x", None);
        check("x/y", None);
        check("#top", None);
        check("mailto:a@b", None);
        check(&format!("{prefix}/x"), None);
        check(&format!("https://api:6443{prefix}/x"), Some("/x"));
    }

    async fn adapted(headers: &[(HeaderName, &str)], body: impl Into<Body>) -> (HeaderMap, Bytes) {
        let mut response = Response::new(body.into());
        for (name, value) in headers {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        let (parts, body) = links().adapt(response).into_parts();
        (parts.headers, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn answers() {
        let page = "<a href=\"/x\">x</a>";
        let rewritten = format!("<a href=\"{}/x\">x</a>", links().prefix);
        let html = (CONTENT_TYPE, "text/html; charset=utf-8");
        let (headers, body) = adapted(&[html.clone(), (CONTENT_LENGTH, "18")], page).await;
        assert_eq!((headers.get(CONTENT_LENGTH), body), (None, Bytes::from(rewritten.clone())));
        let (headers, body) = adapted(&[(CONTENT_TYPE, "text/plain"), (CONTENT_LENGTH, "18")], page).await;
        assert_eq!((headers[CONTENT_LENGTH].to_str().unwrap(), body), ("18", Bytes::from(page)));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, page.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let (headers, body) = adapted(&[html.clone(), (CONTENT_ENCODING, "gzip")], packed).await;
        assert_eq!((headers.get(CONTENT_ENCODING), body), (None, Bytes::from(rewritten)));
        let (headers, body) = adapted(&[html.clone(), (CONTENT_ENCODING, "br")], page).await;
        assert_eq!((headers[CONTENT_ENCODING].to_str().unwrap(), body), ("br", Bytes::from(page)));
        let (headers, body) = adapted(&[html, (LOCATION, "/y")], page).await;
        assert_eq!((headers[LOCATION].to_str().unwrap(), body), (format!("{}/y", links().prefix).as_str(), Bytes::from(page)));
        let (headers, _) = adapted(&[(http::header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], "").await;
        assert!(headers.is_empty());
    }

    #[tokio::test]
    async fn a_page_that_is_not_what_it_says_breaks_off() {
        let mut response = Response::new(Body::from("no gzip"));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(links().adapt(response).into_body().collect().await.is_err());
    }
}

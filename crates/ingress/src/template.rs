//! Texts with variables of the request, as annotations have them: `https://login.example/?rd=$escaped_request_uri`.

use std::fmt::{self, Write};
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, Uri};

/// A text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    Host,
    Scheme,
    Method,
    Path,
    Query,
    RequestUri,
    EscapedRequestUri,
    RemoteAddress,
    Header(HeaderName),
    Argument(String),
    Cookie(String),
}

/// A variable that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no variable ${0}")]
pub struct UnknownVariable(pub String);

/// What variables stand for.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host of the request, without port.
    pub host: &'a str,
    /// Method.
    pub method: &'a Method,
    /// What was asked for.
    pub uri: &'a Uri,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Who asks.
    pub client: IpAddr,
}

impl Template {
    /// Reads a text; variables are `$name` or `${name}`.
    ///
    /// # Errors
    /// One of them is unknown.
    pub fn parse(text: &str) -> Result<Self, UnknownVariable> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, behind) = (&rest[..at], &rest[at + 1..]);
            let braced = behind.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, after) = braced.unwrap_or_else(|| {
                behind.split_at(behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len()))
            });
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Variable(variable(name).ok_or_else(|| UnknownVariable(name.to_owned()))?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The text for one request.
    pub fn render(&self, facts: &Facts<'_>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable(variable) => variable.render(facts, &mut text),
            }
        }
        text
    }
}

/// The text with its variables as a `$` each.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Variable(_) => f.write_char('$'),
        })
    }
}

fn variable(name: &str) -> Option<Variable> {
    Some(match name {
        "host" | "http_host" | "best_http_host" | "server_name" => Variable::Host,
        "scheme" | "pass_access_scheme" => Variable::Scheme,
        "request_method" => Variable::Method,
        "uri" | "document_uri" => Variable::Path,
        "args" | "query_string" => Variable::Query,
        "request_uri" => Variable::RequestUri,
        "escaped_request_uri" => Variable::EscapedRequestUri,
        "remote_addr" | "the_real_ip" | "binary_remote_addr" => Variable::RemoteAddress,
        _ => {
            if let Some(header) = name.strip_prefix("http_") {
                Variable::Header(header.replace('_', "-").parse().ok()?)
            } else if let Some(argument) = name.strip_prefix("arg_") {
                Variable::Argument(argument.to_owned())
            } else {
                Variable::Cookie(name.strip_prefix("cookie_")?.to_owned())
            }
        }
    })
}

impl Variable {
    fn render(&self, facts: &Facts<'_>, text: &mut String) {
        match self {
            Self::Host => text.push_str(facts.host),
            Self::Scheme => text.push_str(facts.scheme),
            Self::Method => text.push_str(facts.method.as_str()),
            Self::Path => text.push_str(facts.uri.path()),
            Self::Query => text.push_str(facts.uri.query().unwrap_or_default()),
            Self::RequestUri => text.push_str(path_and_query(facts.uri)),
            Self::EscapedRequestUri => text.push_str(&escape(path_and_query(facts.uri))),
            Self::RemoteAddress => drop(write!(text, "{}", facts.client)),
            Self::Header(name) => text.push_str(header(facts.headers, name)),
            Self::Argument(name) => text.push_str(argument(facts.uri, name)),
            Self::Cookie(name) => text.push_str(cookie(facts.headers, name).unwrap_or_default()),
        }
    }
}

/// Path and query as they came.
pub fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

/// A header's first value, empty when it is no text.
pub fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn argument<'a>(uri: &'a Uri, name: &str) -> &'a str {
    let pairs = uri.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    cookies(headers, name).next()
}

/// All cookies of a name: those of another path or domain have it too (RFC 6265, 5.4). Others may have letters that are no header's, as browsers send them.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let pairs = headers.get_all(http::header::COOKIE).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        std::str::from_utf8(value).ok()
    })
}

/// A text as one value of a query (RFC 3986: all but unreserved characters).
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(template: &str, expected: Result<&str, &str>) {
        let uri: Uri = "/a/b?x=1&y=two".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "jane".parse().unwrap());
        headers.append("cookie", "a=1; session=s1".parse().unwrap());
        let client = [10, 0, 0, 1].into();
        let facts = Facts { scheme: "https", host: "h.example", method: &Method::GET, uri: &uri, headers: &headers, client };
        let rendered = Template::parse(template).map(|template| template.render(&facts));
        assert_eq!(rendered.as_deref().map_err(|error| error.0.as_str()), expected, "{template}");
    }

    #[test]
    fn variables() {
        check("", Ok(""));
        check("plain", Ok("plain"));
        check("$host", Ok("h.example"));
        check("$scheme://$host$request_uri", Ok("https://h.example/a/b?x=1&y=two"));
        check("https://login/?rd=$escaped_request_uri", Ok("https://login/?rd=%2Fa%2Fb%3Fx%3D1%26y%3Dtwo"));
        check("${uri}x", Ok("/a/bx"));
        check("$request_method $args", Ok("GET x=1&y=two"));
        check("$remote_addr", Ok("10.0.0.1"));
        check("$http_x_user.$arg_y.$cookie_session.$arg_z", Ok("jane.two.s1."));
        check("$secret", Err("secret"));
        check("a$", Err(""));
        check("${host", Err(""));
    }
}

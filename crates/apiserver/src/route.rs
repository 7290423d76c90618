//! From a path to what it names. No allocation and no table: the shape of Kubernetes paths is fixed.

use std::borrow::Cow;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Objects of a resource, maybe of one that does not exist.
    Resource(Target<'a>),
    /// Anything else: discovery, health, documents.
    Other,
}

/// A resource path. Parts that the path lacks are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target<'a> {
    /// API group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Resource.
    pub plural: &'a str,
    /// Object.
    pub name: &'a str,
    /// Subresource.
    pub sub: &'a str,
    /// What follows the subresource, for proxies; with its leading slash.
    pub rest: &'a str,
    /// The deprecated `/watch/` prefix.
    pub watch: bool,
}

impl<'a> Target<'a> {
    /// The namespace whose rules of access apply. A namespace is in itself.
    pub fn scope(&self) -> &'a str {
        if self.group.is_empty() && self.plural == NAMESPACES { self.name } else { self.namespace }
    }
}

const NAMESPACES: &str = "namespaces";

/// Takes the next segment off a path.
fn segment<'a>(path: &mut &'a str) -> &'a str {
    let trimmed = path.strip_prefix('/').unwrap_or(path);
    let (head, rest) = trimmed.split_at(trimmed.find('/').unwrap_or(trimmed.len()));
    *path = rest;
    head
}

/// Reads a decoded path.
pub fn parse(path: &str) -> Route<'_> {
    let mut rest = path;
    let (group, version) = match segment(&mut rest) {
        "api" => ("", segment(&mut rest)),
        "apis" => (segment(&mut rest), segment(&mut rest)),
        _ => return Route::Other,
    };
    if version.is_empty() || rest.trim_end_matches('/').is_empty() {
        return Route::Other;
    }
    let mut target = Target { group, version, ..Target::default() };
    let mut first = segment(&mut rest);
    if first == "watch" {
        target.watch = true;
        first = segment(&mut rest);
    }
    target.plural = first;
    target.name = segment(&mut rest);
    // A namespace is an object itself when nothing, or one of its subresources, follows.
    let mut ahead = rest;
    let next = segment(&mut ahead);
    if first == NAMESPACES && !target.name.is_empty() && !matches!(next, "" | "status" | "finalize") {
        target.namespace = target.name;
        target.plural = next;
        rest = ahead;
        target.name = segment(&mut rest);
    }
    target.sub = segment(&mut rest);
    target.rest = rest;
    Route::Resource(target)
}

/// The group version whose resources a path asks for: `/apis/GROUP/VERSION`.
pub fn group_version(path: &str) -> Option<(&str, &str)> {
    let (group, version) = path.strip_prefix("/apis/")?.trim_end_matches('/').split_once('/')?;
    (!version.contains('/')).then_some((group, version))
}

/// Decodes percent escapes; malformed ones stay as they are.
pub fn decode(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let [first, rest @ ..] = bytes {
        bytes = rest;
        match (first, rest) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |c: &u8| char::from(*c).to_digit(16).unwrap_or(0) as u8;
                out.push(digit(high) << 4 | digit(low));
                bytes = after;
            }
            (b'+', _) if plus_is_space => out.push(b' '),
            _ => out.push(*first),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// Escapes what may not stand in a query value.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Target<'_>) {
        assert_eq!(parse(path), Route::Resource(expected), "{path}");
    }

    #[test]
    fn resources() {
        let core = Target { version: "v1", ..Target::default() };
        let pods = Target { plural: "pods", namespace: "n", ..core };
        check("/api/v1/pods", Target { namespace: "", ..pods });
        check("/api/v1/pods/", Target { namespace: "", ..pods });
        check("/api/v1/namespaces/n/pods", pods);
        check("/api/v1/watch/namespaces/n/pods", Target { watch: true, ..pods });
        check("/api/v1/namespaces/n/pods/p", Target { name: "p", ..pods });
        check("/api/v1/namespaces/n/pods/p/log", Target { name: "p", sub: "log", ..pods });
        let proxy = Target { name: "https:p:80", sub: "proxy", rest: "/a/b/", ..pods };
        check("/api/v1/namespaces/n/pods/https:p:80/proxy/a/b/", proxy);
        let namespaces = Target { plural: "namespaces", ..core };
        check("/api/v1/namespaces", namespaces);
        check("/api/v1/namespaces/n", Target { name: "n", ..namespaces });
        check("/api/v1/namespaces/n/finalize", Target { name: "n", sub: "finalize", ..namespaces });
        let apps = Target { group: "apps", version: "v1", namespace: "n", plural: "deployments", ..Target::default() };
        check("/apis/apps/v1/namespaces/n/deployments/d/scale", Target { name: "d", sub: "scale", ..apps });
        check("/api/v1/watch/nodes/x", Target { plural: "nodes", name: "x", watch: true, ..core });
    }

    #[test]
    fn others() {
        for path in
            ["/", "", "/api", "/api/v1", "/api/v1/", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/openapi/v3/apis"]
        {
            assert_eq!(parse(path), Route::Other, "{path}");
        }
    }

    #[test]
    fn group_versions() {
        let check = |path: &str, expected: Option<(&str, &str)>| assert_eq!(group_version(path), expected, "{path}");
        check("/apis/a.b/v1", Some(("a.b", "v1")));
        check("/apis/a.b/v1/", Some(("a.b", "v1")));
        check("/apis/a.b", None);
        check("/apis/a.b/v1/pods", None);
        check("/api/v1", None);
    }

    #[test]
    fn escapes() {
        assert_eq!(decode("a%3Ab+c%", false), "a:b+c%");
        assert_eq!(decode("a%2fb+c", true), "a/b c");
        assert_eq!(encode("a b/ü"), "a%20b%2F%C3%BC");
    }
}

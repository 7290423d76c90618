//! Headers on their way through: what belongs to one connection stays there, and back ends learn who asks. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{self, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use ipnet::IpNet;

use crate::gateway::Entrance;
use crate::guard::clients::Shown;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Some programs take this header for a setting of theirs (CVE-2016-5385).
const PROXY: HeaderName = HeaderName::from_static("proxy");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-scheme");
const ORIGINAL_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-original-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What back ends learn of a client's certificate, as ingress-nginx tells it.
const CLIENT: [HeaderName; 4] = [
    HeaderName::from_static("ssl-client-verify"),
    HeaderName::from_static("ssl-client-subject-dn"),
    HeaderName::from_static("ssl-client-issuer-dn"),
    HeaderName::from_static("ssl-client-cert"),
];
const SCHEME: HeaderName = HeaderName::from_static("x-scheme");
/// The longest request id that is taken from a client.
const ID: usize = 128;

/// Whose connection a request came over.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client, as far as the connection says it.
    pub address: IpAddr,
    /// Whether it is over TLS.
    pub tls: bool,
    /// The port that it came to.
    pub port: u16,
    /// Whether that is a port of ingress, or another one.
    pub entrance: Entrance,
    /// The certificate that the client has shown.
    pub shown: Shown,
    /// The host that the client has named in its handshake, in small letters; empty where it has named none.
    pub named: String,
    /// The address of this end of the connection.
    pub local: IpAddr,
}

impl Peer {
    /// The host of a request that names none: the one of the handshake, else where the connection has come to, which no rule has and so
    /// belongs to those without host (RFC 9112, 3.3: "An empty authority is replaced with the configured default").
    fn default_authority(&self) -> Option<HeaderValue> {
        let host = match (self.named.as_str(), self.local.to_canonical()) {
            ("", IpAddr::V4(address)) => address.to_string(),
            ("", IpAddr::V6(address)) => format!("[{address}]"),
            (named, _) => named.to_owned(),
        };
        let standard = if self.tls { 443 } else { 80 };
        let port = if self.port == standard { String::new() } else { format!(":{}", self.port) };
        HeaderValue::from_str(&format!("{host}{port}")).ok()
    }
}

/// Who asks, and how, after trusted proxies were heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub client: IpAddr,
    /// Whether the client came over TLS.
    pub tls: bool,
    /// The port that it came to.
    pub port: u16,
}

impl Origin {
    /// Of a request. What the headers say counts only from trusted proxies, the last word of one that is not trusted.
    pub fn of(peer: &Peer, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
        let address = peer.address.to_canonical();
        let own = Self { client: address, tls: peer.tls, port: peer.port };
        if !is_trusted(address) {
            return own;
        }
        let values: Vec<&HeaderValue> = headers.get_all(&FORWARDED_FOR).into_iter().collect();
        let said = values.into_iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        let mut client = address;
        for item in said.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty()) {
            // What a trusted proxy says, and nobody understands, makes the client nobody that is known, and not the proxy.
            let said = forwarded(item);
            client = said.unwrap_or(UNKNOWN);
            if said.is_none() || !is_trusted(client) {
                break;
            }
        }
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let tls = text(FORWARDED_PROTO).map_or(peer.tls, |proto| proto.eq_ignore_ascii_case("https"));
        let standard = if tls { 443 } else { 80 };
        let port = text(FORWARDED_PORT).and_then(|port| port.parse().ok());
        Self { client, tls, port: port.unwrap_or(if tls == peer.tls { peer.port } else { standard }) }
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// The address of a client of which nothing is known.
const UNKNOWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// The address in an item of X-Forwarded-For, to which some proxies add the port.
fn forwarded(item: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(item).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| Some(text.parse::<std::net::SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

/// Most bytes of a host with its port: names of DNS have 253, and each of their parts is looked for.
const HOST_BYTES: usize = 260;

/// The host that a request is for, with its port, as it was sent. None when it is no host, or there is none where there must be one: "A server MUST
/// respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host header field" (RFC 9112, 3.2). HTTP/1.0 had none.
pub fn authority(peer: &Peer, parts: &Parts) -> Option<HeaderValue> {
    let mut all = parts.headers.get_all(HOST).into_iter();
    let header = all.next().cloned();
    if all.next().is_some() {
        return None;
    }
    let named = parts.uri.authority().map(|authority| authority.as_str());
    let value = match (named, header) {
        (Some(named), _) => HeaderValue::from_str(named).ok()?,
        (None, Some(header)) => header,
        (None, None) if parts.version == Version::HTTP_10 => peer.default_authority()?,
        (None, None) => return None,
    };
    let fits = value.to_str().is_ok_and(|text| {
        (1..=HOST_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
    });
    fits.then_some(value)
}

/// The name in an authority: in small letters, without port and without a dot at its end.
pub fn host_name(authority: &str) -> Cow<'_, str> {
    let end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let host = &authority[..end];
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) }
}

/// Removes from a client's request what no back end is to see of it: what is between two neighbours, and names that one may take for another. Gives the protocol
/// that the client wants to change to. What ingress itself says in headers comes later, so that no client takes it away by naming it in `Connection`.
pub fn receive(parts: &mut Parts) -> Option<HeaderValue> {
    let wanted = upgrade(parts);
    remove_hop_by_hop(&mut parts.headers);
    // Fields behind the body do not go on.
    parts.headers.remove(header::TRAILER);
    if parts.headers.keys().any(is_ambiguous) {
        let names: Vec<HeaderName> = parts.headers.keys().filter(|name| is_ambiguous(name)).cloned().collect();
        names.into_iter().for_each(|name| drop(parts.headers.remove(name)));
    }
    wanted
}

/// Whether a name has other characters than letters, digits and hyphens: CGI and what has come of it give programs `X_User` and `X-User` as one variable. nginx
/// ignores such headers (`ignore_invalid_headers`, `underscores_in_headers`).
fn is_ambiguous(name: &HeaderName) -> bool {
    name.as_str().bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'-')
}

/// The protocol that a client wants to change to on this connection. HTTP/2 in the clear is none: it would carry requests past the rules of all paths, and
/// servers know it without (RFC 9113, 3.1: "the h2c token was previously used in the HTTP Upgrade mechanism ... This usage was never widely deployed and is
/// deprecated").
fn upgrade(parts: &Parts) -> Option<HeaderValue> {
    let asks = parts.version == Version::HTTP_11 && listed(&parts.headers, &CONNECTION, "upgrade");
    parts.headers.get(UPGRADE).filter(|_| asks && !listed(&parts.headers, &UPGRADE, "h2c")).cloned()
}

/// Whether a header lists the word.
fn listed(headers: &HeaderMap, header: &HeaderName, word: &str) -> bool {
    let items = headers.get_all(header).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    items.map(<[u8]>::trim_ascii).any(|item| item.eq_ignore_ascii_case(word.as_bytes()))
}

/// Makes several equal lengths one: what they say, as it is written once. HTTP/2 lets a message have several, and who reads one of them only, as some
/// programs read HTTP/1.1, may read another (RFC 9110, 8.6: "the recipient MUST either reject the message as invalid or replace the duplicate field
/// values with a single valid Content-Length"). Of lengths that differ, with which no message comes so far, none goes on.
fn merge_lengths(headers: &mut HeaderMap) {
    let mut all = headers.get_all(CONTENT_LENGTH).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let length = |text: &[u8]| std::str::from_utf8(text.trim_ascii()).ok().filter(|text| digits(text))?.parse::<u64>().ok();
    let Some(first) = all.next() else { return };
    let Some(second) = all.next() else { return };
    let first = length(first).filter(|first| std::iter::once(second).chain(all).all(|other| length(other) == Some(*first)));
    match first {
        Some(length) => headers.insert(CONTENT_LENGTH, length.into()),
        None => headers.remove(CONTENT_LENGTH),
    };
}

/// Removes what is between two neighbours only (RFC 9110, 7.6.1). A length beside a coding of the transfer says nothing (RFC 9112, 6.3), and there is
/// only one.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    merge_lengths(headers);
    let trailers = listed(headers, &TE, "trailers");
    if headers.contains_key(CONNECTION) {
        let items = headers.get_all(CONNECTION).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        let names: Vec<HeaderName> = items.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect();
        for name in names {
            headers.remove(name);
        }
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        TE,
        header::TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Makes a client's request, as it was [received](receive), one for back ends: `whole` says that the length of its body is the one in its headers.
pub fn prepare(parts: &mut Parts, origin: &Origin, host: &HeaderValue, whole: bool) {
    let headers = &mut parts.headers;
    headers.remove(PROXY);
    headers.remove(header::EXPECT);
    if !whole {
        headers.remove(CONTENT_LENGTH);
    }
    join_cookies(headers);
    if let Some(before) = headers.remove(&FORWARDED_FOR) {
        headers.insert(ORIGINAL_FORWARDED_FOR, before);
    }
    let client = text(&origin.client.to_string());
    headers.insert(REAL_IP, client.clone());
    headers.insert(FORWARDED_FOR, client);
    headers.insert(FORWARDED_HOST, host.clone());
    headers.insert(FORWARDED_PORT, origin.port.into());
    for name in [FORWARDED_PROTO, FORWARDED_SCHEME, SCHEME] {
        headers.insert(name, HeaderValue::from_static(origin.scheme()));
    }
    if !headers.get(&REQUEST_ID).is_some_and(|id| (1..=ID).contains(&id.len())) {
        let id = format!("{:016x}{:016x}", crate::random::next(), crate::random::next());
        headers.insert(REQUEST_ID, text(&id));
    }
}

/// Tells a back end what is known of the client's certificate, instead of what the client says of it.
pub fn tell_of_client(headers: &mut HeaderMap, said: &str, shown: &Shown, pass: bool) {
    CLIENT.iter().for_each(|name| drop(headers.remove(name)));
    let [verify, subject, issuer, certificate] = CLIENT;
    headers.insert(verify, text(said));
    let Shown::Chain(chain) = shown else { return };
    if let Some((of_subject, of_issuer)) = chain.names() {
        for (name, value) in [(subject, of_subject), (issuer, of_issuer)] {
            // Names may have letters that are no header's.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        }
    }
    if pass {
        headers.insert(certificate, text(&chain.escaped()));
    }
}

/// Digits, letters and dots are always a value.
fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}

/// HTTP/2 sends each cookie in a header of its own; in HTTP/1.1 there is one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).into_iter().nth(1).is_none() {
        return;
    }
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::Request;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn peer(address: &str) -> Peer {
        let (address, named, local) = (address.parse().unwrap(), String::new(), [192, 0, 2, 10].into());
        Peer { address, tls: false, port: 80, entrance: Entrance::Ingress, shown: Shown::NotAsked, named, local }
    }

    #[test]
    fn hosts() {
        let check = |host: &str, expected: Option<&str>| {
            let found = authority(&peer("192.0.2.1"), &parts(&[("host", host)]));
            let name = found.as_ref().map(|value| host_name(value.to_str().unwrap()));
            assert_eq!(name.as_deref(), expected, "{host}");
        };
        check("a.example", Some("a.example"));
        check("A.Example:8080", Some("a.example"));
        check("a.example.", Some("a.example"));
        check("[::1]:80", Some("[::1]"));
        check("192.0.2.1:80", Some("192.0.2.1"));
        check("", None);
        check("a/b", None);
        check("a b", None);
        check("user@a", None);
        check(&"a.".repeat(131), None);
        assert!(authority(&peer("192.0.2.1"), &parts(&[("host", "a"), ("host", "b")])).is_none());
    }

    /// RFC 9112, 3.3: a default is "consistent with the incoming connection's context. Context might include connection details like address and port,
    /// what security has been applied".
    #[test]
    fn requests_without_host() {
        let check = |version: Version, change: &dyn Fn(&mut Peer), expected: Option<&str>| {
            let (mut peer, mut parts) = (peer("192.0.2.1"), parts(&[]));
            parts.version = version;
            change(&mut peer);
            let found = authority(&peer, &parts);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), expected, "{version:?}");
        };
        check(Version::HTTP_11, &|_| {}, None);
        check(Version::HTTP_2, &|_| {}, None);
        check(Version::HTTP_10, &|_| {}, Some("192.0.2.10"));
        check(Version::HTTP_10, &|peer| peer.port = 8080, Some("192.0.2.10:8080"));
        check(Version::HTTP_10, &|peer| peer.local = "::ffff:192.0.2.10".parse().unwrap(), Some("192.0.2.10"));
        check(Version::HTTP_10, &|peer| peer.local = "2001:db8::1".parse().unwrap(), Some("[2001:db8::1]"));
        let over_tls = |peer: &mut Peer| (peer.tls, peer.port, peer.named) = (true, 443, "a.example".to_owned());
        check(Version::HTTP_10, &over_tls, Some("a.example"));
    }

    #[test]
    fn connections_keep_what_is_theirs() {
        let headers = [
            ("connection", "keep-alive, X-Own, \u{e9}"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("x_real_ip", "192.0.2.66"),
            ("x.real.ip", "192.0.2.66"),
            ("proxy", "http://evil"),
            ("content-length", "5"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-other", "2"),
            ("x-forwarded-for", "192.0.2.66"),
        ];
        let mut parts = parts(&headers);
        let origin = Origin::of(&peer("192.0.2.1"), &parts.headers, &[]);
        assert_eq!(receive(&mut parts), None);
        prepare(&mut parts, &origin, &"a.example".parse().unwrap(), false);
        let mut left: Vec<(String, String)> = parts
            .headers
            .iter()
            .filter(|(name, _)| **name != REQUEST_ID)
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        left.sort();
        let left: Vec<(&str, &str)> = left.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("cookie", "a=1; b=2"),
            ("te", "trailers"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-host", "a.example"),
            ("x-forwarded-port", "80"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-scheme", "http"),
            ("x-original-forwarded-for", "192.0.2.66"),
            ("x-other", "2"),
            ("x-real-ip", "192.0.2.1"),
            ("x-scheme", "http"),
        ];
        assert_eq!(left, expected);
        assert_eq!(parts.headers[REQUEST_ID].len(), 32);
    }

    #[test]
    fn lengths() {
        let check = |values: &[&str], expected: &[&str]| {
            let headers: Vec<(&str, &str)> = values.iter().map(|value| ("content-length", *value)).collect();
            let mut headers = parts(&headers).headers;
            remove_hop_by_hop(&mut headers);
            let found: Vec<&HeaderValue> = headers.get_all(CONTENT_LENGTH).into_iter().collect();
            assert_eq!(found, expected, "{values:?}");
        };
        check(&[], &[]);
        check(&["5"], &["5"]);
        check(&["5", "5"], &["5"]);
        check(&["5", "05"], &["5"]);
        check(&["5, 5", "5"], &["5"]);
        check(&["5", "6"], &[]);
        check(&["5", "5, x"], &[]);
        check(&["5", ""], &[]);
        check(&["5", "+5"], &[]);
    }

    #[test]
    fn origins() {
        let check = |from: &str, headers: &[(&str, &str)], expected: (&str, bool, u16)| {
            let trusted = ["10.0.0.0/8".parse().unwrap()];
            let origin = Origin::of(&peer(from), &parts(headers).headers, &trusted);
            assert_eq!((origin.client.to_string().as_str(), origin.tls, origin.port), expected, "{from} {headers:?}");
        };
        let spoofed = [("x-forwarded-for", "192.0.2.9"), ("x-forwarded-proto", "https")];
        check("192.0.2.1", &spoofed, ("192.0.2.1", false, 80));
        check("10.0.0.1", &spoofed, ("192.0.2.9", true, 443));
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 192.0.2.9, 10.0.0.5")], ("192.0.2.9", false, 80));
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, what, 10.0.0.5")], ("0.0.0.0", false, 80));
        // What a client has said before is nothing to the proxy, which has added the client's address, or that with its port.
        check("10.0.0.1", &[("x-forwarded-for", "\u{e9}, 192.0.2.9")], ("192.0.2.9", false, 80));
        check("10.0.0.1", &[("x-forwarded-for", "\u{e9}")], ("0.0.0.0", false, 80));
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.9:4711,")], ("192.0.2.9", false, 80));
        check("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]:80")], ("2001:db8::1", false, 80));
        check("10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]")], ("2001:db8::1", false, 80));
        check("::ffff:10.0.0.1", &[("x-forwarded-for", "2001:db8::1")], ("2001:db8::1", false, 80));
        check("10.0.0.1", &[], ("10.0.0.1", false, 80));
        let everybody = ["0.0.0.0/0".parse().unwrap()];
        let said = [("x-forwarded-for", "1.1.1.1, what")];
        let origin = Origin::of(&peer("10.0.0.1"), &parts(&said).headers, &everybody);
        assert_eq!(origin.client, UNKNOWN, "what nobody understands is the end, also where all are trusted");
    }

    #[test]
    fn upgrades() {
        let check = |headers: &[(&str, &str)], expected: bool| assert_eq!(upgrade(&parts(headers)).is_some(), expected);
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], true);
        check(&[("upgrade", "websocket")], false);
        check(&[("connection", "upgrade")], false);
        check(&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "H2C"), ("http2-settings", "")], false);
        check(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")], false);
        check(&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")], false);
    }
}

//! URLs, addresses and networks (`library/urls.go`, `ip.go`, `cidr.go`).

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Function, global, method, other, text};
use crate::error::Error;
use crate::value::{Url, Value};

pub(super) const FUNCTIONS: &[Function] = &[
    global("url", 1, |a| match url(text(&a[0])?) {
        Some(url) => Ok(Value::Url(url)),
        None => {
            other(format!("URL parse error during conversion from string: parse {:?}: invalid URI for request", text(&a[0])?))
        }
    }),
    global("isURL", 1, |a| Ok(Value::Bool(url(text(&a[0])?).is_some()))),
    method("getScheme", 1, |a| parts(&a[0]).map(|parts| Value::text(parts.scheme.to_owned()))),
    method("getHost", 1, |a| parts(&a[0]).map(|parts| Value::text(parts.host.to_owned()))),
    method("getHostname", 1, |a| parts(&a[0]).map(|parts| Value::text(parts.hostname().to_owned()))),
    method("getPort", 1, |a| parts(&a[0]).map(|parts| Value::text(parts.port().to_owned()))),
    method("getEscapedPath", 1, |a| parts(&a[0]).map(|parts| Value::text(parts.path.to_owned()))),
    method("getQuery", 1, query),
    global("ip", 1, |a| match &a[0] {
        Value::Cidr(network) => Ok(Value::Ip(network.addr())),
        value => {
            let text = text(value)?;
            address(text).map_or_else(
                || other(format!("IP Address {text:?} parse error during conversion from string")),
                |ip| Ok(Value::Ip(ip)),
            )
        }
    }),
    global("isIP", 1, |a| Ok(Value::Bool(address(text(&a[0])?).is_some()))),
    global("ip.isCanonical", 1, |a| {
        let text = text(&a[0])?;
        match address(text) {
            Some(ip) => Ok(Value::Bool(ip.to_string() == text)),
            None => other(format!("IP Address {text:?} parse error during conversion from string")),
        }
    }),
    method("family", 1, |a| ip(&a[0]).map(|ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))),
    method("isUnspecified", 1, |a| ip(&a[0]).map(|ip| Value::Bool(ip.is_unspecified()))),
    method("isLoopback", 1, |a| ip(&a[0]).map(|ip| Value::Bool(ip.is_loopback()))),
    method("isLinkLocalMulticast", 1, |a| {
        ip(&a[0]).map(|ip| {
            Value::Bool(match ip {
                IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
                IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
            })
        })
    }),
    method("isLinkLocalUnicast", 1, |a| {
        ip(&a[0]).map(|ip| {
            Value::Bool(match ip {
                IpAddr::V4(ip) => ip.is_link_local(),
                IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
            })
        })
    }),
    method("isGlobalUnicast", 1, |a| ip(&a[0]).map(|ip| Value::Bool(is_global_unicast(ip)))),
    global("cidr", 1, |a| {
        let text = text(&a[0])?;
        network(text).map_or_else(
            || other(format!("network address parse error during conversion from string: {text:?}")),
            |net| Ok(Value::Cidr(net)),
        )
    }),
    global("isCIDR", 1, |a| Ok(Value::Bool(network(text(&a[0])?).is_some()))),
    method("ip", 1, |a| cidr(&a[0]).map(|net| Value::Ip(net.addr()))),
    method("masked", 1, |a| cidr(&a[0]).map(|net| Value::Cidr(net.trunc()))),
    method("prefixLength", 1, |a| cidr(&a[0]).map(|net| Value::Int(net.prefix_len().into()))),
    method("containsIP", 2, |a| contains(&a[0], &within(&a[1], |text| address(text).map(Value::Ip))?)),
    method("containsCIDR", 2, |a| contains(&a[0], &within(&a[1], |text| network(text).map(Value::Cidr))?)),
];

/// An argument that may be given as text.
fn within<'a>(value: &Value<'a>, parse: fn(&str) -> Option<Value<'a>>) -> Result<Value<'a>, Error> {
    match value {
        Value::Text(text) => {
            parse(text).map_or_else(|| other(format!("parse error during conversion from string: {text:?}")), Ok)
        }
        other => Ok(other.clone()),
    }
}

/// Whether a network has another one, or an address, in it.
pub(super) fn contains<'a>(own: &Value<'a>, part: &Value<'a>) -> Result<Value<'a>, Error> {
    match (own, part) {
        (Value::Cidr(own), Value::Ip(ip)) => Ok(Value::Bool(own.contains(ip))),
        (Value::Cidr(own), Value::Cidr(net)) => Ok(Value::Bool(own.contains(net))),
        _ => Err(Error::NoOverload),
    }
}

/// An address that Go's `netip.ParseAddr` takes and Kubernetes allows: no zones, and no IPv4 within IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    let mapped = matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some());
    Some(ip).filter(|_| !mapped)
}

fn network(text: &str) -> Option<IpNet> {
    let (ip, bits) = text.split_once('/')?;
    let plain = bits == "0" || !bits.starts_with('0') && bits.bytes().all(|byte| byte.is_ascii_digit());
    IpNet::new(address(ip)?, bits.parse().ok().filter(|_| plain)?).ok()
}

fn ip(value: &Value<'_>) -> Result<IpAddr, Error> {
    match value {
        Value::Ip(ip) => Ok(*ip),
        _ => Err(Error::NoOverload),
    }
}

fn cidr(value: &Value<'_>) -> Result<IpNet, Error> {
    match value {
        Value::Cidr(net) => Ok(*net),
        _ => Err(Error::NoOverload),
    }
}

fn is_global_unicast(ip: IpAddr) -> bool {
    let (broadcast, link_local) = match ip {
        IpAddr::V4(ip) => (ip.is_broadcast(), ip.is_link_local()),
        IpAddr::V6(ip) => (false, ip.segments()[0] & 0xffc0 == 0xfe80),
    };
    !broadcast && !link_local && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// A URL that Go's `url.ParseRequestURI` takes: absolute, or a path from the root.
fn url(text: &str) -> Option<Url> {
    let printable = !text.is_empty() && !text.contains(|c: char| c.is_ascii_control());
    let split = Parts::of(text);
    // Spaces stand in no name of a host.
    let printable = printable && !split.host.contains(' ');
    let scheme = split.scheme;
    let good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    let port = split.port();
    let numeric = port.bytes().all(|byte| byte.is_ascii_digit());
    (printable && numeric && (good || scheme.is_empty() && text.starts_with('/'))).then(|| Url(text.into()))
}

struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let text = text.split('#').next().unwrap_or_default();
        let (before, query) = text.split_once('?').unwrap_or((text, ""));
        let (scheme, rest) = match before.split_once(':') {
            Some((scheme, rest)) if !scheme.contains('/') => (scheme, rest),
            _ => ("", before),
        };
        match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                let host = rest[..end].rsplit('@').next().unwrap_or_default();
                Self { scheme, host, path: &rest[end..], query }
            }
            None => Self { scheme, host: "", path: rest, query },
        }
    }

    fn hostname(&self) -> &'a str {
        if let Some(inner) = self.host.strip_prefix('[') {
            return inner.split(']').next().unwrap_or_default();
        }
        self.host.split(':').next().unwrap_or_default()
    }

    fn port(&self) -> &'a str {
        let behind = self.host.rsplit(']').next().unwrap_or_default();
        behind.split_once(':').map_or("", |(_, port)| port)
    }
}

fn parts<'v>(value: &'v Value<'_>) -> Result<Parts<'v>, Error> {
    match value {
        Value::Url(url) => Ok(Parts::of(&url.0)),
        _ => Err(Error::NoOverload),
    }
}

/// The parameters of a query, each with all its values.
fn query<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let mut all: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for pair in parts(&a[0])?.query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = Value::text(decode(value));
        let key = decode(key);
        match places.get(&key) {
            Some(at) => all[*at].1.push(value),
            None => {
                places.insert(key.clone(), all.len());
                all.push((key, vec![value]));
            }
        }
    }
    let entries: Vec<_> = all.into_iter().map(|(key, values)| (Value::text(key), Value::list(values))).collect();
    Ok(Value::map(entries))
}

fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits: Vec<u8> = bytes.clone().take(2).collect();
                match std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                    Some(value) => {
                        out.push(value);
                        bytes.nth(1);
                    }
                    None => out.push(byte),
                }
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

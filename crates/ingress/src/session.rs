//! Sessions by cookie: which endpoint one belongs to, and the cookie that says so. Pure.
//!
//! The cookie holds two numbers: the session's own (balanced) or its endpoint's (persistent), and its back end's, so that a session
//! stays with a canary.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};

use crate::policy::Cookie;
use crate::template::cookies;

/// What a cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Of the session or of the endpoint.
    pub value: u64,
    /// Of the back end.
    pub upstream: u64,
}

/// The last second that an HTTP date can say (RFC 9110, 5.6.7): the end of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

impl Session {
    /// The session of a request: that of the first cookie which is one.
    pub fn of(policy: &Cookie, headers: &HeaderMap) -> Option<Self> {
        cookies(headers, &policy.name).find_map(Self::read)
    }

    fn read(text: &str) -> Option<Self> {
        let (value, upstream) = text.split_once('|')?;
        let is_number = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| is_number(text));
        Some(Self { value: number(value)?, upstream: number(upstream)? })
    }

    /// The header that makes a client remember it. `path` is the rule's, `tls` whether the client came over HTTPS.
    pub fn header(&self, policy: &Cookie, path: &str, tls: bool, now: SystemTime) -> Option<HeaderValue> {
        let path = policy.path.as_deref().unwrap_or(path);
        let mut text = format!("{}={:016x}|{:016x}; Path={path}", policy.name, self.value, self.upstream);
        if let Some(domain) = &policy.domain {
            let _ = write!(text, "; Domain={domain}");
        }
        if let Some(seconds) = policy.expires {
            let last = SystemTime::UNIX_EPOCH + LAST;
            let at = now.checked_add(Duration::from_secs(seconds)).map_or(last, |at| at.min(last));
            let _ = write!(text, "; Expires={}", httpdate::HttpDate::from(at));
        }
        if let Some(seconds) = policy.max_age {
            let _ = write!(text, "; Max-Age={seconds}");
        }
        if policy.secure.unwrap_or(tls) {
            text.push_str("; Secure");
        }
        text.push_str("; HttpOnly");
        if let Some(same_site) = policy.same_site {
            let _ = write!(text, "; SameSite={same_site}");
        }
        HeaderValue::from_str(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cookies() {
        let check = |policy: &Cookie, tls: bool, expected: &str| {
            let session = Session { value: 0xab, upstream: 2 };
            let header = session.header(policy, "/app", tls, SystemTime::UNIX_EPOCH).unwrap();
            let header = header.to_str().unwrap();
            assert_eq!(header, expected);
            let sent = header.split(';').next().unwrap().parse().unwrap();
            let headers = HeaderMap::from_iter([(http::header::COOKIE, sent)]);
            assert_eq!(Session::of(policy, &headers), Some(session));
        };
        let base = "INGRESSCOOKIE=00000000000000ab|0000000000000002; Path=/app";
        check(&Cookie::default(), false, &format!("{base}; HttpOnly"));
        check(&Cookie::default(), true, &format!("{base}; Secure; HttpOnly"));
        let full = Cookie {
            name: "route".into(),
            path: Some("/".into()),
            domain: Some("a.example".into()),
            max_age: Some(60),
            expires: Some(60),
            same_site: Some("Lax"),
            secure: Some(false),
            ..Cookie::default()
        };
        let value = "route=00000000000000ab|0000000000000002";
        let rest = "Path=/; Domain=a.example; Expires=Thu, 01 Jan 1970 00:01:00 GMT; Max-Age=60; HttpOnly; SameSite=Lax";
        check(&full, true, &format!("{value}; {rest}"));
        for ages in [LAST.as_secs() + 1, u64::MAX] {
            let full = Cookie { expires: Some(ages), ..Cookie::default() };
            check(&full, false, &format!("{base}; Expires=Fri, 31 Dec 9999 23:59:59 GMT; HttpOnly"));
        }
    }

    #[test]
    fn what_is_no_session() {
        for value in
            ["", "x", "ab|2", "00000000000000ab", "00000000000000ab|000000000000000g", "+0000000000000ab|0000000000000002"]
        {
            let headers = HeaderMap::from_iter([(http::header::COOKIE, format!("INGRESSCOOKIE={value}").parse().unwrap())]);
            assert_eq!(Session::of(&Cookie::default(), &headers), None, "{value}");
        }
        let two = "INGRESSCOOKIE=bad; INGRESSCOOKIE=00000000000000ab|0000000000000002".parse().unwrap();
        let found = Session::of(&Cookie::default(), &HeaderMap::from_iter([(http::header::COOKIE, two)]));
        assert_eq!(found, Some(Session { value: 0xab, upstream: 2 }), "one of another domain may stand before it");
    }
}

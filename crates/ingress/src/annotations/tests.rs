//! What annotations mean, and that none is ignored in silence.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

fn of(pairs: &[(&str, &str)]) -> (Policy, Vec<Problem>) {
    parse(&pairs.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())).collect(), "a")
}

#[track_caller]
fn check<T: PartialEq + std::fmt::Debug>(name: &str, value: &str, read: fn(&Policy) -> T, expected: T) {
    let (policy, problems) = of(&[(name, value)]);
    assert_eq!((read(&policy), problems), (expected, Vec::new()), "{name}: {value}");
}

#[test]
fn values() {
    check("affinity", "cookie", |p| p.affinity, true);
    check("affinity-mode", "persistent", |p| p.cookie.persistent, true);
    check("session-cookie-name", "route", |p| p.cookie.name.clone(), "route".to_owned());
    check("session-cookie-samesite", "lax", |p| p.cookie.same_site, Some("Lax"));
    check("backend-protocol", "grpc", |p| p.protocol, Some(crate::policy::Protocol::Grpc));
    check("proxy-read-timeout", "3600", |p| p.read_timeout, Duration::from_secs(3600));
    check("proxy-connect-timeout", "75s", |p| p.connect_timeout, Duration::from_secs(75));
    check("proxy-body-size", "8m", |p| p.body_size, Some(8 << 20));
    check("proxy-body-size", "0", |p| p.body_size, None);
    check("proxy-body-size", "2G", |p| p.body_size, Some(2 << 30));
    check("whitelist-source-range", "10.0.0.0/8, 192.0.2.1", |p| p.allow.len(), 2);
    for (text, expected) in [("True", true), ("1", true), ("t", true), ("FALSE", false), ("0", false)] {
        check("force-ssl-redirect", text, |p| p.force_ssl_redirect, expected);
    }
    check("limit-rps", "0", |p| p.limits.rps, None);
    check("limit-rps", "5", |p| p.limits.rps, Some(5));
    check("permanent-redirect-code", "308", |p| p.permanent_code.as_u16(), 308);
    check(
        "proxy-next-upstream",
        "error http_502",
        |p| (p.retry.error, p.retry.timeout, p.retry.statuses.clone()),
        (true, false, vec![502]),
    );
    check("proxy-next-upstream", "off", |p| (p.retry.error, p.retry.timeout), (false, false));
    check("cors-allow-origin", "https://A.example, https://*.b.example", |p| p.cors.origins.len(), 2);
}

/// `checkAnnotation` of ingress-nginx: an alias is read where the annotation's own name has no value.
#[test]
fn old_names_count_without_the_new_ones() {
    let check = |new: &str, expected: &str, untold: bool| {
        let pairs = [("allowlist-source-range", new), ("whitelist-source-range", "0.0.0.0/0")];
        let (policy, problems) = of(&pairs[usize::from(new == "-")..]);
        assert_eq!(policy.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
        assert_eq!(problems.iter().all(|problem| !problem.message.contains("whitelist-source-range has no effect")), untold);
    };
    check("10.99.0.0/16", "10.99.0.0/16", false);
    check("-", "0.0.0.0/0", true);
    let (policy, _) = of(&[("allowlist-source-range", ""), ("whitelist-source-range", "10.99.0.0/16")]);
    assert!(policy.closed, "the new name has to be right where it is there");
}

#[test]
fn what_cannot_be_followed_is_told_and_closes_what_it_guards() {
    let check = |name: &str, value: &str, reason: &str, closed: bool| {
        let (policy, problems) = of(&[(name, value)]);
        let told = problems.first().unwrap();
        assert_eq!((problems.len(), told.reason, policy.closed), (1, reason, closed), "{name}: {value}");
        assert!(told.message.contains(name), "{}", told.message);
    };
    check("affinity", "header", "InvalidAnnotation", false);
    check("proxy-body-size", "many", "InvalidAnnotation", false);
    check("proxy-body-size", "18446744073709551615g", "InvalidAnnotation", false);
    check("proxy-read-timeout", "-1", "InvalidAnnotation", false);
    check("permanent-redirect-code", "200", "InvalidAnnotation", false);
    check("permanent-redirect", "https://x/\r\nset-cookie: a", "InvalidAnnotation", false);
    check("session-cookie-path", "/; Domain=evil", "InvalidAnnotation", false);
    check("whitelist-source-range", "10.0.0.0/99", "InvalidAnnotation", true);
    // A list of nobody lets nobody in, as with ingress-nginx.
    for name in ["allowlist-source-range", "whitelist-source-range", "denylist-source-range"] {
        check(name, "", "InvalidAnnotation", true);
        check(name, " , ", "InvalidAnnotation", true);
    }
    check("limit-allowlist", "", "InvalidAnnotation", false);
    check("enable-cors", "yes", "InvalidAnnotation", false);
    check("auth-type", "digest", "InvalidAnnotation", true);
    check("auth-url", "ftp://x", "InvalidAnnotation", true);
    check("proxy-ssl-verify", "on", "InvalidAnnotation", true);
    check("auth-tls-verify-client", "perhaps", "InvalidAnnotation", true);
    check("auth-tls-match-cn", "CN=(", "InvalidAnnotation", true);
    check("auth-tls-match-cn", r"CN=(\w{100}){1000}", "InvalidAnnotation", true);
    check("canary-by-header-pattern", r"(\w{100}){1000}", "InvalidAnnotation", false);
    check("auth-tls-verify-depth", "2", "UnsupportedAnnotation", false);
    check("auth-snippet", "x;", "UnsupportedAnnotation", true);
    check("configuration-snippet", "more_set_headers x;", "UnsupportedAnnotation", false);
    check("from-the-future", "1", "UnsupportedAnnotation", false);
    assert!(parse(&BTreeMap::from([("example.com/other".to_owned(), "x".to_owned())]), "a").1.is_empty());
}

/// The table in docs/ingress.md names every annotation, and no other.
#[test]
fn documented() {
    let page = include_str!("../../../../docs/ingress.md");
    let names: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .flat_map(|row| row.split(" |").next().unwrap_or_default().split(", "))
        .filter_map(|name| name.strip_prefix('`')?.strip_suffix('`'))
        .collect();
    let known = ANNOTATIONS.iter().map(|a| a.name).chain(WITHOUT_EFFECT.iter().map(|a| a.name));
    let known: BTreeSet<&str> = known.collect();
    assert_eq!(known.len(), ANNOTATIONS.len() + WITHOUT_EFFECT.len(), "each stands once");
    assert_eq!(names, known);
}

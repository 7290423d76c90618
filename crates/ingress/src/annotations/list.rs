//! The lists.

use std::sync::Arc;

use http::Method;

use super::value::{self, Wrong, boolean, items, word};
use super::{Annotation, WithoutEffect};
use crate::guard::clients::Verify;
use crate::patterns::{self, Pattern};
use crate::policy::{Balance, Policy, Protocol, Told};

type Apply = fn(&mut Policy, &str) -> Result<(), Wrong>;

const fn of(name: &'static str, apply: Apply) -> Annotation {
    Annotation { name, guards: false, newer: None, apply }
}

const fn guard(name: &'static str, apply: Apply) -> Annotation {
    Annotation { name, guards: true, newer: None, apply }
}

/// The old name of another one, which ingress-nginx reads only where the new one says nothing (`checkAnnotation`).
const fn old(newer: &'static str, annotation: Annotation) -> Annotation {
    Annotation { newer: Some(newer), ..annotation }
}

const fn nothing(name: &'static str, why: &'static str) -> WithoutEffect {
    WithoutEffect { name, guards: false, why }
}

const fn closes(name: &'static str, why: &'static str) -> WithoutEffect {
    WithoutEffect { name, guards: true, why }
}

/// Writes what a value means to its place.
macro_rules! set {
    ($($field:ident).+, $parse:expr) => {
        |policy, text| {
            policy.$($field).+ = $parse(text)?;
            Ok(())
        }
    };
}

/// The same for a place that may be empty.
macro_rules! some {
    ($($field:ident).+, $parse:expr) => {
        |policy, text| {
            policy.$($field).+ = Some($parse(text)?);
            Ok(())
        }
    };
}

/// Those that have an effect.
pub static ANNOTATIONS: &[Annotation] = &[
    of("affinity", |p, v| word(v, &[("cookie", ())], "cookie").map(|()| p.affinity = true)),
    of(
        "affinity-canary-behavior",
        set!(cookie.legacy_canary, |v| word(v, &[("sticky", false), ("legacy", true)], "sticky or legacy")),
    ),
    of(
        "affinity-mode",
        set!(cookie.persistent, |v| word(v, &[("balanced", false), ("persistent", true)], "balanced or persistent")),
    ),
    guard("allowlist-source-range", set!(allow, value::networks)),
    of("app-root", some!(app_root, value::path)),
    of("auth-always-set-cookie", set!(external.always_cookies, boolean)),
    guard("auth-method", |p, v| {
        p.external.method = Some(Method::from_bytes(v.as_bytes()).map_err(|_| Wrong::Expected("a method"))?);
        Ok(())
    }),
    of("auth-realm", set!(basic.realm, realm)),
    of("auth-response-headers", set!(external.response_headers, value::header_names)),
    guard("auth-secret", some!(basic.secret, value::cookie_part)),
    guard("auth-secret-type", set!(basic.map, |v| word(v, &[("auth-file", false), ("auth-map", true)], "auth-file or auth-map"))),
    of("auth-signin", some!(external.signin, value::template)),
    of("auth-signin-redirect-param", some!(external.signin_parameter, value::cookie_part)),
    of("auth-tls-error-page", some!(clients.error_page, value::cookie_part)),
    guard("auth-tls-match-cn", |p, v| pattern(p, v).map(|found| p.clients.subject = Some(found))),
    of("auth-tls-pass-certificate-to-upstream", set!(clients.pass, boolean)),
    guard("auth-tls-secret", some!(clients.secret, value::cookie_part)),
    guard("auth-tls-verify-client", set!(clients.verify, |v| word(v, VERIFY, "on, off, optional or optional_no_ca"))),
    guard("auth-type", set!(basic.enabled, |v| word(v, &[("basic", true)], "basic"))),
    guard("auth-url", some!(external.url, auth_url)),
    of("backend-protocol", some!(protocol, |v| word(v, PROTOCOLS, "HTTP, HTTPS, GRPC or GRPCS"))),
    of("canary", set!(canary.enabled, boolean)),
    of("canary-by-cookie", some!(canary.cookie, value::cookie_part)),
    of("canary-by-header", some!(canary.header, value::header_name)),
    of("canary-by-header-pattern", |p, v| pattern(p, v).map(|found| p.canary.header_pattern = Some(found))),
    of("canary-by-header-value", |p, v| {
        p.canary.header_value = Some(v.to_owned());
        Ok(())
    }),
    of("canary-weight", set!(canary.weight, value::number)),
    of("canary-weight-total", some!(canary.total, value::number)),
    of("cors-allow-credentials", set!(cors.credentials, boolean)),
    of("cors-allow-headers", set!(cors.headers, told)),
    of("cors-allow-methods", set!(cors.methods, told)),
    of("cors-allow-origin", |p, v| {
        p.cors.origins = items(v).map(str::to_ascii_lowercase).collect();
        Ok(())
    }),
    of("cors-expose-headers", some!(cors.expose, value::header_value)),
    of("cors-max-age", set!(cors.max_age, value::number)),
    of("default-backend", some!(default_backend, value::cookie_part)),
    guard("denylist-source-range", set!(deny, value::networks)),
    of("enable-access-log", set!(access_log, boolean)),
    of("enable-cors", set!(cors.enabled, boolean)),
    of("force-ssl-redirect", set!(force_ssl_redirect, boolean)),
    of("from-to-www-redirect", set!(www, boolean)),
    of("limit-allowlist", set!(limits.exempt, value::networks)),
    of("limit-burst-multiplier", set!(limits.burst, value::number)),
    of("limit-connections", set!(limits.connections, value::limit)),
    of("limit-rpm", set!(limits.rpm, value::limit)),
    of("limit-rps", set!(limits.rps, value::limit)),
    old("limit-allowlist", of("limit-whitelist", set!(limits.exempt, value::networks))),
    of("load-balance", set!(balance, |v| word(v, BALANCES, "round_robin or ewma"))),
    of("permanent-redirect", some!(permanent, value::template)),
    of("permanent-redirect-code", set!(permanent_code, value::redirect)),
    of("proxy-body-size", set!(body_size, value::size)),
    of("proxy-connect-timeout", set!(connect_timeout, value::seconds)),
    of("proxy-next-upstream", next_upstream),
    of("proxy-next-upstream-timeout", set!(retry.time, value::seconds)),
    of("proxy-next-upstream-tries", set!(retry.tries, value::number)),
    of("proxy-read-timeout", set!(read_timeout, value::seconds)),
    of("proxy-send-timeout", set!(send_timeout, value::seconds)),
    of("proxy-ssl-name", some!(tls_name, value::cookie_part)),
    of("proxy-ssl-server-name", set!(tls_send_name, |v| word(v, &[("on", true), ("off", false)], "on or off"))),
    guard("proxy-ssl-verify", |_, v| word(v, &[("off", ())], "off; certificates of back ends are not verified")),
    of("rewrite-target", some!(rewrite, value::path)),
    guard("satisfy", set!(satisfy_any, |v| word(v, &[("any", true), ("all", false)], "any or all"))),
    of("server-alias", |p, v| {
        p.aliases = items(v).map(str::to_ascii_lowercase).collect();
        Ok(())
    }),
    of("session-cookie-change-on-failure", set!(cookie.change_on_failure, boolean)),
    of("session-cookie-domain", some!(cookie.domain, value::cookie_part)),
    of("session-cookie-expires", some!(cookie.expires, value::number)),
    of("session-cookie-max-age", some!(cookie.max_age, value::number)),
    of("session-cookie-name", set!(cookie.name, value::cookie_part)),
    of("session-cookie-path", some!(cookie.path, value::cookie_part)),
    of("session-cookie-samesite", some!(cookie.same_site, |v| word(v, SAME_SITE, "Strict, Lax or None"))),
    of("session-cookie-secure", some!(cookie.secure, boolean)),
    of("ssl-passthrough", set!(passthrough, boolean)),
    of("ssl-redirect", set!(ssl_redirect, boolean)),
    of("temporal-redirect", some!(temporal, value::template)),
    of("temporal-redirect-code", set!(temporal_code, value::redirect)),
    of("upstream-hash-by", some!(hash_by, value::template)),
    of("upstream-vhost", some!(vhost, value::header_value)),
    of("use-regex", set!(use_regex, boolean)),
    old("allowlist-source-range", guard("whitelist-source-range", set!(allow, value::networks))),
    of("x-forwarded-prefix", some!(prefix, value::header_value)),
];

const STREAMED: &str = "bodies are streamed and never stored";
const SNIPPET: &str = "there is no nginx whose configuration it could change";

/// Those that ingress-nginx has and that do nothing here.
pub static WITHOUT_EFFECT: &[WithoutEffect] = &[
    nothing("auth-cache-duration", "each request is asked for"),
    nothing("auth-cache-key", "each request is asked for"),
    nothing("auth-keepalive", "connections are kept anyway"),
    nothing("auth-proxy-set-headers", "the request's own headers are sent"),
    closes("auth-snippet", SNIPPET),
    nothing("auth-tls-verify-depth", "chains have as many intermediates as they need"),
    nothing("client-body-buffer-size", STREAMED),
    nothing("configuration-snippet", SNIPPET),
    nothing("connection-proxy-header", "connections are kept or upgraded as the protocol says"),
    nothing("custom-headers", "headers of answers stay as they are"),
    nothing("custom-http-errors", "answers of back ends stay as they are"),
    nothing("disable-proxy-intercept-errors", "answers of back ends stay as they are"),
    nothing("enable-modsecurity", "there is no web application firewall"),
    nothing("enable-opentelemetry", "there is no tracing"),
    nothing("enable-owasp-core-rules", "there is no web application firewall"),
    nothing("http2-push-preload", "browsers have dropped server push"),
    nothing("limit-rate", "answers are not slowed down"),
    nothing("limit-rate-after", "answers are not slowed down"),
    nothing("mirror-target", "requests are not copied"),
    nothing("modsecurity-snippet", "there is no web application firewall"),
    nothing("preserve-trailing-slash", "a redirect keeps the path as it is"),
    nothing("proxy-buffer-size", STREAMED),
    nothing("proxy-buffering", STREAMED),
    nothing("proxy-buffers-number", STREAMED),
    nothing("proxy-cookie-domain", "cookies of back ends stay as they are"),
    nothing("proxy-cookie-path", "cookies of back ends stay as they are"),
    nothing("proxy-http-version", "back ends are asked with HTTP/1.1, or HTTP/2 by backend-protocol"),
    nothing("proxy-max-temp-file-size", STREAMED),
    nothing("proxy-redirect-from", "redirects of back ends stay as they are"),
    nothing("proxy-redirect-to", "redirects of back ends stay as they are"),
    nothing("proxy-request-buffering", STREAMED),
    nothing("proxy-ssl-ciphers", "the ciphers are those of TLS 1.3 and the safe ones of TLS 1.2"),
    nothing("proxy-ssl-protocols", "TLS 1.2 and 1.3"),
    nothing("proxy-ssl-secret", "no certificate is shown to back ends"),
    nothing("server-snippet", SNIPPET),
    nothing("service-upstream", "endpoints are known at once when they change"),
    nothing("session-cookie-conditional-samesite-none", "the attribute is sent to all clients"),
    nothing("ssl-ciphers", "the ciphers are those of TLS 1.3 and the safe ones of TLS 1.2"),
    nothing("ssl-prefer-server-ciphers", "all ciphers are good ones"),
    nothing("stream-snippet", SNIPPET),
];

const PROTOCOLS: &[(&str, Protocol)] =
    &[("HTTP", Protocol::Http), ("HTTPS", Protocol::Https), ("GRPC", Protocol::Grpc), ("GRPCS", Protocol::Grpcs)];
const BALANCES: &[(&str, Balance)] =
    &[("round_robin", Balance::RoundRobin), ("ewma", Balance::LeastRequests), ("least_conn", Balance::LeastRequests)];
const VERIFY: &[(&str, Verify)] =
    &[("on", Verify::On), ("off", Verify::Off), ("optional", Verify::Optional), ("optional_no_ca", Verify::OptionalNoCa)];
const SAME_SITE: &[(&str, &str)] = &[("Strict", "Strict"), ("Lax", "Lax"), ("None", "None")];

fn realm(text: &str) -> Result<String, Wrong> {
    let fits = text.chars().all(|c| !c.is_control() && c != '"' && c != '\\');
    fits.then(|| text.to_owned()).ok_or(Wrong::Expected("a text without quotes"))
}

fn auth_url(text: &str) -> Result<crate::template::Template, Wrong> {
    let template = value::template(text)?;
    let fits = text.starts_with("http://") || text.starts_with("https://");
    fits.then_some(template).ok_or(Wrong::Expected("a URL with http:// or https://"))
}

fn pattern(policy: &Policy, text: &str) -> Result<Arc<Pattern>, Wrong> {
    patterns::pattern(&policy.namespace, text, false).map_err(|refused| match refused {
        patterns::Refused::Wrong(_) => {
            Wrong::Expected("a regular expression without look-around and back-references, and not a large one")
        }
        patterns::Refused::NoRoom => Wrong::NoRoom,
    })
}

/// Methods or headers that answers name.
fn told(text: &str) -> Result<Told, Wrong> {
    value::header_value(text).map(Told::These)
}

/// Conditions under which another endpoint is tried: `error timeout http_502`.
fn next_upstream(policy: &mut Policy, text: &str) -> Result<(), Wrong> {
    let mut retry = crate::policy::Retry { error: false, timeout: false, ..policy.retry.clone() };
    retry.statuses.clear();
    for condition in text.split_whitespace() {
        match condition {
            "error" => retry.error = true,
            "timeout" => retry.timeout = true,
            "non_idempotent" => retry.non_idempotent = true,
            "off" | "invalid_header" => {}
            _ => {
                let status = condition.strip_prefix("http_").and_then(|code| code.parse().ok());
                retry
                    .statuses
                    .push(status.ok_or(Wrong::Expected("error, timeout, non_idempotent, http_502 and the like, or off"))?);
            }
        }
    }
    policy.retry = retry;
    Ok(())
}

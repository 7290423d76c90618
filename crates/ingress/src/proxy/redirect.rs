//! Requests that are sent elsewhere, and paths that become others. Pure.

use http::{StatusCode, Uri};

use crate::paths::Matcher;
use crate::table::Route;
use crate::template::{Facts, Template, path_and_query};

/// Where a request came.
pub(super) struct Asked<'a> {
    /// The normal path.
    pub(super) path: &'a str,
    /// The port.
    pub(super) port: u16,
    /// Whether TLS is configured for its host.
    pub(super) has_tls: bool,
    /// Where HTTPS is.
    pub(super) https_port: u16,
}

/// Where a request is redirected, if it is.
pub(super) fn of(route: &Route, facts: &Facts<'_>, place: &Asked<'_>) -> Option<(StatusCode, String)> {
    let (policy, has_tls, https_port) = (&route.policy, place.has_tls, place.https_port);
    if let Some(redirect) = route.gateway.as_ref().and_then(|gateway| gateway.actions.redirect.as_ref()) {
        return Some(redirect.of(facts, &route.matcher, place.path, place.port));
    }
    let root = policy.app_root.as_ref().filter(|_| facts.uri.path() == "/");
    // As with nginx: "the execution order is temporal and then permanent", and what goes elsewhere anyway is not sent to HTTPS here before.
    let rendered = |target: Option<&Template>, code| target.map(|target| (code, target.render(facts)));
    let temporal = || rendered(policy.temporal.as_ref(), policy.temporal_code);
    let elsewhere = || temporal().or_else(|| rendered(policy.permanent.as_ref(), policy.permanent_code));
    if let Some(elsewhere) = root.is_none().then(elsewhere).flatten() {
        return Some(elsewhere);
    }
    if facts.scheme == "http" && (policy.force_ssl_redirect || policy.ssl_redirect && has_tls) {
        let port = if https_port == 443 { String::new() } else { format!(":{https_port}") };
        return Some((StatusCode::PERMANENT_REDIRECT, format!("https://{}{port}{}", facts.host, path_and_query(facts.uri))));
    }
    root.map(|root| (StatusCode::FOUND, root.clone()))
}

/// Rewrites the path of a request; its query follows the target's own.
pub(super) fn rewrite(matcher: &Matcher, target: &str, path: &str, uri: &mut Uri) {
    replace(&matcher.rewrite(target, path), uri);
}

/// Gives a request another path, as requests have it; its query stays.
pub(super) fn replace(path: &str, uri: &mut Uri) {
    let mut rewritten = path.to_owned();
    if let Some(query) = uri.query() {
        rewritten.push(if rewritten.contains('?') { '&' } else { '?' });
        rewritten.push_str(query);
    }
    // Groups may take what comes before the first slash away.
    if !rewritten.starts_with('/') {
        rewritten.insert(0, '/');
    }
    if let Ok(new) = rewritten.parse() {
        *uri = new;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::paths::PathType;

    #[test]
    fn rewrites() {
        let check = |rule: &str, target: &str, asked: &str, expected: &str| {
            let matcher = Matcher::new(rule, PathType::ImplementationSpecific, true, "a").unwrap();
            let mut uri: Uri = asked.parse().unwrap();
            let path = crate::paths::normalize(uri.path()).unwrap().into_owned();
            rewrite(&matcher, target, &path, &mut uri);
            assert_eq!(uri.to_string(), expected, "{asked}");
        };
        check("/app(/|$)(.*)", "/$2", "/app/x?y=1", "/x?y=1");
        check("/app(/|$)(.*)", "/$2", "/app", "/");
        check("/app", "/new?a=1", "/app?b=2", "/new?a=1&b=2");
        check("/app/(.*)", "/$1", "/app/a%20b%23%25", "/a%20b%23%25");
        check("/app/(.*)", "/$1", "/app/é", "/%C3%A9");
        // A question mark that was escaped begins no query.
        check("/app/(.*)", "/$1", "/app/what%3Fa=1?b=2", "/what%3Fa=1?b=2");
        check("/app/(.*)", "/new?of=$1", "/app/x%3Fy", "/new?of=x%3Fy");
    }
}

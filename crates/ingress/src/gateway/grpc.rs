//! GRPCRoutes as routes over HTTP: a method of a service is a path (`/SERVICE/METHOD`), and every request is a POST. Pure.

use regex::escape;

use super::types::{GrpcMatch, GrpcMethod, GrpcRoute, GrpcRule, HttpRoute, HttpRouteSpec, Match, Object, Pattern, Rule};

/// The same route over HTTP.
pub fn over_http(route: GrpcRoute) -> HttpRoute {
    let Object { metadata, spec, status } = route;
    let rules = spec.rules.into_iter().map(rule).collect();
    let spec = HttpRouteSpec { parent_refs: spec.parent_refs, hostnames: spec.hostnames, rules };
    Object { metadata, spec, status }
}

fn rule(rule: GrpcRule) -> Rule {
    let matches = rule.matches.into_iter().map(one).collect();
    let GrpcRule { name, filters, backend_refs, session_persistence, unread, .. } = rule;
    Rule { name, matches, filters, backend_refs, session_persistence, unread, ..Rule::default() }
}

fn one(one: GrpcMatch) -> Match {
    Match { path: one.method.map(path), headers: one.headers, query_params: Vec::new(), method: None }
}

fn path(method: GrpcMethod) -> Pattern {
    let of = |kind: &str, value: String| Pattern { kind: Some(kind.to_owned()), name: String::new(), value: Some(value) };
    let patterns = method.kind.as_deref() == Some("RegularExpression");
    let text = |part: &Option<String>| part.as_ref().map(|part| if patterns { part.clone() } else { escape(part) });
    match (&method.service, &method.method) {
        (Some(service), Some(name)) if !patterns => of("Exact", format!("/{service}/{name}")),
        (Some(service), None) if !patterns => of("PathPrefix", format!("/{service}")),
        (None, None) => of("PathPrefix", "/".to_owned()),
        (service, name) => {
            let part = |part: &Option<String>| text(part).unwrap_or_else(|| "[^/]+".to_owned());
            of("RegularExpression", format!("/{}/{}", part(service), part(name)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::effort::Effort;
    use client::Key;
    use serde_json::{Value, json};

    #[test]
    fn methods_are_paths() {
        let check = |method: Value, asked: &str, expected: bool| {
            let spec = json!({"rules": [{"matches": [{"method": method}]}]});
            let route: GrpcRoute = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            let matched = super::super::rules::matches(&over_http(route).spec.rules[0], 0, &Key::cluster("r"), 0).unwrap();
            assert_eq!(matched[0].matcher.matches(asked, &Effort::default()), expected, "{method} {asked}");
        };
        check(json!({"service": "a.Ship", "method": "Sail"}), "/a.Ship/Sail", true);
        check(json!({"service": "a.Ship", "method": "Sail"}), "/a.Ship/Row", false);
        check(json!({"service": "a.Ship"}), "/a.Ship/Row", true);
        check(json!({"service": "a.Ship"}), "/a.Ships/Row", false);
        check(json!({"method": "Sail"}), "/a.Ship/Sail", true);
        check(json!({"method": "Sail"}), "/a.Ship/Sails", false);
        check(json!({"method": "S.il"}), "/a.Ship/Sail", false);
        check(json!({"type": "RegularExpression", "service": "a\\..*", "method": "S.il"}), "/a.Ship/Sail", true);
        check(json!({}), "/a.Ship/Sail", true);
    }
}

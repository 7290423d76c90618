//! `/healthz`, `/livez` and `/readyz`.

use base::readiness::Readiness;
use http::{Response, StatusCode};

use crate::body::Body;
use crate::query::Query;
use crate::respond;

/// The answer, if the path is one of health.
pub(crate) fn respond(readiness: &Readiness, path: &str, query: &str) -> Option<Response<Body>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (endpoint, check) = (parts.next()?, parts.next());
    let ready = match endpoint {
        "healthz" | "livez" => false,
        "readyz" => true,
        _ => return None,
    };
    let query = Query::parse(query);
    // The process answers, so it lives; what else there is to know is how far its components are.
    let mut checks: Vec<(String, Option<String>)> = vec![("ping".into(), None)];
    if ready {
        let components = readiness.snapshot();
        checks.extend(components.into_iter().map(|(name, state)| (name.to_owned(), state.err())));
    }
    checks.retain(|(name, _)| !query.all("exclude").any(|excluded| excluded == name));
    if let Some(wanted) = check {
        checks.retain(|(name, _)| name == wanted);
        if checks.is_empty() {
            return Some(respond::page_not_found());
        }
    }
    let failed = checks.iter().any(|(_, error)| error.is_some());
    let code = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    if !failed && query.get("verbose").is_none() {
        return Some(respond::text(code, "ok"));
    }
    let line = |(name, error): &(String, Option<String>)| match error {
        None => format!("[+]{name} ok\n"),
        Some(error) => format!("[-]{name} failed: {error}\n"),
    };
    let lines: String = checks.iter().map(line).collect();
    let end = if failed { "failed" } else { "passed" };
    Some(respond::text(code, format!("{lines}{endpoint} check {end}\n")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers() {
        let readiness = Readiness::default();
        let gate = readiness.gate("scheduler");
        let check = |path: &str, query: &str, code: u16, expected: &str| {
            let response = respond(&readiness, path, query).unwrap();
            assert_eq!(response.status().as_u16(), code, "{path}");
            let Body::Whole(text) = response.into_body() else { panic!("a text") };
            assert_eq!(text, expected);
        };
        check("/livez", "", 200, "ok");
        check("/readyz", "", 500, "[+]ping ok\n[-]scheduler failed: starting\nreadyz check failed\n");
        check("/readyz/ping", "", 200, "ok");
        check("/readyz", "exclude=scheduler", 200, "ok");
        gate.ready();
        check("/readyz", "verbose", 200, "[+]ping ok\n[+]scheduler ok\nreadyz check passed\n");
        assert!(respond(&readiness, "/version", "").is_none());
    }
}

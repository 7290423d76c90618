#![allow(clippy::unwrap_used)]

use http::{Method, Request};
use kinds::KINDS;

use super::*;
use crate::route;

fn asked(method: &Method, uri: &str, content: &str) -> Asked {
    let (parts, ()) = Request::builder().method(method).uri(uri).header(CONTENT_TYPE, content).body(()).unwrap().into_parts();
    let route = route::parse(parts.uri.path());
    let def = match &route {
        Route::Resource(target) => {
            let named =
                |def: &&KindDef| (&*def.group, &*def.version, &*def.plural) == (target.group, target.version, target.plural);
            KINDS.iter().map(|strategy| strategy.def()).find(named)
        }
        Route::Other => None,
    };
    let plan = Plan::of(&parts.method, &route, parts.uri.query().unwrap_or_default(), def);
    Asked::of(&plan, &route, def, &parts)
}

#[test]
fn labels_are_upstreams() {
    let check = |method: Method, uri: &str, content: &str, expected: &str| {
        let Asked { dry_run, about } = asked(&method, uri, content);
        let About { verb, group, version, resource, subresource, scope, component } = about;
        assert_eq!(component, "apiserver");
        assert_eq!(
            [verb, group, version, resource, subresource, scope, dry_run].join(" ").trim_end(),
            expected,
            "{method} {uri}"
        );
    };
    let pods = "/api/v1/namespaces/a/pods";
    check(Method::GET, &format!("{pods}/p"), "", "GET  v1 pods  resource");
    check(Method::HEAD, &format!("{pods}/p"), "", "GET  v1 pods  resource");
    check(Method::GET, pods, "", "LIST  v1 pods  namespace");
    check(Method::GET, "/api/v1/pods", "", "LIST  v1 pods  cluster");
    check(Method::GET, "/api/v1/pods?watch=true", "", "WATCH  v1 pods  cluster");
    check(Method::GET, "/apis/apps/v1/watch/deployments", "", "WATCH apps v1 deployments  cluster");
    check(Method::POST, &format!("{pods}?dryRun=All"), "", "POST  v1 pods  resource All");
    check(Method::POST, &format!("{pods}?dryRun=Some"), "", "POST  v1 pods  resource invalid");
    check(Method::PUT, &format!("{pods}/p/status"), "", "PUT  v1 pods status resource");
    check(Method::PATCH, &format!("{pods}/p"), "application/merge-patch+json", "PATCH  v1 pods  resource");
    check(Method::PATCH, &format!("{pods}/p"), "application/apply-patch+yaml", "APPLY  v1 pods  resource");
    check(Method::DELETE, pods, "", "DELETE  v1 pods  namespace");
    check(Method::GET, &format!("{pods}/p/log"), "", "CONNECT  v1 pods log resource");
    check(Method::POST, &format!("{pods}/p/exec"), "", "CONNECT  v1 pods exec resource");
    check(Method::GET, "/readyz", "", "GET    /readyz");
    check(Method::GET, "/readyz/ping", "", "GET    /readyz");
    check(Method::GET, "/any/thing", "", "GET");
    // What is not served makes no series of its own.
    check(Method::GET, "/apis/x.example/v1/things/1", "", "GET");
    check(Method::TRACE, pods, "", "other  v1 pods  namespace");
}

#[test]
fn requests_are_counted_once_with_their_size() {
    let uri = "/api/v1/namespaces/a/configmaps/counted";
    let asked = asked(&Method::GET, uri, "");
    for code in [200, 200, 404] {
        answered(&asked, code, Some(&Body::from("12345")), Duration::from_millis(20));
    }
    let page = Page::Server.encode(base::metrics::Format::Text);
    let sample = |start: &str, labels: &[&str]| {
        let line = page.lines().find(|line| {
            line.starts_with(start)
                && line.contains(r#"resource="configmaps""#)
                && labels.iter().all(|label| line.contains(label))
        });
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("{start} {labels:?} is not in {page}")).to_owned()
    };
    assert_eq!(sample("apiserver_request_total{", &[r#"code="200""#, r#"verb="GET""#, r#"dry_run="""#]), "2");
    assert_eq!(sample("apiserver_request_total{", &[r#"code="404""#]), "1");
    assert_eq!(sample("apiserver_request_duration_seconds_bucket{", &[r#"le="0.005""#]), "0");
    assert_eq!(sample("apiserver_request_duration_seconds_bucket{", &[r#"le="0.025""#]), "3");
    assert_eq!(sample("apiserver_request_sli_duration_seconds_bucket{", &[r#"le="1""#, r#"scope="resource""#]), "3");
    assert_eq!(sample("apiserver_response_sizes_sum{", &[]), "15.0");
}

#![allow(clippy::unwrap_used)]
use super::*;
use crate::route;

fn plan(method: &str, path: &str) -> Plan {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let route = route::parse(path);
    let def = match &route {
        Route::Resource(target) => kinds::KINDS
            .iter()
            .map(|strategy| strategy.def())
            .find(|def| (&*def.group, &*def.version, &*def.plural) == (target.group, target.version, target.plural)),
        Route::Other => None,
    };
    Plan::of(&method.parse().unwrap(), &route, query, def)
}

#[track_caller]
fn check(method: &str, path: &str, verbs: &'static str, handler: Result<Handler, Refusal>) {
    let expected = Plan { verbs: verbs.split(' ').collect(), handler };
    assert_eq!(plan(method, path), expected, "{method} {path}");
}

#[test]
fn objects() {
    let pods = "/api/v1/namespaces/n/pods";
    check("GET", pods, "list", Ok(Handler::Object(Verb::List)));
    check("GET", "/api/v1/pods", "list", Ok(Handler::Object(Verb::List)));
    check("GET", &format!("{pods}?watch=1"), "watch", Ok(Handler::Object(Verb::Watch)));
    check("GET", "/api/v1/watch/namespaces/n/pods", "watch", Ok(Handler::Object(Verb::Watch)));
    check("GET", "/api/v1/watch/namespaces/n/pods/p", "watch", Ok(Handler::Object(Verb::Watch)));
    check("POST", pods, "create", Ok(Handler::Object(Verb::Create)));
    check("POST", "/api/v1/pods", "create", Err(Refusal::MethodNotAllowed));
    check("DELETE", pods, "deletecollection", Ok(Handler::Object(Verb::DeleteCollection)));
    check("DELETE", "/api/v1/pods", "deletecollection", Err(Refusal::MethodNotAllowed));
    check("PUT", &format!("{pods}/p"), "update", Ok(Handler::Object(Verb::Update)));
    check("PUT", pods, "update", Err(Refusal::MethodNotAllowed));
    check("POST", &format!("{pods}/p"), "create", Err(Refusal::MethodNotAllowed));
    check("GET", "/api/v1/pods/p", "get", Err(Refusal::NotFound));
    check("GET", "/api/v1/namespaces/n/nodes", "list", Err(Refusal::NotFound));
    check("GET", "/api/v1/namespaces/n/unknown/x", "get", Err(Refusal::NotFound));
    check("OPTIONS", pods, "", Err(Refusal::MethodNotAllowed));
    check("GET", "/version", "get", Ok(Handler::Document));
}

#[test]
fn subresources() {
    let pod = "/api/v1/namespaces/n/pods/p";
    check("GET", &format!("{pod}/status"), "get", Ok(Handler::Part(Verb::Get)));
    check("PATCH", &format!("{pod}/status"), "patch", Ok(Handler::Part(Verb::Patch)));
    check("DELETE", &format!("{pod}/status"), "delete", Err(Refusal::MethodNotAllowed));
    check("POST", &format!("{pod}/eviction"), "create", Ok(Handler::Action(Action::Evict)));
    check("GET", &format!("{pod}/eviction"), "get", Err(Refusal::MethodNotAllowed));
    check("GET", &format!("{pod}/unknown"), "get", Err(Refusal::NotFound));
    check("GET", &format!("{pod}/log"), "get", Ok(Handler::Connect(Connect::Log)));
    check("POST", &format!("{pod}/log"), "create", Err(Refusal::MethodNotAllowed));
    check("GET", &format!("{pod}/log/more"), "get", Err(Refusal::NotFound));
    check("GET", &format!("{pod}/proxy/a/b"), "get", Ok(Handler::Connect(Connect::Proxy)));
    check("OPTIONS", &format!("{pod}/proxy/a/b"), "", Ok(Handler::Connect(Connect::Proxy)));
    check("PUT", "/api/v1/namespaces/n/finalize", "update", Ok(Handler::Part(Verb::Update)));
    check("GET", "/api/v1/namespaces/n/finalize", "get", Err(Refusal::MethodNotAllowed));
    check("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "create", Ok(Handler::Review));
    check("POST", "/api/v1/namespaces/n/bindings", "create", Ok(Handler::Forward));
    check("GET", "/api/v1/namespaces/n/bindings", "list", Err(Refusal::MethodNotAllowed));
    check("POST", "/api/v1/bindings", "create", Err(Refusal::MethodNotAllowed));
    check("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "list", Err(Refusal::MethodNotAllowed));
}

/// A shell needs the right to create, however it is asked for (KEP-5515).
#[test]
fn connections_need_the_right_to_create() {
    for (sub, connect) in [("exec", Connect::Exec), ("attach", Connect::Attach), ("portforward", Connect::PortForward)] {
        let path = format!("/api/v1/namespaces/n/pods/p/{sub}");
        check("GET", &path, "get create", Ok(Handler::Connect(connect)));
        check("POST", &path, "create", Ok(Handler::Connect(connect)));
        check("GET", &format!("{path}?watch=true"), "get create", Ok(Handler::Connect(connect)));
        check("PUT", &path, "update", Err(Refusal::MethodNotAllowed));
        check("GET", &format!("/api/v1/watch/namespaces/n/pods/p/{sub}"), "watch", Err(Refusal::NotFound));
        // `get nodes/proxy` reads what kubelets tell, and is no shell in every pod.
        let word = if sub == "portforward" { "portForward" } else { sub };
        let path = format!("/api/v1/nodes/n1/proxy/{word}/n/p/c");
        check("GET", &path, "get create", Ok(Handler::Connect(Connect::Proxy)));
        check("POST", &path, "create", Ok(Handler::Connect(Connect::Proxy)));
        check("DELETE", &path, "delete create", Ok(Handler::Connect(Connect::Proxy)));
    }
}

/// What is served is what discovery lists: each (sub-resource, verb) of every kind has a handler, and no other one has.
#[test]
fn every_verb_of_discovery_is_served() {
    for def in kinds::KINDS.iter().map(|strategy| strategy.def()) {
        let base =
            if def.group.is_empty() { format!("/api/{}", def.version) } else { format!("/apis/{}/{}", def.group, def.version) };
        let base = if def.namespaced { format!("{base}/namespaces/n/{}", def.plural) } else { format!("{base}/{}", def.plural) };
        let methods = [
            ("GET", "/x", Verb::Get),
            ("GET", "", Verb::List),
            ("GET", "?watch=1", Verb::Watch),
            ("POST", "", Verb::Create),
            ("PUT", "/x", Verb::Update),
            ("PATCH", "/x", Verb::Patch),
            ("DELETE", "/x", Verb::Delete),
            ("DELETE", "", Verb::DeleteCollection),
        ];
        for (method, end, verb) in methods {
            let served = plan(method, &format!("{base}{end}"));
            assert_eq!(served.handler.is_ok(), def.verbs.contains(verb), "{method} {base}{end}");
            assert_eq!(served.verbs[0], verb.as_str());
        }
        for sub in def.subresources.iter() {
            for (method, verb) in [
                ("GET", Verb::Get),
                ("POST", Verb::Create),
                ("PUT", Verb::Update),
                ("PATCH", Verb::Patch),
                ("DELETE", Verb::Delete),
            ] {
                let path = format!("{base}/x/{}", sub.name);
                assert_eq!(plan(method, &path).handler.is_ok(), sub.verbs.contains(verb), "{method} {path}");
            }
        }
    }
}

//! What an Ingress means, and what of it is refused.
#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

fn of(annotations: Value, spec: Value) -> Compiled {
    let metadata = json!({"name": "i", "namespace": "a", "annotations": annotations});
    compile(&serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(), "cluster.local", &Issuers::default())
}

#[test]
fn hosts_and_certificates() {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let http = json!({"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]});
    let spec = json!({
        "tls": [{"hosts": ["A.example"], "secretName": "s"}, {"secretName": "t"}],
        "rules": [{"host": "a.Example", "http": http}, {"host": "*.b.example", "http": http}, {"http": http}],
    });
    let compiled = of(json!({"nginx.ingress.kubernetes.io/server-alias": "c.example"}), spec);
    let hosts: Vec<&str> = compiled.paths.iter().map(|path| path.host.as_str()).collect();
    assert_eq!(hosts, ["a.example", "c.example", ".b.example", "c.example", "", "c.example"]);
    assert_eq!(compiled.tls[0], ("a.example".to_owned(), Some(Key::namespaced("a", "s"))));
    assert!(compiled.redirected.is_empty());
    assert_eq!((other_name("a.example"), other_name("www.a.example")), ("www.a.example".to_owned(), "a.example".to_owned()));
    assert!(compiled.tls[1..].iter().any(|(host, secret)| host.is_empty() && *secret == Some(Key::namespaced("a", "t"))));
}

#[test]
fn external_authentication() {
    let check = |url: &str, expected: Option<Place>| {
        let compiled = of(json!({"nginx.ingress.kubernetes.io/auth-url": url}), json!({}));
        assert_eq!(compiled.policy.closed, expected.is_none(), "{url}");
        assert_eq!(compiled.external.map(|key| key.place), expected, "{url}");
    };
    let service = |port| Some(Place::Service(Key::namespaced("sso", "auth"), PortRef::Number(port)));
    check("http://auth.sso.svc.cluster.local:4180/oauth2/auth", service(4180));
    check("http://auth.sso.svc/oauth2/auth?u=$request_uri", service(80));
    check("https://login.example/auth", Some(Place::Name { name: "login.example".into(), port: 443, namespace: "a".into() }));
    check("https://$host/auth", None);
    check("https://user@login.example/", None);
}

#[test]
fn issuers_that_are_not_listed_are_told() {
    let check = |issuer: &str, expected: Option<&str>, reasons: &[&str]| {
        let compiled = of(json!({"acme.knarr.io/issuer": issuer}), json!({"tls": [{"hosts": ["a.example"], "secretName": "s"}]}));
        assert_eq!(compiled.issuer.map(|issuer| issuer.url).as_deref(), expected, "{issuer}");
        assert_eq!(compiled.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>(), reasons, "{issuer}");
    };
    check("letsencrypt", Some("https://acme-v02.api.letsencrypt.org/directory"), &[]);
    check("https://10.43.0.1/", None, &["IssuerNotAllowed"]);
}

/// Each name has each path, and entries without hosts have all of them: a small manifest must not become gigabytes.
#[test]
fn what_an_ingress_comes_to_is_bounded() {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = |number: usize| json!({"path": format!("/{number}"), "pathType": "Prefix", "backend": backend});
    let rule = |count: usize| json!({"host": "a.example", "http": {"paths": (0..count).map(path).collect::<Vec<_>>()}});
    let aliases: Vec<String> = (0..199).map(|number| format!("a{number}.example")).collect();
    let aliases = json!({"nginx.ingress.kubernetes.io/server-alias": aliases.join(",")});
    let check = |spec: Value, expected: Option<usize>| {
        let compiled = of(aliases.clone(), spec);
        match expected {
            Some(count) => assert_eq!(compiled.paths.len() + compiled.tls.len(), count),
            None => {
                assert_eq!(compiled.problems[0].reason, "TooLarge");
                assert!(compiled.paths.is_empty() && compiled.tls.is_empty());
                assert!(compiled.default.iter().all(|leads| leads.upstream().is_none()));
                assert!(compiled.closed.iter().map(|closed| &closed.host).eq(&compiled.hosts));
                assert_eq!(compiled.hosts.len(), 200, "each once");
            }
        }
    };
    check(json!({"rules": [rule(100)]}), Some(20_000));
    check(json!({"rules": [rule(101)], "defaultBackend": backend}), None);
    check(json!({"rules": [rule(1)], "tls": vec![json!({}); 99]}), Some(20_000));
    check(json!({"rules": [rule(1)], "tls": vec![json!({}); 100]}), None);
    let long = |bytes: usize| json!({"path": format!("/{}", "x".repeat(bytes - 1)), "pathType": "Exact", "backend": backend});
    let one = |path: Value| json!({"rules": [{"host": "a.example", "http": {"paths": [path]}}]});
    check(one(long(40_000)), Some(200));
    check(one(long(42_000)), None);
}

/// What is closed of one that is too large is what all its paths have in common, on each host.
#[test]
fn what_is_too_large_is_closed_where_its_paths_are() {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = |path: &str| json!({"path": path, "pathType": "Prefix", "backend": backend});
    let rule = |host: &str, paths: &[&str]| json!({"host": host, "http": {"paths": paths.iter().map(|text| path(text)).collect::<Vec<_>>()}});
    let rules = json!([
        rule("a.example", &["/Api/v1", "/api/v2/x"]),
        rule("b.example", &["/api/v3"]),
        rule("b.example", &["/app"]),
        {"host": "c.example"},
    ]);
    let spec = |rules: &Value| json!({"rules": rules, "tls": vec![json!({}); 20_000]});
    let check = |annotations: Value, rules: &Value, expected: &[(&str, &str, usize)]| {
        let compiled = of(annotations, spec(rules));
        let closed: Vec<_> = compiled.closed.iter().map(|one| (one.host.as_str(), &*one.begin, one.length)).collect();
        assert_eq!(closed, expected);
    };
    check(json!({}), &rules, &[("a.example", "/api/v", 9), ("b.example", "/ap", 7), ("c.example", "", 1)]);
    let alias = json!({"nginx.ingress.kubernetes.io/server-alias": "d.example"});
    let two = json!([rule("a.example", &["/api/v1"]), rule("b.example", &["/apis"])]);
    check(alias, &two, &[("a.example", "/api/v1", 7), ("b.example", "/apis", 5), ("d.example", "/api", 7)]);
    let wide = json!([rule("a.example", &["/", "/api/v1"]), rule("b.example", &["/api", "/x"])]);
    check(json!({}), &wide, &[("a.example", "", 7), ("b.example", "", 4)]);
    // Without rules there are no paths.
    check(json!({}), &json!([]), &[]);
}

#[test]
fn what_does_not_work_is_told() {
    let check = |annotations: Value, spec: Value, reason: &str, closed: bool| {
        let compiled = of(annotations, spec);
        assert_eq!((compiled.problems[0].reason, compiled.policy.closed), (reason, closed), "{:?}", compiled.problems);
    };
    let resource = json!({"resource": {"kind": "Bucket", "name": "b"}});
    check(json!({}), json!({"defaultBackend": resource}), "UnsupportedBackend", false);
    let backend = json!({"service": {"name": "web", "port": {"name": "http"}}});
    let paths = json!({"paths": [{"path": "/(", "pathType": "ImplementationSpecific", "backend": backend}]});
    let regex = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
    check(regex, json!({"rules": [{"http": paths}]}), "InvalidPath", false);
    let nobody = |annotations: Value, spec: Value| {
        let compiled = of(annotations, spec);
        let leads = compiled.paths.iter().map(|path| &path.leads).chain(&compiled.default);
        assert_eq!(leads.map(|leads| leads.upstream().is_none()).collect::<Vec<_>>(), [true], "{compiled:?}");
    };
    nobody(json!({}), json!({"defaultBackend": resource}));
    nobody(json!({"nginx.ingress.kubernetes.io/use-regex": "true"}), json!({"rules": [{"http": paths}]}));
    let without = json!({"service": {"name": "web"}});
    for backend in [&resource, &without] {
        let path = json!({"path": "/admin", "pathType": "Prefix", "backend": backend});
        nobody(json!({}), json!({"rules": [{"http": {"paths": [path]}}]}));
    }
    let basic = |secret: &str| json!({"nginx.ingress.kubernetes.io/auth-type": "basic", "nginx.ingress.kubernetes.io/auth-secret": secret});
    check(basic("other/passwords"), json!({}), "InvalidAnnotation", true);
    assert_eq!(of(basic("passwords"), json!({})).passwords, Some(Key::namespaced("a", "passwords")));
}

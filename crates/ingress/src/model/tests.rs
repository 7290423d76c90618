//! Ingresses to routes: hosts, precedence, conflicts, defaults, canaries, certificates, and what a change costs.
#![allow(clippy::unwrap_used)]

use std::time::Instant;

use base::tls::{Authority, Request};
use serde_json::{Value, json};

use super::*;
use crate::effort::Effort;
use crate::upstream::Place;

fn backend(name: &str) -> Value {
    json!({"service": {"name": name, "port": {"number": 80}}})
}

fn path(path: &str, kind: &str, to: &str) -> Value {
    json!({"path": path, "pathType": kind, "backend": backend(to)})
}

fn rule(host: &str, paths: &[Value]) -> Value {
    json!({"host": host, "http": {"paths": paths}})
}

fn ingress(name: &str, minute: u32, annotations: &Value, spec: &Value) -> Ingress {
    let annotations: BTreeMap<String, &Value> = annotations
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (format!("{}{name}", crate::annotations::PREFIX), value))
        .collect();
    let created = format!("2026-01-01T00:{minute:02}:00Z");
    let metadata = json!({"namespace": "a", "name": name, "creationTimestamp": created, "annotations": annotations});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn model() -> Model {
    Model::new("cluster.local", Default::default(), Arc::default())
}

fn set(model: &mut Model, ingress: &Ingress) {
    model.set_ingress(&Key::of(ingress), Some(ingress));
}

/// The Service that a request goes to.
#[track_caller]
fn check(model: &Model, host: &str, path: &str, expected: Option<&str>) {
    let found = model.table.find(host, path, &Effort::default()).map(|route| match &route.upstream.key.place {
        Place::Service(key, _) => key.name.as_str(),
        Place::Name { name, .. } => name,
    });
    assert_eq!(found, expected, "{host}{path}");
}

#[test]
fn hosts() {
    let mut model = model();
    let rules = [
        rule("foo.example", &[path("/", "Prefix", "exact")]),
        rule("*.example", &[path("/", "Prefix", "wildcard")]),
        json!({"http": {"paths": [path("/any", "Prefix", "any")]}}),
    ];
    set(&mut model, &ingress("i", 0, &json!({}), &json!({"rules": rules})));
    assert_eq!(model.step().unwrap().fresh.len(), 3);
    assert!(model.step().is_none(), "nothing has changed");
    check(&model, "foo.example", "/", Some("exact"));
    check(&model, "bar.example", "/", Some("wildcard"));
    check(&model, "bar.example", "/any", Some("wildcard"));
    check(&model, "baz.bar.example", "/", None);
    check(&model, "example", "/", None);
    check(&model, "other.test", "/any/x", Some("any"));
    check(&model, "other.test", "/", None);
    check(&model, "[::1]", "/any", Some("any"));
    check(&model, "", "/any", Some("any"));
}

/// IngressRule: "Incoming requests are first evaluated for a host match, then routed to the backend associated with the matching IngressRuleValue."
#[test]
fn who_has_a_host_has_all_its_paths() {
    let mut model = model();
    set(&mut model, &ingress("shop", 5, &json!({}), &json!({"rules": [rule("shop.test", &[path("/api", "Prefix", "api")])]})));
    let wide = [rule("*.test", &[path("/", "Prefix", "evil")]), json!({"http": {"paths": [path("/", "Prefix", "evil")]}})];
    let spec = json!({"defaultBackend": backend("evil"), "rules": wide});
    let mut evil = ingress("evil", 1, &json!({"auth-tls-secret": "evil/ca", "auth-tls-verify-client": "optional"}), &spec);
    evil.metadata.namespace = Some("evil".to_owned());
    set(&mut model, &evil);
    model.step();
    check(&model, "shop.test", "/api/x", Some("api"));
    check(&model, "shop.test", "/evil.js", None);
    check(&model, "other.test", "/evil.js", Some("evil"));
    check(&model, "other.example", "/evil.js", Some("evil"));
    let asks = ["shop.test", "other.test", "other.example", ""].map(|host| model.table.asks(Entrance::Ingress, host));
    assert_eq!(asks, [false, true, true, true]);
}

#[test]
fn the_default_back_end_takes_what_nobody_wants() {
    let mut model = model();
    set(&mut model, &ingress("all", 0, &json!({}), &json!({"defaultBackend": backend("fallback")})));
    let spec = json!({"defaultBackend": backend("own"), "rules": [rule("a.example", &[path("/x", "Prefix", "x")])]});
    set(&mut model, &ingress("own", 1, &json!({}), &spec));
    set(
        &mut model,
        &ingress("bare", 2, &json!({}), &json!({"defaultBackend": backend("bare"), "rules": [{"host": "b.example"}]})),
    );
    model.step();
    check(&model, "a.example", "/x", Some("x"));
    check(&model, "a.example", "/y", Some("own"));
    check(&model, "b.example", "/y", Some("bare"));
    check(&model, "c.example", "/", Some("fallback"));
    model.set_ingress(&Key::namespaced("a", "all"), None);
    model.step();
    check(&model, "c.example", "/", None);
}

#[test]
fn the_older_has_it() {
    let mut model = model();
    let one = |name, minute, to| {
        ingress(
            name,
            minute,
            &json!({}),
            &json!({"rules": [rule("a.example", &[path("/x", "Prefix", to), path("/x", "Exact", "exact")])]}),
        )
    };
    set(&mut model, &one("young", 5, "young"));
    model.step();
    check(&model, "a.example", "/x/y", Some("young"));
    set(&mut model, &one("old", 1, "old"));
    let step = model.step().unwrap();
    check(&model, "a.example", "/x/y", Some("old"));
    let told: Vec<_> = step.problems.iter().map(|(key, problem)| (key.name.as_str(), problem.reason)).collect();
    assert_eq!(told, [("young", "Conflict")]);
    // It is told once, and again when the Ingress was changed and still loses.
    set(&mut model, &one("old", 1, "old"));
    assert!(model.step().unwrap().problems.is_empty());
    set(&mut model, &one("young", 5, "young"));
    assert_eq!(model.step().unwrap().problems.len(), 1);
    model.set_ingress(&Key::namespaced("a", "old"), None);
    model.step();
    check(&model, "a.example", "/x/y", Some("young"));
}

#[test]
fn canaries_join_the_route_of_their_path() {
    let mut model = model();
    let spec = |to| json!({"rules": [rule("a.example", &[path("/", "Prefix", to)])]});
    let canary = json!({"canary": "true", "canary-weight": "20"});
    set(&mut model, &ingress("first", 1, &canary, &spec("canary")));
    assert_eq!(model.step().unwrap().problems[0].1.reason, "NoMainIngress");
    check(&model, "a.example", "/", None);
    set(&mut model, &ingress("main", 2, &json!({}), &spec("main")));
    set(&mut model, &ingress("second", 3, &canary, &spec("other")));
    assert_eq!(model.step().unwrap().problems[0].1.reason, "Conflict");
    let (policy, upstream) = model.table.find("a.example", "/", &Effort::default()).unwrap().canary.clone().unwrap();
    assert_eq!(
        (policy.canary.weight, &upstream.key.place),
        (20, &Place::Service(Key::namespaced("a", "canary"), crate::endpoints::PortRef::Number(80)))
    );
    // Of another namespace it takes nothing.
    model.set_ingress(&Key::namespaced("a", "first"), None);
    model.set_ingress(&Key::namespaced("a", "second"), None);
    let mut stranger = ingress("stranger", 4, &canary, &spec("other"));
    stranger.metadata.namespace = Some("b".to_owned());
    set(&mut model, &stranger);
    let problem = &model.step().unwrap().problems[0].1;
    assert!(problem.message.contains("belongs to a/main"), "{}", problem.message);
    assert!(model.table.find("a.example", "/", &Effort::default()).unwrap().canary.is_none());
}

fn tls_secret(authority: &Authority, host: &str) -> Arc<Secret> {
    let identity = authority.issue(&Request::Server { name: host.into(), sans: vec![host.into()] }).unwrap();
    let bytes = |text: String| k8s_openapi::ByteString(text.into_bytes());
    let data = [("tls.crt".to_owned(), bytes(identity.certificate)), ("tls.key".to_owned(), bytes(identity.key))];
    Arc::new(Secret { type_: Some("kubernetes.io/tls".into()), data: Some(data.into()), ..Secret::default() })
}

#[test]
fn certificates_come_and_change() {
    let mut model = model();
    let authority = Authority::in_memory("test").unwrap();
    let spec = json!({"tls": [{"hosts": ["a.example"], "secretName": "s"}, {"hosts": ["*.b.example"], "secretName": "w"}],
        "rules": [rule("a.example", &[path("/", "Prefix", "x")]), rule("*.b.example", &[path("/", "Prefix", "x")])]});
    set(&mut model, &ingress("i", 0, &json!({}), &spec));
    let (s, w) = (Key::namespaced("a", "s"), Key::namespaced("a", "w"));
    assert_eq!(model.wanted_secrets(), BTreeSet::from([s.clone(), w.clone()]));
    model.step();
    assert!(model.table.has_tls("a.example") && model.table.certificate(Entrance::Ingress, "a.example", &|_| true).is_none());
    model.set_secret(&s, Some(tls_secret(&authority, "a.example")));
    model.set_secret(&w, Some(tls_secret(&authority, "*.b.example")));
    model.step();
    let first = model.table.certificate(Entrance::Ingress, "a.example", &|_| true).unwrap();
    assert!(
        model.table.certificate(Entrance::Ingress, "x.b.example", &|_| true).is_some()
            && model.table.certificate(Entrance::Ingress, "x.y.b.example", &|_| true).is_none()
    );
    assert!(!model.table.has_tls("c.example"));
    model.set_secret(&s, Some(tls_secret(&authority, "a.example")));
    model.step();
    assert!(!Arc::ptr_eq(&first, &model.table.certificate(Entrance::Ingress, "a.example", &|_| true).unwrap()));
    // A key that does not fit is told, and nothing is shown.
    let mut broken = Secret::clone(&tls_secret(&authority, "a.example"));
    let other = tls_secret(&authority, "a.example").data.clone().unwrap()["tls.key"].clone();
    broken.data.as_mut().unwrap().insert("tls.key".into(), other);
    model.set_secret(&s, Some(Arc::new(broken)));
    let step = model.step().unwrap();
    assert_eq!(step.problems[0].1.reason, "InvalidCertificate");
    assert!(model.table.certificate(Entrance::Ingress, "a.example", &|_| true).is_none());
    model.set_secret(&s, None);
    assert_eq!(model.step().unwrap().problems[0].1.reason, "SecretNotUsable");
    model.set_ingress(&Key::namespaced("a", "i"), None);
    model.step();
    assert!(model.wanted_secrets().is_empty() && !model.table.has_tls("a.example") && model.table.is_empty());
}

/// Nothing of a host stays that has no rules any more: what its wildcard says later counts for it.
#[test]
fn a_host_that_is_gone_is_its_wildcards() {
    let (mut model, authority) = (model(), Authority::in_memory("test").unwrap());
    let tls = json!([{"hosts": ["*.b.example"], "secretName": "w"}]);
    let wide = json!({"tls": tls, "rules": [rule("*.b.example", &[path("/", "Prefix", "x")])]});
    let one = json!({"rules": [rule("a.b.example", &[path("/", "Prefix", "x")])]});
    let secret = Key::namespaced("a", "w");
    model.set_secret(&secret, Some(tls_secret(&authority, "*.b.example")));
    set(&mut model, &ingress("wide", 0, &json!({}), &wide));
    set(&mut model, &ingress("one", 1, &json!({}), &one));
    model.step();
    let shown =
        |model: &Model| model.table.certificate(Entrance::Ingress, "a.b.example", &|_| true).map(|shown| shown.cert.clone());
    let first = shown(&model);
    assert!(first.is_some() && model.table.has_tls("a.b.example"));
    model.set_ingress(&Key::namespaced("a", "one"), None);
    model.step();
    model.set_secret(&secret, Some(tls_secret(&authority, "*.b.example")));
    model.step();
    assert!(shown(&model).is_some() && shown(&model) != first, "the renewed one");
    model.set_ingress(&Key::namespaced("a", "wide"), None);
    model.step();
    assert!(shown(&model).is_none() && !model.table.has_tls("a.b.example"));
}

/// Extracting TLS of ingress-nginx (`extractTLSSecretName`): of a host counts what the Ingress with the host's rules says. Anybody may write an Ingress.
#[test]
fn tls_is_of_who_has_the_host() {
    let authority = Authority::in_memory("test").unwrap();
    let of = |namespace: &str, minute: u32, tls: Value, hosts: &[&str]| {
        let rules: Vec<Value> = hosts.iter().map(|host| rule(host, &[path("/", "Prefix", "x")])).collect();
        let default = hosts.is_empty().then(|| backend("none"));
        let mut made = ingress("i", minute, &json!({}), &json!({"tls": tls, "rules": rules, "defaultBackend": default}));
        made.metadata.namespace = Some(namespace.to_owned());
        made
    };
    // Whether a host has TLS, and whose certificate it shows.
    let check = |ingresses: &[Ingress], expected: &[(&str, bool, Option<&str>)]| {
        // The order in which they come does not matter.
        for is_turned in [false, true] {
            let mut model = model();
            let secrets: Vec<_> = ["a", "evil"].map(|namespace| (namespace, tls_secret(&authority, "x.test"))).into();
            secrets.iter().for_each(|(namespace, secret)| {
                model.set_secret(&Key::namespaced(*namespace, "s"), Some(secret.clone()));
            });
            let mut ingresses: Vec<_> = ingresses.iter().collect();
            if is_turned {
                ingresses.reverse();
            }
            for ingress in ingresses {
                set(&mut model, ingress);
                model.step();
            }
            for (host, has_tls, whose) in expected {
                let shown = model.table.certificate(Entrance::Ingress, host, &|_| true);
                let is_of = |secret: &Arc<Secret>| {
                    let own = certificates::certified(secret).unwrap();
                    shown.as_ref().is_some_and(|shown| shown.cert == own.cert)
                };
                let found = secrets.iter().find(|(_, secret)| is_of(secret)).map(|(namespace, _)| *namespace);
                assert_eq!((model.table.has_tls(host), found), (*has_tls, *whose), "{host} {is_turned}");
            }
        }
    };
    let own = |hosts: &[&str]| json!([{"hosts": hosts, "secretName": "s"}]);
    let (plain, none) = (("raw.test", false, None), json!([]));
    let victim = of("a", 5, none.clone(), &["raw.test"]);
    check(&[of("evil", 1, json!([{"secretName": "s"}]), &[]), victim.clone()], &[plain, ("other.test", true, Some("evil"))]);
    check(&[of("evil", 1, json!([{"secretName": "s"}]), &[])], &[("raw.test", true, Some("evil"))]);
    check(
        &[of("evil", 1, own(&["raw.test", "*.test"]), &["evil.example"]), victim.clone()],
        &[plain, ("other.test", false, None)],
    );
    check(&[of("evil", 1, own(&["*.test"]), &["*.test"]), victim.clone()], &[plain, ("other.test", true, Some("evil"))]);
    // An older rule is who has the host.
    check(&[of("evil", 1, own(&["raw.test"]), &["raw.test"]), victim.clone()], &[("raw.test", true, Some("evil"))]);
    check(&[of("evil", 9, own(&["raw.test"]), &["raw.test"]), victim], &[plain]);
    let secured = of("a", 5, own(&["raw.test"]), &["raw.test"]);
    check(&[of("evil", 1, own(&["raw.test"]), &["evil.example"]), secured], &[("raw.test", true, Some("a"))]);
    // Wildcards of the namespace itself stand for its hosts; a name within its wildcard may have a certificate of its own.
    let wild = of("a", 5, own(&["*.test"]), &["raw.test"]);
    check(std::slice::from_ref(&wild), &[("raw.test", true, Some("a")), ("other.test", false, None)]);
    check(&[of("evil", 9, own(&["*.test"]), &["*.test"]), wild], &[("raw.test", true, Some("a"))]);
    check(&[of("a", 5, own(&["one.test"]), &["*.test"])], &[("one.test", true, Some("a")), ("two.test", false, None)]);
}

/// A change touches the hosts of its Ingress: the routes of all others are the very same.
#[test]
fn a_change_among_thousands_rebuilds_one_host() {
    let mut model = model();
    let one = |n: usize, to: &str| {
        let spec = json!({"rules": [rule(&format!("h{n}.example"), &[path("/", "Prefix", to)])]});
        ingress(&format!("i{n}"), 0, &json!({}), &spec)
    };
    for n in 0..3000 {
        set(&mut model, &one(n, "web"));
    }
    let before = model.step().unwrap().table;
    let start = Instant::now();
    set(&mut model, &one(77, "other"));
    let after = model.step().unwrap().table;
    let took = start.elapsed();
    let same = before.hosts.iter().filter(|(host, routes)| after.hosts.get(*host).is_some_and(|now| Arc::ptr_eq(now, routes)));
    assert_eq!((same.count(), after.len()), (2999, 3000));
    check(&model, "h77.example", "/", Some("other"));
    println!("a change among 3,000 hosts took {took:?}");
}

/// Who counts on a Secret learns that it is missing, and again when it goes another time.
#[test]
fn secrets_that_cannot_be_used_are_told() {
    let mut model = model();
    let (spec, key) = (json!({"rules": [rule("a.example", &[path("/", "Prefix", "x")])]}), Key::namespaced("a", "s"));
    set(&mut model, &ingress("i", 0, &json!({"auth-type": "basic", "auth-secret": "s"}), &spec));
    let told = |model: &mut Model| {
        let problems = model.step().map(|step| step.problems).unwrap_or_default();
        problems.into_iter().map(|(_, problem)| problem.message).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut model), [""; 0], "nobody has looked");
    let missing = ["Secret a/s is not there: requests are refused until it has passwords"];
    model.set_secret(&key, None);
    assert_eq!(told(&mut model), missing);
    model.set_secret(&key, None);
    assert_eq!(told(&mut model), [""; 0], "once");
    let secret = |data: Value| Some(Arc::new(serde_json::from_value(json!({"data": data})).unwrap()));
    model.set_secret(&key, secret(json!({"x": "eA=="})));
    assert_eq!(told(&mut model), ["Secret a/s has no key auth: requests are refused until it has passwords"]);
    model.set_secret(&key, secret(json!({"auth": "eA=="})));
    assert_eq!(told(&mut model), [""; 0]);
    model.set_secret(&key, None);
    assert_eq!(told(&mut model), missing);

    let tls =
        json!({"tls": [{"hosts": ["b.example"], "secretName": "s"}], "rules": [rule("b.example", &[path("/", "Prefix", "x")])]});
    set(&mut model, &ingress("tls", 0, &json!({}), &tls));
    assert_eq!(told(&mut model), ["Secret a/s is not there: a certificate that nobody trusts is shown"]);
}

/// The key of a certificate is in a Secret of who asked for it: nobody gets one for a host that is another's.
#[test]
fn certificates_are_asked_for_by_who_has_the_host() {
    let issuer = json!({"issuer": "letsencrypt"});
    let of = |namespace: &str, minute: u32, rules: Value, tls: &str| {
        let mut made = ingress("i", minute, &json!({}), &json!({"rules": rules, "tls": [{"hosts": [tls], "secretName": "s"}]}));
        made.metadata.namespace = Some(namespace.to_owned());
        let own = issuer["issuer"].as_str().unwrap().to_owned();
        made.metadata.annotations = Some([("acme.knarr.io/issuer".to_owned(), own)].into());
        made
    };
    let rules = |host: &str| json!([rule(host, &[path("/", "Prefix", "web")])]);
    let check = |ingresses: &[Ingress], expected: &[&str]| {
        let mut model = model();
        ingresses.iter().for_each(|ingress| set(&mut model, ingress));
        let wanted = model.wanted_certificates();
        assert_eq!(wanted.keys().map(Key::ns).collect::<Vec<_>>(), expected);
        let problems = model.step().unwrap().problems;
        let untold = problems.iter().filter(|(_, problem)| problem.reason == "CertificateNotIssued").count();
        assert_eq!(untold, ingresses.len() - expected.len(), "{problems:?}");
    };
    check(&[of("a", 1, rules("x.example"), "x.example")], &["a"]);
    check(&[of("a", 1, rules("x.example"), "x.example"), of("b", 2, rules("x.example"), "x.example")], &["a"]);
    check(&[of("a", 2, rules("x.example"), "x.example"), of("b", 1, rules("x.example"), "x.example")], &["b"]);
    // One that only asks has nothing.
    check(&[of("b", 1, json!([]), "x.example"), of("a", 2, rules("x.example"), "x.example")], &["a"]);
    check(&[of("b", 1, rules("y.example"), "x.example")], &[]);
}

/// An Ingress whose regular expressions found no room has it when others have let go of theirs, and is told of once.
#[test]
fn room_for_patterns_is_found_again() {
    let many = |name: &str, paths: usize| -> Ingress {
        let one = |number: usize| {
            json!({"path": format!("/{name}/{number}/\\w{{3}}"), "pathType": "ImplementationSpecific",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}})
        };
        let annotations = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
        let metadata = json!({"namespace": "large-patterns", "name": name, "annotations": annotations});
        let rule = json!({"host": format!("{name}.example"), "http": {"paths": (0..paths).map(one).collect::<Vec<_>>()}});
        serde_json::from_value(json!({"metadata": metadata, "spec": {"rules": [rule]}})).unwrap()
    };
    let mut model = Model::new("cluster.local", Issuers::default(), Arc::default());
    // What is guarded in one place is not to be had in a broader one.
    set(&mut model, &ingress("all", 0, &json!({}), &json!({"rules": [rule("second.example", &[path("/", "Prefix", "all")])]})));
    let is_closed = |model: &Model, path: &str| model.table.find("second.example", path, &Effort::default()).unwrap().closed;
    let (first, second) = (Key::namespaced("large-patterns", "first"), Key::namespaced("large-patterns", "second"));
    model.set_ingress(&first, Some(&many("first", 200)));
    model.set_ingress(&second, Some(&many("second", 1)));
    let step = model.step().unwrap();
    let told: BTreeSet<(&Key, &str)> = step.problems.iter().map(|(key, problem)| (key, problem.reason)).collect();
    assert_eq!(told, BTreeSet::from([(&first, NO_ROOM), (&second, NO_ROOM)]));
    assert_eq!(model.without_room(None), [first.clone(), second.clone()]);
    assert_eq!((is_closed(&model, "/second/0/abc"), is_closed(&model, "/other")), (true, false));
    assert_eq!(model.without_room(Some(&first)), std::slice::from_ref(&second));
    model.read_again(&second, &many("second", 1));
    assert!(model.step().unwrap().problems.is_empty(), "it is as it was");
    let freed = crate::patterns::freed();
    model.set_ingress(&first, None);
    drop(step);
    assert!(model.step().is_some() && crate::patterns::freed() != freed);
    model.read_again(&second, &many("second", 1));
    assert!(model.step().unwrap().problems.is_empty() && model.without_room(None).is_empty());
    assert!(!is_closed(&model, "/second/0/abc"));
    check(&model, "second.example", "/second/0/abc", Some("web"));
}

/// What is refused keeps its requests: they are not for a broader path, which may not be guarded.
#[test]
fn what_is_refused_is_closed() {
    let check = |annotations: Value, refused: Value, reason: &str, closed: &[&str], open: &[&str]| {
        let mut model = model();
        let broad = json!({"rules": [rule("a.example", &[path("/", "Prefix", "broad")])]});
        set(&mut model, &ingress("all", 0, &json!({}), &json!({"defaultBackend": backend("all")})));
        set(&mut model, &ingress("broad", 1, &json!({}), &broad));
        set(&mut model, &ingress("refused", 2, &annotations, &refused));
        let problems = model.step().unwrap().problems;
        assert_eq!(problems.iter().map(|(_, problem)| problem.reason).collect::<BTreeSet<_>>(), BTreeSet::from([reason]));
        for (paths, expected) in [(closed, true), (open, false)] {
            for path in paths {
                let (host, path) = path.split_once('/').unwrap();
                let found = model.table.find(host, &format!("/{path}"), &Effort::default()).unwrap();
                assert_eq!(found.closed, expected, "{reason}: {host}/{path} leads to {}", found.ingress);
            }
        }
    };
    let resource = json!({"resource": {"apiGroup": "storage.example", "kind": "Bucket", "name": "b"}});
    let of = |backend: &Value, text: &str| json!({"path": text, "pathType": "ImplementationSpecific", "backend": backend});
    let spec = |path: Value| json!({"rules": [rule("a.example", &[path])]});
    let regex = json!({"use-regex": "true"});
    check(json!({}), spec(of(&resource, "/admin")), "UnsupportedBackend", &["a.example/admin/x"], &["a.example/x"]);
    let open = &["a.example/x", "b.example/admin"];
    check(regex.clone(), spec(of(&backend("web"), "/admin(")), "InvalidPath", &["a.example/Admin/x"], open);
    check(regex, spec(of(&backend("web"), "/admin/(a{1000}){1000}")), "InvalidPath", &["a.example/admin/x"], open);
    let of_default = json!({"defaultBackend": resource, "rules": [rule("b.example", &[path("/x", "Prefix", "x")])]});
    check(json!({}), of_default, "UnsupportedBackend", &["b.example/y"], &["b.example/x", "a.example/y", "c.example/y"]);
    let bare = json!({"defaultBackend": resource, "rules": [{"host": "b.example"}]});
    check(json!({}), bare, "UnsupportedBackend", &["b.example/y"], &["a.example/y", "c.example/y"]);
    let large = json!({"tls": vec![json!({}); 20_000], "rules": [
        rule("a.example", &[path("/admin/a", "Prefix", "x"), path("/admin/b", "Prefix", "x")]),
        rule("b.example", &[path("/x", "Prefix", "x")]),
    ]});
    check(json!({}), large, "TooLarge", &["a.example/admin/a", "b.example/x/y"], &["a.example/x", "c.example/y"]);
}

/// "The older has it": what an Ingress that is too large closes takes no older path of another namespace, and no newer one takes its own.
#[test]
fn what_is_closed_has_its_age() {
    let of = |namespace: &str, name: &str, minute: u32, spec: &Value| {
        let mut ingress = ingress(name, minute, &json!({}), spec);
        ingress.metadata.namespace = Some(namespace.to_owned());
        ingress
    };
    let rules = |paths: &[(&str, &str)]| {
        let paths: Vec<Value> = paths.iter().map(|(text, kind)| path(text, kind, text)).collect();
        json!({"rules": [rule("a.example", &paths)]})
    };
    // The paths of the other, which is of that namespace and age; those of the one that is too large; requests and whose they are.
    let check = |(namespace, minute): (&str, u32),
                 others: &[(&str, &str)],
                 large: &[(&str, &str)],
                 requests: &[(&str, Option<&str>)],
                 conflicts: usize| {
        let mut model = model();
        let mut spec = rules(large);
        spec["tls"] = json!(vec![json!({}); 20_000]);
        set(&mut model, &of("b", "large", 5, &spec));
        set(&mut model, &of(namespace, "other", minute, &rules(others)));
        let problems = model.step().unwrap().problems;
        let told = problems.iter().filter(|(key, problem)| key.name == "other" && problem.reason == "Conflict").count();
        assert_eq!(told, conflicts, "{problems:?}");
        for (request, expected) in requests {
            let found = model.table.find("a.example", request, &Effort::default()).unwrap();
            let open = (!found.closed).then_some(found.text.as_str());
            assert_eq!(open, *expected, "{namespace} {minute} {request}");
        }
    };
    let (older, newer) = (("a", 1), ("a", 9));
    let app = [("/app", "Prefix"), ("/app/very/long", "Prefix")];
    let below = [("/app/x", "Prefix"), ("/app/x/y", "ImplementationSpecific"), ("/app/e", "Exact"), ("/b", "Prefix")];
    let served = [
        ("/app/x", Some("/app/x")),
        ("/app/x/yz", Some("/app/x/y")),
        ("/app/e", Some("/app/e")),
        ("/b/c", Some("/b")),
        ("/app/very", None),
        ("/app", None),
    ];
    check(older, &below, &app, &served, 0);
    check(older, &[("/app", "Prefix")], &app, &[("/app", Some("/app")), ("/app/very/long", Some("/app"))], 0);
    // A broader one is no place for what may be guarded.
    check(older, &[("/", "Prefix")], &app, &[("/app/very/long", None), ("/x", Some("/"))], 0);
    let all = [("/", "Prefix"), ("/a/long/path", "Prefix")];
    for kind in ["Prefix", "ImplementationSpecific"] {
        check(older, &[("/", kind), ("/x", kind)], &all, &[("/x/y", Some("/x")), ("/y", Some("/"))], 0);
    }
    check(older, &[("/", "Prefix")], &[("/c", "Exact"), ("/d", "Exact")], &[("/c", Some("/"))], 0);
    // Below what is of the same namespace the guards of the other one are missing.
    check(("b", 1), &below, &app, &[("/app/x", None), ("/app/e", Some("/app/e")), ("/b", Some("/b"))], 0);
    check(("b", 1), &[("/app", "Prefix")], &app[..1], &[("/app/x", Some("/app"))], 0);

    for namespace in ["a", "b"] {
        let newer = (namespace, newer.1);
        for kind in ["Prefix", "Exact", "ImplementationSpecific"] {
            check(newer, &[("/app", kind)], &app[..1], &[("/app", None)], 1);
        }
        check(newer, &below, &app, &[("/app/x", None), ("/app/e", None), ("/b", Some("/b"))], 3);
        check(
            newer,
            &[("/app/much/longer", "Prefix"), ("/", "Prefix")],
            &app,
            &[("/app/much/longer", Some("/app/much/longer")), ("/app/x", None)],
            0,
        );
    }
}

/// TLS is not passed through by what is refused, which would be served there.
#[test]
fn what_is_refused_passes_nothing_through() {
    let check = |annotations: Value, backend: Value, passes: bool| {
        let mut model = model();
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        set(&mut model, &ingress("i", 1, &annotations, &json!({"rules": [rule("a.example", &[path])]})));
        model.step();
        assert_eq!(model.table.passes(Entrance::Ingress, "a.example").is_some(), passes, "{annotations}");
    };
    check(json!({"ssl-passthrough": "true"}), backend("web"), true);
    check(json!({"ssl-passthrough": "true"}), json!({"service": {"name": "web"}}), false);
    check(json!({"ssl-passthrough": "true", "whitelist-source-range": "nonsense"}), backend("web"), false);
}

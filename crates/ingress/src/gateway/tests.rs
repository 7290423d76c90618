//! Objects in, rules and conditions out.
#![allow(clippy::unwrap_used)]

use super::*;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn objects(listeners: Value, route: Value, grants: &[Value]) -> Objects {
    let metadata = |name: &str, namespace: &str| json!({"name": name, "namespace": namespace, "generation": 3});
    let mut objects = Objects::default();
    let class = json!({"metadata": {"name": "knarr"}, "spec": {"controllerName": CONTROLLER}});
    objects.classes.insert(Key::cluster("knarr"), read(class));
    let gateway = json!({"metadata": metadata("g", "infra"), "spec": {"gatewayClassName": "knarr", "listeners": listeners}});
    objects.gateways.insert(Key::namespaced("infra", "g"), read(gateway));
    let foreign = json!({"metadata": metadata("f", "infra"), "spec": {"gatewayClassName": "other", "listeners": listeners}});
    objects.gateways.insert(Key::namespaced("infra", "f"), read(foreign));
    objects.routes.insert(Key::namespaced("a", "r"), read(json!({"metadata": metadata("r", "a"), "spec": route})));
    for (place, grant) in grants.iter().enumerate() {
        let name = place.to_string();
        objects.grants.insert(Key::namespaced("b", &name), read(json!({"metadata": metadata(&name, "b"), "spec": grant})));
    }
    objects
}

fn planned(objects: &Objects) -> Plan {
    let around = Around {
        http_port: 80,
        https_port: 443,
        addresses: &[[192, 0, 2, 10].into()],
        issuers: &Issuers::default(),
        labels: &|_| Some(BTreeMap::new()),
        has_service: &|service| service.name != "missing",
        has_certificate: &|secret| Some(secret.name == "good"),
    };
    plan(objects, &around)
}

fn status(plan: &Plan, kind: Kind) -> &Value {
    &plan.statuses.iter().find(|(found, key, _)| *found == kind && key.name != "f").unwrap().2
}

/// Type, status and reason of each condition.
fn conditions(value: &Value) -> Vec<String> {
    let text = |one: &Value| format!("{} {} {}", one["type"], one["status"], one["reason"]).replace('"', "");
    value["conditions"].as_array().unwrap().iter().map(text).collect()
}

fn http() -> Value {
    json!([{"name": "web", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}])
}

fn parents() -> Value {
    json!([{"name": "g", "namespace": "infra"}])
}

#[test]
fn a_route_on_a_listener() {
    let rules = json!([{"matches": [{"path": {"type": "Exact", "value": "/x"}}, {"path": {"type": "PathPrefix", "value": "/y"}}],
        "backendRefs": [{"name": "one", "port": 80, "weight": 9}, {"name": "two", "port": 80}]}]);
    let objects = objects(http(), json!({"parentRefs": parents(), "hostnames": ["a.example"], "rules": rules}), &[]);
    let plan = planned(&objects);
    assert_eq!(plan.rules.len(), 2);
    let rule = &plan.rules[0];
    assert_eq!((rule.door, rule.host.as_str(), rule.backends[0].0, rule.backends[1].0), (Door::Http, "a.example", 9, 1));
    assert_eq!(conditions(status(&plan, Kind::GatewayClass)), ["Accepted True Accepted"]);
    let gateway = status(&plan, Kind::Gateway);
    assert_eq!(conditions(gateway), ["Accepted True Accepted", "Programmed True Programmed"]);
    assert_eq!(
        (&gateway["addresses"][0]["value"], &gateway["listeners"][0]["attachedRoutes"]),
        (&json!("192.0.2.10"), &json!(1))
    );
    let parent = &status(&plan, Kind::HttpRoute)["parents"][0];
    assert_eq!(conditions(parent), ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"]);
    assert_eq!(parent["parentRef"], json!({"group": GROUP, "kind": "Gateway", "name": "g", "namespace": "infra"}));
    assert!(plan.statuses.iter().all(|(_, key, _)| key.name != "f"), "what belongs to others stays");
}

#[test]
fn what_routes_are_told() {
    let check = |route: Value, grants: &[Value], rules: usize, expected: [&str; 2]| {
        let plan = planned(&objects(http(), route, grants));
        let told = conditions(&status(&plan, Kind::HttpRoute)["parents"][0]);
        assert_eq!((plan.rules.len(), told), (rules, expected.map(str::to_owned).to_vec()));
    };
    let route = |parent: Value, backend: Value| json!({"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]});
    let (own, service) = (json!({"name": "g", "namespace": "infra"}), json!({"name": "web", "port": 80}));
    let good = "ResolvedRefs True ResolvedRefs";
    check(route(own.clone(), service.clone()), &[], 1, ["Accepted True Accepted", good]);
    let other = json!({"name": "g", "namespace": "infra", "sectionName": "none"});
    check(route(other, service), &[], 0, ["Accepted False NoMatchingParent", good]);
    let missing = json!({"name": "missing", "port": 80});
    check(route(own.clone(), missing), &[], 1, ["Accepted True Accepted", "ResolvedRefs False BackendNotFound"]);
    let bucket = json!({"kind": "Bucket", "group": "x", "name": "web", "port": 80});
    check(route(own.clone(), bucket), &[], 1, ["Accepted True Accepted", "ResolvedRefs False InvalidKind"]);
    let foreign = json!({"name": "web", "namespace": "b", "port": 80});
    check(route(own.clone(), foreign.clone()), &[], 1, ["Accepted True Accepted", "ResolvedRefs False RefNotPermitted"]);
    let grant = |name: Value| json!({"from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": "a"}], "to": [{"group": "", "kind": "Service", "name": name}]});
    check(route(own.clone(), foreign.clone()), &[grant(json!("web"))], 1, ["Accepted True Accepted", good]);
    check(
        route(own.clone(), foreign),
        &[grant(json!("other"))],
        1,
        ["Accepted True Accepted", "ResolvedRefs False RefNotPermitted"],
    );
    let mirror = json!({"parentRefs": [own], "rules": [{"filters": [{"type": "RequestMirror"}]}]});
    check(mirror, &[], 0, ["Accepted False UnsupportedValue", good]);
}

#[test]
fn what_listeners_are_told() {
    let check = |listener: Value, expected: [&str; 3], tls: usize| {
        let mut listener = listener;
        listener["name"] = json!("l");
        let plan = planned(&objects(json!([listener]), json!({}), &[]));
        let told = conditions(&status(&plan, Kind::Gateway)["listeners"][0]);
        assert_eq!((told, plan.tls.len()), (expected.map(str::to_owned).to_vec(), tls));
    };
    let (accepted, resolved, programmed) =
        ("Accepted True Accepted", "ResolvedRefs True ResolvedRefs", "Programmed True Programmed");
    check(json!({"port": 80, "protocol": "HTTP"}), [accepted, resolved, programmed], 0);
    let invalid = "Programmed False Invalid";
    check(json!({"port": 8080, "protocol": "HTTP"}), ["Accepted False PortUnavailable", resolved, invalid], 0);
    check(json!({"port": 80, "protocol": "TCP"}), ["Accepted False UnsupportedProtocol", resolved, invalid], 0);
    let https = |secret: &str| json!({"port": 443, "protocol": "HTTPS", "hostname": "a.example", "tls": {"certificateRefs": [{"name": secret}]}});
    check(https("good"), [accepted, resolved, programmed], 1);
    check(https("bad"), [accepted, "ResolvedRefs False InvalidCertificateRef", invalid], 0);
    let foreign = json!({"port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "good", "namespace": "b"}]}});
    check(foreign, [accepted, "ResolvedRefs False RefNotPermitted", invalid], 0);
    let tls = |mode: &str| json!({"port": 443, "protocol": "TLS", "hostname": "a.example", "tls": {"mode": mode}});
    check(tls("Passthrough"), [accepted, resolved, programmed], 0);
    check(tls("Terminate"), ["Accepted False UnsupportedValue", resolved, invalid], 0);
    let kinds = json!({"port": 80, "protocol": "HTTP", "allowedRoutes": {"kinds": [{"kind": "TCPRoute"}]}});
    check(kinds, [accepted, "ResolvedRefs False InvalidRouteKinds", programmed], 0);
}

#[test]
fn tls_routes() {
    let listeners = json!([
        {"name": "web", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
        {"name": "tls", "port": 443, "protocol": "TLS", "hostname": "*.example", "tls": {"mode": "Passthrough"}, "allowedRoutes": {"namespaces": {"from": "All"}}},
    ]);
    let mut objects = objects(listeners, json!({"parentRefs": parents(), "hostnames": ["b.example"]}), &[]);
    let spec =
        json!({"parentRefs": parents(), "hostnames": ["a.example"], "rules": [{"backendRefs": [{"name": "web", "port": 443}]}]});
    let route = json!({"metadata": {"name": "t", "namespace": "a"}, "spec": spec});
    objects.tls.insert(Key::namespaced("a", "t"), read(route));
    let plan = planned(&objects);
    let found: Vec<_> = plan.rules.iter().map(|rule| (rule.kind, rule.door, rule.host.as_str())).collect();
    assert_eq!(found, [(Kind::HttpRoute, Door::Http, "b.example"), (Kind::TlsRoute, Door::Passthrough, "a.example")]);
    let parent = &status(&plan, Kind::TlsRoute)["parents"][0];
    assert_eq!(conditions(parent), ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"]);
    let listeners = &status(&plan, Kind::Gateway)["listeners"];
    assert_eq!(
        (&listeners[1]["supportedKinds"], &listeners[1]["attachedRoutes"]),
        (&json!([{"group": GROUP, "kind": "TLSRoute"}]), &json!(1))
    );
}

#[test]
fn grpc_routes() {
    let mut objects = objects(http(), json!({}), &[]);
    let rules =
        json!([{"matches": [{"method": {"service": "a.Ship", "method": "Sail"}}], "backendRefs": [{"name": "web", "port": 80}]}]);
    let route = json!({"metadata": {"name": "grpc", "namespace": "a"}, "spec": {"parentRefs": parents(), "rules": rules}});
    objects.grpc.insert(Key::namespaced("a", "grpc"), grpc::over_http(read(route)));
    let plan = planned(&objects);
    let upstream = plan.rules[0].backends[0].1.clone().unwrap();
    assert_eq!((plan.rules[0].kind, upstream.protocol), (Kind::GrpcRoute, Some(crate::policy::Protocol::Grpc)));
    let parent = &status(&plan, Kind::GrpcRoute)["parents"][0];
    assert_eq!(conditions(parent), ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"]);
    let kinds = &status(&plan, Kind::Gateway)["listeners"][0]["supportedKinds"];
    assert_eq!((&kinds[0]["kind"], &kinds[1]["kind"]), (&json!("HTTPRoute"), &json!("GRPCRoute")));
}

#[test]
fn certificates_by_acme() {
    let listeners = json!([{"name": "web", "port": 443, "protocol": "HTTPS", "hostname": "a.example",
        "tls": {"certificateRefs": [{"name": "missing"}]}}]);
    let check = |issuer: &str, orders: usize, reasons: &[&str]| {
        let mut objects = objects(listeners.clone(), json!({"parentRefs": parents()}), &[]);
        let gateway = objects.gateways.get_mut(&Key::namespaced("infra", "g")).unwrap();
        gateway.metadata.annotations = Some([("acme.knarr.io/issuer".to_owned(), issuer.to_owned())].into());
        let plan = planned(&objects);
        let found: Vec<&str> = plan.problems.iter().map(|(_, problem)| problem.reason).collect();
        assert_eq!((plan.orders.len(), found.as_slice()), (orders, reasons), "{issuer}");
    };
    check("letsencrypt", 1, &[]);
    check("https://10.43.0.1/", 0, &["IssuerNotAllowed"]);
    check("", 0, &[]);
}

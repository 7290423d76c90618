//! Objects in, rules and conditions out.
#![allow(clippy::unwrap_used)]

mod asked;
mod listeners;
mod precedence;
mod room;
mod sets;

use std::cell::RefCell;

use base::tls::Authority;

use super::streams::Carries;
use super::*;
use crate::endpoints::PortRef;
use crate::guard::clients::Verify;
use crate::upstream::{Place, UpstreamKey};
use serde::de::DeserializeOwned;

thread_local! {
    /// The certificates in ConfigMaps.
    static BUNDLES: RefCell<BTreeMap<String, Option<String>>> = const { RefCell::new(BTreeMap::new()) };
    /// The Ingresses of hosts.
    static INGRESSES: RefCell<BTreeMap<String, Vec<(i64, Key)>>> = const { RefCell::new(BTreeMap::new()) };
}

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
        reserved: &[Port::tcp(80), Port::tcp(443), Port::tcp(6443)].into(),
        balancers: &[(Port::tcp(25), Key::namespaced("mail", "smtp"))].into(),
        opened: &|port| match port.number {
            22 => Some(Err("in use".to_owned())),
            5 => None,
            _ => Some(Ok(())),
        },
        taken: &[
            (Port::tcp(7), [TakenAt { node: "n1".to_owned(), is_ours: true }].into()),
            (Port::tcp(8), [TakenAt { node: "n2".to_owned(), is_ours: false }].into()),
        ]
        .into(),
        addresses: &[[192, 0, 2, 10].into()],
        leads_here: &|address| address.to_string().starts_with("192.0.2."),
        issuers: &Issuers::default(),
        labels: &|_| Some(BTreeMap::new()),
        ingresses: &|host| INGRESSES.with_borrow(|all| all.get(host).cloned().unwrap_or_default()),
        service: &|service| {
            let named = |port, name: &str| (port, Some(name.to_owned()));
            let https = [named(Port::udp(443), "quic"), named(Port::tcp(443), "https")];
            let ports = https.into_iter().chain([(Port::tcp(80), None), (Port::tcp(53), None), (Port::udp(53), None)]);
            let offer = Offer { is_name: service.name == "outside", ports: ports.collect() };
            (service.name != "missing").then(|| offer.into())
        },
        bundle: &|map| BUNDLES.with_borrow(|all| all.get(&map.name).cloned()),
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
    assert_eq!(
        (rule.door, rule.host.as_str(), rule.backends[0].weight, rule.backends[1].weight),
        (Door::Http, "a.example", 9, 1)
    );
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
    for port in [81, 5353] {
        let other = json!({"name": "web", "port": port});
        check(route(own.clone(), other), &[], 1, ["Accepted True Accepted", "ResolvedRefs False BackendNotFound"]);
    }
    let outside = json!({"name": "outside", "port": 80});
    check(route(own.clone(), outside), &[], 1, ["Accepted True Accepted", "ResolvedRefs False UnsupportedValue"]);
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
    let filters = |filters: Value| json!({"parentRefs": [own], "rules": [{"filters": filters}]});
    let unsupported = ["Accepted False UnsupportedValue", good];
    check(filters(json!([{"type": "ExtensionRef"}])), &[], 0, unsupported);
    let mirror =
        |name: &str| filters(json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}}}]));
    check(mirror("web"), &[], 1, ["Accepted True Accepted", good]);
    check(mirror("missing"), &[], 1, ["Accepted True Accepted", "ResolvedRefs False BackendNotFound"]);
    let of_backend = |filter: Value| route(own.clone(), json!({"name": "web", "port": 80, "filters": [filter]}));
    check(of_backend(json!({"requestHeaderModifier": {"remove": ["a"]}})), &[], 1, ["Accepted True Accepted", good]);
    check(of_backend(json!({"urlRewrite": {"hostname": "a"}})), &[], 0, unsupported);
    let session = |kind: &str| json!({"parentRefs": [own], "rules": [{"sessionPersistence": {"type": kind}}]});
    check(session("Cookie"), &[], 1, ["Accepted True Accepted", good]);
    check(session("Header"), &[], 0, unsupported);
}

/// What newer definitions have, and nobody here knows, is never left out in silence; the other routes are served.
#[test]
fn what_routes_have_that_is_not_known() {
    let check = |rule: Value, expected: &str| {
        let plan = planned(&objects(http(), json!({"parentRefs": parents(), "rules": [rule]}), &[]));
        let told = status(&plan, Kind::HttpRoute)["parents"][0]["conditions"][0].clone();
        let found = format!("{} {}", told["reason"].as_str().unwrap(), told["message"].as_str().unwrap_or_default());
        assert!(found.starts_with(expected), "{found}");
        assert_eq!(plan.rules.len(), usize::from(expected == "Accepted"), "{found}");
    };
    let unread = |field: &str| format!("UnsupportedValue a rule is not supported: unknown field `{field}`");
    check(json!({"name": "r", "sessionPersistence": {"type": "Cookie", "cookie": {"name": "s", "path": "/"}}}), "Accepted");
    check(json!({"sessionPersistence": {"cookie": {"sameSite": "Lax"}}}), &unread("sameSite"));
    check(json!({"sessionPersistence": {"affinity": true}}), &unread("affinity"));
    check(json!({"filters": [{"type": "ExternalAuth", "externalAuth": {}}]}), &unread("externalAuth"));
    check(json!({"matches": [{"path": {"type": "PathPrefix", "value": "/"}, "cookies": []}]}), &unread("cookies"));
    check(json!({"rateLimit": {}}), &unread("rateLimit"));
    check(json!({"retry": {"attempts": -1}}), "UnsupportedValue a rule is not supported: invalid value");
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
    check(json!({"port": 8080, "protocol": "HTTP"}), [accepted, resolved, programmed], 0);
    check(json!({"port": 80, "protocol": "x.example/y"}), ["Accepted False UnsupportedProtocol", resolved, invalid], 0);
    let https = |secret: &str| json!({"port": 443, "protocol": "HTTPS", "hostname": "a.example", "tls": {"certificateRefs": [{"name": secret}]}});
    check(https("good"), [accepted, resolved, programmed], 1);
    check(https("bad"), [accepted, "ResolvedRefs False InvalidCertificateRef", invalid], 0);
    let foreign = json!({"port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "good", "namespace": "b"}]}});
    check(foreign, [accepted, "ResolvedRefs False RefNotPermitted", invalid], 0);
    let tls = |mode: &str| json!({"port": 443, "protocol": "TLS", "hostname": "a.example", "tls": {"mode": mode}});
    check(tls("Passthrough"), [accepted, resolved, programmed], 0);
    check(tls("Terminate"), [accepted, "ResolvedRefs False InvalidCertificateRef", invalid], 0);
    check(tls("Other"), ["Accepted False UnsupportedValue", resolved, invalid], 0);
    let mut ends = tls("Terminate");
    ends["tls"]["certificateRefs"] = json!([{"name": "good"}]);
    check(ends, [accepted, resolved, programmed], 1);
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

/// What listeners for TCP and UDP are told (GEP-2644 and GEP-2645), and who of several has a port.
#[test]
fn ports_of_listeners() {
    let check = |listener: Value, expected: [&str; 3]| {
        let mut named = listener.clone();
        named["name"] = json!("l");
        let all = json!([{"name": "first", "port": 53, "protocol": "UDP"}, named]);
        let plan = planned(&objects(all, json!({}), &[]));
        assert_eq!(conditions(&status(&plan, Kind::Gateway)["listeners"][1]), expected, "{listener}");
    };
    let (accepted, resolved) = ("Accepted True Accepted", "ResolvedRefs True ResolvedRefs");
    let taken = ["Accepted False PortUnavailable", resolved, "Programmed False Invalid"];
    check(json!({"port": 53, "protocol": "TCP"}), [accepted, resolved, "Programmed True Programmed"]);
    check(json!({"port": 80, "protocol": "UDP"}), [accepted, resolved, "Programmed True Programmed"]);
    check(json!({"port": 5, "protocol": "TCP"}), [accepted, resolved, "Programmed False Pending"]);
    for (port, protocol) in [(80, "TCP"), (6443, "TCP"), (22, "TCP"), (25, "TCP")] {
        check(json!({"port": port, "protocol": protocol}), taken);
    }
    let kinds = json!({"port": 5432, "protocol": "TCP", "allowedRoutes": {"kinds": [{"kind": "UDPRoute"}]}});
    check(kinds, [accepted, "ResolvedRefs False InvalidRouteKinds", "Programmed True Programmed"]);
    // Of two Gateways the older has it.
    let listeners = json!([{"name": "l", "port": 5432, "protocol": "TCP"}]);
    let mut objects = objects(listeners.clone(), json!({}), &[]);
    let older = json!({"metadata": {"name": "z", "namespace": "infra", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"gatewayClassName": "knarr", "listeners": listeners}});
    objects.gateways.insert(Key::namespaced("infra", "z"), read(older));
    let plan = planned(&objects);
    let younger = plan.statuses.iter().find(|(_, key, _)| key.name == "g").unwrap();
    let told = &younger.2["listeners"][0]["conditions"][0];
    assert_eq!(
        (&told["reason"], &told["message"]),
        (&json!("PortUnavailable"), &json!("port 5432/TCP is one of Gateway infra/z"))
    );
    assert_eq!(plan.ports, [(Port::tcp(5432), Carries::Stream)].into());
}

/// A TCPRoute and a UDPRoute on listeners of the same number; of two routes the older one gets what comes.
#[test]
fn routes_of_ports() {
    let all = json!({"namespaces": {"from": "All"}});
    let listeners = json!([
        {"name": "tcp", "port": 53, "protocol": "TCP", "allowedRoutes": all},
        {"name": "udp", "port": 53, "protocol": "UDP", "allowedRoutes": all},
    ]);
    let mut objects = objects(listeners, json!({"parentRefs": parents()}), &[]);
    let route = |name: &str, created: &str, service: &str| {
        let rules = json!([{"backendRefs": [{"name": service, "port": 53, "weight": 3}, {"name": "missing", "port": 53}]}]);
        let metadata = json!({"name": name, "namespace": "a", "creationTimestamp": created});
        read(json!({"metadata": metadata, "spec": {"parentRefs": parents(), "rules": rules}}))
    };
    objects.tcp.insert(Key::namespaced("a", "t"), route("t", "2026-01-02T00:00:00Z", "web"));
    objects.tcp.insert(Key::namespaced("a", "s"), route("s", "2026-01-03T00:00:00Z", "later"));
    objects.udp.insert(Key::namespaced("a", "u"), route("u", "2026-01-02T00:00:00Z", "web"));
    let plan = planned(&objects);
    assert!(plan.rules.is_empty(), "nothing is led to HTTP");
    let of = |port| {
        let planned = &plan.streams[&port];
        let place = |backend: &Backend<UpstreamKey>| backend.to.as_ref().map(|to| to.place.clone());
        (
            planned.kind,
            planned.route.name.clone(),
            planned.backends.iter().map(|one| (one.weight, place(one))).collect::<Vec<_>>(),
        )
    };
    let web = |port| Some(Place::Service(Key::namespaced("a", "web"), port));
    assert_eq!(of(Port::tcp(53)), (Kind::TcpRoute, "t".to_owned(), vec![(3, web(PortRef::Number(53))), (1, None)]));
    assert_eq!(of(Port::udp(53)), (Kind::UdpRoute, "u".to_owned(), vec![(3, web(PortRef::Udp(53))), (1, None)]));
    let later = plan.statuses.iter().find(|(_, key, _)| key.name == "s").unwrap();
    let accepted = &later.2["parents"][0]["conditions"][0];
    assert_eq!(
        (&accepted["status"], &accepted["reason"], &accepted["message"]),
        (&json!("False"), &json!("PortConflict"), &json!("port 53/TCP is served by TCPRoute a/t, which is older"))
    );
    let told = |kind| conditions(&status(&plan, kind)["parents"][0]);
    assert_eq!(told(Kind::UdpRoute), ["Accepted True Accepted", "ResolvedRefs False BackendNotFound"]);
    assert_eq!(told(Kind::HttpRoute), ["Accepted False NotAllowedByListeners", "ResolvedRefs True ResolvedRefs"]);
    let listeners = &status(&plan, Kind::Gateway)["listeners"];
    let shown =
        |place: usize| (listeners[place]["attachedRoutes"].clone(), listeners[place]["supportedKinds"][0]["kind"].clone());
    assert_eq!((shown(0), shown(1)), ((json!(1), json!("TCPRoute")), (json!(1), json!("UDPRoute"))));
}

/// "AttachedRoutes represents the total number of Routes that have been successfully attached to this Listener" (ListenerStatus).
#[test]
fn a_route_that_names_a_listener_twice_is_one() {
    let parent = |more: Value| {
        let mut parent = json!({"name": "g", "namespace": "infra"});
        parent.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parent
    };
    let twice = json!([parent(json!({"sectionName": "web"})), parent(json!({"port": 80}))]);
    let plan = planned(&objects(http(), json!({"parentRefs": twice, "rules": [{}]}), &[]));
    let parents = status(&plan, Kind::HttpRoute)["parents"].as_array().unwrap();
    assert!(parents.len() == 2 && parents.iter().all(|parent| conditions(parent)[0] == "Accepted True Accepted"));
    assert_eq!(status(&plan, Kind::Gateway)["listeners"][0]["attachedRoutes"], 1);
}

#[test]
fn grpc_routes() {
    let mut objects = objects(http(), json!({}), &[]);
    let rules =
        json!([{"matches": [{"method": {"service": "a.Ship", "method": "Sail"}}], "backendRefs": [{"name": "web", "port": 80}]}]);
    let route = json!({"metadata": {"name": "grpc", "namespace": "a"}, "spec": {"parentRefs": parents(), "rules": rules}});
    objects.grpc.insert(Key::namespaced("a", "grpc"), grpc::over_http(read(route)));
    let plan = planned(&objects);
    let upstream = plan.rules[0].backends[0].to.clone().unwrap();
    assert_eq!((plan.rules[0].kind, upstream.protocol), (Kind::GrpcRoute, Some(crate::policy::Protocol::Grpc)));
    let parent = &status(&plan, Kind::GrpcRoute)["parents"][0];
    assert_eq!(conditions(parent), ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"]);
    let kinds = &status(&plan, Kind::Gateway)["listeners"][0]["supportedKinds"];
    assert_eq!((&kinds[0]["kind"], &kinds[1]["kind"]), (&json!("HTTPRoute"), &json!("GRPCRoute")));
}

#[test]
fn certificates_by_acme() {
    let listeners = json!([{"name": "web", "port": 443, "protocol": "HTTPS", "hostname": "a.example",
        "tls": {"certificateRefs": [{"name": "missing"}, {"name": "other", "kind": "ConfigMap"}, {"name": "second"},
            {"name": "theirs", "namespace": "a"}]}}]);
    let check = |issuer: &str, orders: &[&str], reasons: &[&str]| {
        let mut objects = objects(listeners.clone(), json!({"parentRefs": parents()}), &[]);
        let gateway = objects.gateways.get_mut(&Key::namespaced("infra", "g")).unwrap();
        gateway.metadata.annotations = Some([("acme.knarr.io/issuer".to_owned(), issuer.to_owned())].into());
        let plan = planned(&objects);
        let found: Vec<&str> = plan.problems.iter().map(|(_, _, problem)| problem.reason).collect();
        let ordered: Vec<&str> = plan.orders.iter().map(|order| order.secret.name.as_str()).collect();
        assert_eq!((ordered.as_slice(), found.as_slice()), (orders, reasons), "{issuer}");
    };
    check("letsencrypt", &["missing", "second"], &[]);
    check("https://10.43.0.1/", &[], &["IssuerNotAllowed"]);
    check("", &[], &[]);
}

/// One route over a listener to port 80 and 443 of a Service, and policies for it, each by its age, the section and what it verifies.
fn with_policies(policies: &[(&str, i64, Option<&str>, Value)]) -> Plan {
    let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}, {"backendRefs": [{"name": "web", "port": 443}]}]);
    let mut objects = objects(http(), json!({"parentRefs": parents(), "rules": rules}), &[]);
    for (name, age, section, validation) in policies {
        let time = jiff::Timestamp::from_second(1_000_000 - age).unwrap().to_string();
        let metadata = json!({"name": name, "namespace": "a", "creationTimestamp": time, "generation": 1});
        let mut target = json!({"group": "", "kind": "Service", "name": "web"});
        if let Some(section) = section {
            target["sectionName"] = json!(section);
        }
        let policy = json!({"metadata": metadata, "spec": {"targetRefs": [target], "validation": validation}});
        objects.backend_tls.insert(Key::namespaced("a", *name), read(policy));
    }
    planned(&objects)
}

fn refers(map: &str) -> Value {
    json!({"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": map}], "hostname": "web.example"})
}

#[test]
fn policies_of_back_ends() {
    let bundle = Authority::in_memory("back ends").unwrap().bundle().to_owned();
    BUNDLES.set(BTreeMap::from([
        ("good".to_owned(), Some(bundle)),
        ("bad".to_owned(), Some("x".to_owned())),
        ("missing".to_owned(), None),
    ]));
    let check = |validation: Value, leads: bool, expected: &[&str]| {
        let plan = with_policies(&[("p", 0, None, validation.clone())]);
        for rule in &plan.rules {
            let backend = rule.backends[0].to.as_ref();
            assert_eq!(backend.is_some(), leads, "{validation}");
            let asked = backend.map(|key| (key.protocol, key.tls_name.as_deref(), key.trust.is_some()));
            assert!(
                asked.is_none_or(|asked| asked == (Some(crate::policy::Protocol::Https), Some("web.example"), true)),
                "{asked:?}"
            );
        }
        let ancestors = plan.statuses.iter().find(|(kind, ..)| *kind == Kind::BackendTlsPolicy).map(|(_, _, status)| status);
        assert_eq!(ancestors.map(|status| conditions(&status["ancestors"][0])).unwrap_or_default(), expected, "{validation}");
    };
    let good = ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"];
    check(refers("good"), true, &good);
    check(json!({"wellKnownCACertificates": "System", "hostname": "web.example"}), true, &good);
    let no_certificate = ["Accepted False NoValidCACertificate", "ResolvedRefs False InvalidCACertificateRef"];
    check(refers("bad"), false, &no_certificate);
    check(refers("missing"), false, &no_certificate);
    // Nobody has looked yet: requests wait for nothing, and nothing is told.
    check(refers("unknown"), false, &[]);
    let secret = json!({"caCertificateRefs": [{"group": "", "kind": "Secret", "name": "good"}], "hostname": "web.example"});
    check(secret, false, &["Accepted False NoValidCACertificate", "ResolvedRefs False InvalidKind"]);
    let invalid = ["Accepted False Invalid", "ResolvedRefs True ResolvedRefs"];
    check(json!({"wellKnownCACertificates": "Other", "hostname": "web.example"}), false, &invalid);
    let with = |names: Value| json!({"wellKnownCACertificates": "System", "hostname": "web.example", "subjectAltNames": names});
    check(with(json!([{"type": "URI", "uri": "spiffe://a"}, {"type": "Hostname", "hostname": "other.example"}])), true, &good);
    check(with(json!([{"type": "Future"}])), false, &invalid);
    check(json!({"wellKnownCACertificates": "System", "hostname": "192.0.2.1"}), false, &invalid);
}

#[test]
fn of_two_policies_the_older_counts_and_one_for_a_port_before_one_for_all() {
    BUNDLES.set(BTreeMap::from([("good".to_owned(), Some(Authority::in_memory("back ends").unwrap().bundle().to_owned()))]));
    let good = refers("good");
    let named = |name: &str| json!({"wellKnownCACertificates": "System", "hostname": name});
    let plan = with_policies(&[("young", 0, None, named("young.example")), ("old", 9, None, good.clone())]);
    assert!(plan.rules.iter().all(|rule| rule.backends[0].to.as_ref().unwrap().tls_name.as_deref() == Some("web.example")));
    let told = |plan: &Plan, name: &str| {
        let of = plan.statuses.iter().find(|(kind, key, _)| *kind == Kind::BackendTlsPolicy && key.name == name);
        of.map(|(_, _, status)| conditions(&status["ancestors"][0])[0].clone())
    };
    assert_eq!(told(&plan, "old").as_deref(), Some("Accepted True Accepted"));
    assert_eq!(told(&plan, "young").as_deref(), Some("Accepted False Conflicted"));
    // The port 443 has the name https, and a policy of its own.
    let plan = with_policies(&[("port", 0, Some("https"), named("port.example")), ("all", 9, None, good)]);
    let names: Vec<_> = plan.rules.iter().map(|rule| rule.backends[0].to.as_ref().unwrap().tls_name.clone().unwrap()).collect();
    assert_eq!(names, ["web.example", "port.example"]);
    assert!(["port", "all"].iter().all(|name| told(&plan, name).as_deref() == Some("Accepted True Accepted")));
}

#[test]
fn clients_of_listeners() {
    let bundle = Authority::in_memory("staff").unwrap().bundle().to_owned();
    BUNDLES.set(BTreeMap::from([("good".to_owned(), Some(bundle)), ("missing".to_owned(), None)]));
    let listeners = json!([
        {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example", "tls": {"certificateRefs": [{"name": "good"}]},
            "allowedRoutes": {"namespaces": {"from": "All"}}},
        {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
    ]);
    // What is planned for HTTPS: whether there are authorities, and what is asked. And the conditions of its listener.
    let check = |frontend: Value, expected: Option<(bool, Verify)>, told: [&str; 2]| {
        let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
        let mut objects =
            objects(listeners.clone(), json!({"parentRefs": parents(), "hostnames": ["a.example"], "rules": rules}), &[]);
        let gateway = objects.gateways.get_mut(&Key::namespaced("infra", "g")).unwrap();
        gateway.spec.tls = Some(read(json!({"frontend": frontend})));
        let plan = planned(&objects);
        let of = |door: Door| plan.rules.iter().find(|rule| rule.door == door).unwrap().clients.as_ref();
        assert!(of(Door::Http).is_none(), "nobody shows a certificate over plain HTTP");
        let clients = of(Door::Https).map(|clients| (clients.authorities.is_some(), clients.auth.verify));
        assert_eq!(clients, expected, "{frontend}");
        assert_eq!(plan.asks.contains(&(Entrance::Ingress, "*.example".to_owned())), expected.is_some());
        let listener = &status(&plan, Kind::Gateway)["listeners"][0];
        assert_eq!(conditions(listener)[..2], told, "{frontend}");
    };
    let refers = |map: &str| json!({"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": map}]}});
    let fine = ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"];
    check(json!({"default": refers("good")}), Some((true, Verify::On)), fine);
    check(
        json!({"default": refers("missing"), "perPort": [{"port": 443, "tls": refers("good")}]}),
        Some((true, Verify::On)),
        fine,
    );
    check(json!({"default": refers("good"), "perPort": [{"port": 443, "tls": {}}]}), None, fine);
    check(json!({"perPort": [{"port": 8443, "tls": refers("good")}]}), None, fine);
    let mut fallback = refers("good");
    fallback["validation"]["mode"] = json!("AllowInsecureFallback");
    check(json!({"default": fallback}), Some((true, Verify::OptionalNoCa)), fine);
    // GatewayFrontendClientCertificateValidationInsecureFallback of the conformance tests.
    let is_insecure = |frontend: Value| {
        let mut objects = objects(listeners.clone(), json!({}), &[]);
        let gateway = objects.gateways.get_mut(&Key::namespaced("infra", "g")).unwrap();
        gateway.spec.tls = Some(read(json!({"frontend": frontend})));
        let told = conditions(status(&planned(&objects), Kind::Gateway));
        told.contains(&"InsecureFrontendValidationMode True ConfigurationChanged".to_owned())
    };
    assert!(is_insecure(json!({"default": fallback})));
    assert!(is_insecure(json!({"default": refers("good"), "perPort": [{"port": 443, "tls": fallback}]})));
    assert!(!is_insecure(json!({"default": refers("good")})));
    let none = "Accepted False NoValidCACertificate";
    check(json!({"default": refers("missing")}), Some((false, Verify::On)), [none, "ResolvedRefs False InvalidCACertificateRef"]);
    let mut elsewhere = refers("good");
    elsewhere["validation"]["caCertificateRefs"][0]["namespace"] = json!("b");
    check(json!({"default": elsewhere}), Some((false, Verify::On)), [none, "ResolvedRefs False RefNotPermitted"]);
    let secret = json!({"validation": {"caCertificateRefs": [{"group": "", "kind": "Secret", "name": "good"}]}});
    check(json!({"default": secret}), Some((false, Verify::On)), [none, "ResolvedRefs False InvalidCACertificateKind"]);
    // Nobody has looked yet: nobody may pass, and nothing is told.
    check(json!({"default": refers("unknown")}), Some((false, Verify::On)), fine);
}

/// ListenerConditionProgrammed, reason Pending: the listener is "not yet online and ready to accept client traffic".
#[test]
fn ports_that_nodes_have_given_to_others() {
    let gateway = |ports: &[u16]| {
        let listener = |port: &u16| json!({"name": format!("l{port}"), "port": port, "protocol": "TCP"});
        let plan = planned(&objects(ports.iter().map(listener).collect(), json!({}), &[]));
        plan.statuses.iter().find(|(kind, ..)| *kind == Kind::Gateway).unwrap().2.clone()
    };
    let programmed = |status: &Value| {
        let condition = status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Programmed").unwrap();
        ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap().to_owned())
    };
    let status = gateway(&[7, 8, 9]);
    let told: Vec<_> = (0..3).map(|place| programmed(&status["listeners"][place])).collect();
    assert_eq!(told[0], ["False", "Pending", "node n1 has given port 7/TCP to others"]);
    assert_eq!(told[1], ["True", "Programmed", "node n2 has given port 8/TCP to others"]);
    assert_eq!(told[2], ["True", "Programmed", ""]);
    assert_eq!(programmed(&status)[..2], ["True", "Programmed"]);
    assert_eq!(programmed(&gateway(&[7]))[..2], ["False", "AddressNotUsable"]);
}

//! Listeners at any port, and those that are not distinct.

use super::*;

/// A cluster with one Gateway of these listeners.
fn gateway(listeners: Value) -> Objects {
    objects(listeners, json!({}), &[])
}

/// A listener as `NAME PROTOCOL PORT HOST`, without the host for any.
fn listener(text: &str) -> Value {
    let mut words = text.split(' ');
    let mut word = || words.next();
    let (name, protocol) = (word().unwrap(), word().unwrap());
    let port: u16 = word().unwrap().parse().unwrap();
    let mut listener =
        json!({"name": name, "protocol": protocol, "port": port, "allowedRoutes": {"namespaces": {"from": "All"}}});
    if let Some(host) = word() {
        listener["hostname"] = json!(host);
    }
    match protocol {
        "HTTPS" => listener["tls"] = json!({"certificateRefs": [{"name": "good"}]}),
        "TLS" => listener["tls"] = json!({"mode": "Passthrough"}),
        _ => {}
    }
    listener
}

pub(super) fn listeners(texts: &[&str]) -> Value {
    texts.iter().map(|text| listener(text)).collect()
}

/// Reason of Accepted and, where there is one, of Conflicted of each listener.
pub(super) fn told(status: &Value) -> Vec<String> {
    let of = |listener: &Value| {
        let reason = |kind: &str| {
            let all = listener["conditions"].as_array().unwrap().iter().find(|one| one["type"] == kind)?;
            Some(all["reason"].as_str().unwrap().to_owned())
        };
        let parts = [Some(listener["name"].as_str().unwrap().to_owned()), reason("Accepted"), reason("Conflicted")];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    status["listeners"].as_array().unwrap().iter().map(of).collect()
}

/// GatewayListenerProtocolAndRouteKindConflicts of the conformance tests, and "The set of listeners that all share a protocol value MUST have different
/// values for at least one of these fields to be distinct: HTTP, HTTPS, TLS: Port, Hostname; TCP, UDP: Port" (GatewaySpec, listeners).
#[test]
fn listeners_that_are_not_distinct_are_all_refused() {
    let check = |texts: &[&str], expected: &[&str]| {
        let plan = planned(&gateway(listeners(texts)));
        assert_eq!(told(status(&plan, Kind::Gateway)), expected, "{texts:?}");
    };
    let tls = "tls TLS 443 abc.example.com";
    check(
        &[tls, "https HTTPS 8443", "other TLS 8443"],
        &["tls Accepted", "https Invalid ProtocolConflict", "other Invalid ProtocolConflict"],
    );
    check(
        &["a HTTP 80 a.example", "b HTTP 80 A.example", "c HTTP 80"],
        &["a Invalid HostnameConflict", "b Invalid HostnameConflict", "c Accepted"],
    );
    check(&["a HTTP 80 a.example", "b HTTP 8080 a.example"], &["a Accepted", "b Accepted"]);
    // "In this case all the Listeners that share a port with the TCP Listener are not distinct and so MUST NOT be accepted."
    check(
        &["a HTTP 8080 a.example", "b HTTP 8080 b.example", "t TCP 8080", "u UDP 8080"],
        &["a Invalid ProtocolConflict", "b Invalid ProtocolConflict", "t Invalid ProtocolConflict", "u Accepted"],
    );
    check(&["a HTTP 8443 a.example", "b HTTPS 8443 b.example"], &["a Invalid ProtocolConflict", "b Invalid ProtocolConflict"]);
    check(&["a TCP 5432", "b TCP 5432"], &["a Invalid ListenerConflict", "b Invalid ListenerConflict"]);
    // GatewayHTTPSAndTLSPassthroughSamePort.
    check(&["a HTTPS 443 *.example.com", "b TLS 443 abc.example.com"], &["a Accepted", "b Accepted"]);
    check(&["a HTTPS 8443 *.example.com", "b TLS 8443 abc.example.com"], &["a Accepted", "b Accepted"]);
    // What is of no protocol that is served is in nobody's way.
    check(&["a x.example/y 80", "b HTTP 80"], &["a UnsupportedProtocol", "b Accepted"]);
}

/// "At least one distinct Listener MUST be present, or else the Gateway effectively contains no Listeners, and must be rejected", and "the
/// implementation MUST set a ListenersNotValid condition on the Gateway Status when the Gateway contains Conflicted Listeners".
#[test]
fn gateways_tell_of_listeners_that_are_not_distinct() {
    let check = |texts: &[&str], expected: [&str; 2], message: &str| {
        let plan = planned(&gateway(listeners(texts)));
        let gateway = status(&plan, Kind::Gateway);
        assert_eq!(
            (conditions(gateway), &gateway["conditions"][0]["message"]),
            (expected.map(str::to_owned).to_vec(), &json!(message))
        );
    };
    let why = "not served, as their conditions say: a, b";
    let one = ["a TCP 5432", "b TCP 5432", "c HTTP 80"];
    check(&one, ["Accepted True ListenersNotValid", "Programmed True Programmed"], why);
    check(&one[..2], ["Accepted False ListenersNotValid", "Programmed False Invalid"], why);
}

/// GatewayOverlappingTLSConfigHostnames of the conformance tests, with the listeners of its manifest, and further ones.
#[test]
fn hosts_over_tls_that_overlap() {
    let check = |texts: &[&str], expected: &[&str]| {
        let plan = planned(&gateway(listeners(texts)));
        let all = status(&plan, Kind::Gateway)["listeners"].as_array().unwrap();
        let is_told =
            |listener: &&Value| conditions(listener).contains(&"OverlappingTLSConfig True OverlappingHostnames".to_owned());
        let found: Vec<&str> = all.iter().filter(is_told).map(|listener| listener["name"].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{texts:?}");
    };
    let manifest = ["foo HTTPS 443 foo.example.com", "bar HTTPS 443 bar.bar.example.com", "wildcard HTTPS 443 *.example.com"];
    let others = ["not HTTPS 443 example.com", "port HTTPS 9443 foo.example.com"];
    check(&[&manifest[..], &others].concat(), &["foo", "bar", "wildcard"]);
    check(&[&manifest[..2], &others].concat(), &[]);
    check(&["any HTTPS 443", "a TLS 443 a.example", "b HTTP 80 a.example"], &["any", "a"]);
    check(&["any HTTPS 443"], &[]);
    check(&["a HTTPS 443 *.example", "b HTTPS 443 *.B.example", "c HTTPS 443 *.c.test"], &["a", "b"]);
    check(&["a HTTP 80 *.example", "b HTTP 80 b.example"], &[]);
    // Those that are not served are in nobody's way.
    check(&["a HTTPS 443 a.example", "b HTTPS 443 a.example", "c HTTPS 443 *.example"], &[]);
}

/// ListenerReasonPortUnavailable: "The port is already in use. The port is not supported by the implementation." Who was first stays.
#[test]
fn ports_of_listeners_with_hosts() {
    let check = |text: &str, reason: &str, message: &str| {
        let plan = planned(&gateway(listeners(&[text])));
        let accepted = &status(&plan, Kind::Gateway)["listeners"][0]["conditions"][0];
        assert_eq!((&accepted["reason"], &accepted["message"]), (&json!(reason), &json!(message)), "{text}");
        let ports: Vec<_> = plan.ports.iter().map(|(port, carries)| format!("{port} {carries}")).collect();
        (ports.join(", "), plan.tls.len())
    };
    let none = (String::new(), 0);
    assert_eq!(check("a HTTP 8080", "Accepted", ""), ("8080/TCP HTTP".to_owned(), 0));
    assert_eq!(check("a HTTPS 8443 a.example", "Accepted", ""), ("8443/TCP HTTPS and TLS".to_owned(), 1));
    assert_eq!(check("a TLS 8443 a.example", "Accepted", ""), ("8443/TCP HTTPS and TLS".to_owned(), 0));
    assert_eq!(check("a HTTPS 80 a.example", "PortUnavailable", "port 80/TCP is for HTTP"), none);
    assert_eq!(check("a HTTP 443", "PortUnavailable", "port 443/TCP is for HTTPS and TLS"), none);
    assert_eq!(check("a HTTP 6443", "PortUnavailable", "port 6443/TCP is the node's own"), none);
    assert_eq!(check("a HTTP 25", "PortUnavailable", "port 25/TCP is one of Service mail/smtp"), none);
    let (ports, _) = check("a HTTP 22", "PortUnavailable", "port 22/TCP cannot be opened: in use");
    assert_eq!(ports, "22/TCP HTTP", "it is tried again");
    // Between Gateways the older one says what a port is for; those for the same share it.
    let with_older = |older: &str, text: &str| {
        let mut objects = gateway(listeners(&[text]));
        let metadata = json!({"name": "old", "namespace": "z", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let older = json!({"metadata": metadata, "spec": {"gatewayClassName": "knarr", "listeners": listeners(&[older])}});
        objects.gateways.insert(Key::namespaced("z", "old"), read(older));
        let plan = planned(&objects);
        let younger = plan.statuses.iter().find(|(kind, key, _)| *kind == Kind::Gateway && key.name == "g").unwrap();
        younger.2["listeners"][0]["conditions"][0]["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(with_older("a HTTP 8080 a.example", "b HTTP 8080 a.example"), "");
    assert_eq!(with_older("a TLS 8443", "b HTTPS 8443"), "");
    assert_eq!(with_older("a HTTP 8080", "b HTTPS 8080"), "port 8080/TCP is one of Gateway z/old, for HTTP");
    assert_eq!(with_older("a HTTP 8080", "b TCP 8080"), "port 8080/TCP is one of Gateway z/old, for HTTP");
    assert_eq!(with_older("a TCP 8080", "b HTTP 8080"), "port 8080/TCP is one of Gateway z/old");
}

/// Nobody takes all ports from others.
#[test]
fn ports_of_a_namespace_are_bounded() {
    let many: Vec<String> = (0..300).map(|number| format!("l{number} HTTP {}", 10_000 + number)).collect();
    let mut objects = gateway(listeners(&many.iter().map(String::as_str).collect::<Vec<_>>()));
    let metadata = json!({"name": "late", "namespace": "z"});
    let late = json!({"metadata": metadata, "spec": {"gatewayClassName": "knarr", "listeners": listeners(&["a HTTP 9000"])}});
    objects.gateways.insert(Key::namespaced("z", "late"), read(late));
    let plan = planned(&objects);
    assert_eq!(plan.ports.len(), 256 + 1);
    assert!(plan.ports.contains_key(&Port::tcp(9000)) && !plan.ports.contains_key(&Port::tcp(10_256)));
    let last =
        &plan.statuses.iter().find(|(kind, key, _)| *kind == Kind::Gateway && key.name == "g").unwrap().2["listeners"][299];
    assert_eq!(last["conditions"][0]["message"], "1024 ports are served already, or 256 of them for this namespace");
}

/// GatewayWithAttachedRoutesWithPort8080 and HTTPRouteListenerPortMatching of the conformance tests: a route is served at the listeners that it names.
#[test]
fn routes_are_served_at_the_ports_of_their_listeners() {
    let check = |parent: Value, expected: &[(Entrance, &str)]| {
        let all = listeners(&["a HTTP 80 a.example", "b HTTP 8080 a.example", "c HTTP 8090"]);
        let mut parent = parent;
        (parent["name"], parent["namespace"]) = (json!("g"), json!("infra"));
        let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
        let plan = planned(&objects(all, json!({"parentRefs": [parent], "rules": rules}), &[]));
        let found: Vec<_> = plan.rules.iter().map(|rule| (rule.entrance, rule.host.as_str())).collect();
        assert_eq!(found, expected, "{parent}");
        let attached = |place: usize| status(&plan, Kind::Gateway)["listeners"][place]["attachedRoutes"].as_u64().unwrap();
        assert_eq!((0..3).map(attached).sum::<u64>(), expected.len() as u64);
    };
    let (web, other, last) = ((Entrance::Ingress, "a.example"), (Entrance::Port(8080), "a.example"), (Entrance::Port(8090), ""));
    check(json!({}), &[web, other, last]);
    check(json!({"port": 8080}), &[other]);
    check(json!({"sectionName": "c"}), &[last]);
    check(json!({"sectionName": "a", "port": 8080}), &[]);
}

/// Ingresses have the ports of ingress only: a route at another port neither waits for them nor takes anything from them.
#[test]
fn ingresses_are_at_the_ports_of_ingress() {
    let older = [("a.example".to_owned(), vec![(0, Key::namespaced("other", "i"))])];
    INGRESSES.set(older.into());
    let all = listeners(&["a HTTP 80", "b HTTP 8080"]);
    let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
    let plan = planned(&objects(all, json!({"parentRefs": parents(), "hostnames": ["a.example"], "rules": rules}), &[]));
    INGRESSES.take();
    let found: Vec<_> = plan.rules.iter().map(|rule| rule.entrance).collect();
    assert_eq!((found, plan.conflicts.len()), (vec![Entrance::Port(8080)], 0));
}

/// At one port a name is either passed through or ends here; at another port it may be the other way around.
#[test]
fn names_over_tls_are_had_by_port() {
    let all = listeners(&["a HTTPS 443 a.example", "b TLS 8443 a.example"]);
    let rules = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
    let mut objects = objects(all, json!({"parentRefs": parents(), "rules": rules}), &[]);
    let route = json!({"metadata": {"name": "t", "namespace": "a"}, "spec": {"parentRefs": parents(), "hostnames": ["a.example"], "rules": rules}});
    objects.tls.insert(Key::namespaced("a", "t"), read(route));
    let plan = planned(&objects);
    let found: Vec<_> = plan.rules.iter().map(|rule| (rule.entrance, rule.door)).collect();
    assert_eq!(found, [(Entrance::Ingress, Door::Https), (Entrance::Port(8443), Door::Passthrough)]);
    assert_eq!(plan.ends_here, [(Entrance::Ingress, "a.example".to_owned())].into());
}

/// GEP-2162: "supportedFeatures ... MUST be sorted in ascending alphabetical order", at most 64 of them by the definition.
#[test]
fn classes_report_their_features() {
    let plan = planned(&gateway(http()));
    let features = status(&plan, Kind::GatewayClass)["supportedFeatures"].as_array().unwrap();
    let names: Vec<&str> = features.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted() && names.len() <= 64 && names.contains(&"GatewayPort8080"), "{names:?}");
}

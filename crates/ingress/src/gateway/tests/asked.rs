//! What Gateways and classes ask for beside listeners.

use super::*;

/// The objects with more in the Gateway's spec and in that of its class.
fn asking(gateway: Value, class: Value) -> Objects {
    let mut objects =
        objects(http(), json!({"parentRefs": parents(), "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}), &[]);
    let mut spec = json!({"gatewayClassName": "knarr", "listeners": http()});
    spec.as_object_mut().unwrap().extend(gateway.as_object().unwrap().clone());
    let metadata = json!({"name": "g", "namespace": "infra", "generation": 3});
    objects.gateways.insert(Key::namespaced("infra", "g"), read(json!({"metadata": metadata, "spec": spec})));
    let mut spec = json!({"controllerName": CONTROLLER});
    spec.as_object_mut().unwrap().extend(class.as_object().unwrap().clone());
    objects.classes.insert(Key::cluster("knarr"), read(json!({"metadata": {"name": "knarr"}, "spec": spec})));
    objects
}

/// GatewayStaticAddresses and GatewayInvalidParametersRef of the conformance tests: nothing that was asked for is passed over.
#[test]
fn gateways_get_what_they_ask_for_or_are_told() {
    let check = |spec: Value, expected: [&str; 2], addresses: &[&str], rules: usize| {
        let plan = planned(&asking(spec.clone(), json!({})));
        let status = status(&plan, Kind::Gateway);
        assert_eq!(conditions(status), expected, "{spec}");
        let told: Vec<_> = status["addresses"].as_array().unwrap().iter().map(|one| one["value"].as_str().unwrap()).collect();
        assert_eq!((told.as_slice(), plan.rules.len()), (addresses, rules), "{spec}");
    };
    let (accepted, programmed) = ("Accepted True Accepted", "Programmed True Programmed");
    let addresses = |all: Value| json!({"addresses": all});
    check(addresses(json!([])), [accepted, programmed], &["192.0.2.10"], 1);
    check(addresses(json!([{"type": "IPAddress"}])), [accepted, programmed], &["192.0.2.10"], 1);
    check(addresses(json!([{"value": "192.0.2.11"}])), [accepted, programmed], &["192.0.2.11"], 1);
    let unusable = addresses(json!([{"type": "IPAddress", "value": "198.51.100.7"}, {"value": "192.0.2.11"}]));
    check(unusable, [accepted, "Programmed False AddressNotUsable"], &["192.0.2.10"], 1);
    let invalid = "Programmed False Invalid";
    for kind in ["Hostname", "NamedAddress", "test/fake-invalid-type"] {
        let asked = addresses(json!([{"value": "192.0.2.10"}, {"type": kind, "value": "a.example"}]));
        check(asked, ["Accepted False UnsupportedAddress", invalid], &[], 0);
    }
    let reference = json!({"group": "x.example", "kind": "Parameters", "name": "p"});
    let parameters = json!({"infrastructure": {"labels": {"a": "b"}, "parametersRef": reference}});
    check(parameters, ["Accepted False InvalidParameters", invalid], &[], 0);
    check(json!({"infrastructure": {"labels": {"a": "b"}}}), [accepted, programmed], &["192.0.2.10"], 1);
}

/// GatewayClassReasonInvalidParameters: parametersRef refers to "a nonexistent or unsupported resource or kind". Gateways of such a class are nobody's.
#[test]
fn classes_have_no_parameters() {
    let reference = json!({"group": "x.example", "kind": "Parameters", "name": "p"});
    let plan = planned(&asking(json!({}), json!({"parametersRef": reference})));
    assert_eq!(conditions(status(&plan, Kind::GatewayClass)), ["Accepted False InvalidParameters"]);
    assert!(plan.rules.is_empty() && plan.statuses.iter().all(|(kind, ..)| *kind != Kind::Gateway));
}

/// GatewayListenerUnsupportedProtocol and GatewayListenerProtocolAndRouteKindConflicts of the conformance tests.
#[test]
fn listeners_that_cannot_be_are_told_so() {
    let check = |listeners: Value, expected: &[&str], kinds: usize| {
        let plan = planned(&objects(listeners, json!({}), &[]));
        let listener = status(&plan, Kind::Gateway)["listeners"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(conditions(&listener), expected);
        assert_eq!(listener["supportedKinds"].as_array().unwrap().len(), kinds);
    };
    let (resolved, invalid) = ("ResolvedRefs True ResolvedRefs", "Programmed False Invalid");
    let odd = json!([{"name": "odd", "port": 80, "protocol": "example.com/odd"}]);
    check(odd, &["Accepted False UnsupportedProtocol", resolved, invalid], 0);
    let https = json!({"name": "https", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "good"}]}});
    let tls = json!({"name": "tls", "port": 443, "protocol": "TLS", "tls": {"mode": "Passthrough"}});
    let conflict = ["Accepted False Invalid", resolved, invalid, "Conflicted True ProtocolConflict"];
    check(json!([https, tls]), &conflict, 1);
    let twice = json!({"name": "again", "port": 80, "protocol": "HTTP"});
    let conflict = ["Accepted False Invalid", resolved, invalid, "Conflicted True HostnameConflict"];
    check(json!([http()[0], twice]), &conflict, 2);
}

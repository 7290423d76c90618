//! One table of specs and errors per theme.

#![allow(clippy::unwrap_used)]

use apimachinery::field::Errors;
use apimachinery::patch;
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::testing::check_status_warnings;
use crate::typed::Kind;

fn service(spec: &Value) -> Value {
    let base = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let mut service = patch::merge(&base, &json!({"spec": spec})).unwrap();
    Service::apply_defaults(&mut service);
    service
}

fn texts(errors: Errors) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn check(spec: Value, expected: &[&str]) {
    let (mut service, mut errors) = (service(&spec), Errors::new());
    Service::prepare_create(&mut service);
    serde_json::from_value::<Service>(service).unwrap().validate(&mut errors);
    assert_eq!(texts(errors), expected, "{spec}");
}

fn check_update(old: Value, new: Value, expected: &[&str]) {
    let (mut before, mut after, mut errors) = (service(&old), service(&new), Errors::new());
    Service::prepare_create(&mut before);
    Service::prepare_update(&mut after, &before);
    let typed = |object: Value| serde_json::from_value::<Service>(object).unwrap();
    typed(after.clone()).validate(&mut errors);
    typed(after).validate_update(&typed(before), &mut errors);
    assert_eq!(texts(errors), expected, "{new}");
}

#[test]
fn types() {
    check(json!({}), &[]);
    check(json!({"ports": null}), &["spec.ports: Required value"]);
    check(json!({"ports": null, "clusterIP": "None"}), &[]);
    check(
        json!({"type": "Other"}),
        &[
            "spec.type: Unsupported value: \"Other\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(json!({"type": "ExternalName", "externalName": "a.b."}), &[]);
    check(
        json!({"type": "ExternalName", "clusterIP": "10.0.0.1"}),
        &["spec.clusterIPs: Forbidden: may not be set for ExternalName services", "spec.externalName: Required value"],
    );
    check(
        json!({"type": "NodePort", "clusterIP": "None"}),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
}

#[test]
fn ports() {
    check(
        json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}, {"port": 80}]}),
        &[
            "spec.ports[1].name: Duplicate value: \"a\"",
            "spec.ports[2].name: Required value",
            "spec.ports[2]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ],
    );
    check(
        json!({"ports": [{"port": 0, "targetPort": 70000, "protocol": "X", "appProtocol": "-"}]}),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.ports[0].appProtocol: Invalid value: \"-\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
    check(
        json!({"ports": [{"port": 80, "nodePort": 30000}]}),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        json!({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30000}, {"name": "b", "port": 81, "nodePort": 30000}]}),
        &["spec.ports[1].nodePort: Duplicate value: 30000"],
    );
}

#[test]
fn affinity() {
    check(json!({"sessionAffinity": "ClientIP"}), &[]);
    check(
        json!({"sessionAffinity": "Both"}),
        &["spec.sessionAffinity: Unsupported value: \"Both\": supported values: \"ClientIP\", \"None\""],
    );
    check(
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
        &["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400"],
    );
}

#[test]
fn addresses() {
    check(json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"]}), &[]);
    check(
        json!({"clusterIP": "ten"}),
        &["spec.clusterIPs[0]: Invalid value: \"ten\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
    );
    check(
        json!({"clusterIPs": ["10.0.0.1"]}),
        &["spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: must be empty when `clusterIP` is not specified"],
    );
    check(
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2", "10.0.0.3"], "ipFamilies": ["IPv4", "IPv4"], "ipFamilyPolicy": "Some"}),
        &[
            "spec.clusterIPs: Invalid value: [\"10.0.0.2\",\"10.0.0.3\"]: first value must match `clusterIP`",
            "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
            "spec.ipFamilyPolicy: Unsupported value: \"Some\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
            "spec.clusterIPs: Invalid value: [\"10.0.0.2\",\"10.0.0.3\"]: may specify no more than one IP for each IP family",
        ],
    );
    check(
        json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv6"]}),
        &["spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`"],
    );
    check(
        json!({"externalIPs": ["127.0.0.1", "x"]}),
        &[
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "spec.externalIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
}

#[test]
fn balancers_and_policies() {
    check(json!({"type": "LoadBalancer", "loadBalancerClass": "a/b", "loadBalancerSourceRanges": [" 10.0.0.0/8 "]}), &[]);
    check(
        json!({"loadBalancerClass": "a/b", "loadBalancerSourceRanges": ["x"], "allocateLoadBalancerNodePorts": true}),
        &[
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ],
    );
    check(
        json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "X", "healthCheckNodePort": 30000, "trafficDistribution": "Near"}),
        &[
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            "spec.internalTrafficPolicy: Unsupported value: \"X\": supported values: \"Cluster\", \"Local\"",
            "spec.trafficDistribution: Unsupported value: \"Near\": supported values: \"PreferClose\", \"PreferSameNode\", \"PreferSameZone\"",
        ],
    );
    check(json!({"externalIPs": ["10.0.0.1"]}), &[]);
}

#[test]
fn updates() {
    let addressed = json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    check_update(addressed.clone(), json!({}), &[]);
    check_update(addressed.clone(), json!({"clusterIP": "10.0.0.1"}), &[]);
    check_update(
        addressed.clone(),
        json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.1"]}),
        &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
    );
    check_update(
        addressed.clone(),
        json!({"clusterIP": "10.0.0.2"}),
        &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
    );
    check_update(
        addressed.clone(),
        json!({"ipFamilies": ["IPv6"]}),
        &[
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            "spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set",
        ],
    );
    check_update(addressed.clone(), json!({"type": "ExternalName", "externalName": "a.b"}), &[]);
    let both = json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack"});
    // The policy alone gives the second address back.
    check_update(both.clone(), json!({"ipFamilyPolicy": "SingleStack"}), &[]);
    let mut object = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "ipFamilyPolicy": "SingleStack"}});
    Service::prepare_update(&mut object, &json!({"spec": both}));
    assert_eq!((&object["spec"]["clusterIPs"], &object["spec"]["ipFamilies"]), (&json!(["10.0.0.1"]), &json!(["IPv4"])));
    check_update(json!({"clusterIP": "None"}), json!({}), &[]);
    check_update(
        json!({"type": "LoadBalancer", "loadBalancerClass": "a/b"}),
        json!({"type": "LoadBalancer"}),
        &["spec.loadBalancerClass: Invalid value: null: may not change once set"],
    );
    check_update(
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}),
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}),
        &[],
    );
}

/// Upstream: `TestPatchAllocatedValues`, and kubernetes/kubernetes#120937 for headless Services: an address that has been taken out of a
/// manifest stays, in whichever of its two fields it still stands.
#[test]
fn addresses_that_are_left_out_stay() {
    for (address, all) in [("10.0.0.1", json!(["10.0.0.1"])), ("None", json!(["None"]))] {
        let old = json!({"type": "ClusterIP", "clusterIP": address, "clusterIPs": all, "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
        let given = [
            json!({}),
            json!({"clusterIP": null}),
            json!({"clusterIP": ""}),
            json!({"clusterIPs": all}),
            json!({"clusterIPs": []}),
            json!({"clusterIP": "", "clusterIPs": all}),
            json!({"clusterIP": address, "clusterIPs": null}),
            json!({"clusterIP": address}),
        ];
        for mut spec in given {
            spec["type"] = json!("ClusterIP");
            let mut object = json!({"spec": spec});
            Service::prepare_update(&mut object, &json!({"spec": old}));
            assert_eq!((&object["spec"]["clusterIP"], &object["spec"]["clusterIPs"]), (&json!(address), &all), "{spec}");
        }
        check_update(old.clone(), json!({"clusterIPs": all}), &[]);
    }
}

#[test]
fn statuses() {
    let check = |kind: &str, ingress: Value, expected: &[&str]| {
        let mut object = json!({"spec": {"type": kind}, "status": {"loadBalancer": {"ingress": [ingress]}}});
        Service::prepare_status(&mut object, &json!({}));
        let (service, mut errors) = (serde_json::from_value::<Service>(object).unwrap(), Errors::new());
        service.validate_sub("status", &service, &mut errors);
        assert_eq!(texts(errors), expected);
    };
    check("LoadBalancer", json!({"ip": "10.0.0.1"}), &[]);
    check(
        "ClusterIP",
        json!({"ip": "10.0.0.1"}),
        &["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"],
    );
    check(
        "LoadBalancer",
        json!({"hostname": "10.0.0.1", "ipMode": "VIP"}),
        &[
            "status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set",
            "status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
        ],
    );
}

#[test]
fn warnings() {
    let check = |spec: Value, expected: &[&str]| {
        let typed: Service = serde_json::from_value(service(&spec)).unwrap();
        assert_eq!(typed.warnings(), expected, "{spec}");
    };
    check(json!({}), &[]);
    check(json!({"externalName": "a.b"}), &["spec.externalName is ignored when spec.type is not \"ExternalName\""]);
    check(
        json!({"trafficDistribution": "PreferClose"}),
        &["spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""],
    );
    check(
        json!({"clusterIP": "None", "clusterIPs": ["None"], "externalIPs": ["10.0.0.1"]}),
        &["spec.externalIPs is ignored for headless services", "spec.externalIPs is deprecated"],
    );
    check(json!({"externalIPs": ["10.0.0.1"]}), &["spec.externalIPs is deprecated"]);
    // KEP-4858, "API Warnings": a second way of writing the same address or range.
    let told = |path: &str, address: &str, wanted: &str| {
        format!("{path}: IPv6 address \"{address}\" should be in RFC 5952 canonical format (\"{wanted}\")")
    };
    let range =
        "spec.loadBalancerSourceRanges[0]: IPv6 CIDR value \"FD00::/64\" should be in RFC 5952 canonical format (\"fd00::/64\")";
    check(
        json!({"clusterIP": "FD00::1", "clusterIPs": ["FD00::1"], "externalIPs": ["fd00::2", "fd00:0::2"], "loadBalancerIP": "FD00::3",
            "loadBalancerSourceRanges": ["FD00::/64", "10.0.0.0/8"]}),
        &[
            &told("spec.clusterIPs[0]", "FD00::1", "fd00::1"),
            &told("spec.externalIPs[1]", "fd00:0::2", "fd00::2"),
            "spec.externalIPs is deprecated",
            &told("spec.loadBalancerIP", "FD00::3", "fd00::3"),
            range,
        ],
    );
    let ingress = json!([{"ip": "fd00::1"}, {"ip": "FD00::1"}, {"hostname": "a.example"}]);
    check_status_warnings::<Service>(
        json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": ingress}}}),
        &[&told("status.loadBalancer.ingress[1]", "FD00::1", "fd00::1")],
    );
}

/// KEP-5311: "Service names ... validated with NameIsDNSLabel()", so they may begin with a digit.
#[test]
fn names() {
    let check = |name: &str, good: bool| assert_eq!(Service::DEF.name.check(name, false).is_empty(), good, "{name}");
    check("web", true);
    check("1password", true);
    check("42", true);
    check("1-", false);
    check("a.b", false);
    check("Web", false);
    check(&"a".repeat(64), false);
}

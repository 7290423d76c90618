//! A table for each kind: defaults, rules, changes, columns.

use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};
use serde_json::{Value, json};

use crate::testing::{check, check_row, check_status, check_update, check_warnings, defaulted, with};

const EPOCH: &str = "1970-01-01T00:00:00Z";

fn named(name: &str, rest: Value) -> Value {
    with(&json!({"metadata": {"name": name, "creationTimestamp": EPOCH}}), rest)
}

fn backend() -> Value {
    json!({"service": {"name": "web", "port": {"number": 80}}})
}

fn ingress(spec: Value) -> Value {
    named("i", json!({"spec": spec}))
}

fn rule(host: &str, path: &str, kind: &str) -> Value {
    json!({"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend()}]}})
}

#[test]
fn ingresses() {
    check::<Ingress>(ingress(json!({"defaultBackend": backend()})), &[]);
    check::<Ingress>(
        ingress(json!({"rules": [rule("a.example", "/", "Prefix"), rule("*.a.example", "", "ImplementationSpecific")]})),
        &[],
    );
    check::<Ingress>(ingress(json!({})), &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]);
    let one = |host: &str, path: &str, kind: &str, expected: &[&str]| {
        check::<Ingress>(ingress(json!({"rules": [rule(host, path, kind)]})), expected)
    };
    one("", "", "", &["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]);
    one(
        "",
        "/",
        "Any",
        &[
            "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Any\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
        ],
    );
    one("", "a", "Exact", &["spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path"]);
    one("", "", "Prefix", &["spec.rules[0].http.paths[0].path: Invalid value: \"\": must be an absolute path"]);
    one("", "a", "ImplementationSpecific", &["spec.rules[0].http.paths[0].path: Invalid value: \"a\": must be an absolute path"]);
    one(
        "",
        "/a//b/../%2f/.",
        "Prefix",
        &[
            "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b/../%2f/.\": must not contain '//'",
            "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b/../%2f/.\": must not contain '/../'",
            "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b/../%2f/.\": must not contain '%2f'",
            "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b/../%2f/.\": cannot end with '/.'",
        ],
    );
    one("10.0.0.1", "/", "Exact", &["spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"]);
    one(
        "a.*.example",
        "/",
        "Exact",
        &[
            "spec.rules[0].host: Invalid value: \"a.*.example\": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check::<Ingress>(ingress(json!({"rules": [{"http": {"paths": []}}]})), &["spec.rules[0].http.paths: Required value"]);
    check::<Ingress>(
        ingress(json!({"defaultBackend": backend(), "tls": [{"hosts": ["*.a.example", "b.example"], "secretName": "s"}]})),
        &[],
    );
    check::<Ingress>(
        named(
            "i",
            json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"ingressClassName": "b", "defaultBackend": backend()}}),
        ),
        &["annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified"],
    );
    check_warnings::<Ingress>(
        named(
            "i",
            json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "a"}}, "spec": {"defaultBackend": backend()}}),
        ),
        &["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"],
    );
}

#[test]
fn backends() {
    let check = |backend: Value, expected: &[&str]| check::<Ingress>(ingress(json!({"defaultBackend": backend})), expected);
    let service = |name: &str, port: Value| json!({"service": {"name": name, "port": port}});
    check(service("web", json!({"name": "http"})), &[]);
    check(json!({"resource": {"kind": "Bucket", "name": "b", "apiGroup": "s.example"}}), &[]);
    check(json!({}), &["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"]);
    check(
        with(&backend(), json!({"resource": {"kind": "a", "name": "b"}})),
        &["spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends"],
    );
    check(
        json!({"resource": {"kind": "", "name": "a/b"}}),
        &[
            "spec.defaultBackend.resource.kind: Required value",
            "spec.defaultBackend.resource.name: Invalid value: \"a/b\": may not contain '/'",
        ],
    );
    check(
        service("", json!({})),
        &[
            "spec.defaultBackend.service.name: Required value",
            "spec.defaultBackend: Required value: port name or number is required",
        ],
    );
    check(
        service("web", json!({"name": "http", "number": 80})),
        &["spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number"],
    );
    check(
        service("web", json!({"number": 70000})),
        &["spec.defaultBackend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive"],
    );
}

#[test]
fn the_status_of_ingresses() {
    let check = |point: Value, expected: &[&str]| {
        check_status::<Ingress>(
            ingress(json!({"defaultBackend": backend()})),
            json!({"loadBalancer": {"ingress": [point]}}),
            expected,
        );
    };
    check(json!({"ip": "10.0.0.1", "hostname": "a.example"}), &[]);
    check(
        json!({"ip": "x"}),
        &[
            "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
    check(
        json!({"hostname": "10.0.0.1"}),
        &["status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address"],
    );
}

#[test]
fn the_table_of_ingresses() {
    check_row::<Ingress>(ingress(json!({"defaultBackend": backend()})), "i|<none>|*||80|60s");
    let rules: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|host| rule(host, "/", "Exact")).collect();
    let points = json!([{"ip": "2.2.2.2"}, {"hostname": "lb.example"}, {"ip": "1.1.1.1"}]);
    let shown = with(
        &ingress(json!({"ingressClassName": "nginx", "rules": rules, "tls": [{}]})),
        json!({"status": {"loadBalancer": {"ingress": points}}}),
    );
    check_row::<Ingress>(shown, "i|nginx|a,b,c + 2 more...|1.1.1.1,2.2.2.2,lb.example|80, 443|60s");
}

#[test]
fn ingress_classes() {
    let class = |spec: Value| named("c", json!({"spec": with(&json!({"controller": "a.example/b"}), spec)}));
    let parameters = |more: Value| class(json!({"parameters": with(&json!({"kind": "K", "name": "n"}), more)}));
    assert_eq!(defaulted::<IngressClass>(parameters(json!({})))["spec"]["parameters"]["scope"], "Cluster");
    check::<IngressClass>(class(json!({})), &[]);
    check::<IngressClass>(parameters(json!({"apiGroup": "g.example", "scope": "Namespace", "namespace": "ns"})), &[]);
    check::<IngressClass>(class(json!({"controller": ""})), &["spec.controller: Required value"]);
    check::<IngressClass>(
        class(json!({"controller": "abc"})),
        &["spec.controller: Invalid value: \"abc\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
    );
    check::<IngressClass>(
        class(json!({"controller": format!("a.example/{}", "x".repeat(250))})),
        &["spec.controller: Too long: may not be more than 250 bytes"],
    );
    check::<IngressClass>(
        class(json!({"controller": "a.example/b c"})),
        &[
            "spec.controller: Invalid value: \"b c\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
        ],
    );
    check::<IngressClass>(
        parameters(json!({"scope": "Namespace"})),
        &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
    );
    check::<IngressClass>(
        parameters(json!({"namespace": "ns"})),
        &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
    );
    check::<IngressClass>(
        parameters(json!({"scope": "World", "kind": "", "name": ""})),
        &[
            "spec.parameters.kind: Required value",
            "spec.parameters.name: Required value",
            "spec.parameters.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespace\"",
        ],
    );
    let default = json!({"metadata": {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}});
    check_row::<IngressClass>(with(&class(json!({})), default), "c (default)|a.example/b|<none>|60s");
    check_update::<IngressClass>(
        class(json!({})),
        class(json!({"controller": "a.example/c"})),
        &["spec.controller: Invalid value: \"a.example/c\": field is immutable"],
    );
    check_row::<IngressClass>(class(json!({})), "c|a.example/b|<none>|60s");
    check_row::<IngressClass>(parameters(json!({"apiGroup": "g.example"})), "c|a.example/b|K.g.example/n|60s");
}

fn policy(spec: Value) -> Value {
    named("p", json!({"spec": with(&json!({"podSelector": {}}), spec)}))
}

#[test]
fn network_policies() {
    let types = |spec: Value| defaulted::<NetworkPolicy>(policy(spec))["spec"]["policyTypes"].clone();
    assert_eq!(types(json!({})), json!(["Ingress"]));
    assert_eq!(types(json!({"egress": []})), json!(["Ingress"]));
    assert_eq!(types(json!({"egress": [{}]})), json!(["Ingress", "Egress"]));
    assert_eq!(types(json!({"policyTypes": ["Egress"]})), json!(["Egress"]));
    let port = defaulted::<NetworkPolicy>(policy(json!({"egress": [{"ports": [{"port": 1}]}]})));
    assert_eq!(port["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    check::<NetworkPolicy>(policy(json!({"ingress": [{}], "policyTypes": ["Ingress", "Egress"]})), &[]);
    check::<NetworkPolicy>(
        policy(json!({"policyTypes": ["Sideways"]})),
        &["spec.policyTypes[0]: Unsupported value: \"Sideways\": supported values: \"Ingress\", \"Egress\""],
    );
    check::<NetworkPolicy>(
        policy(json!({"policyTypes": ["Ingress", "Egress", "Egress"]})),
        &["spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Egress\"]: may not specify more than two policyTypes"],
    );
    check_row::<NetworkPolicy>(policy(json!({})), "p|<none>|60s");
    check_row::<NetworkPolicy>(policy(json!({"podSelector": {"matchLabels": {"a": "b"}}})), "p|a=b|60s");
}

#[test]
fn ports_of_policies() {
    let check =
        |port: Value, expected: &[&str]| check::<NetworkPolicy>(policy(json!({"ingress": [{"ports": [port]}]})), expected);
    check(json!({"port": 80, "endPort": 90, "protocol": "SCTP"}), &[]);
    check(json!({"port": "http"}), &[]);
    check(json!({}), &[]);
    check(
        json!({"port": 0, "protocol": "ICMP"}),
        &[
            "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        json!({"port": 80, "endPort": 70}),
        &["spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`"],
    );
    check(
        json!({"port": "http", "endPort": 70}),
        &["spec.ingress[0].ports[0].endPort: Invalid value: 70: may not be specified when `port` is non-numeric"],
    );
    check(
        json!({"endPort": 70}),
        &["spec.ingress[0].ports[0].endPort: Invalid value: 70: may not be specified when `port` is not specified"],
    );
}

#[test]
fn peers_of_policies() {
    let with_peer = |peer: Value| policy(json!({"egress": [{"to": [peer]}]}));
    let check = |peer: Value, expected: &[&str]| check::<NetworkPolicy>(with_peer(peer), expected);
    check(json!({"podSelector": {}, "namespaceSelector": {"matchLabels": {"a": "b"}}}), &[]);
    check(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}), &[]);
    check(json!({}), &["spec.egress[0].to[0]: Required value: must specify a peer"]);
    check(
        json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}),
        &["spec.egress[0].to[0]: Forbidden: may not specify both ipBlock and another peer"],
    );
    check(json!({"ipBlock": {"cidr": ""}}), &["spec.egress[0].to[0].ipBlock.cidr: Required value"]);
    check(
        json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16", "10.0.0.0/8", "x"]}}),
        &[
            "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "spec.egress[0].to[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            "spec.egress[0].to[0].ipBlock.except[2]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    check_warnings::<NetworkPolicy>(
        with_peer(json!({"ipBlock": {"cidr": "FD00::/8", "except": ["fd01:0::/16"]}})),
        &[
            "spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value \"FD00::/8\" should be in RFC 5952 canonical format (\"fd00::/8\")",
            "spec.egress[0].to[0].ipBlock.except[0]: IPv6 CIDR value \"fd01:0::/16\" should be in RFC 5952 canonical format (\"fd01::/16\")",
        ],
    );
}

#[test]
fn ip_addresses() {
    let address = |parent: Value| named("10.0.0.1", json!({"spec": {"parentRef": parent}}));
    let service = json!({"resource": "services", "namespace": "default", "name": "kubernetes"});
    check::<IPAddress>(address(service.clone()), &[]);
    check::<IPAddress>(named("10.0.0.1", json!({"spec": {}})), &["spec.parentRef: Required value"]);
    check::<IPAddress>(
        address(json!({"group": "a_b", "namespace": "x/y", "name": "", "resource": "r"})),
        &[
            "spec.parentRef.group: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.parentRef.name: Required value",
            "spec.parentRef.namespace: Invalid value: \"x/y\": may not contain '/'",
        ],
    );
    check_update::<IPAddress>(
        address(service.clone()),
        address(with(&service, json!({"name": "x"}))),
        &[
            "spec.parentRef: Invalid value: {\"name\":\"x\",\"namespace\":\"default\",\"resource\":\"services\"}: field is immutable",
        ],
    );
    check_row::<IPAddress>(address(service), "10.0.0.1|services/default/kubernetes");
    let name = |name: &str| crate::def::NameRule::IpAddress.check(name, false);
    assert_eq!(name("2001:db8::1"), Vec::<String>::new());
    assert_eq!(name("2001:DB8::1"), ["must be in canonical form (\"2001:db8::1\")"]);
    assert_eq!(name("10.0.0.01"), ["must not have leading 0s"]);
    assert_eq!(name("a"), ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
}

#[test]
fn service_cidrs() {
    let cidr = |ranges: Value| named("c", json!({"spec": {"cidrs": ranges}}));
    check::<ServiceCIDR>(cidr(json!(["10.0.0.0/16", "fd00::/64"])), &[]);
    check::<ServiceCIDR>(cidr(json!([])), &["spec.cidrs: Required value: at least one CIDR required"]);
    check::<ServiceCIDR>(
        cidr(json!(["1.0.0.0/8", "2.0.0.0/8", "3.0.0.0/8"])),
        &["spec.cidrs: Invalid value: {\"cidrs\":[\"1.0.0.0/8\",\"2.0.0.0/8\",\"3.0.0.0/8\"]}: may only hold up to 2 values"],
    );
    check::<ServiceCIDR>(
        cidr(json!(["10.0.0.0/16", "10.1.0.0/16"])),
        &[
            "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.0/16\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ],
    );
    check::<ServiceCIDR>(
        cidr(json!(["FD00::/64"])),
        &["spec.cidrs[0]: Invalid value: \"FD00::/64\": must be in canonical form (\"fd00::/64\")"],
    );
    let update = |old: Value, new: Value, expected: &[&str]| check_update::<ServiceCIDR>(cidr(old), cidr(new), expected);
    update(json!(["10.0.0.0/16"]), json!(["10.0.0.0/16", "fd00::/64"]), &[]);
    update(
        json!(["10.0.0.0/16"]),
        json!(["10.1.0.0/16"]),
        &["spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable"],
    );
    update(
        json!(["10.0.0.0/16", "fd00::/64"]),
        json!(["10.0.0.0/16"]),
        &["spec.cidrs: Invalid value: [\"10.0.0.0/16\"]: field is immutable"],
    );
    check_row::<ServiceCIDR>(cidr(json!(["10.0.0.0/16", "fd00::/64"])), "c|10.0.0.0/16,fd00::/64|60s");
}

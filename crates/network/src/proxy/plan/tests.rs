#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;

fn node() -> Node {
    Node {
        name: "n1".to_owned(),
        zone: Some("z1".to_owned()),
        pod_cidrs: vec!["10.42.1.0/24".parse().unwrap()],
        inner_cidrs: vec!["10.42.0.0/16".parse().unwrap(), "10.43.0.0/16".parse().unwrap()],
        families: vec![Family::V4],
    }
}

/// Two endpoints on other nodes and one here, unless told otherwise.
fn endpoints() -> Value {
    json!([
        {"addresses": ["10.42.2.5"], "nodeName": "n2", "conditions": {"ready": true}},
        {"addresses": ["10.42.1.5"], "nodeName": "n1", "conditions": {"ready": true}},
        {"addresses": ["10.42.3.5"], "nodeName": "n3"},
        {"addresses": ["10.42.3.6"], "nodeName": "n3", "conditions": {"ready": false}},
    ])
}

fn planned(spec: Value, status: Value, endpoints: Value, previous: &Plan) -> Plan {
    let mut full = json!({"clusterIP": "10.43.0.9", "ports": [{"name": "w", "port": 80, "targetPort": 8080}]});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": full, "status": status})).unwrap();
    let slice = json!({
        "metadata": {}, "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "other", "port": 1}, {"name": "w", "protocol": "TCP", "port": 8080}],
    });
    let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
    plan(&service, &[&slice], &node(), previous)
}

/// Each entry as text: map, key, last octets of the endpoints (or what happens without), affinity, masquerading.
fn lines(plan: &Plan) -> Vec<String> {
    let line = |entry: &Entry| {
        let slots: Vec<String> = entry.slots.iter().map(|one| one.address.to_string()[6..].to_owned()).collect();
        let slots = if slots.is_empty() { format!("{:?}", entry.empty) } else { slots.join(",") };
        let sticky = if entry.sticky > 0 { format!(" sticky {}", entry.sticky) } else { String::new() };
        let masquerade = if entry.masquerade { " masquerade" } else { "" };
        let sources = entry.sources.as_ref().map(|all| all.iter().map(|one| format!(" from {one}")).collect::<String>());
        let sources = sources.unwrap_or_default();
        format!(
            "{} {}:{} {slots}{sticky}{masquerade}{sources}",
            if entry.clients == Clients::All { "services" } else { "external" },
            entry.key.address,
            entry.key.port
        )
    };
    plan.entries.iter().map(line).collect()
}

fn check(spec: Value, endpoints: Value, expected: &[&str]) {
    let plan = planned(spec, json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}), endpoints, &Plan::default());
    let lines: Vec<String> = lines(&plan).into_iter().filter(|line| !line.contains("192.0.2.7")).collect();
    assert_eq!(lines, expected);
}

#[test]
fn cluster_addresses() {
    check(json!({}), endpoints(), &["services 10.43.0.9:80 1.5,2.5,3.5"]);
    check(json!({}), json!([]), &["services 10.43.0.9:80 Reject"]);
    check(json!({"clusterIP": "None"}), endpoints(), &[]);
    check(json!({"type": "ExternalName"}), endpoints(), &[]);
    check(json!({"sessionAffinity": "ClientIP"}), endpoints(), &["services 10.43.0.9:80 1.5,2.5,3.5 sticky 10800"]);
    let affinity = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 9}}});
    check(affinity, endpoints(), &["services 10.43.0.9:80 1.5,2.5,3.5 sticky 9"]);
    check(json!({"clusterIPs": ["10.43.0.9", "fd43::9"]}), endpoints(), &["services 10.43.0.9:80 1.5,2.5,3.5"]);
}

#[test]
fn policies() {
    let here = |ready: bool| json!([{"addresses": ["10.42.1.5"], "nodeName": "n1", "conditions": {"ready": ready}}]);
    let elsewhere = json!([{"addresses": ["10.42.2.5"], "nodeName": "n2"}]);
    let local = json!({"internalTrafficPolicy": "Local"});
    check(local.clone(), endpoints(), &["services 10.43.0.9:80 1.5"]);
    check(local.clone(), elsewhere.clone(), &["services 10.43.0.9:80 Drop"]);
    check(local, here(false), &["services 10.43.0.9:80 Reject"]);
    let node_port = json!({"ports": [{"name": "w", "port": 80, "nodePort": 30080}]});
    let cluster = ["services 10.43.0.9:80 1.5,2.5,3.5", "services 0.0.0.0:30080 1.5,2.5,3.5 masquerade"];
    check(node_port.clone(), endpoints(), &cluster);
    let mut external = node_port;
    external["externalTrafficPolicy"] = json!("Local");
    check(external.clone(), endpoints(), &[cluster[0], cluster[1], "external 0.0.0.0:30080 1.5"]);
    let one = ["services 10.43.0.9:80 2.5", "services 0.0.0.0:30080 2.5 masquerade", "external 0.0.0.0:30080 Drop"];
    check(external, elsewhere, &one);
}

#[test]
fn external_addresses() {
    let spec = json!({"type": "LoadBalancer", "loadBalancerClass": "a/b", "externalIPs": ["192.0.2.1", "192.0.2.1"]});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}]}});
    let plan = planned(spec, status.clone(), endpoints(), &Plan::default());
    let expected = [
        "services 10.43.0.9:80 1.5,2.5,3.5",
        "services 192.0.2.1:80 1.5,2.5,3.5 masquerade",
        "services 192.0.2.2:80 1.5,2.5,3.5 masquerade",
    ];
    assert_eq!(lines(&plan), expected);
    assert_eq!(plan.hairpin, [IpAddr::from([10, 42, 1, 5])]);
    // What is no load balancer any more is served at none of its addresses.
    let plain = planned(json!({"type": "ClusterIP", "externalIPs": ["192.0.2.1"]}), status, endpoints(), &Plan::default());
    assert_eq!(lines(&plain), expected[..2]);
    let ranges = ["198.51.100.0/24", " 198.51.100.7/32", "fd00::/8", "203.0.113.1/32"];
    let restricted = json!({"type": "LoadBalancer", "loadBalancerClass": "a/b", "loadBalancerSourceRanges": ranges, "externalIPs": ["192.0.2.1"]});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}});
    let found = lines(&planned(restricted, status, endpoints(), &Plan::default()));
    assert_eq!(found[..2], expected[..2]);
    assert_eq!(found[2], format!("{} from 198.51.100.0/24 from 203.0.113.1/32", expected[2]));
}

#[test]
fn nobody_takes_an_address_of_the_cluster() {
    // Another service's address, one that nobody has yet, a pod's; only the last is outside.
    let addresses = json!(["10.43.0.1", "10.43.200.7", "10.42.2.9", "192.0.2.1"]);
    let spec =
        json!({"type": "LoadBalancer", "loadBalancerClass": "a/b", "externalIPs": addresses, "externalTrafficPolicy": "Local"});
    let special = ["0.0.0.0", "127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255"];
    let balancers = ["10.43.0.1", "10.42.1.5"].into_iter().chain(special).map(|ip| json!({"ip": ip})).collect::<Value>();
    let plan = planned(spec, json!({"loadBalancer": {"ingress": balancers}}), endpoints(), &Plan::default());
    let own = "services 10.43.0.9:80 1.5,2.5,3.5";
    assert_eq!(lines(&plan), [own, "services 192.0.2.1:80 1.5,2.5,3.5 masquerade", "external 192.0.2.1:80 1.5"]);
    let claims: Vec<Claim> = plan.entries.iter().map(|entry| entry.claim).collect();
    assert_eq!(claims, [Claim::ClusterIp, Claim::External, Claim::External]);
}

#[test]
fn terminating_endpoints_serve_when_no_other_does() {
    let terminating = |serving: bool| json!({"ready": false, "serving": serving, "terminating": true});
    let one = |ip: &str, conditions: Value| json!({"addresses": [ip], "nodeName": "n2", "conditions": conditions});
    let going = json!([one("10.42.2.5", terminating(true)), one("10.42.2.6", terminating(false))]);
    check(json!({}), going, &["services 10.43.0.9:80 2.5"]);
    let mixed = json!([one("10.42.2.5", terminating(true)), one("10.42.2.6", json!({"ready": true}))]);
    check(json!({}), mixed, &["services 10.43.0.9:80 2.6"]);
}

/// KEP-1669: load balancers are to leave a node on which endpoints only terminate; until they have, these go on serving.
#[test]
fn health_checks_count_ready_endpoints() {
    let check = |policy: &str, endpoints: Value, expected: usize| {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": policy, "healthCheckNodePort": 30999});
        assert_eq!(planned(spec, json!({}), endpoints.clone(), &Plan::default()).local_endpoints, expected, "{endpoints}");
    };
    let one = |ip: &str, node: &str, conditions: Value| json!({"addresses": [ip], "nodeName": node, "conditions": conditions});
    let (ready, going) = (json!({}), json!({"ready": false, "serving": true, "terminating": true}));
    check("Local", json!([one("10.42.1.5", "n1", ready.clone()), one("10.42.1.6", "n1", going.clone())]), 1);
    check("Local", json!([one("10.42.1.5", "n1", going.clone()), one("10.42.2.5", "n2", ready.clone())]), 0);
    check("Local", json!([one("10.42.1.5", "n1", going)]), 0);
    check("Local", json!([one("10.42.1.5", "n1", ready.clone()), one("10.42.1.5", "n1", ready.clone())]), 1);
    check("Cluster", json!([one("10.42.1.5", "n1", ready)]), 0);
}

#[test]
fn hints_narrow_the_choice_when_all_have_them() {
    let one = |ip: &str, hints: Value| json!({"addresses": [ip], "hints": hints});
    let zone = |name: &str| json!({"forZones": [{"name": name}]});
    check(json!({}), json!([one("10.42.2.5", zone("z1")), one("10.42.2.6", zone("z2"))]), &["services 10.43.0.9:80 2.5"]);
    check(json!({}), json!([one("10.42.2.5", zone("z3")), one("10.42.2.6", zone("z2"))]), &["services 10.43.0.9:80 2.5,2.6"]);
    check(json!({}), json!([one("10.42.2.5", zone("z1")), one("10.42.2.6", json!({}))]), &["services 10.43.0.9:80 2.5,2.6"]);
    let mut both = zone("z1");
    both["forNodes"] = json!([{"name": "n1"}]);
    let mut other = zone("z1");
    other["forNodes"] = json!([{"name": "n2"}]);
    check(json!({}), json!([one("10.42.2.5", other.clone()), one("10.42.2.6", both.clone())]), &["services 10.43.0.9:80 2.6"]);
    // A list without a hint is none (upstream, topology.go, topologyModeFromHints).
    other["forNodes"] = json!([]);
    check(json!({}), json!([one("10.42.2.5", other), one("10.42.2.6", both)]), &["services 10.43.0.9:80 2.5,2.6"]);
    check(
        json!({}),
        json!([one("10.42.2.5", zone("z1")), one("10.42.2.6", json!({"forZones": []}))]),
        &["services 10.43.0.9:80 2.5,2.6"],
    );
    // Hints of endpoints that terminate say nothing, neither beside ready ones nor where these are all there is (CategorizeEndpoints).
    let going = |ip: &str, hints: Value| json!({"addresses": [ip], "hints": hints, "conditions": {"ready": false, "serving": true, "terminating": true}});
    check(json!({}), json!([going("10.42.2.5", zone("z1")), going("10.42.2.6", zone("z2"))]), &["services 10.43.0.9:80 2.5,2.6"]);
    let beside = json!([one("10.42.2.5", zone("z1")), one("10.42.2.6", zone("z2")), going("10.42.2.7", json!({}))]);
    check(json!({}), beside, &["services 10.43.0.9:80 2.5"]);
}

#[test]
fn slots_are_kept() {
    let addresses = |last: &[u8]| {
        let one = |octet: &u8| json!({"addresses": [format!("10.42.2.{octet}")]});
        json!(last.iter().map(one).collect::<Vec<_>>())
    };
    let mut plan = planned(json!({}), json!({}), addresses(&[4, 5, 6, 7]), &Plan::default());
    for (now, expected) in [(&[5, 6, 7][..], "2.7,2.5,2.6"), (&[1, 5, 6, 7], "2.7,2.5,2.6,2.1"), (&[1], "2.1")] {
        let next = planned(json!({}), json!({}), addresses(now), &plan);
        assert_eq!(lines(&next), [format!("services 10.43.0.9:80 {expected}")]);
        plan = next;
    }
}

/// What keeps new clients from an endpoint takes no flow from it.
#[test]
fn endpoints_that_serve_keep_their_flows() {
    let check = |protocol: &str, extra: Value, expected: &[&str]| {
        let mut spec = json!({"ports": [{"name": "w", "protocol": protocol, "port": 80}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let endpoints = json!([
            {"addresses": ["10.42.1.5"], "nodeName": "n1"},
            {"addresses": ["10.42.2.5"], "nodeName": "n2"},
            {"addresses": ["10.42.3.5"], "nodeName": "n3", "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.42.3.6"], "nodeName": "n3", "conditions": {"ready": false}},
        ]);
        let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "w", "protocol": protocol, "port": 8080}]});
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        spec["clusterIP"] = json!("10.43.0.9");
        let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let plan = plan(&service, &[&slice], &node(), &Plan::default());
        let found = plan.lingering.iter().map(|(key, one)| format!("{} {}", key.address, one.address)).collect::<Vec<_>>();
        assert_eq!(found, expected);
    };
    check("UDP", json!({}), &["10.43.0.9 10.42.3.5"]);
    check("TCP", json!({}), &[]);
    check("UDP", json!({"internalTrafficPolicy": "Local"}), &["10.43.0.9 10.42.2.5", "10.43.0.9 10.42.3.5"]);
    check("UDP", json!({"externalIPs": ["192.0.2.7"]}), &["10.43.0.9 10.42.3.5", "192.0.2.7 10.42.3.5"]);
}

/// The controller says which of our load balancers has a port; of those of other implementations each node says so for its own addresses.
#[test]
fn load_balancers_of_others_are_external_addresses() {
    let check = |class: Value, claim: Claim, external: usize| {
        let spec = json!({"type": "LoadBalancer", "loadBalancerClass": class, "externalTrafficPolicy": "Local"});
        let plan = planned(spec, json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}), endpoints(), &Plan::default());
        assert_eq!(plan.entries.iter().map(|entry| entry.claim).collect::<Vec<_>>(), [Claim::ClusterIp, claim, claim]);
        assert_eq!((plan.external.len(), plan.balanced.len()), (external, 1 - external));
    };
    check(Value::Null, Claim::Balancer, 0);
    check(json!("a/b"), Claim::External, 1);
}

#[test]
fn some_services_are_not_ours() {
    let check = |labels: Value, spec: Value, expected: bool| {
        let service = json!({"metadata": {"labels": labels}, "spec": spec});
        assert_eq!(is_proxied(&serde_json::from_value(service).unwrap()), expected);
    };
    let plain = || json!({"clusterIP": "10.43.0.9"});
    check(json!({"app": "web"}), plain(), true);
    check(json!({"service.kubernetes.io/service-proxy-name": "foo"}), plain(), false);
    check(json!({"service.kubernetes.io/headless": ""}), plain(), false);
    check(json!({}), json!({"clusterIP": "None"}), false);
    check(json!({}), json!({"type": "ExternalName"}), false);
}

/// A Service of a load balancer before a program of this node needs nothing here, and leads there from other addresses.
#[test]
fn a_port_of_the_node_itself() {
    let own = json!([{"addresses": ["192.0.2.7"], "nodeName": "n1"}]);
    let spec = json!({"type": "LoadBalancer", "ports": [{"name": "w", "port": 8080}]});
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}, {"ip": "192.0.2.8"}]}});
    let plan = planned(spec, status, own, &Plan::default());
    assert_eq!(lines(&plan), ["services 10.43.0.9:8080 2.7", "services 192.0.2.8:8080 2.7 masquerade"]);
}

/// Ready or not, what a Service leads to may listen at its port.
#[test]
fn programs_that_a_service_leads_to() {
    let at = |address: &str| Programs::At(vec![address.parse().unwrap()]);
    let check = |port: Value, endpoints: Value, expected: Programs| {
        let spec = json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.7"], "ports": [port]});
        let plan = planned(spec, json!({}), endpoints, &Plan::default());
        assert_eq!(plan.balanced.iter().map(|one| &one.programs).collect::<Vec<_>>(), [&expected]);
        assert_eq!(plan.entries[1].programs, expected, "{port}");
    };
    let port = json!({"name": "w", "port": 8080});
    let of = |ready: bool| json!([{"addresses": ["192.0.2.9"], "conditions": {"ready": ready}}]);
    check(port.clone(), of(true), at("192.0.2.9"));
    check(port.clone(), of(false), at("192.0.2.9"));
    check(port, json!([]), Programs::NONE);
    check(json!({"name": "w", "port": 80}), of(true), Programs::NONE);
    let spec = json!({"clusterIP": "10.43.0.9", "type": "LoadBalancer", "ports": [{"port": 80}]});
    let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
    let mut slice: EndpointSlice =
        serde_json::from_value(json!({"metadata": {}, "addressType": "IPv6", "endpoints": []})).unwrap();
    let programs = |slices: &[&EndpointSlice]| plan(&service, slices, &node(), &Plan::default()).balanced[0].programs.clone();
    assert_eq!([programs(&[]), programs(&[&slice])], [Programs::Unknown, Programs::Unknown]);
    slice.address_type = "IPv4".to_owned();
    assert_eq!(programs(&[&slice]), Programs::NONE);
}

/// Each port has all endpoints at each address: of what grows by their products a service has no more than the table can bear, and keeps its first ports.
#[test]
fn a_service_has_so_many_entries() {
    let many = |count: usize| -> Vec<Value> {
        (0..count).map(|index| json!({"addresses": [octets(42, index)], "nodeName": "n1"})).collect()
    };
    let ips = |count: usize| -> Vec<String> { (0..count).map(|index| octets(99, index)).collect() };
    fn octets(second: usize, index: usize) -> String {
        format!("10.{second}.{}.{}", index / 250, index % 250 + 1)
    }
    let case = |ports: usize, spec: Value, endpoints: usize, left_out: usize| {
        let ports: Vec<Value> = (1..=ports).map(|port| json!({"name": format!("p{port}"), "port": port})).collect();
        let mut full = json!({"type": "LoadBalancer", "clusterIP": "10.43.0.9", "ports": ports});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": full})).unwrap();
        let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": many(endpoints), "ports": ports});
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let node = Node { inner_cidrs: Vec::new(), ..node() };
        let plan = super::plan(&service, &[&slice], &node, &Plan::default());
        let size = |entry: &Entry| 1 + entry.slots.len() + entry.sources.as_ref().map_or(0, Vec::len);
        assert!(plan.entries.iter().map(size).sum::<usize>() + plan.lingering.len() <= MOST);
        assert_eq!(plan.left_out, left_out, "{spec}");
        let served: std::collections::HashSet<u16> = plan.entries.iter().map(|entry| entry.key.port).collect();
        assert_eq!(served.len(), ports.len() - left_out, "{spec}");
        assert!(served.into_iter().all(|port| usize::from(port) <= ports.len() - left_out), "the first ports are served");
    };
    case(100, json!({}), 1000, 0);
    case(200, json!({}), 1000, 200 - MOST / 2002);
    case(20_000, json!({}), 10, 20_000 - MOST / 22);
    let external = json!({"externalIPs": ips(1000)});
    case(3000, external, 0, 3000 - MOST / 1002);
    let local = json!({"externalIPs": ips(10), "externalTrafficPolicy": "Local"});
    case(30, local, 1000, 30 - MOST / (23 * 1001));
    case(2, json!({"externalIPs": ips(1000)}), 1000, 2);
}

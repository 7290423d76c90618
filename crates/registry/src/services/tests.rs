#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

const SINGLE: &[&str] = &["10.43.0.0/16"];
const DUAL: &[&str] = &["10.43.0.0/16", "fd43::/112"];
const SIX_FIRST: &[&str] = &["fd43::/112", "10.43.0.0/16"];

/// The spec that a service gets in a cluster with these ranges, or what is wrong with it. `taken` are addresses of others.
fn run(ranges: &[&str], spec: Value, old: Option<Value>, taken: &[&str]) -> Result<Value, String> {
    let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let ports = 30000..=30001;
    let mut book = Book::default();
    book.hold(&Taken { addresses: taken.iter().map(|address| address.parse().unwrap()).collect(), ..Taken::default() });
    let cluster = Cluster { families: families::of(&ranges), own: &[], ranges, ports: &ports };
    let old = old.map(|spec| json!({"spec": spec}));
    let (mut service, mut errors) = (json!({"spec": spec}), Errors::new());
    complete(&mut service, old.as_ref(), &book, "a/x", &cluster, &mut errors);
    match errors.0.first() {
        None => Ok(service["spec"].take()),
        Some(error) => Err(error.to_string()),
    }
}

#[track_caller]
fn refused(ranges: &[&str], spec: Value, old: Option<Value>, expected: &str) {
    let error = run(ranges, spec, old, &[]).unwrap_err();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn addresses() {
    let check = |spec: Value, taken: &[&str], expected: Result<&str, &str>| match (run(SINGLE, spec, None, taken), expected) {
        (Ok(spec), Ok(address)) => assert_eq!((&spec["clusterIP"], &spec["clusterIPs"]), (&json!(address), &json!([address]))),
        (Err(error), Err(text)) => assert!(error.contains(text), "{error}"),
        (found, expected) => panic!("{found:?}, not {expected:?}"),
    };
    check(json!({"clusterIP": "10.43.0.10"}), &[], Ok("10.43.0.10"));
    check(json!({"clusterIP": "None"}), &[], Ok("None"));
    check(json!({"clusterIP": "10.43.0.10"}), &["10.43.0.10"], Err("already allocated"));
    check(json!({"clusterIP": "10.44.0.10"}), &[], Err("not in the valid range. The range of valid IPs is 10.43.0.0/16"));
    check(json!({"clusterIP": "10.43.0.0"}), &[], Err("not in the valid range"));
    check(json!({"clusterIP": "fd43::9"}), &[], Err("IPv6 is not configured on this cluster"));
}

/// Policy, families and how many addresses a new service has.
#[track_caller]
fn made(ranges: &[&str], spec: Value, policy: &str, families: &[&str]) {
    let spec = run(ranges, spec, None, &[]).unwrap();
    assert_eq!((&spec["ipFamilyPolicy"], &spec["ipFamilies"]), (&json!(policy), &json!(families)));
    let addresses: Vec<std::net::IpAddr> =
        spec["clusterIPs"].as_array().unwrap().iter().filter_map(|address| address.as_str()?.parse().ok()).collect();
    if spec["clusterIP"] != "None" {
        assert_eq!(addresses.iter().map(families::family).collect::<Vec<_>>(), families);
        assert_eq!(spec["clusterIP"], spec["clusterIPs"][0]);
    }
}

/// KEP-563: "SingleStack: the service will be assigned a single cluster IP", "PreferDualStack: if the cluster is dual-stack, then the
/// service will be assigned cluster IPs of both families", "RequireDualStack: the creation fails if the cluster is not dual-stack".
#[test]
fn families_of_new_services() {
    made(SINGLE, json!({}), "SingleStack", &["IPv4"]);
    made(SINGLE, json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack", &["IPv4"]);
    made(DUAL, json!({}), "SingleStack", &["IPv4"]);
    made(DUAL, json!({"ipFamilies": ["IPv6"]}), "SingleStack", &["IPv6"]);
    made(DUAL, json!({"clusterIP": "fd43::9"}), "SingleStack", &["IPv6"]);
    made(DUAL, json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack", &["IPv4", "IPv6"]);
    made(DUAL, json!({"ipFamilyPolicy": "RequireDualStack"}), "RequireDualStack", &["IPv4", "IPv6"]);
    made(DUAL, json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}), "RequireDualStack", &["IPv6", "IPv4"]);
    made(DUAL, json!({"ipFamilyPolicy": "PreferDualStack", "clusterIP": "fd43::9"}), "PreferDualStack", &["IPv6", "IPv4"]);
    made(SIX_FIRST, json!({}), "SingleStack", &["IPv6"]);
    made(SIX_FIRST, json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack", &["IPv6", "IPv4"]);
    // Headless ones, with and without a selector.
    let headless = |policy: Value, selector: Value| json!({"clusterIP": "None", "ipFamilyPolicy": policy, "selector": selector});
    made(SINGLE, headless(json!(null), json!({"a": "b"})), "SingleStack", &["IPv4"]);
    made(DUAL, headless(json!("RequireDualStack"), json!({"a": "b"})), "RequireDualStack", &["IPv4", "IPv6"]);
    made(SINGLE, headless(json!(null), json!({})), "RequireDualStack", &["IPv4", "IPv6"]);
    made(SINGLE, headless(json!("SingleStack"), json!(null)), "SingleStack", &["IPv4"]);
}

#[test]
fn what_the_cluster_cannot_do_is_refused() {
    let require = json!({"ipFamilyPolicy": "RequireDualStack"});
    refused(SINGLE, require, None, "this cluster is not configured for dual-stack services");
    refused(SINGLE, json!({"ipFamilies": ["IPv6"]}), None, "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured");
    let two = json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9", "fd43::9"]});
    refused(DUAL, two, None, "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified");
    let two = json!({"ipFamilies": ["IPv4", "IPv6"]});
    refused(DUAL, two, None, "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified");
}

#[test]
fn the_policy_of_a_service_changes() {
    let one =
        json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"]});
    let two = json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"], "clusterIP": "10.43.0.9",
        "clusterIPs": ["10.43.0.9", "fd43::9"]});
    let with = |spec: &Value, policy: &str| {
        let mut spec = spec.clone();
        spec["ipFamilyPolicy"] = policy.into();
        spec
    };
    for policy in ["PreferDualStack", "RequireDualStack"] {
        let grown = run(DUAL, with(&one, policy), Some(one.clone()), &[]).unwrap();
        assert_eq!((&grown["ipFamilies"], &grown["clusterIPs"][0]), (&json!(["IPv4", "IPv6"]), &json!("10.43.0.9")));
        assert!(grown["clusterIPs"][1].as_str().unwrap().starts_with("fd43::"), "{grown}");
    }
    // Nothing is taken anew of what stays, and the second one of somebody else is not given.
    let same = run(DUAL, two.clone(), Some(two.clone()), &[]).unwrap();
    assert_eq!(same, two);
    // As the kind leaves it when the policy says one.
    assert_eq!(run(DUAL, one.clone(), Some(two.clone()), &[]).unwrap(), one);
    let shrunk = with(&one, "PreferDualStack");
    refused(DUAL, shrunk, Some(two), "must be 'SingleStack' to release the secondary cluster IP");
    // A service that prefers two has one after the cluster has got the second family, until it changes otherwise.
    let prefers = with(&one, "PreferDualStack");
    assert_eq!(run(DUAL, prefers.clone(), Some(prefers.clone()), &[]).unwrap(), prefers);
}

#[test]
fn other_types_have_no_address() {
    let old =
        json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    let alias = json!({"type": "ExternalName", "externalName": "a.b"});
    assert_eq!(run(DUAL, alias.clone(), Some(old), &[]).unwrap(), alias);
    let back = run(DUAL, json!({"type": "ClusterIP"}), Some(alias), &[]).unwrap();
    assert_eq!((&back["ipFamilies"], &back["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
}

/// The task "Extend Service IP Ranges": "Internal error occurred: failed to allocate a serviceIP: range is full".
#[test]
fn a_full_range_is_no_fault_of_the_service() {
    use apimachinery::field::{Error, Path};
    let full = Error::internal(&Path::new("spec"), "failed to allocate a serviceIP: range is full");
    let status = refusal("x", &vec![full].into());
    assert_eq!(
        (status.code, status.message.as_str()),
        (500, "Internal error occurred: failed to allocate a serviceIP: range is full")
    );
    let wrong = Error::invalid(&Path::new("spec"), "x", "no");
    assert_eq!(refusal("x", &vec![wrong].into()).code, 422);
}

#[test]
fn node_ports() {
    let node = |ports: Value| json!({"type": "NodePort", "ports": ports});
    let ports = |count: u16| (0..count).map(|index| json!({"port": 80 + index, "protocol": "TCP"})).collect::<Vec<_>>();
    assert!(run(SINGLE, node(json!(ports(2))), None, &[]).is_ok());
    refused(SINGLE, node(json!(ports(3))), None, "failed to allocate a nodePort: range is full");
    for asked in [31000, 1, -5, 65536, 99999] {
        let expected =
            format!("Invalid value: {asked}: provided port is not in the valid range. The range of valid ports is 30000-30001");
        let spec = node(json!([{"port": 80, "nodePort": asked}]));
        refused(SINGLE, spec.clone(), None, &expected);
        refused(SINGLE, spec, Some(node(json!([{"port": 80, "nodePort": 30000}]))), &expected);
    }
    // One number for two protocols.
    let both =
        json!([{"name": "u", "port": 53, "protocol": "UDP"}, {"name": "t", "port": 53, "protocol": "TCP", "nodePort": 30001}]);
    let spec = run(SINGLE, node(both), None, &[]).unwrap();
    assert_eq!((&spec["ports"][0]["nodePort"], &spec["ports"][1]["nodePort"]), (&json!(30001), &json!(30001)));
    // A port that is sent without it keeps its node port by its name.
    let old = node(json!([{"name": "a", "port": 80, "nodePort": 30000}, {"name": "b", "port": 81, "nodePort": 30001}]));
    let new = node(json!([{"name": "b", "port": 82}, {"name": "c", "port": 83, "nodePort": 30000}]));
    let spec = run(SINGLE, new, Some(old), &[]).unwrap();
    assert_eq!((&spec["ports"][0]["nodePort"], &spec["ports"][1]["nodePort"]), (&json!(30001), &json!(30000)));
}

/// A number that is a node port is no load balancer's, so that none is chosen that a load balancer has already. Who asks for one gets it.
#[test]
fn node_ports_beside_load_balancers() {
    let choose = |spec: Value, balanced: &[u16]| {
        let range = 30000..=30001;
        let mut book = Book::default();
        book.hold(&Taken { balanced: balanced.iter().copied().collect(), ..Taken::default() });
        let ranges = vec!["10.43.0.0/16".parse().unwrap()];
        let cluster = Cluster { families: vec!["IPv4"], own: &[], ranges, ports: &range };
        let (mut service, mut errors) = (json!({"spec": spec}), Errors::new());
        complete(&mut service, None, &book, "a/x", &cluster, &mut errors);
        errors.0.first().map_or_else(|| Ok(service["spec"]["ports"][0]["nodePort"].clone()), |error| Err(error.to_string()))
    };
    let web = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]});
    assert_eq!(choose(web.clone(), &[30000]).unwrap(), 30001);
    assert_eq!(choose(web.clone(), &[30001]).unwrap(), 30000);
    assert!(choose(web, &[30000, 30001]).unwrap_err().contains("range is full"));
    let asked = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]});
    assert_eq!(choose(asked, &[30000]).unwrap(), 30000);
    // Nor one of the service's own.
    let own = json!({"type": "LoadBalancer", "ports": [{"port": 30000, "protocol": "TCP"}]});
    assert_eq!(choose(own, &[]).unwrap(), 30001);
}

#[test]
fn load_balancers() {
    let balancer = |more: Value| {
        let mut spec = json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 80}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        run(SINGLE, spec, None, &[]).unwrap()
    };
    assert_eq!(balancer(json!({}))["ports"], json!([{"port": 80}]));
    assert_eq!(balancer(json!({"ports": [{"port": 80, "nodePort": 30001}]}))["ports"][0]["nodePort"], 30001);
    assert!(balancer(json!({"externalTrafficPolicy": "Local"}))["healthCheckNodePort"].as_u64() >= Some(30000));
    assert!(balancer(json!({"externalTrafficPolicy": "Cluster"})).get("healthCheckNodePort").is_none());
    assert_eq!(balancer(json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30001}))["healthCheckNodePort"], 30001);
}

/// The task "Kubernetes Default ServiceCIDR Reconfiguration": no new address is of a range that is to go. The server's own services, for which
/// its ServiceCIDR waits, can come back to where they were.
#[test]
fn a_range_that_ends_gives_what_the_server_asks_of_it() {
    let own = ["10.43.0.0/16".parse().unwrap()];
    let ports = 30000..=30001;
    let create_at = |path: &str, spec: Value, ranges: &[&str]| {
        let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let cluster = Cluster { families: families::of(&own), own: &own, ranges, ports: &ports };
        let (mut service, mut errors) = (json!({"spec": spec}), Errors::new());
        complete(&mut service, None, &Book::default(), path, &cluster, &mut errors);
        errors.0.first().map_or_else(|| Ok(service["spec"]["clusterIP"].clone()), |error| Err(error.to_string()))
    };
    let create = |spec: Value, ranges: &[&str]| create_at("default/kubernetes", spec, ranges);
    let refused = create_at("a/x", json!({"clusterIP": "10.43.0.1"}), &["10.9.0.0/24"]).unwrap_err();
    assert!(refused.ends_with("The range of valid IPs is 10.9.0.0/24"), "{refused}");
    assert_eq!(create_at("kube-system/kube-dns", json!({"clusterIP": "10.43.0.10"}), &[]), Ok("10.43.0.10".into()));
    assert_eq!(create(json!({"clusterIP": "10.43.0.1"}), &[]), Ok("10.43.0.1".into()));
    assert!(create(json!({}), &[]).unwrap_err().contains("range is full"));
    assert!(create(json!({}), &["10.9.0.0/24"]).unwrap().as_str().unwrap().starts_with("10.9.0."));
    assert!(
        create(json!({"clusterIP": "10.44.0.1"}), &["10.9.0.0/24"])
            .unwrap_err()
            .ends_with("The range of valid IPs is 10.9.0.0/24")
    );
}

#![allow(clippy::unwrap_used)]

use client::kube::api::DeleteParams;
use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

use super::*;
use crate::testing::{World, object};

fn node(name: &str, ready: &str, addresses: &[(&str, &str)], labels: Value) -> Arc<Node> {
    let addresses: Vec<Value> = addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
    Arc::new(object(json!({"metadata": {"name": name, "labels": labels},
        "status": {"addresses": addresses, "conditions": [{"type": "Ready", "status": ready}]}})))
}

fn service(name: &str, port: i32, more: Value) -> Service {
    let mut spec = json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": port}]});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    object(
        json!({"metadata": {"namespace": "a", "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}),
    )
}

#[test]
fn is_served_on_the_nodes_addresses() {
    let nodes = [
        node("a", "True", &[("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1"), ("Hostname", "a")], json!({})),
        node("b", "True", &[("InternalIP", "10.0.0.2"), ("ExternalIP", "192.0.2.2")], json!({})),
        node("down", "False", &[("InternalIP", "10.0.0.3")], json!({})),
        node("not", "True", &[("InternalIP", "10.0.0.4")], json!({EXCLUDED: ""})),
    ];
    let slice = |host: &str, ready: bool| {
        Arc::new(object(json!({"metadata": {}, "addressType": "IPv4", "endpoints": [
            {"addresses": ["10.1.0.1"], "nodeName": host, "conditions": {"ready": ready}}]})))
    };
    let check = |more: Value, slices: &[Arc<EndpointSlice>], expected: &[&str]| {
        let (found, _) = ingress(&service("s", 80, more), &nodes, &[], slices);
        assert_eq!(found.into_iter().filter_map(|one| one.ip).collect::<Vec<_>>(), expected);
    };
    check(json!({}), &[], &["10.0.0.1", "192.0.2.2"]);
    check(json!({"ipFamilies": ["IPv4", "IPv6"]}), &[], &["10.0.0.1", "192.0.2.2", "fd00::1"]);
    check(json!({"ipFamilies": ["IPv6", "IPv4"]}), &[], &["fd00::1", "10.0.0.1", "192.0.2.2"]);
    let local = || json!({"externalTrafficPolicy": "Local"});
    check(local(), &[slice("a", true), slice("b", false)], &["10.0.0.1"]);
    check(local(), &[], &[]);
}

#[tokio::test]
async fn an_older_service_that_asks_later_takes_nothing() {
    let world = World::new();
    let mut own = node("n", "True", &[("InternalIP", "10.0.0.1")], json!({})).as_ref().clone();
    own.status.as_mut().unwrap().daemon_endpoints = Some(object(json!({"kubeletEndpoint": {"Port": 10250}})));
    world.fake.put(&own);
    let mut front = service("front", 80, json!({}));
    front.metadata.creation_timestamp = Some(object(json!("2026-01-02T00:00:00Z")));
    front.status = Some(object(json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]}})));
    world.fake.put(&front);
    world.fake.put(&service("asks-later", 80, json!({})));
    world.fake.put(&service("kubelet", 10250, json!({})));
    let overlay = |protocol: &str| json!({"ports": [{"port": 8472, "protocol": protocol}]});
    world.fake.put(&service("overlay", 8472, overlay("UDP")));
    world.fake.put(&service("no-overlay", 8472, overlay("TCP")));
    world.start(&["service-load-balancer"]);
    let told = |events: &[Event], text: &str| events.iter().any(|event| event.message.iter().any(|told| told.contains(text)));
    let all = |events: &[Event]| {
        let texts = [
            "80/TCP of the nodes is taken by service a/front",
            "every node has the ports itself",
            "8472/UDP of the nodes is their own",
        ];
        texts.iter().all(|text| told(events, text))
    };
    world.fake.until::<Event>(all).await;
    world.fake.until::<Service>(|all| all.iter().any(|one| meta::name(one) == "no-overlay" && !current(one).is_empty())).await;
    let api: Api<Service> = Api::namespaced(world.fake.client(), "a");
    assert_eq!(current(&api.get("front").await.unwrap()).len(), 1);
    for name in ["kubelet", "overlay"] {
        assert!(current(&api.get(name).await.unwrap()).is_empty());
    }
}

#[tokio::test]
async fn the_older_service_has_the_port_and_the_other_gets_it_afterwards() {
    let world = World::new();
    world.fake.put(node("n", "True", &[("InternalIP", "10.0.0.1")], json!({})).as_ref());
    world.fake.put::<EndpointSlice>(&object(json!({
        "metadata": {"namespace": "default", "name": "kubernetes", "labels": {SERVICE_NAME: "kubernetes"}},
        "addressType": "IPv4", "endpoints": [], "ports": [{"port": 6443}],
    })));
    for (name, port, more) in [
        ("one", 80, json!({})),
        ("two", 80, json!({})),
        ("api", 6443, json!({})),
        ("other", 90, json!({"loadBalancerClass": "example.com/x"})),
    ] {
        world.fake.put(&service(name, port, more));
    }
    world.start(&["service-load-balancer"]);
    let served = |all: &[Service]| -> String {
        let served = all.iter().filter(|one| !current(one).is_empty()).map(|one| meta::name(one).to_owned());
        served.collect::<Vec<_>>().join(" ")
    };
    world.fake.until::<Service>(|all| served(all) == "one").await;
    let told =
        |events: &[Event], text: &str| events.iter().any(|event| event.message.as_deref().unwrap_or_default().contains(text));
    let both =
        |events: &[Event]| told(events, "80/TCP of the nodes is taken by service a/one") && told(events, "the API server's");
    world.fake.until::<Event>(both).await;
    let says = |all: &[Service], name: &str| {
        let service = all.iter().find(|one| meta::name(*one) == name).unwrap();
        condition::told(service).unwrap_or_default().to_owned()
    };
    let taken = "port 80/TCP of the nodes is taken by service a/one: choose another port or delete that";
    world.fake.until::<Service>(|all| says(all, "two") == taken && says(all, "api").contains("the API server's")).await;
    assert_eq!(says(&world.fake.all::<Service>(), "one"), "");
    let api: Api<Service> = Api::namespaced(world.fake.client(), "a");
    api.delete("one", &DeleteParams::default()).await.unwrap();
    world.fake.until::<Service>(|all| served(all) == "two" && says(all, "two").is_empty()).await;
    // What is no load balancer any more waits for no port.
    let patch = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    api.patch("api", &PatchParams::default(), &patch).await.unwrap();
    world.fake.until::<Service>(|all| says(all, "api").is_empty()).await;
}

/// What a node says of its addresses and of its kubelet holds for itself only.
#[test]
fn a_node_says_nothing_of_others() {
    let at = |name: &str, day: u32, addresses: &[(&str, &str)], kubelet: i32| {
        let mut one = node(name, "True", addresses, json!({})).as_ref().clone();
        one.metadata.creation_timestamp = Some(object(json!(format!("2026-01-{day:02}T00:00:00Z"))));
        one.status.as_mut().unwrap().daemon_endpoints = Some(object(json!({"kubeletEndpoint": {"Port": kubelet}})));
        Arc::new(one)
    };
    let check = |nodes: &[Arc<Node>], expected: &[&str], is_lost: bool| {
        let inside = ["10.42.0.0/16", "10.43.0.0/16"].map(|range| range.parse().unwrap());
        let (found, lost) = ingress(&service("s", 443, json!({})), nodes, &inside, &[]);
        assert_eq!(found.into_iter().filter_map(|one| one.ip).collect::<Vec<_>>(), expected);
        assert_eq!(lost, is_lost);
    };
    let good = at("z", 1, &[("InternalIP", "10.0.0.1")], 10250);
    check(&[at("evil", 2, &[("InternalIP", "10.0.0.2")], 443), good.clone()], &["10.0.0.1"], true);
    for address in ["10.43.0.1", "10.42.0.7", "127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "10.0.0.1"] {
        check(&[at("evil", 2, &[("ExternalIP", address)], 10250), good.clone()], &["10.0.0.1"], false);
        check(&[at("evil", 2, &[("InternalIP", address)], 443), good.clone()], &["10.0.0.1"], true);
    }
}

#[test]
fn ports_that_a_node_has_given_to_others() {
    let told = |text: &str| {
        let mut one = node("n", "True", &[("InternalIP", "10.0.0.1")], json!({})).as_ref().clone();
        one.metadata.annotations = Some([("knarr.io/taken-ports".to_owned(), text.to_owned())].into());
        Arc::new(one)
    };
    let other = node("m", "True", &[("InternalIP", "10.0.0.2")], json!({}));
    let ports = json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]});
    let check = |text: &str, expected: &[&str], is_lost: bool| {
        let (found, lost) = ingress(&service("s", 80, ports.clone()), &[told(text), other.clone()], &[], &[]);
        let port = |one: &PortStatus| format!("{}/{}{}", one.port, one.protocol, one.error.as_deref().unwrap_or_default());
        let line = |one: &LoadBalancerIngress| {
            let ports: Vec<String> = one.ports.iter().flatten().map(port).collect();
            format!("{} {}", one.ip.as_deref().unwrap_or_default(), ports.join(" "))
        };
        assert_eq!(
            (found.iter().map(line).collect::<Vec<_>>(), lost),
            (expected.iter().map(|one| (*one).to_owned()).collect(), is_lost)
        );
    };
    let whole = "10.0.0.2 53/UDP 80/TCP";
    check("a/other:80/TCP,a/s:80/UDP", &["10.0.0.1 53/UDP 80/TCP", whole], false);
    check("a/s:80/TCP", &["10.0.0.1 53/UDP 80/TCPPortUnavailable", whole], true);
    check("a/s:80/TCP,a/s:53/UDP", &[whole], true);
}

/// Somebody's node port, and a port that is added to a load balancer that is served at another one.
#[tokio::test]
async fn ports_of_others_are_not_for_who_asks_later() {
    let world = World::new();
    world.fake.put(node("n", "True", &[("InternalIP", "10.0.0.1")], json!({})).as_ref());
    world.fake.put(&service("np", 1, json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30806}]})));
    let health = json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 30807});
    world.fake.put(&service("health", 2, health));
    for (name, port) in [("one", 30806), ("two", 30807), ("old", 81), ("own", 5)] {
        world.fake.put(&service(name, port, json!({})));
    }
    world.fake.put(&service("own", 5, json!({"ports": [{"port": 30808, "nodePort": 30808}]})));
    world.start(&["service-load-balancer"]);
    let says = |all: &[Service], name: &str| {
        let service = all.iter().find(|one| meta::name(*one) == name).unwrap();
        (condition::told(service).unwrap_or_default().to_owned(), current(service).len())
    };
    let taken =
        |port: u16, by: &str| (format!("port {port}/TCP of the nodes is taken by {by}: choose another port or delete that"), 0);
    let wait = async |name: &str, expected: (String, usize)| world.fake.until::<Service>(|all| says(all, name) == expected).await;
    wait("one", taken(30806, "the node port of service a/np")).await;
    wait("two", taken(30807, "the node port of service a/health")).await;
    wait("own", (String::new(), 1)).await;
    wait("old", (String::new(), 1)).await;
    let mut front = service("front", 80, json!({}));
    front.metadata.creation_timestamp = Some(object(json!("2026-01-02T00:00:00Z")));
    world.fake.put(&front);
    wait("front", (String::new(), 1)).await;
    let api: Api<Service> = Api::namespaced(world.fake.client(), "a");
    let more = Patch::Merge(json!({"spec": {"ports": [{"port": 81}, {"port": 80}]}}));
    api.patch("old", &PatchParams::default(), &more).await.unwrap();
    wait("old", taken(80, "service a/front")).await;
    assert_eq!(says(&world.fake.all::<Service>(), "front"), (String::new(), 1));
    // The node port goes, and who waits for it is served.
    api.delete("np", &DeleteParams::default()).await.unwrap();
    wait("one", (String::new(), 1)).await;
}

/// Of many services those are looked at again that want a port of the one that has changed, and come after it.
#[test]
fn few_are_concerned_by_a_change() {
    let at = |name: &str, port: i32, day: u32, served: bool| {
        let mut service = service(name, port, json!({}));
        service.metadata.creation_timestamp = Some(object(json!(format!("2026-01-{day:02}T00:00:00Z"))));
        let ingress = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]}});
        service.status = served.then(|| object(ingress));
        service
    };
    let (holder, waits, last) = (at("holder", 80, 2, true), at("waits", 80, 1, false), at("last", 80, 3, false));
    let check = |states: [Option<&Service>; 2], ports: &[i32], waiting: bool, holding: bool| {
        let changed: Vec<i32> = ports_that_change(states).into_iter().map(|(port, _)| port).collect();
        assert_eq!(changed, ports);
        let port = (80, "TCP".to_owned());
        assert_eq!((concerns(states, &waits, &port), concerns(states, &holder, &port)), (waiting, holding));
    };
    check([Some(&holder), None], &[80], true, false);
    check([None, Some(&last)], &[80], false, false);
    check([Some(&last), Some(&last)], &[], false, false);
    let other = at("holder", 443, 2, true);
    check([Some(&holder), Some(&other)], &[80, 443], true, false);
    let node_port = service("x", 1, json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}));
    check([None, Some(&node_port)], &[80], true, true);
}

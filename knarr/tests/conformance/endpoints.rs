//! Endpoints of services in both forms, from controllers and by hand.

use http::Method;
use serde_json::json;
use testing::{Cluster, eventually, machine};

use super::network::{SLICES, address, answering, client, endpoints_are, in_endpoints, in_slices, server, service};
use super::{KNARR, core, create, delete, send};

/// Conformance: [sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service [Conformance]
/// Conformance: [sig-network] EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods [Conformance]
/// Conformance: [sig-network] EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices [Conformance]
/// Conformance: [sig-network] EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices [Conformance]
/// Conformance: [sig-network] EndpointsController should create Endpoints for Pods matching a Service [Conformance]
/// Conformance: [sig-network] EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods [Conformance]
/// Conformance: [sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete [Conformance]
/// Conformance: [sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server [Conformance]
/// Conformance: [sig-network] API Server should provide secure master service [Conformance]
#[test]
fn endpoints() {
    let c = Cluster::start(KNARR);
    client(&c);
    let kubernetes = c.api().object(&format!("{}/kubernetes", core("services")));
    assert_eq!(
        (&kubernetes["spec"]["ports"][0]["name"], &kubernetes["spec"]["ports"][0]["port"]),
        (&json!("https"), &json!(443))
    );
    endpoints_are(&c, "kubernetes", &[&machine::ADDRESS.to_owned()]);

    let ports = json!([{"name": "http", "port": 80, "targetPort": "http"}]);
    create(&c, &core("services"), &service("none", &json!({"selector": {"app": "nobody"}, "ports": ports})));
    endpoints_are(&c, "none", &[]);
    let of_none = format!("{SLICES}?labelSelector=kubernetes.io/service-name%3Dnone");
    eventually("an empty slice", || (c.api().object(&of_none)["items"].as_array()?.len() == 1).then_some(()));
    delete(&c, &format!("{}/none", core("services")));
    eventually("both go with the service", || {
        (in_endpoints(&c, "none").is_none() && c.api().object(&of_none)["items"] == json!([])).then_some(())
    });

    server(&c, "web1", "web", &json!({}));
    server(&c, "web2", "web", &json!({}));
    let [first, second] = ["web1", "web2"].map(|name| address(&c, name));
    create(&c, &core("services"), &service("web", &json!({"selector": {"app": "web"}, "ports": ports})));
    endpoints_are(&c, "web", &[&first, &second]);
    let slices = c.api().object(&format!("{SLICES}?labelSelector=kubernetes.io/service-name%3Dweb"));
    let slice = &slices["items"][0];
    assert_eq!(
        (&slice["ports"][0]["name"], &slice["ports"][0]["port"], &slice["ports"][0]["protocol"]),
        (&json!("http"), &json!(8080), &json!("TCP")),
        "{slice}"
    );
    for endpoint in slice["endpoints"].as_array().unwrap() {
        assert_eq!((&endpoint["targetRef"]["kind"], &endpoint["nodeName"]), (&json!("Pod"), &json!("n1")), "{endpoint}");
    }
    by_hand(&c, &first, &second);
    mirrored(&c);
    delete(&c, &format!("{}/web1", core("pods")));
    endpoints_are(&c, "web", &[&second]);
}

/// Slices that nobody but the test writes: of two addresses, and of one address with two ports.
fn by_hand(c: &Cluster, first: &str, second: &str) {
    for (name, slices, expected) in [
        ("two-addresses", [(first, 8080), (second, 8081)], &["web1", "web2"][..]),
        ("two-ports", [(first, 8080), (first, 8081)], &["web1"]),
    ] {
        let made = create(c, &core("services"), &service(name, &json!({"ports": [{"name": "http", "port": 80}]})));
        for (number, (address, port)) in slices.iter().enumerate() {
            let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": format!("{name}-{number}"), "labels": {"kubernetes.io/service-name": name}},
                "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [{"name": "http", "port": port}]});
            create(c, SLICES, &slice);
        }
        let ip = made["spec"]["clusterIP"].as_str().unwrap();
        eventually(name, || (answering(c, &format!("{ip}:80")) == expected).then_some(()));
        // Each slice serves alone, too.
        delete(c, &format!("{SLICES}/{name}-0"));
        let left = &expected[expected.len() - 1..];
        eventually(name, || (answering(c, &format!("{ip}:80")) == left).then_some(()));
    }
}

/// Endpoints that a client writes become slices, follow it, and go with it.
fn mirrored(c: &Cluster) {
    let path = format!("{}/mirrored", core("endpoints"));
    create(c, &core("services"), &service("mirrored", &json!({"ports": [{"name": "http", "port": 80}]})));
    let object = |ip: &str| {
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "mirrored"},
        "subsets": [{"addresses": [{"ip": ip}], "ports": [{"name": "http", "port": 9000}]}]})
    };
    create(c, &core("endpoints"), &object("10.1.2.3"));
    endpoints_are(c, "mirrored", &[&"10.1.2.3".to_owned()]);
    let list = c.api().object(&format!("{SLICES}?labelSelector=kubernetes.io/service-name%3Dmirrored"));
    let labels = &list["items"][0]["metadata"]["labels"];
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslicemirroring-controller.k8s.io", "{list}");
    send(c, 200, Method::PUT, &path, &object("10.2.3.4"));
    endpoints_are(c, "mirrored", &[&"10.2.3.4".to_owned()]);
    delete(c, &path);
    eventually("the slices go", || in_slices(c, "mirrored").is_empty().then_some(()));
}

/// Conformance: [sig-network] Service endpoints latency should not be very high [Conformance]
#[test]
fn latency() {
    const SERVICES: usize = 100;
    let c = Cluster::start(KNARR);
    server(&c, "web", "web", &json!({}));
    let mut took: Vec<_> = (0..SERVICES)
        .map(|number| {
            let name = format!("s{number}");
            let start = std::time::Instant::now();
            create(&c, &core("services"), &service(&name, &json!({"selector": {"app": "web"}, "ports": [{"port": 80}]})));
            eventually("an endpoint", || (in_slices(&c, &name).len() == 1).then_some(()));
            start.elapsed().as_secs()
        })
        .collect();
    took.sort_unstable();
    // test/e2e/network/service_latency.go, `limitMedian` and `limitTail`: they are to fail for what goes wrong, not for the speed of a machine.
    assert!(took[SERVICES / 2] < 20 && took[SERVICES * 99 / 100] < 50, "seconds: {took:?}");
}

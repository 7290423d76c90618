//! What the service proxy says of itself to load balancers and to its machine.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::time::{Duration, Instant};

use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use client::Informers;
use client::fake::Fake;
use common::isolate;
use k8s_openapi::api::core::v1::Node;
use network::nft::Config;
use network::nft::table::Table;
use network::proxy;
use serde_json::{Value, json};

/// The status and the body of an answer at a port of the machine's loopback.
fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().trim_start_matches("HTTP/1.1 ").to_owned(), body.to_owned())
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
    }
}

/// test/e2e/network/networking.go, "should check kube-proxy urls"; KEP-3836.
#[test]
fn load_balancers_are_told_whether_a_node_stays() {
    if !isolate() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (fake, (tasks, _failures), readiness) = (Fake::default(), Tasks::root(), Readiness::default());
    let put = |spec: Value| {
        fake.put::<Node>(&serde_json::from_value(json!({"metadata": {"name": "n"}, "spec": spec})).unwrap());
    };
    put(json!({}));
    let pod_cidrs = vec!["10.42.0.0/24".parse().unwrap()];
    let config = Config { bridge: "knarr0".into(), pod_cidrs: pod_cidrs.clone(), ..Config::default() };
    let table = Table::open("knarr-health", config, &[]).unwrap();
    let options = proxy::Options {
        node_name: "n".to_owned(),
        node_client: fake.client(),
        pod_cidrs,
        inner_cidrs: Vec::new(),
        listen: proxy::Listen {
            health: Some((Ipv4Addr::UNSPECIFIED, 10256).into()),
            metrics: Some((Ipv4Addr::LOCALHOST, 10249).into()),
        },
    };
    let informers = Informers::new(fake.client(), tasks.clone());
    let run = proxy::run(options, informers, table, readiness.gate("proxy"), tasks.clone());
    tasks.spawn_until_cancelled("proxy", OnFailure::Log, async { run.await.map(|_| ()) });
    runtime.block_on(readiness.wait(&["proxy"]));
    until("it listens", || [10256, 10249].iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok()));
    TcpStream::connect((Ipv6Addr::LOCALHOST, 10256)).expect("both families");
    TcpStream::connect((Ipv6Addr::LOCALHOST, 10249)).expect_err("127.0.0.1 alone");

    let (status, body) = get(10256, "/healthz");
    assert_eq!(status, "200 OK");
    assert!(body.contains("lastUpdated"), "{body}");
    assert_eq!(get(10249, "/proxyMode"), ("200 OK".to_owned(), "nftables".to_owned()));
    let (status, metrics) = get(10249, "/metrics");
    assert_eq!(status, "200 OK");
    assert!(metrics.contains("kubeproxy_sync_proxy_rules_last_timestamp_seconds "), "{metrics}");

    put(json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}));
    until("a node that is to go takes no new connections", || get(10256, "/healthz").0.starts_with("503"));
    assert!(get(10256, "/healthz").1.contains("\"nodeEligible\": false"));
    assert!(get(10256, "/livez").0.starts_with("200"));
    put(json!({}));
    until("it stays after all", || get(10256, "/healthz").0.starts_with("200"));
}

//! A kernel that does not take a batch, in a network namespace of its own.
#![allow(clippy::unwrap_used)]

use base::readiness::Readiness;
use base::tasks::OnFailure;
use client::Api;
use client::fake::Fake;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;

use super::*;
use crate::nft::Config;

fn put(fake: &Fake, name: &str, ip: &str, endpoints: u16) {
    let ports = json!([{"port": 80}]);
    let metadata = json!({"namespace": "a", "name": name});
    let service = json!({"metadata": metadata, "spec": {"clusterIP": ip, "ports": ports}});
    fake.put::<Service>(&serde_json::from_value(service).unwrap());
    let endpoints = (0..endpoints).map(|number| json!({"addresses": [format!("10.42.{}.{}", number / 250, 1 + number % 250)]}));
    let metadata = json!({"namespace": "a", "name": name, "labels": {"kubernetes.io/service-name": name}});
    let endpoints: Vec<_> = endpoints.collect();
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}]});
    fake.put::<EndpointSlice>(&serde_json::from_value(slice).unwrap());
}

async fn until(readiness: &Readiness, is_ready: bool) {
    let waits = async {
        while readiness.snapshot()["proxy"].is_ok() != is_ready {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap_or_else(|_| panic!("ready: {is_ready}"));
}

async fn never_fits() {
    let config = Config { bridge: "knarr0".into(), pod_cidrs: vec!["10.42.0.0/16".parse().unwrap()], ..Config::default() };
    let table = Table::open("knarr-proxy", config, &[]).unwrap();
    table.limit_requests(16 * 1024);
    let (fake, (tasks, _), readiness) = (Fake::default(), Tasks::root(), Readiness::default());
    let options = Options {
        node_name: "n".to_owned(),
        node_client: fake.client(),
        pod_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
        inner_cidrs: Vec::new(),
        listen: Listen::default(),
    };
    let informers = Informers::new(fake.client(), tasks.clone());
    let proxied = run(options, informers, table.clone(), readiness.gate("proxy"), tasks.clone());
    tasks.spawn_until_cancelled("proxy", OnFailure::Log, async { proxied.await.map(|_| ()) });
    until(&readiness, true).await;

    // A Service that is gone is tried no more.
    put(&fake, "large", "10.43.0.1", LARGE);
    until(&readiness, false).await;
    Api::<EndpointSlice>::namespaced(fake.client(), "a").delete("large", &Default::default()).await.unwrap();
    Api::<Service>::namespaced(fake.client(), "a").delete("large", &Default::default()).await.unwrap();
    until(&readiness, true).await;

    // One that stays stops the others for a while only. What it had before it had endpoints stays.
    put(&fake, "large", "10.43.0.1", LARGE);
    until(&readiness, false).await;
    put(&fake, "small", "10.43.0.2", 1);
    until(&readiness, true).await;
    let listed = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    assert!(text.contains(": 0x00000000 . 10.42.0.1 . 8080") && !text.contains("10.42.0.2 . 8080"), "{text}");
}

/// Endpoints that do not fit into the socket's buffer, and with the rest of the table are not so many that it is made larger.
const LARGE: u16 = 500;

#[test]
fn a_service_that_never_fits_stops_no_other() {
    let alone = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(never_fits());
    });
    alone.join().unwrap();
}

//! A kernel that does not take a policy for a while, in a network namespace of its own.
#![allow(clippy::unwrap_used)]

use base::readiness::Readiness;
use base::tasks::{OnFailure, Tasks};
use client::fake::Fake;
use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::*;

/// Ranges of a policy that do not fit into the socket's buffer, and with the rest of the table are not so many that it is made larger.
const RANGES: usize = 900;

fn put(fake: &Fake) {
    let namespace = json!({"metadata": {"name": "x"}});
    fake.put::<Namespace>(&serde_json::from_value(namespace).unwrap());
    let status = json!({"phase": "Running", "podIP": "10.42.0.5", "podIPs": [{"ip": "10.42.0.5"}]});
    let pod = json!({"metadata": {"namespace": "x", "name": "a"}, "spec": {"nodeName": "n", "containers": []}, "status": status});
    fake.put::<Pod>(&serde_json::from_value(pod).unwrap());
    let range = |number: usize| json!({"ipBlock": {"cidr": format!("198.18.{}.{}/32", number / 100, 2 * (number % 100))}});
    let ranges: Value = (0..RANGES).map(range).collect();
    let policy = json!({"metadata": {"namespace": "x", "name": "p"}, "spec": {"podSelector": {}, "ingress": [{"from": ranges}]}});
    fake.put::<NetworkPolicy>(&serde_json::from_value(policy).unwrap());
}

fn ranges_in_force() -> usize {
    let listed = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().matches("198.18.").count()
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waits = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        while !condition().await {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn closes_and_opens() {
    let config = Config { bridge: "knarr0".into(), pod_cidrs: vec!["10.42.0.0/24".parse().unwrap()], ..Config::default() };
    let table = Table::open("knarr-policy", config.clone(), &[]).unwrap();
    table.limit_requests(16 * 1024);
    let (fake, (tasks, _), readiness) = (Fake::default(), Tasks::root(), Readiness::default());
    put(&fake);
    let events = Recorder::new(fake.client(), "test", "n", &tasks);
    let options = Options {
        node_name: "n".to_owned(),
        dns: Vec::new(),
        config,
        node_ip: Some("192.0.2.1".parse().unwrap()),
        backend: Backend::default(),
        events,
    };
    let (_policies, admissions) = Policies::channel();
    let informers = Informers::new(fake.client(), tasks.clone());
    let enforced = run(options, informers, table.clone(), admissions, readiness.gate("policies"));
    tasks.spawn_until_cancelled("policies", OnFailure::Log, async { enforced.await.map(|_| ()) });
    let told = async || {
        let events = fake.all::<Event>();
        events.iter().any(|event| event.message.as_deref().is_some_and(|text| text.contains("which allows nothing now")))
    };
    until("the policy is closed", told).await;
    assert_eq!(ranges_in_force(), 0);
    table.limit_requests(1 << 20);
    until("the policy is in force", async || ranges_in_force() == RANGES).await;
}

/// What keeps the kernel from a policy may pass: the policy allows nothing until then, and is in force after it without having changed.
#[test]
fn a_policy_that_was_closed_in_passing_is_tried_again() {
    let alone = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(closes_and_opens());
    });
    alone.join().unwrap();
}

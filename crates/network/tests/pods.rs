//! The pod network on the real kernel.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use common::{Netns, isolate, sh, tcp};
use network::Protocol;
use network::{HostPort, Options, PodNetwork, teardown};

/// Everything that must be gone after a teardown. The nft program is not always there.
const LISTING: &str = "ip -o link; ip route; ip neigh; if command -v nft >/dev/null; then nft list ruleset; fi";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn options(directory: &std::path::Path) -> Options {
    let mut options = Options::new(
        directory,
        vec!["10.42.0.0/24".parse().unwrap(), "fd42::/64".parse().unwrap()],
        vec!["10.43.0.0/16".parse().unwrap(), "fd43::/112".parse().unwrap()],
    );
    options.local_addresses = vec!["10.43.0.10".parse().unwrap()];
    options.holders = Vec::new();
    options
}

#[test]
fn pods_reach_each_other_and_leave_nothing_behind() {
    if !isolate() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let before = sh(LISTING);
    runtime().block_on(async {
        let network = PodNetwork::start(options(directory.path())).await.unwrap();
        let (a, b) = (Netns::new(), Netns::new());
        let port = HostPort { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None };
        let a_ips = network.attach("a", &a.path(), std::slice::from_ref(&port)).await.unwrap();
        let started = Instant::now();
        let b_ips = network.attach("b", &b.path(), &[]).await.unwrap();
        eprintln!("attach took {:?}", started.elapsed());
        assert_eq!(network.attach("b", &b.path(), &[]).await.unwrap(), b_ips);
        for (a_ip, b_ip) in a_ips.iter().copied().zip(b_ips.iter().copied()) {
            a.serve(a_ip, 80, "a");
            assert_eq!(b.run(move || tcp((a_ip, 80))), Ok(format!("a {b_ip}")));
            assert!(tcp((a_ip, 80)).is_ok(), "the host reaches the pod");
        }
        let local = |text: &str| text.parse::<SocketAddr>().unwrap();
        for address in ["127.0.0.1:8080", "10.42.0.1:8080", "[fd42::1]:8080"] {
            assert!(tcp(local(address)).is_ok_and(|text| text.starts_with("a ")), "host port at {address}");
        }
        assert_eq!(b.run(move || tcp(local("10.42.0.1:8080"))), Ok(format!("a {}", b_ips[0])));
        assert!(a.run(move || tcp(local("10.42.0.1:8080"))).is_ok(), "a pod reaches itself through its host port");
        assert_eq!(b.run(move || tcp(local("127.0.0.1:8080"))), Err(std::io::ErrorKind::ConnectionRefused));

        // A new process takes over: host ports and addresses are still there, and what is gone is released.
        drop(network);
        let network = PodNetwork::start(options(directory.path())).await.unwrap();
        assert_eq!(network.attach("a", &a.path(), &[port]).await.unwrap(), a_ips);
        assert!(tcp(local("127.0.0.1:8080")).is_ok());
        // Interfaces that somebody has deleted, or has taken off the bridge, are made again, with the same addresses.
        let live =
            |pods: &[(&str, &Netns)]| pods.iter().map(|(id, pod)| ((*id).to_owned(), pod.path())).collect::<BTreeMap<_, _>>();
        for end in ["ip link del $port", "ip link set $port nomaster"] {
            sh(&format!("for port in $(ip -o link show master knarr0 | cut -d: -f2 | cut -d@ -f1); do {end}; done"));
            assert!(tcp((a_ips[0], 80)).is_err());
            assert_eq!(network.reconcile(&live(&[("a", &a), ("b", &b)])).await.unwrap(), 0);
            let a_ip = a_ips[0];
            assert_eq!(b.run(move || tcp((a_ip, 80))), Ok(format!("a {}", b_ips[0])), "{end}");
        }
        assert_eq!(network.reconcile(&live(&[("b", &b)])).await.unwrap(), 1);
        assert!(tcp(local("127.0.0.1:8080")).is_err());
        let started = Instant::now();
        network.detach("b").await.unwrap();
        eprintln!("detach took {:?}", started.elapsed());
        network.detach("b").await.unwrap();
        assert!(network.leases().is_empty());
        drop(network);
        teardown(options(directory.path())).await.unwrap();
        teardown(options(directory.path())).await.unwrap();
    });
    assert_eq!(sh(LISTING), before);
}

/// Who removes a data directory takes its memory away and not its bridge: the next cluster of that directory, with other ranges, makes its own.
#[test]
fn an_earlier_cluster_of_the_directory_is_forgotten() {
    if !isolate() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let before = options(directory.path());
    let mut after = options(directory.path());
    after.pod_cidrs[0] = "10.98.0.0/24".parse().unwrap();
    runtime().block_on(async {
        let network = PodNetwork::start(before).await.unwrap();
        let old = Netns::new();
        network.attach("old", &old.path(), &[]).await.unwrap();
        drop(network);
        // A node that gets another range while it still has sandboxes: pods of the new range find it.
        let mut moved = options(directory.path());
        moved.pod_cidrs[0] = "10.97.0.0/24".parse().unwrap();
        let network = PodNetwork::start(moved).await.unwrap();
        let pod = Netns::new();
        let address = network.attach("moved", &pod.path(), &[]).await.unwrap()[0];
        pod.serve(address, 80, "moved");
        assert!(tcp((address, 80)).is_ok(), "pod and bridge find each other");
        let addresses = sh("ip -o address show knarr0");
        assert!(addresses.contains("10.97.0.1/24") && addresses.contains("10.43.0.10/32"), "{addresses}");
        assert!(addresses.contains("fd42::1/64") && addresses.contains("fe80::"), "{addresses}");
        assert!(!addresses.contains("10.42."), "the range is another node's now: {addresses}");
        drop(network);
        std::fs::remove_dir_all(directory.path().join("leases")).unwrap();
        for restart in [false, true] {
            let network = PodNetwork::start(after.clone()).await.unwrap();
            let bridge = sh("ip -o address show; ip -o link");
            assert!(bridge.contains("10.98.0.1/24") && !bridge.contains("10.42."), "{bridge}");
            assert_eq!(bridge.contains("knv"), restart, "{bridge}");
            let pod = Netns::new();
            let address = network.attach(&format!("new-{restart}"), &pod.path(), &[]).await.unwrap()[0];
            pod.serve(address, 80, "new");
            assert!(tcp((address, 80)).is_ok(), "pod and bridge find each other");
        }
        teardown(after).await.unwrap();
    });
}

/// Two nodes in one network namespace: the second is refused, and taking it down takes nothing of the first, until nothing of the first is
/// left to be missed.
#[test]
fn a_namespace_has_the_network_of_one_node() {
    if !isolate() {
        return;
    }
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mine, yours) = (options(one.path()), options(two.path()));
    let refused =
        |error: network::pod::Error| matches!(error, network::pod::Error::Taken { directory, .. } if directory == one.path());
    runtime().block_on(async {
        let network = PodNetwork::start(mine.clone()).await.unwrap();
        let pod = Netns::new();
        network.attach("a", &pod.path(), &[]).await.unwrap();
        let before = sh(LISTING);
        let in_use = PodNetwork::start(mine.clone()).await.err();
        assert!(matches!(in_use, Some(network::pod::Error::InUse(_))), "{in_use:?}");
        assert!(teardown(mine.clone()).await.is_err(), "a node that runs keeps its network");
        // While it runs, and when it has stopped and its sandbox is still connected.
        let mut running = Some(network);
        for _ in 0..2 {
            assert!(network::check_owner(&yours).is_err_and(refused), "running: {}", running.is_some());
            assert!(PodNetwork::start(yours.clone()).await.err().is_some_and(refused), "running: {}", running.is_some());
            assert_eq!(teardown(yours.clone()).await.unwrap().as_deref(), Some(one.path()));
            assert_eq!(sh(LISTING), before, "running: {}", running.is_some());
            running = None;
        }
        std::fs::remove_file(one.path().join("leases/a.lease")).unwrap();
        network::check_owner(&yours).unwrap();
        let network = PodNetwork::start(yours.clone()).await.unwrap();
        assert!(!sh("ip -o link").contains("knv"), "what the first node left is gone");
        assert!(network::check_owner(&mine).is_err());
        drop(network);
        assert_eq!(teardown(yours).await.unwrap(), None);
        assert_eq!(teardown(mine).await.unwrap(), None);
    });
}

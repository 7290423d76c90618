//! The pod network on the real kernel.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::time::Instant;

use common::{Netns, isolate, sh, tcp};
use network::Protocol;
use network::{Attachment, Bandwidth, HostPort, Options, PodNetwork, teardown};

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
        let ports = vec![HostPort { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None }];
        let sysctls = [("net/ipv4/conf/eth0/log_martians".to_owned(), "1".to_owned())].into();
        let wanted = Attachment { ports, sysctls, ..Attachment::default() };
        let logs = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/log_martians").map_err(|error| error.kind());
        let a_ips = network.attach("a", &a.path(), &wanted).await.unwrap();
        let started = Instant::now();
        let b_ips = network.attach("b", &b.path(), &Attachment::default()).await.unwrap();
        assert_eq!(a.run(logs), Ok("1\n".to_owned()));
        eprintln!("attach took {:?}", started.elapsed());
        assert_eq!(network.attach("b", &b.path(), &Attachment::default()).await.unwrap(), b_ips);
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
        assert_eq!(network.attach("a", &a.path(), &wanted).await.unwrap(), a_ips);
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
            assert_eq!(a.run(logs), Ok("1\n".to_owned()), "the kernel settings of the device: {end}");
        }
        assert_eq!(network.reconcile(&live(&[("b", &b)])).await.unwrap(), 1);
        assert!(tcp(local("127.0.0.1:8080")).is_err());
        let none = Attachment {
            sysctls: [("net/ipv4/conf/eth1/log_martians".to_owned(), "1".to_owned())].into(),
            ..Attachment::default()
        };
        let error = network.attach("c", &Netns::new().path(), &none).await.unwrap_err().to_string();
        assert!(error.starts_with("sysctl net/ipv4/conf/eth1/log_martians=1: No such file"), "{error}");
        network.detach("c").await.unwrap();
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
        network.attach("old", &old.path(), &Attachment::default()).await.unwrap();
        drop(network);
        // A node that gets another range while it still has sandboxes: pods of the new range find it.
        let mut moved = options(directory.path());
        moved.pod_cidrs[0] = "10.97.0.0/24".parse().unwrap();
        let network = PodNetwork::start(moved).await.unwrap();
        let pod = Netns::new();
        let address = network.attach("moved", &pod.path(), &Attachment::default()).await.unwrap()[0];
        pod.serve(address, 80, "moved");
        assert!(tcp((address, 80)).is_ok(), "pod and bridge find each other");
        let addresses = sh("ip -o address show knarr0");
        assert!(addresses.contains("10.97.0.1/24") && addresses.contains("10.43.0.10/32"), "{addresses}");
        assert!(addresses.contains("fd42::1/64") && addresses.contains("fe80::"), "{addresses}");
        assert!(!addresses.contains("10.42."), "the range is another node's now: {addresses}");
        drop(network);
        base::trees::remove(&directory.path().join("leases")).unwrap();
        for restart in [false, true] {
            let network = PodNetwork::start(after.clone()).await.unwrap();
            let bridge = sh("ip -o address show; ip -o link");
            assert!(bridge.contains("10.98.0.1/24") && !bridge.contains("10.42."), "{bridge}");
            assert_eq!(bridge.contains("knv"), restart, "{bridge}");
            let pod = Netns::new();
            let address = network.attach(&format!("new-{restart}"), &pod.path(), &Attachment::default()).await.unwrap()[0];
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
        network.attach("a", &pod.path(), &Attachment::default()).await.unwrap();
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

/// Bytes a second from a client to a server that reads them, after `size` bytes.
fn throughput(from: &Netns, to: &Netns, address: std::net::IpAddr, size: usize) -> f64 {
    let listener = to.run(move || std::net::TcpListener::bind((address, 5001)).unwrap());
    let sending = from.spawn(move || {
        let mut stream = std::net::TcpStream::connect((address, 5001)).unwrap();
        stream.write_all(&vec![0; size]).unwrap();
    });
    let (mut stream, _) = listener.accept().unwrap();
    let started = Instant::now();
    let read = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    sending.join().unwrap();
    assert_eq!(read as usize, size);
    size as f64 / started.elapsed().as_secs_f64()
}

/// `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`: what a pod receives and sends is held back, also after its
/// interface was made again, and nothing of that stays.
#[test]
fn pods_have_no_more_than_their_bandwidth() {
    if !isolate() {
        return;
    }
    const RATE: f64 = 20e6 / 8.0;
    const SIZE: usize = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let before = sh(LISTING);
    runtime().block_on(async {
        let network = PodNetwork::start(options(directory.path())).await.unwrap();
        let (a, b) = (Netns::new(), Netns::new());
        let rates = [("receiver", Some(20_000_000), None), ("sender", None, Some(20_000_000))];
        let free = network.attach("b", &b.path(), &Attachment::default()).await.unwrap();
        for (name, ingress, egress) in rates {
            let wanted = Attachment { bandwidth: Bandwidth { ingress, egress }, ..Attachment::default() };
            let limited = network.attach(name, &a.path(), &wanted).await.unwrap();
            for round in ["made", "made again"] {
                for (limited, free) in limited.iter().copied().zip(free.iter().copied()) {
                    // A machine that is busy holds back, too: what is slow for once is measured again, and nothing may ever be too fast.
                    let is_free = (0..20).any(|_| {
                        let (sent, received) = (throughput(&a, &b, free, SIZE), throughput(&b, &a, limited, SIZE));
                        let (slow, fast) = if egress.is_some() { (sent, received) } else { (received, sent) };
                        eprintln!("{name} {round}: {slow} and {fast} bytes a second");
                        // What the bucket holds goes at once; of acknowledgements none is held back long enough to matter.
                        assert!(slow < RATE * 1.3, "{name} {round}: {slow} of {RATE} bytes a second");
                        slow > RATE * 0.3 && fast > RATE * 4.0
                    });
                    assert!(is_free, "{name} {round}: more is held back, or the other direction");
                }
                sh("ip link del $(ip -o link show master knarr0 | grep -o 'knv[0-9a-f]*' | tail -1)");
                let live = [("b", &b), (name, &a)].map(|(id, pod)| (id.to_owned(), pod.path())).into();
                assert_eq!(network.reconcile(&live).await.unwrap(), 0);
            }
            network.detach(name).await.unwrap();
            assert!(!sh("ip -o link").contains("knq"), "what has shaped a pod goes with it");
        }
        // Who takes the network down takes also what shapes, whoever has lost its pod.
        let wanted = Attachment { bandwidth: Bandwidth { ingress: None, egress: Some(1_000) }, ..Attachment::default() };
        network.attach("left", &a.path(), &wanted).await.unwrap();
        sh("ip link del $(ip -o link show master knarr0 | grep -o 'knv[0-9a-f]*' | tail -1)");
        drop(network);
        teardown(options(directory.path())).await.unwrap();
    });
    assert_eq!(sh(LISTING), before);
}

/// CNI specification, section 2, DEL: "A plugin should generally complete a DEL action without error even if some resources are missing"; and one that fails all the same, since
/// what it needs is away for a while, is asked again, by the node that was told to let go and by one that starts and finds the lease, neither of which waits for it.
#[test]
fn what_plugins_do_not_take_away_is_asked_for_again() {
    use std::os::unix::fs::PermissionsExt;
    if !isolate() {
        return;
    }
    let (directory, plugins) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (fails, program) = (plugins.path().join("fails"), plugins.path().join("plugin"));
    let text = format!(
        "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND != DEL ] || [ ! -e {} ] || exit 1\n\
         echo '{{\"cniVersion\": \"1.0.0\", \"ips\": [{{\"address\": \"10.42.0.7/24\"}}]}}'\n",
        fails.display()
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let network = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "plugin"}]}"#;
    std::fs::write(plugins.path().join("10-net.conflist"), network).unwrap();
    let options = || {
        let mut options = options(directory.path());
        options.backend = network::Backend::Cni;
        options.cni = network::cni::Directories { configuration: plugins.path().into(), plugins: vec![plugins.path().into()] };
        options
    };
    async fn released(network: &PodNetwork, left: usize) {
        let release = async { match network.clone().release_gone().await {} };
        let released = async {
            while network.leases().len() > left {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = release => {}
            done = tokio::time::timeout(std::time::Duration::from_secs(30), released) => done.expect("what is gone is released"),
        }
    }
    runtime().block_on(async {
        let (a, b) = (Netns::new(), Netns::new());
        let network = PodNetwork::start(options()).await.unwrap();
        for (name, netns) in [("a", &a), ("b", &b)] {
            network.attach(name, &netns.path(), &Attachment::default()).await.unwrap();
        }
        std::fs::write(&fails, "").unwrap();
        network.detach("a").await.unwrap_err();
        assert_eq!(network.reconcile(&[("b".to_owned(), b.path())].into()).await.unwrap(), 1);
        assert_eq!(network.leases().len(), 2);
        std::fs::remove_file(&fails).unwrap();
        released(&network, 1).await;
        assert!(network.leases().contains_key("b"), "whoever is there keeps what it has");
        drop(network);
        // What was given up in the middle may hold the directory for a moment.
        let network = loop {
            match PodNetwork::start(options()).await {
                Err(network::pod::Error::InUse(_)) => tokio::task::yield_now().await,
                started => break started.unwrap(),
            }
        };
        assert_eq!(network.reconcile(&BTreeMap::new()).await.unwrap(), 1);
        released(&network, 0).await;
    });
}

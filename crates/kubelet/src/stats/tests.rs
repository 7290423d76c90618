use super::*;
use std::time::Duration;

use super::details::DiskIo;
use crate::node::supply::Supply;
use crate::pod::testing::container;
use k8s_openapi::api::core::v1::NodeSystemInfo;
use runtime::DiskUsage;
use runtime::api::{CpuUsage, IoUsage, MemoryUsage, PodIdentity, Pressure, ProcessUsage, Ulimit};
use serde_json::{Value, json};

fn sandbox(uid: &str, attempt: u32, state: SandboxState) -> Sandbox {
    Sandbox {
        id: format!("{uid}-{attempt}"),
        pod: PodIdentity { name: format!("pod-{uid}"), namespace: "ns".to_owned(), uid: uid.to_owned() },
        attempt,
        state,
        created: Timestamp::from_second(1000).unwrap(),
        ips: Vec::new(),
        netns: Some("/run/netns/x".into()),
        runtime_handler: String::new(),
        ..Sandbox::default()
    }
}

fn usage(cpu: u64, memory: u64) -> Usage {
    Usage {
        group: "/kubepods/x".to_owned(),
        cpu: CpuUsage {
            total: cpu,
            periods: 7,
            quota: Some(50_000),
            period: Some(100_000),
            shares: Some(512),
            ..CpuUsage::default()
        },
        memory: MemoryUsage {
            most: 900,
            oom_kills: 2,
            usage: memory,
            working_set: memory,
            limit: Some(1000),
            swap: 30,
            swap_limit: Some(100),
            mapped: 12,
            limit_hits: 6,
            page_faults: 40,
            own_page_faults: [11, 1],
            ..MemoryUsage::default()
        },
        processes: 3,
        processes_limit: Some(1024),
        pressure: Pressure::default(),
        io: vec![IoUsage { device: (254, 0), read_bytes: 8192, reads: 2, ..IoUsage::default() }],
    }
}

/// A pod that was made anew and whose second container has ended, and a pod without a sandbox.
fn snapshot(seconds: i64, cpu: u64) -> Snapshot {
    let pod = |uid: &str| Arc::new(serde_json::from_value::<Pod>(json!({"metadata": {"uid": uid}})).unwrap());
    let sandboxes = [sandbox("a", 0, SandboxState::NotReady), sandbox("a", 1, SandboxState::Ready)];
    let member = |id: &str, name: &str, sandbox: &str, state| {
        let started = Timestamp::from_second(1001).ok();
        Container { sandbox: sandbox.to_owned(), started, pid: Some(7), ..container(id, name, 0, state) }
    };
    let containers = [
        member("1", "old", "a-0", ContainerState::Exited),
        member("2", "c", "a-1", ContainerState::Running),
        member("3", "d", "a-1", ContainerState::Exited),
    ];
    let usages = Usages {
        sandboxes: [("a-1".to_owned(), usage(cpu + 5, 500))].into(),
        containers: [("2".to_owned(), usage(cpu, 400))].into(),
    };
    let eth0 = |_| vec![Interface { name: "eth0".to_owned(), ..Interface::default() }];
    Snapshot {
        at: Timestamp::from_second(seconds).unwrap(),
        node_name: "n1".to_owned(),
        system: vec![SystemUsage::pods(
            Timestamp::from_second(1000).unwrap(),
            Usage { group: "/kubepods".to_owned(), ..usage(cpu * 3, 700) },
        )],
        node: NodeUsage { cpu: cpu * 10, cpu_modes: [cpu * 8, cpu * 2], cpus: 2, interfaces: eth0(0), ..NodeUsage::default() },
        pods: assemble(&[pod("a"), pod("b")], &sandboxes, &containers, usages, eth0),
    }
}

/// What was found besides for cAdvisor's page.
fn details() -> Details {
    let open = ProcessUsage { processes: 2, descriptors: 9, sockets: 4, open_files: Some(Ulimit::Limited(1024)) };
    Details {
        info: NodeSystemInfo {
            boot_id: "b".into(),
            machine_id: "m".into(),
            system_uuid: "s".into(),
            ..NodeSystemInfo::default()
        },
        cores: 1,
        sockets: 1,
        processes: Arc::new([("2".to_owned(), open)].into()),
        names: [((254, 0), "/dev/vda".to_owned())].into(),
        disk: Some(DiskIo { device: (254, 0), in_progress: 3, busy: Duration::from_millis(1500), ..DiskIo::default() }),
    }
}

#[test]
fn running_containers_belong_to_their_pods() {
    let pods = snapshot(2000, 7).pods;
    let [pod] = pods.as_slice() else { panic!("{pods:?}") };
    assert_eq!((pod.name.as_str(), pod.sandbox.as_str(), pod.interfaces.len()), ("pod-a", "a-1", 1));
    let names: Vec<&str> = pod.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["c"]);
}

#[test]
fn resource_metrics_have_upstreams_names() {
    let page = resource(&snapshot(2000, 1_500_000_000));
    for line in [
        "# TYPE container_cpu_usage_seconds_total counter",
        "container_cpu_usage_seconds_total{container=\"c\",namespace=\"ns\",pod=\"pod-a\"} 1.5 2000000",
        "container_memory_working_set_bytes{container=\"c\",namespace=\"ns\",pod=\"pod-a\"} 400 2000000",
        "container_start_time_seconds{container=\"c\",namespace=\"ns\",pod=\"pod-a\"} 1001",
        "container_swap_limit_bytes{container=\"c\",namespace=\"ns\",pod=\"pod-a\"} 100 2000000",
        "container_swap_usage_bytes{container=\"c\",namespace=\"ns\",pod=\"pod-a\"} 30 2000000",
        "pod_swap_usage_bytes{namespace=\"ns\",pod=\"pod-a\"} 30 2000000",
        "node_swap_usage_bytes 0 2000000",
        "node_cpu_usage_seconds_total 15 2000000",
        "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"pod-a\"} 500 2000000",
        "resource_scrape_error 0",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
    }
}

#[test]
fn cadvisor_tells_containers_pods_and_the_node_apart() {
    let page = cadvisor(&snapshot(2000, 1_500_000_000), &details());
    let check = |labels: &str, value: &str| {
        let line = format!("container_cpu_usage_seconds_total{{cpu=\"total\",{labels}}} {value} 2000000");
        assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
    };
    check("container=\"c\",id=\"/kubepods/x\",image=\"img\",name=\"2\",namespace=\"ns\",pod=\"pod-a\"", "1.5");
    check("container=\"\",id=\"/kubepods/x\",image=\"\",name=\"\",namespace=\"ns\",pod=\"pod-a\"", "1.500000005");
    check("container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"", "15");
    assert!(page.contains("container_network_receive_bytes_total{container=\"\",id=\"/kubepods/x\",image=\"\",name=\"a-1\""));
    let of_node = "container_network_receive_bytes_total{container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\",interface=\"eth0\"} 0";
    assert!(page.contains(of_node), "{page}");
    for (name, value) in [("cpu_cores", 2), ("cpu_physical_cores", 1), ("cpu_sockets", 1), ("swap_bytes", 0)] {
        let line = format!("machine_{name}{{boot_id=\"b\",machine_id=\"m\",system_uuid=\"s\"}} {value} 2000000\n");
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
    // What the community's recording rules and alerts of containers ask for besides.
    let own = "{container=\"c\",id=\"/kubepods/x\",image=\"img\",name=\"2\",namespace=\"ns\",pod=\"pod-a\"}";
    for (name, value) in [
        ("container_spec_cpu_quota", "50000"),
        ("container_spec_cpu_period", "100000"),
        ("container_oom_events_total", "2"),
        ("container_memory_max_usage_bytes", "900"),
        ("container_memory_mapped_file", "12"),
        ("container_memory_failcnt", "6"),
        ("container_spec_cpu_shares", "512"),
        ("container_spec_memory_swap_limit_bytes", "100"),
        ("container_spec_memory_reservation_limit_bytes", "0"),
        ("container_threads", "3"),
        ("container_threads_max", "1024"),
        ("container_processes", "2"),
        ("container_file_descriptors", "9"),
        ("container_sockets", "4"),
        ("container_cpu_cfs_periods_total", "7"),
        ("container_cpu_cfs_burst_periods_total", "0"),
    ] {
        let line = format!("{name}{own} {value} 2000000");
        assert!(page.lines().any(|other| other == line), "{line} is not in\n{page}");
    }
    let disk = "device=\"/dev/vda\",container=\"c\",id=\"/kubepods/x\"";
    for (name, value) in [("reads_bytes", "8192"), ("reads", "2"), ("writes_bytes", "0"), ("writes", "0")] {
        let begin = format!("container_fs_{name}_total{{{disk},");
        let found = page.lines().find(|line| line.starts_with(&begin));
        assert!(found.is_some_and(|line| line.ends_with(&format!("}} {value} 2000000"))), "{begin} in\n{page}");
    }
    let own = "container=\"c\",id=\"/kubepods/x\",image=\"img\",name=\"2\",namespace=\"ns\",pod=\"pod-a\"} ";
    let node = "container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"} ";
    for (of, name, first, value) in [
        (own, "ulimits_soft", "ulimit=\"max_open_files\"", "1024"),
        (own, "memory_failures_total", "failure_type=\"pgfault\",scope=\"container\"", "11"),
        (own, "memory_failures_total", "failure_type=\"pgfault\",scope=\"hierarchy\"", "40"),
        (own, "blkio_device_usage_total", "device=\"/dev/vda\",major=\"254\",minor=\"0\",operation=\"Read\"", "8192"),
        (node, "fs_io_current", "device=\"/dev/vda\"", "3"),
        (node, "fs_io_time_seconds_total", "device=\"/dev/vda\"", "1.5"),
        (node, "fs_reads_total", "device=\"/dev/vda\"", "0"),
    ] {
        let line = format!("container_{name}{{{first},{of}{value} 2000000\n");
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
    for (mode, value) in [("user", 12), ("system", 3)] {
        let line = format!("container_cpu_{mode}_seconds_total{{{node}{value} 2000000\n");
        assert!(page.contains(&line), "{line} is not in\n{page}");
    }
    for name in ["container_spec_cpu_quota", "container_cpu_cfs_periods_total", "container_processes"] {
        assert!(!page.contains(&format!("{name}{{container=\"\",id=\"/\",")), "the node has no {name}: {page}");
    }
    assert!(page.contains("container_memory_working_set_bytes{container=\"\",id=\"/kubepods\",image=\"\""), "all pods: {page}");
    assert!(page.contains("container_scrape_error 0\n"));
}

/// What dashboards of disks ask for: cAdvisor's families of a container's file system, and the node's.
#[test]
fn cadvisor_tells_what_containers_have_on_disk() {
    let mut snapshot = snapshot(2000, 1);
    let page = cadvisor(&snapshot, &details());
    assert!(!page.contains("container_fs_usage_bytes"), "nothing is known: {page}");
    snapshot.node.device = "/dev/vda1".to_owned();
    snapshot.node.supplies.disk = Some(Supply { total: 1000, available: 400 });
    snapshot.node.supplies.inodes = Some(Supply { total: 90, available: 20 });
    let check = |snapshot: &Snapshot, name: &str, of: &str, expected: Option<&str>| {
        let page = cadvisor(snapshot, &details());
        let begin = format!("container_fs_{name}{{device=\"/dev/vda1\",container=\"{of}\",");
        let found = page.lines().filter_map(|line| line.strip_prefix(&begin)?.split(' ').nth(1)).collect::<Vec<_>>();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{begin} in\n{page}");
    };
    check(&snapshot, "usage_bytes", "", Some("600"));
    check(&snapshot, "usage_bytes", "c", None);
    snapshot.pods[0].containers[0].disk.rootfs = Some(DiskUsage { bytes: 30, inodes: 4 });
    snapshot.pods[0].containers[0].disk.logs = Some(DiskUsage { bytes: 12, inodes: 1 });
    for (name, expected) in [("usage_bytes", "42"), ("limit_bytes", "1000"), ("inodes_total", "90"), ("inodes_free", "20")] {
        check(&snapshot, name, "c", Some(expected));
    }
}

/// KEP-4205: "PSI metrics at the node, pod and container level" in the summary and in cAdvisor's families.
#[test]
fn pressure_is_told_where_the_kernel_tells_it() {
    let mut snapshot = snapshot(2000, 1);
    let silent = (summary(&snapshot, None, true).to_string(), cadvisor(&snapshot, &details()));
    assert!(!silent.0.contains("psi") && !silent.0.contains("\"io\"") && !silent.1.contains("container_pressure"), "{silent:?}");
    let text = "some avg10=1.25 avg60=0.10 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n";
    let pressure = Pressure::read(|_| Some(text.to_owned()));
    snapshot.node.pressure = Pressure { io: None, ..pressure };
    snapshot.pods[0].usage.pressure = pressure;
    snapshot.pods[0].containers[0].usage.pressure = pressure;
    let shown = summary(&snapshot, None, true);
    let psi = json!({"full": {"total": 500_000_000, "avg10": 0.0, "avg60": 0.0, "avg300": 0.0},
        "some": {"total": 2_500_000_000_u64, "avg10": 1.25, "avg60": 0.1, "avg300": 0.0}});
    for place in
        ["/node/cpu", "/node/memory", "/pods/0/cpu", "/pods/0/io", "/pods/0/containers/0/memory", "/pods/0/containers/0/io"]
    {
        assert_eq!(shown.pointer(&format!("{place}/psi")), Some(&psi), "{place}");
    }
    assert_eq!(shown.pointer("/node/io"), None);
    assert_eq!(shown.pointer("/pods/0/io/time"), Some(&json!(snapshot.at)));
    let page = cadvisor(&snapshot, &details());
    for (name, of, value) in [
        ("cpu_waiting", "container=\"\",id=\"/\"", "2.5"),
        ("memory_stalled", "container=\"c\"", "0.5"),
        ("io_waiting", "container=\"c\"", "2.5"),
    ] {
        let begin = format!("container_pressure_{name}_seconds_total{{{of}");
        let found = page.lines().find(|line| line.starts_with(&begin));
        assert!(found.is_some_and(|line| line.contains(&format!("}} {value} "))), "{begin} in\n{page}");
    }
}

#[test]
fn the_summary_has_rates_from_the_second_request_on() {
    let (mut first, second) = (snapshot(2000, 1000), snapshot(2010, 21_000));
    let on_disk = |bytes, inodes| Some(DiskUsage { bytes, inodes });
    first.pods[0].containers[0].disk = Disk { rootfs: on_disk(30, 4), logs: on_disk(12, 1) };
    first.node.supplies.disk = Some(Supply { total: 1000, available: 400 });
    first.node.supplies.inodes = Some(Supply { total: 90, available: 20 });
    let room = |used: i64, total: i64| volumes::Used { used, supply: Some(Supply { total, available: total - used }) };
    let volume = |name: &str, claim: Option<&str>| VolumeUsage {
        name: name.to_owned(),
        claim: claim.map(str::to_owned),
        is_ephemeral: claim.is_none(),
        bytes: room(8, 100),
        inodes: room(2, 10),
    };
    first.pods[0].volumes = vec![volume("scratch", None), volume("data", Some("claim"))];
    let check = |value: &Value, pointer: &str, expected: Value| {
        assert_eq!(value.pointer(pointer).cloned().unwrap_or_default(), expected, "{pointer}");
    };
    let shown = summary(&first, None, false);
    check(&shown, "/node/cpu/usageCoreNanoSeconds", json!(10_000));
    check(&shown, "/node/cpu/usageNanoCores", Value::Null);
    check(&shown, "/pods/0/podRef", json!({"name": "pod-a", "namespace": "ns", "uid": "a"}));
    check(&shown, "/pods/0/memory/availableBytes", json!(500));
    check(&shown, "/pods/0/containers/0/swap/swapAvailableBytes", json!(70));
    check(&shown, "/pods/0/network/name", json!("eth0"));
    let time = first.at;
    let of = |bytes: u64, inodes: u64| {
        json!({"time": time, "usedBytes": bytes, "availableBytes": 400, "capacityBytes": 1000,
            "inodesUsed": inodes, "inodes": 90, "inodesFree": 20})
    };
    check(&shown, "/pods/0/containers/0/rootfs", of(30, 4));
    check(&shown, "/pods/0/containers/0/logs", of(12, 1));
    check(&shown, "/pods/0/ephemeral-storage", of(50, 7));
    check(&shown, "/node/fs", of(600, 70));
    let one = json!({"time": time, "name": "scratch", "usedBytes": 8, "capacityBytes": 100, "availableBytes": 92,
        "inodesUsed": 2, "inodes": 10, "inodesFree": 8});
    check(&shown, "/pods/0/volume/0", one);
    check(&shown, "/pods/0/volume/1/pvcRef", json!({"name": "claim", "namespace": "ns"}));
    check(&shown, "/node/network/interfaces/0/name", json!("eth0"));
    let shown = summary(&second, Some(&Earlier::of(&first)), true);
    check(&shown, "/pods/0/containers/0/cpu/usageNanoCores", json!(2000));
    check(&shown, "/node/cpu/usageNanoCores", json!(20_000));
    check(&shown, "/node/systemContainers/0/name", json!("pods"));
    check(&shown, "/node/systemContainers/0/memory/workingSetBytes", json!(700));
    check(&shown, "/node/systemContainers/0/cpu/usageNanoCores", json!(6000));
    check(&shown, "/pods/0/network", Value::Null);
    check(&shown, "/node/fs", Value::Null);
    check(&shown, "/node/network", Value::Null);
    check(&shown, "/pods/0/volume", Value::Null);
    check(&shown, "/pods/0/ephemeral-storage", Value::Null);
}

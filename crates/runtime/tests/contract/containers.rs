//! Sandboxes and containers from beginning to end.

use std::time::Duration;

use runtime::api::{
    ContainerConfig, ContainerState, Error, Mount, NamespaceMode, ProcessUser, Resources, Runtime, SandboxState, Seccomp,
    SecurityContext,
};

use crate::support::{Node, log_text};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_runs_to_its_end_and_everything_is_removed() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("one").await;
    assert_eq!(node.sandbox("one").await, sandbox, "making it again gives the same");
    let id = node.run(&sandbox, "main", "echo out; echo err >&2; printf part; exit 3").await;
    let container = node.ended(&id).await;
    assert_eq!((container.exit_code, container.reason.as_str(), container.signal), (Some(3), "Error", None));
    assert!(container.started.unwrap() <= container.finished.unwrap());
    let log = std::fs::read_to_string(&container.log_path).unwrap();
    let mut lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P part"]);
    let stamp = log.split(' ').next().unwrap();
    assert_eq!((stamp.len(), stamp.parse::<jiff::Timestamp>().is_ok()), (30, true), "{stamp}");

    node.engine().remove_sandbox(&sandbox).await.unwrap();
    node.engine().remove_sandbox(&sandbox).await.unwrap();
    assert!(node.engine().sandboxes().await.unwrap().is_empty());
    assert!(node.engine().containers(None).await.unwrap().is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(node.dir.path().to_str().unwrap()), "nothing stays mounted");
    assert_eq!(std::fs::read_dir(node.dir.path().join("run/oci")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(node.dir.path().join("data/containers")).unwrap().count(), 0);
}

async fn check_failure(node: &Node, sandbox: &str, command: &[&str], text: &str) {
    let command: Vec<String> = command.iter().map(|part| (*part).to_owned()).collect();
    let config = ContainerConfig { command: command.clone(), ..node.config("bad", "") };
    let id = node.engine().create_container(sandbox, config).await.unwrap().id;
    match node.engine().start_container(&id).await {
        Err(Error::Start(message)) => assert!(message.contains(text), "{command:?}: {message}"),
        other => panic!("{command:?}: {other:?}"),
    }
    let container = node.engine().container(&id).await.unwrap();
    assert_eq!((container.state, container.exit_code), (ContainerState::Exited, Some(128)));
    assert_eq!(container.reason, "StartError");
    assert!(container.message.contains(text), "{}", container.message);
    node.engine().remove_container(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_cannot_be_executed_are_explained() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("bad").await;
    check_failure(&node, &sandbox, &["nosuch"], "exec: \"nosuch\": executable file not found in $PATH").await;
    check_failure(&node, &sandbox, &["/not-executable"], "exec: \"/not-executable\": permission denied").await;
    check_failure(&node, &sandbox, &["/no/such"], "no such file or directory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pod_is_seen_from_inside() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("view").await;
    let mut config =
        node.config("main", "hostname; cat /etc/hostname /etc/resolv.conf; echo $FROM $MINE; pwd; ls /sys/class/net");
    config.env = vec![("MINE".into(), "pod".into())];
    config.working_dir = "/made/on/demand".into();
    let (code, text) = node.output(&sandbox, config).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(text, "view\nview\nnameserver 10.43.0.10\nimage pod\n/made/on/demand\nlo\n");

    // What one container puts into shared memory the other one sees; its processes it does not.
    let first = node.run(&sandbox, "first", "echo hi > /dev/shm/x; touch /ready; sleep 1000").await;
    node.wait_ready(&first).await;
    let (_, text) = node.output(&sandbox, node.config("second", "cat /dev/shm/x; ps | grep -c 'sleep 100[0]'")).await;
    assert_eq!(text, "hi\n0\n");
    let (_, text) = node
        .output(&sandbox, node.config("cg", "ls /sys/fs/cgroup/memory/cgroup.procs && ! mkdir /sys/fs/cgroup/memory/x"))
        .await;
    assert!(text.contains("Read-only file system"), "{text}");
}

/// A working directory in a volume, of which the image has none: its own is hidden by the volume.
#[tokio::test(flavor = "multi_thread")]
async fn a_working_directory_is_made_in_its_volume() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("volume").await;
    let volume = node.dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let mounts = vec![runtime::api::Mount { host_path: volume.clone(), container_path: "/data".into(), ..Default::default() }];
    for (number, (working_dir, expected)) in
        [("/data/app", "/data/app"), ("/data/app/../other", "/data/other"), ("/../../tmp/up", "/tmp/up")].into_iter().enumerate()
    {
        let mut config = node.config(&format!("c{number}"), "pwd -P; touch made");
        (config.working_dir, config.mounts) = (working_dir.into(), mounts.clone());
        let (code, text) = node.output(&sandbox, config).await;
        assert_eq!((code, text.trim()), (0, expected), "{working_dir}");
    }
    assert!(volume.join("app/made").exists() && volume.join("other/made").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_can_be_shared() {
    let Some(node) = Node::start().await else { return };
    let config = runtime::api::SandboxConfig { pid: NamespaceMode::Pod, ..node.pod("shared") };
    let sandbox = node.engine().run_sandbox(config).await.unwrap().id;
    let first = node.run(&sandbox, "first", "touch /ready; sleep 1000").await;
    node.wait_ready(&first).await;
    let (_, text) = node.output(&sandbox, node.config("second", "ps | grep -c 'sleep 100[0]'")).await;
    assert_eq!(text, "1\n");
    // The init that all see gives nothing away, not even to a debugger: no file of the host, no descriptor, no rights.
    let look = "ls -A /proc/1/root | wc -l; ls /proc/1/fd | wc -l; readlink /proc/1/cwd; grep CapPrm /proc/1/status";
    let security = SecurityContext { add_capabilities: vec!["SYS_PTRACE".into()], ..SecurityContext::default() };
    let (_, text) = node.output(&sandbox, ContainerConfig { security, ..node.config("debugger", look) }).await;
    assert_eq!(text, "0\n1\n/\nCapPrm:\t0000000000000000\n");
    node.engine().stop_container(&first, Duration::ZERO, None).await.unwrap();
    assert_eq!(node.ended(&first).await.exit_code, Some(137));

    let config = runtime::api::SandboxConfig { host_network: true, pid: NamespaceMode::Node, ..node.pod("host") };
    let host = node.engine().run_sandbox(config).await.unwrap();
    assert_eq!(host.netns, None);
    let (_, text) =
        node.output(&host.id, node.config("h", &format!("test -d /proc/{} && echo yes; hostname", std::process::id()))).await;
    assert_eq!(text, format!("yes\n{}\n", nix::unistd::gethostname().unwrap().to_str().unwrap()));
}

async fn check_as(node: &Node, sandbox: &str, security: SecurityContext, script: &str, expected: &str) {
    let config = ContainerConfig { security, ..node.config("who", script) };
    // Logs are appended to, as after a restart of the same attempt.
    let _ = base::trees::remove(&node.dir.path().join("logs/who/who"));
    let (code, text) = node.output(sandbox, config).await;
    assert_eq!(text, expected, "{script}: {code}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_groups_and_privileges_are_as_told() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("who").await;
    let user = |uid| SecurityContext { run_as_user: Some(uid), ..SecurityContext::default() };
    let caps = "grep -E 'CapEff|NoNewPrivs' /proc/self/status";
    check_as(&node, &sandbox, user(1000), "id -u; id -G; echo $HOME", "1000\n1000 2000\n/home/web\n").await;
    let groups = SecurityContext { run_as_group: Some(7), supplemental_groups: vec![9], ..user(5) };
    check_as(&node, &sandbox, groups, "id -u; id -G", "5\n7 9\n").await;
    check_as(&node, &sandbox, SecurityContext::default(), caps, "CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\n").await;
    let dropped = SecurityContext {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        no_new_privs: true,
        ..Default::default()
    };
    check_as(&node, &sandbox, dropped, caps, "CapEff:\t0000000000000400\nNoNewPrivs:\t1\n").await;
    for no_new_privs in [false, true] {
        let confined = SecurityContext { seccomp: Some(Seccomp::RuntimeDefault), no_new_privs, ..Default::default() };
        let script = "grep -E 'CapEff|Seccomp:' /proc/self/status; mkdir /m; mount -t tmpfs none /m 2>&1";
        let seen = "CapEff:\t00000000a80425fb\nSeccomp:\t2\nmount: permission denied (are you root?)\n";
        check_as(&node, &sandbox, confined.clone(), script, seen).await;
        let user = SecurityContext { run_as_user: Some(1000), ..confined.clone() };
        let (eff, prm) = ("CapEff:\t0000000000000000\n", "CapBnd:\t00000000a80425fb\nSeccomp:\t2\n");
        check_as(&node, &sandbox, user, "grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status", &format!("{eff}{prm}")).await;
        let id = node.start_with(&sandbox, ContainerConfig { security: confined, ..node.config("exec", "sleep 1000") }).await;
        let output = node.exec(&id, "grep -E 'CapEff|Seccomp:' /proc/self/status").await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "CapEff:\t00000000a80425fb\nSeccomp:\t2\n");
    }
    let profile = node.dir.path().join("profile.json");
    let rules = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#;
    std::fs::write(&profile, rules).unwrap();
    let local = SecurityContext { seccomp: Some(Seccomp::Localhost(profile)), ..Default::default() };
    let refused = "mkdir: can't create directory '/d': Function not implemented\n";
    check_as(&node, &sandbox, local, "mkdir /d 2>&1", refused).await;
    let missing = SecurityContext { seccomp: Some(Seccomp::Localhost("/nowhere.json".into())), ..Default::default() };
    let config = ContainerConfig { security: missing, ..node.config("missing", "true") };
    let error = node.engine().create_container(&sandbox, config).await.unwrap_err().to_string();
    assert!(error.contains("cannot load seccomp profile /nowhere.json"), "{error}");
    let readonly = SecurityContext { readonly_rootfs: true, ..Default::default() };
    check_as(&node, &sandbox, readonly, "touch /x 2>/dev/null || echo refused", "refused\n").await;
    let plain = SecurityContext::default();
    check_as(
        &node,
        &sandbox,
        plain.clone(),
        "{ echo 1 > /proc/sys/kernel/printk; } 2>&1 || echo refused",
        "sh: can't create /proc/sys/kernel/printk: Read-only file system\nrefused\n",
    )
    .await;
    check_as(&node, &sandbox, plain, "test -e /dev/mem || echo none; touch /dev/null && echo null", "none\nnull\n").await;
    let privileged = SecurityContext { privileged: true, ..Default::default() };
    check_as(&node, &sandbox, privileged, "mkdir /m && mount -t tmpfs none /m && echo mounted", "mounted\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_in_place() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("mounts").await;
    let host = node.dir.path().join("volume");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("f"), "content").unwrap();
    let mount = |host_path: &std::path::Path, path: &str, readonly| Mount {
        host_path: host_path.into(),
        container_path: path.into(),
        readonly,
        ..Mount::default()
    };
    let mut config = node.config("main", "cat /ro/f /etc/hosts; touch /ro/x 2>&1 || echo refused; echo new > /rw/new");
    config.mounts = vec![mount(&host, "/rw", false), mount(&host, "/ro", true), mount(&host.join("f"), "/etc/hosts", false)];
    let (code, text) = node.output(&sandbox, config).await;
    assert_eq!(code, 0, "{text}");
    assert_eq!(text, "contentcontenttouch: /ro/x: Read-only file system\nrefused\n");
    assert_eq!(std::fs::read_to_string(host.join("new")).unwrap(), "new\n");
}

/// A profile for a container without new privileges has to allow what its own program needs, and nothing of the runtime's: the filter is
/// the last thing before execve, as with other OCI runtimes. One that refuses that, too, is told as the reason why nothing starts.
#[tokio::test(flavor = "multi_thread")]
async fn profiles_need_not_allow_what_the_runtime_does() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("who").await;
    let profile = |name: &str, text: &str| {
        let path = node.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(Seccomp::Localhost(path))
    };
    let refused = r#"["capget", "capset", "prctl", "close_range"]"#;
    let rules =
        format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": {refused}, "action": "SCMP_ACT_ERRNO"}}]}}"#);
    let own = SecurityContext { seccomp: profile("own.json", &rules), no_new_privs: true, ..Default::default() };
    let script = "grep -E 'CapEff|Seccomp:' /proc/self/status";
    let seen = "CapEff:\t00000000a80425fb\nSeccomp:\t2\n";
    check_as(&node, &sandbox, own.clone(), script, seen).await;
    let user = SecurityContext { run_as_user: Some(1000), ..own.clone() };
    check_as(&node, &sandbox, user, script, "CapEff:\t0000000000000000\nSeccomp:\t2\n").await;
    let id = node.start_with(&sandbox, ContainerConfig { security: own.clone(), ..node.config("exec", "sleep 1000") }).await;
    assert_eq!(String::from_utf8_lossy(&node.exec(&id, script).await.stdout), seen);
    let nothing = profile("nothing.json", r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#);
    let told = [
        (SecurityContext { no_new_privs: false, ..own.clone() }, "has to allow capset"),
        (SecurityContext { seccomp: nothing, ..own }, "does the seccomp profile refuse execve?"),
    ];
    for (security, text) in told {
        let id = node
            .engine()
            .create_container(&sandbox, ContainerConfig { security, ..node.config("told", "true") })
            .await
            .unwrap()
            .id;
        let error = node.engine().start_container(&id).await.unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        node.engine().remove_container(&id).await.unwrap();
    }
}

/// KEP-3857: what is mounted below a read-only mount can be written to, unless the mount is recursively read-only.
#[tokio::test(flavor = "multi_thread")]
async fn recursive_read_only_mounts_hold_for_what_is_below() {
    let Some(node) = Node::start().await else { return };
    if !node.engine().features().recursive_readonly {
        eprintln!("SKIPPED: this kernel has no mount_setattr");
        return;
    }
    let sandbox = node.sandbox("below").await;
    let host = node.dir.path().join("volume");
    std::fs::create_dir_all(host.join("below")).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("none"), &host.join("below"), Some("tmpfs"), flags, None::<&str>).unwrap();
    let mount = |path: &str, recursive_readonly| Mount {
        host_path: host.clone(),
        container_path: path.into(),
        readonly: true,
        recursive_readonly,
        ..Mount::default()
    };
    let mut config = node
        .config("main", "for d in /plain /all; do touch $d/x || echo $d; touch $d/below/x || echo $d/below; done 2>/dev/null");
    config.mounts = vec![mount("/plain", false), mount("/all", true)];
    let output = node.output(&sandbox, config).await;
    nix::mount::umount2(&host.join("below"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(output, (0, "/plain\n/all\n/all/below\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_gives_a_chance_and_then_none() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("stop").await;
    let kind = node.run(&sandbox, "kind", "trap 'exit 7' TERM; touch /ready; while true; do sleep 0.05; done").await;
    node.wait_ready(&kind).await;
    node.engine().stop_container(&kind, Duration::from_secs(50), None).await.unwrap();
    assert_eq!(node.ended(&kind).await.exit_code, Some(7));
    node.engine().stop_container(&kind, Duration::ZERO, None).await.unwrap();

    let other = node.run(&sandbox, "other", "trap 'exit 8' INT; touch /ready; while true; do sleep 0.05; done").await;
    node.wait_ready(&other).await;
    node.engine().stop_container(&other, Duration::from_secs(50), Some("SIGINT")).await.unwrap();
    assert_eq!(node.ended(&other).await.exit_code, Some(8));

    let deaf = node.run(&sandbox, "deaf", "trap '' TERM; touch /ready; while true; do sleep 1; done").await;
    node.wait_ready(&deaf).await;
    assert!(node.engine().remove_container(&deaf).await.is_err(), "it runs");
    node.engine().stop_container(&deaf, Duration::from_millis(200), None).await.unwrap();
    let ended = node.ended(&deaf).await;
    assert_eq!((ended.exit_code, ended.signal), (Some(137), Some(9)));
    node.engine().remove_container(&deaf).await.unwrap();
    node.engine().stop_sandbox(&sandbox).await.unwrap();
    assert_eq!(node.engine().sandboxes().await.unwrap()[0].state, SandboxState::NotReady);
    assert!(node.engine().create_container(&sandbox, node.config("late", "true")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_memory_hogs_are_named() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("limits").await;
    let resources = Resources {
        memory_limit: Some(24 << 20),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(512),
        pids_limit: Some(50),
        oom_score_adj: Some(-998),
        ..Resources::default()
    };
    let mut config = node.config("hog", "touch /ready; tail /dev/zero");
    config.resources = resources.clone();
    let id = node.start_with(&sandbox, config).await;
    let ended = node.ended(&id).await;
    assert_eq!((ended.exit_code, ended.reason.as_str()), (Some(137), "OOMKilled"));

    let mut config = node.config("limited", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/pids/pids.max");
    config.resources = resources;
    if std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        assert_eq!(node.output(&sandbox, config).await.1, "25165824\n50000\n512\n50\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_while_a_container_runs() {
    let Some(node) = Node::start().await else { return };
    let limits = |mebibytes: i64, quota: Option<i64>| Resources {
        memory_limit: Some(mebibytes << 20),
        cpu_quota: quota,
        cpu_period: quota.map(|_| 100_000),
        cpu_shares: Some(512),
        ..Resources::default()
    };
    let engine = node.engine();
    let config = runtime::api::SandboxConfig { resources: limits(64, Some(50_000)), ..node.pod("resized") };
    let sandbox = engine.run_sandbox(config).await.unwrap().id;
    let mut config = node.config("main", "touch /ready; sleep 1000");
    config.resources = limits(64, Some(50_000));
    let id = node.start_with(&sandbox, config).await;
    node.wait_ready(&id).await;
    let shown = async || {
        let files =
            "cd /sys/fs/cgroup; cat memory.max cpu.max 2>/dev/null || cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us";
        let output =
            engine.exec_sync(&id, &["sh".into(), "-c".into(), files.into()], Duration::from_secs(10), 1000).await.unwrap();
        String::from_utf8(output.stdout).unwrap().split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    let notes = |text: &str| std::collections::BTreeMap::from([("note".to_owned(), text.to_owned())]);
    engine.update_sandbox(&sandbox, limits(128, Some(80_000))).await.unwrap();
    engine.update_container(&id, limits(128, Some(80_000)), notes("larger")).await.unwrap();
    assert_eq!(shown().await, "134217728 80000");
    assert_eq!(engine.container(&id).await.unwrap().annotations, notes("larger"));
    engine.update_container(&id, limits(32, Some(20_000)), notes("smaller")).await.unwrap();
    engine.update_sandbox(&sandbox, limits(32, Some(20_000))).await.unwrap();
    assert_eq!(shown().await, "33554432 20000");
    assert_eq!(engine.sandboxes().await.unwrap()[0].resources, limits(32, Some(20_000)));
    let refused = engine.update_container(&id, limits(0, None).clone(), notes("free")).await;
    assert!(refused.is_ok(), "no limit is a limit, too: {refused:?}");
    let page = Resources { memory_limit: Some(4096), ..Resources::default() };
    let refused = engine.update_container(&id, page, notes("tiny")).await.unwrap_err().to_string();
    assert!(refused.contains("attempting to set memory limit (4096) below current usage"), "{refused}");
    assert_eq!(engine.container(&id).await.unwrap().annotations, notes("free"));
    engine.stop_container(&id, Duration::ZERO, None).await.unwrap();
    assert!(engine.update_container(&id, limits(64, None), notes("late")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_rotate() {
    let Some(node) = Node::start().await else { return };
    let sandbox = node.sandbox("logs").await;
    let mut config = node.config("main", "for i in $(seq 1 2000); do echo line $i; done");
    config.log_limit = Some((20_000, 3));
    let id = node.start_with(&sandbox, config).await;
    let ended = node.ended(&id).await;
    let files = std::fs::read_dir(ended.log_path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 3);
    let rest = log_text(&ended.log_path);
    assert!(rest.is_empty() || rest.ends_with("line 2000\n"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_oci_runtime_can_be_named() {
    let Some(node) = Node::start().await else { return };
    let unknown = node.engine().check_handler("kata").await.unwrap_err().to_string();
    assert!(unknown.contains("no runtime handler \"kata\""), "{unknown}");
    if let Err(error) = node.engine().check_handler("runc").await {
        assert!(error.to_string().contains("install the program runc"), "{error}");
        eprintln!("SKIPPED: {error}");
        return;
    }
    let config = runtime::api::SandboxConfig { runtime_handler: "runc".into(), ..node.pod("runc") };
    let sandbox = node.engine().run_sandbox(config).await.unwrap().id;
    let (code, text) = node.output(&sandbox, node.config("main", "echo by runc; exit 4")).await;
    assert_eq!((code, text.as_str()), (4, "by runc\n"));
    let id = node.run(&sandbox, "long", "touch /ready; sleep 1000").await;
    assert_eq!(node.exec(&id, "echo exec").await.stdout, b"exec\n");
    let confined = SecurityContext { seccomp: Some(Seccomp::RuntimeDefault), ..Default::default() };
    let script = "grep Seccomp: /proc/self/status; mkdir /m; mount -t tmpfs none /m 2>&1";
    check_as(&node, &sandbox, confined, script, "Seccomp:\t2\nmount: permission denied (are you root?)\n").await;
    check_failure(&node, &sandbox, &["nosuch"], "exec: \"nosuch\": executable file not found in $PATH").await;
    node.engine().remove_sandbox(&sandbox).await.unwrap();
}

/// KEP-3619: "ContainerStatus ... the user information initially attached to the first process in the container". It outlives the engine, and
/// changes of the container.
#[tokio::test(flavor = "multi_thread")]
async fn who_a_container_begins_as_is_told() {
    let Some(mut node) = Node::start().await else { return };
    let sandbox = node.sandbox("user").await;
    let mut config = node.config("user", "touch /tmp/ready; exec sleep 100000");
    config.security.run_as_user = Some(1000);
    config.security.run_as_group = Some(3000);
    config.security.supplemental_groups = vec![4000];
    let id = node.start_with(&sandbox, config).await;
    // The image has the user in the group 2000.
    let expected = Some(ProcessUser { uid: 1000, gid: 3000, groups: vec![3000, 2000, 4000] });
    assert_eq!(node.engine().container(&id).await.unwrap().user, expected);
    node.engine().update_container(&id, Resources::default(), Default::default()).await.unwrap();
    node.close().await;
    node.open().await;
    assert_eq!(node.engine().container(&id).await.unwrap().user, expected);
}

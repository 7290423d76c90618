//! What a process finds that starts in a container: nothing of the server and the shim.

use std::time::Duration;

use runtime::api::{ContainerConfig, ExecRequest, Runtime, SandboxConfig, SecurityContext};
use tokio::io::AsyncReadExt;

use crate::support::{LONG, Node, OUTPUT, log_text};

/// Makes this process a bad parent: what it ignores and blocks is inherited by the shims that it starts.
fn misbehave() {
    let ignore = [1_u64, 0, 0, 0];
    for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, 32, 33, 40] {
        // SAFETY: the kernel's structure with SIG_IGN as handler; the old action is not asked for.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &ignore, std::ptr::null::<u64>(), 8) };
    }
    let mut mask = nix::sys::signal::SigSet::empty();
    mask.add(nix::sys::signal::Signal::SIGTERM);
    mask.add(nix::sys::signal::Signal::SIGUSR2);
    mask.thread_block().unwrap();
}

/// The lines of `/proc/PID/status` that a parent leaves its mark on.
fn check_status(way: &str, status: &str) {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("{way}: no {name} in {status:?}")).trim().to_owned()
    };
    let own = |name: &str| field(name).split_whitespace().last().unwrap().to_owned();
    for name in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
        assert_eq!(field(name), "0000000000000000", "{way}: {name}");
    }
    assert_eq!(field("Umask"), "0022", "{way}: Umask");
    assert_eq!(own("NSsid"), own("NSpid"), "{way}: leads its session");
    assert_eq!(own("NSpgid"), own("NSpid"), "{way}: leads its process group");
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Runs `words` in every way that something starts in a container: what each printed.
async fn every_way(node: &Node, sandbox: &str, words: &[&str], security: &SecurityContext) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    let engine = node.engine();
    for tty in [false, true] {
        let name = format!("init-{tty}-{}", uuid::Uuid::new_v4().simple());
        let config = ContainerConfig { command: command(words), tty, security: security.clone(), ..node.config(&name, "") };
        let id = node.start_with(sandbox, config).await;
        seen.push((format!("init, terminal {tty}"), log_text(&node.ended(&id).await.log_path)));
        let config = ContainerConfig { tty, security: security.clone(), ..node.config(&format!("of-{name}"), "sleep 1000") };
        let id = node.start_with(sandbox, config).await;
        // Probes and hooks.
        let output = engine.exec_sync(&id, &command(words), LONG, OUTPUT).await.unwrap();
        seen.push(("exec_sync".to_owned(), String::from_utf8(output.stdout).unwrap()));
        let request = ExecRequest { command: command(words), tty, stdin: true, stdout: true, stderr: true };
        let mut streams = engine.exec(&id, request).await.unwrap();
        let mut text = String::new();
        let mut stdout = streams.stdout.take().unwrap();
        tokio::time::timeout(LONG, stdout.read_to_string(&mut text)).await.unwrap().unwrap();
        seen.push((format!("exec, terminal {tty}"), text));
        engine.stop_container(&id, Duration::ZERO, None).await.unwrap();
    }
    seen.into_iter().map(|(way, text)| (way, text.replace('\r', ""))).collect()
}

async fn check_births(node: &Node, sandbox: &str, security: &SecurityContext) {
    for (way, status) in every_way(node, sandbox, &["cat", "/proc/self/status"], security).await {
        check_status(&way, &status);
    }
    // The fourth is the directory that is being read.
    for (way, files) in every_way(node, sandbox, &["ls", "/proc/self/fd"], security).await {
        assert_eq!(files.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "{way}");
    }
    let known = ["PATH", "HOSTNAME", "FROM", "HOME", "TERM"];
    for (way, env) in every_way(node, sandbox, &["env"], security).await {
        let names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
        assert!(!names.is_empty() && names.iter().all(|name| known.contains(name)), "{way}: {names:?}");
    }
}

fn run(test: impl AsyncFnOnce(Node)) {
    // Before there are threads: a mask is a thread's, and new ones inherit it.
    misbehave();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Some(node) = Node::start().await else { return };
        // From here on: the image is unpacked.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
        test(node).await;
    });
}

#[test]
fn processes_inherit_nothing_of_the_server_or_the_shim() {
    run(async |node| {
        let sandbox = node.sandbox("birth").await;
        check_births(&node, &sandbox, &SecurityContext::default()).await;
        let seccomp = Some(runtime::api::Seccomp::RuntimeDefault);
        let confined = SecurityContext { run_as_user: Some(1000), seccomp, ..SecurityContext::default() };
        check_births(&node, &sandbox, &confined).await;
    });
}

#[test]
fn processes_of_another_oci_runtime_inherit_nothing_either() {
    run(async |node| {
        if let Err(error) = node.engine().check_handler("runc").await {
            eprintln!("SKIPPED: {error}");
            return;
        }
        let config = SandboxConfig { runtime_handler: "runc".into(), ..node.pod("birth") };
        let sandbox = node.engine().run_sandbox(config).await.unwrap().id;
        for (way, status) in every_way(&node, &sandbox, &["cat", "/proc/self/status"], &SecurityContext::default()).await {
            check_status(&way, &status);
        }
    });
}

#[test]
fn a_shell_hears_of_the_end_of_its_children() {
    run(async |node| {
        let sandbox = node.sandbox("wait").await;
        let (code, text) = node.output(&sandbox, node.config("main", "sleep 0.1 & wait $!; echo waited $?")).await;
        assert_eq!((code, text.as_str()), (0, "waited 0\n"));
        let id = node.run(&sandbox, "other", "sleep 1000").await;
        let output = node.exec(&id, "sleep 0.1 & wait $!; echo waited $?").await;
        assert_eq!(output.stdout, b"waited 0\n");
    });
}

#[test]
fn what_a_container_writes_into_its_files_is_bounded() {
    run(async |node| {
        let sandbox = node.sandbox("files").await;
        let fill = "for f in hostname resolv.conf; do dd if=/dev/zero of=/etc/$f bs=1M count=80 2>&1 | grep -c 'No space left'; done; \
                    cat /etc/hostname /etc/resolv.conf | wc -c; dd if=/dev/zero of=/dev/shm/x bs=4k count=1 2>&1 | grep -c 'No space left'";
        let (_, text) = node.output(&sandbox, node.config("main", fill)).await;
        assert_eq!(text, format!("1\n1\n{}\n1\n", 64 << 20), "one limit for all that the pod shares");
        // Another pod has its own.
        let other = node.sandbox("other").await;
        let (_, text) = node.output(&other, node.config("main", "echo x >> /etc/hostname && cat /etc/hostname")).await;
        assert_eq!(text, "other\nx\n");
        for id in [sandbox, other] {
            node.engine().remove_sandbox(&id).await.unwrap();
        }
    });
}

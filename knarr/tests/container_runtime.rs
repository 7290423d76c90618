//! A node whose pods are run by another program: containerd and runc, which `cargo xtask clients` fetches.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testing::kubectl::Background;
use testing::programs::fetched;
use testing::{Cluster, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");

const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  terminationGracePeriodSeconds: 0
  hostNetwork: true
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "echo begun; mkdir /www; echo served > /www/index.html; exec httpd -f -p 8181 -h /www"]
      readinessProbe: {exec: {command: [cat, /www/index.html]}, periodSeconds: 1}
      resources: {limits: {memory: 64Mi, cpu: 500m}}
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      command: [sh, -c, "echo begun; mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www"]
      readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: 127.0.0.1:5000/busybox:1.36
      stdin: true
      command: [sh, -c, "while read -r line; do echo got $line; done; echo over; exec sleep 1000"]
"#;

/// Its process, which ends with the machine; and what it logs.
fn containerd(c: &Cluster) -> Child {
    let program = fetched("containerd/usr/bin/containerd", "KNARR_CONTAINERD", "clients");
    let directory = c.scratch().join("containerd");
    fs::create_dir_all(&directory).unwrap();
    let configuration = format!(
        r#"
version = 3
root = "{0}/root"
state = "/run/containerd"
[grpc]
address = "/run/containerd.sock"
[ttrpc]
address = "/run/containerd.ttrpc"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "127.0.0.1:5000/agnhost:2.21"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
conf_dir = "{0}/net.d"
bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
        directory.display()
    );
    fs::write(directory.join("config.toml"), configuration).unwrap();
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = c.machine().command(&program);
    // Its shim is beside it.
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    command.arg("--config").arg(directory.join("config.toml")).env("PATH", path);
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

fn network(c: &Cluster, range: &str) {
    let directory = c.scratch().join("containerd/net.d");
    fs::create_dir_all(&directory).unwrap();
    let leases = c.scratch().join("leases");
    let text = format!(
        r#"{{"cniVersion": "1.0.0", "name": "net", "plugins": [{{"type": "ptp", "ipam": {{"type": "host-local", "dataDir": "{}",
        "routes": [{{"dst": "0.0.0.0/0"}}], "ranges": [[{{"subnet": "{range}"}}]]}}}}]}}"#,
        leases.display()
    );
    fs::write(directory.join("10-net.conflist"), text).unwrap();
}

fn end(mut child: Child) {
    let pid = testing::machine::child_of(child.id() as i32);
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

/// Commands run as with the built-in runtime: with outputs, exit codes, input that ends, terminals, and clients that go away.
fn sessions(c: &Cluster) {
    let shell = |script: &str| c.try_kubectl(&["exec", "web", "--", "sh", "-c", script]);
    let both = shell("echo out; echo err >&2; exit 3");
    assert_eq!((both.stdout.as_str(), both.code), ("out\n", Some(3)), "{}", both.stderr);
    assert!(both.stderr.starts_with("err\n"), "{}", both.stderr);
    let missing = c.try_kubectl(&["exec", "web", "--", "no-such-command"]);
    assert!(missing.code != Some(0) && missing.stderr.contains("no-such-command"), "{missing:?}");

    // More than fits any buffer on the way; the command ends because its input does.
    let large: String = (0..1 << 18).map(|number| format!("{number:015}\n")).collect();
    assert!(c.k_with("exec -i web -- cat", &large) == large);
    let count = shell("head -c 20000000 /dev/zero | tr '\\0' x");
    assert_eq!((count.stdout.len(), count.code), (20_000_000, Some(0)), "{}", count.stderr);

    let until = "until [ \\\"$(stty size)\\\" = \\\"33 77\\\" ]; do sleep 0.1; done; echo sized; tty; read x; exit 5";
    let kubectl = testing::kubectl::program();
    let line = format!("version --client; stty rows 33 cols 77; {} exec -it web -- sh -c \"{until}\"", kubectl.display());
    let mut terminal = c.on_terminal(&line);
    terminal.line("sized");
    terminal.line("/dev/pts/");
    terminal.write("\n");
    assert_eq!(terminal.finish().1, Some(5));

    let mut gone = Background::spawn(&mut c.kubectl_command(&["exec", "-i", "web", "--", "sh", "-c", "cat; true"]));
    gone.write("here\n");
    gone.line("here");
    let runs = || c.kubectl(&["exec", "web", "--", "ps"]).contains("cat; true");
    assert!(runs());
    gone.stop();
    eventually("a command whose client has gone ends", || (!runs()).then_some(()));
}

/// Input reaches the container, and what it says comes back; it goes on when the client has gone.
fn attached(c: &Cluster) {
    for word in ["hello", "again"] {
        let mut client = c.background("attach -i echo");
        client.write(&format!("{word}\n"));
        client.line(&format!("got {word}"));
        client.stop();
    }
    assert_eq!(c.k("logs echo"), "got hello\ngot again\n");
}

/// Pods are made, probed, reached and removed; neither a restart of Knarr nor one of containerd restarts a container.
#[test]
#[ignore = "needs containerd and runc: cargo xtask clients"]
fn containerd_runs_the_pods() {
    let mut c = Cluster::prepare(KNARR);
    let runtime = containerd(&c);
    let socket = c.machine().path("/run/containerd.sock".as_ref());
    eventually("containerd listens", || socket.exists().then_some(()));
    network(&c, "10.42.0.0/24");
    let plugins = c.scratch().join("containerd/net.d").display().to_string();
    let options =
        ["--container-runtime-endpoint", "unix:///run/containerd.sock", "--pod-network", "cni", "--cni-conf-dir", &plugins];
    c.start_server_with(&options);
    let version = c.k("get node n1 -o jsonpath={.status.nodeInfo.containerRuntimeVersion}");
    assert!(version.starts_with("containerd://2."), "{version}");
    eventually("there is a service account", || {
        (c.try_kubectl(&["get", "serviceaccount", "default"]).code == Some(0)).then_some(())
    });
    c.k_with("apply -f -", PODS);
    c.k("wait --for=condition=Ready pod/host pod/web pod/echo --timeout=60s");
    assert_eq!(c.k("logs host").trim(), "begun");
    assert!(c.k("get pod web -o jsonpath={.status.podIP}").starts_with("10.42.0."));
    sessions(&c);
    attached(&c);

    let seen = "get pods -o jsonpath={.items[*].status.containerStatuses[0]['containerID','restartCount']}";
    let before = c.k(seen);
    c.kill_server();
    c.start_server_with(&options);
    c.k("wait --for=condition=Ready pod/host pod/web --timeout=60s");
    assert_eq!(c.k(seen), before, "Knarr finds its pods again");
    end(runtime);
    let runtime = containerd(&c);
    // It answers when it has read what it had.
    eventually("new pods are made again", || {
        let line = "run once --image=127.0.0.1:5000/busybox:1.36 --restart=Never --command -- true";
        let ended = "get pod once -o jsonpath={.status.phase}";
        let _ = c.try_kubectl(&line.split(' ').collect::<Vec<_>>());
        (c.k(ended) == "Succeeded").then_some(())
    });
    let after = c.k(seen);
    let still = before.split(' ').filter(|word| word.starts_with("containerd://")).all(|container| after.contains(container));
    assert!(still && !before.contains(" 1"), "containers of before still run: {before}, {after}");

    c.k("delete pod host web echo once");
    eventually("nothing is left", || {
        let programs = c.machine().processes();
        (!programs.iter().any(|(_, line)| line.contains("httpd") || line.contains("containerd-shim"))).then_some(())
    });
    let records = c.data_dir().join("cri");
    eventually("what was kept of the pods is gone", || (fs::read_dir(&records).unwrap().count() == 0).then_some(()));
    end(runtime);
}

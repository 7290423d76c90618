//! The server and shims are killed at random moments of pods' lives: nothing runs twice, nothing is lost, nothing is left.
//!
//! A few rounds by default; `cargo xtask kills` makes many. A seed makes the same pods and pauses again, though not the same moments of
//! the machine. With `--other BINARY` each server is of the other build than the one before it: upgrades and ways back, with pods that
//! begin, run and end.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testing::{Cluster, eventually, eventually_or};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const PODS: usize = 4;

/// The server is killed while these live. `stays` must never be started again; `ends` has an exit code that must come to the API.
const STAYS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {kind: stays}}
spec:
  hostUsers: USERS
  terminationGracePeriodSeconds: 1
  initContainers:
    - {name: init, image: "127.0.0.1:5000/busybox:1.36", command: [sh, -c, "echo made > /data/file"], volumeMounts: [{name: data, mountPath: /data}]}
    - {name: side, image: "127.0.0.1:5000/busybox:1.36", command: [sleep, "100000"], restartPolicy: Always,
       lifecycle: {preStop: {exec: {command: ["true"]}}}}
  containers:
    - {name: main, image: "127.0.0.1:5000/busybox:1.36", command: [sh, -c, "cat /data/file && exec sleep 100000"],
       volumeMounts: [{name: data, mountPath: /data}, {name: memory, mountPath: /memory}],
       readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}}
  volumes: [{name: data, emptyDir: {}}, {name: memory, emptyDir: {medium: Memory}}]
"#;

const ENDS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {kind: ends}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "127.0.0.1:5000/busybox:1.36", command: [sh, -c, "sleep 0.PAUSE; exit CODE"]}]
"#;

/// A small generator (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Lets so much time pass: the moment of a kill is what this is about.
fn pass(c: &Cluster, milliseconds: u64) {
    c.api().block_on(async { tokio::time::sleep(Duration::from_millis(milliseconds)).await });
}

fn pods(c: &Cluster) -> Vec<Value> {
    c.api().object("/api/v1/namespaces/default/pods")["items"].as_array().unwrap().clone()
}

/// Kills the server and starts it again, of the `other` build where there is one, which is the running one's from then on.
fn restart(c: &mut Cluster, other: &mut Option<PathBuf>) {
    c.kill_server();
    if let Some(other) = other {
        *other = c.set_binary(&*other);
    }
    c.start_server();
}

/// What a pod may leave behind on its node, as text; empty when nothing is there.
fn traces(c: &Cluster) -> String {
    let pid = c.server_pid();
    let data = c.data_dir();
    let mut found = Vec::new();
    let ours = |line: &str| line.contains("knarr shim ") || line.contains("sleep 100000") || line.contains(" oci-helper ");
    found.extend(
        c.machine().processes().into_iter().filter(|(_, line)| ours(line)).map(|(pid, line)| format!("process {pid}: {line}")),
    );
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let run = c.run_dir();
    assert!(c.machine().path(&run).is_dir(), "{} is there while the server runs", run.display());
    let (kubelet, runtime) = (data.join("kubelet/pods"), data.join("runtime/containers"));
    // The machine sees what else is mounted on this one.
    let of_pods = |point: &&str| [&kubelet, &runtime, &run].iter().any(|directory| Path::new(point).starts_with(directory));
    found.extend(points.filter(of_pods).map(|point| format!("mount {point}")));
    let run = run.display();
    let script = format!(
        "ls -d /sys/fs/cgroup/knarr*/kubepods/pod* /sys/fs/cgroup/knarr*/kubepods/*/pod* \
        /sys/fs/cgroup/*/knarr*/kubepods/pod* /sys/fs/cgroup/*/knarr*/kubepods/*/pod* {run}/sandboxes/* {run}/netns/* {run}/oci/* {run}/users/* 2>/dev/null; true"
    );
    let listed = c.machine().command(Path::new("sh")).args(["-c", &script]).output().unwrap();
    found.extend(String::from_utf8(listed.stdout).unwrap().lines().map(|line| format!("file {line}")));
    for directory in ["kubelet/pods", "runtime/containers", "logs", "network/leases"] {
        let entries = std::fs::read_dir(c.machine().path(&data.join(directory))).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name != "last").map(|name| format!("{directory}/{name}")));
    }
    let links = c.machine().command(Path::new("ip")).args(["-o", "link", "show", "master", "knarr0"]).output().unwrap();
    found.extend(String::from_utf8(links.stdout).unwrap().lines().map(|line| format!("interface {line}")));
    found.join("\n")
}

/// Makes pods, kills the server somewhere in their begin, and sees that each came to be once.
fn begin(c: &mut Cluster, other: &mut Option<PathBuf>, random: &mut Random, round: u64) -> BTreeMap<String, u64> {
    let mut codes = BTreeMap::new();
    let kill_at = random.below(PODS as u64);
    for number in 0..PODS as u64 {
        let name = format!("r{round}-{number}");
        let manifest = if random.below(3) == 0 {
            let code = 1 + random.below(100);
            codes.insert(name.clone(), code);
            ENDS.replace("PAUSE", &random.below(10).to_string()).replace("CODE", &code.to_string())
        } else {
            STAYS.replace("USERS", if random.below(3) == 0 { "false" } else { "true" })
        };
        c.k_with("create -f -", &manifest.replace("NAME", &name));
        if number == kill_at {
            let pause = random.below(700);
            pass(c, pause);
            restart(c, other);
        }
    }
    codes
}

fn check_begun(c: &Cluster, codes: &BTreeMap<String, u64>) {
    eventually_or("all pods are ready or have ended", || {
        let settled = |pod: &Value| {
            let is = |kind: &str| {
                pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
            };
            match codes.contains_key(pod["metadata"]["name"].as_str().unwrap()) {
                true => matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")),
                false => is("Ready"),
            }
        };
        let wanting: Vec<String> = pods(c).iter().filter(|pod| !settled(pod)).map(ToString::to_string).collect();
        if wanting.is_empty() { Ok(()) } else { Err(wanting.join("\n")) }
    });
    for pod in pods(c) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        if let Some(code) = codes.get(name) {
            let told = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
            assert_eq!(told["exitCode"], *code, "the exit code of {name}: {told}");
            continue;
        }
        let lists = ["initContainerStatuses", "containerStatuses"]
            .map(|list| pod["status"][list].as_array().cloned().unwrap_or_default());
        for status in lists.iter().flatten() {
            assert!(status["restartCount"] == 0, "{name} was restarted: {status}");
        }
    }
}

/// Kills the shim of a pod that stays. Its containers go with it, and come back.
fn kill_a_shim(c: &Cluster, random: &mut Random) -> bool {
    let shims: Vec<_> = c.machine().processes().into_iter().filter(|(_, line)| line.contains("knarr shim ")).collect();
    if shims.is_empty() {
        return false;
    }
    let (pid, _) = &shims[usize::try_from(random.below(shims.len() as u64)).unwrap()];
    // It may have ended by itself.
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    true
}

#[test]
fn nothing_is_lost_and_nothing_is_left() {
    let (rounds, seed) = (setting("KNARR_KILLS", 2), setting("KNARR_SEED", 1));
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut other = std::env::var_os("KNARR_OTHER").map(PathBuf::from);
    let mut c = Cluster::start(KNARR);
    for round in 0..rounds {
        eprintln!("round {round} of {rounds}, seed {seed}");
        let codes = begin(&mut c, &mut other, &mut random, round);
        check_begun(&c, &codes);
        let kills_shim = random.below(2) == 0 && kill_a_shim(&c, &mut random);
        if kills_shim {
            let pause = random.below(300);
            pass(&c, pause);
            restart(&mut c, &mut other);
            eventually("the containers of the killed shim run again", || traces(&c).contains("sleep 100000").then_some(()));
        }
        c.k("delete pods --all --wait=false");
        let pause = random.below(1200);
        pass(&c, pause);
        restart(&mut c, &mut other);
        c.k("wait --for=delete pod --all --timeout=60s");
        let mut shown = String::new();
        eventually("nothing is left of the pods", || {
            let left = traces(&c);
            if left != shown {
                eprintln!("left:\n{left}");
                shown.clone_from(&left);
            }
            left.is_empty().then_some(())
        });
    }
}

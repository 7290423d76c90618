//! Volumes that another host exports by NFS (API `NFSVolumeSource`).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testing::{Cluster, Outcome, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";
/// The host that exports, and its address.
const HOST: u8 = 3;
const SERVER: &str = "192.168.77.3";

/// Has a host export a directory of the machine, which is the root of version 4, and gives it.
fn serve(c: &mut Cluster) -> PathBuf {
    c.add_host(HOST);
    let programs = std::env::var("KNARR_TEST_NFS").expect("KNARR_TEST_NFS: where the packages of the server are unpacked");
    let (script, export, log) = (c.scratch().join("nfs.sh"), c.scratch().join("export"), c.scratch().join("nfs.log"));
    std::fs::write(&script, include_str!("nfs.sh")).unwrap();
    let log_file = std::fs::File::create(&log).unwrap();
    let mut command = c.on_host(HOST, "sh");
    let served = command
        .arg("-x")
        .arg(&script)
        .arg(&programs)
        .arg(&export)
        .stdout(log_file.try_clone().unwrap())
        .stderr(log_file)
        .status()
        .unwrap();
    assert!(served.success(), "{}", std::fs::read_to_string(&log).unwrap());
    c.machine().path(&export)
}

/// A pod that sleeps, with a volume at `/data`.
fn pod(name: &str, volume: &Value, mount: &Value) -> String {
    let mut mounted = json!({"name": "v", "mountPath": "/data"});
    mounted.as_object_mut().unwrap().extend(mount.as_object().cloned().unwrap_or_default());
    let mut volume = volume.clone();
    volume["name"] = json!("v");
    // Who is to be killed at its end is killed: a shell would finish what it waits for.
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1, "securityContext": {"fsGroup": 4242}, "volumes": [volume],
        "containers": [{"name": "c", "image": BUSYBOX, "command": ["sleep", "100000"], "volumeMounts": [mounted]}]}})
    .to_string()
}

/// A PersistentVolume with its claim.
fn claimed(name: &str, path: &str, options: &[&str]) -> String {
    let (modes, room) = (json!(["ReadWriteMany"]), json!({"storage": "1Gi"}));
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "nfs": {"server": SERVER, "path": path}, "mountOptions": options, "accessModes": modes, "capacity": room, "storageClassName": ""}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": modes, "resources": {"requests": room}, "storageClassName": "", "volumeName": name}});
    json!({"apiVersion": "v1", "kind": "List", "items": [volume, claim]}).to_string()
}

fn of_claim(name: &str, read_only: bool) -> Value {
    json!({"persistentVolumeClaim": {"claimName": name, "readOnly": read_only}})
}

fn inline(path: &str) -> Value {
    json!({"nfs": {"server": SERVER, "path": path}})
}

fn start(c: &Cluster, pod: &str) {
    c.k_with("apply -f -", pod);
}

fn ready(c: &Cluster, names: &str) {
    c.k(&format!("wait --for=condition=Ready --timeout=600s {names}"));
}

fn run(c: &Cluster, pod: &str, script: &str) -> Outcome {
    c.try_kubectl(&["exec", pod, "--", "sh", "-c", script])
}

/// What the machine has mounted by NFS: a line for each.
fn mounted(c: &Cluster) -> Vec<String> {
    let table = Outcome::of(c.machine().command(Path::new("cat")).arg("/proc/self/mountinfo")).stdout;
    table.lines().filter(|line| line.contains(" - nfs ") || line.contains(" - nfs4 ")).map(str::to_owned).collect()
}

/// Volumes of pods and of claims, of all versions, with options and sub paths: one export is shared, and nobody is given what is in it.
fn pods_share(c: &Cluster, export: &Path) {
    start(c, &pod("inline", &inline("/data"), &json!({})));
    c.k_with("apply -f -", &claimed("shared", "/data", &["vers=4.1", "noatime", "timeo=50"]));
    start(c, &pod("writes", &of_claim("shared", false), &json!({"subPath": "sub/of/it"})));
    start(c, &pod("reads", &of_claim("shared", true), &json!({})));
    // The path of version 3 is the server's own.
    let own = c.scratch().join("export/data").display().to_string();
    c.k_with("apply -f -", &claimed("old", &own, &["vers=3", "nolock"]));
    start(c, &pod("old", &of_claim("old", false), &json!({})));
    ready(c, "pod/inline pod/writes pod/reads pod/old");

    assert_eq!(run(c, "inline", "echo one >/data/file").code, Some(0));
    assert_eq!(run(c, "writes", "echo two >/data/file").code, Some(0));
    for reader in ["reads", "old"] {
        eventually("what one writes others read", || {
            (run(c, reader, "cat /data/file /data/sub/of/it/file").stdout == "one\ntwo\n").then_some(())
        });
    }
    let refused = run(c, "reads", "echo three >/data/file");
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(export.join("data/sub/of/it/file")).unwrap(), "two\n");
    // fsGroup: volumes of this kind are not managed.
    let shown = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(export.join("data")).unwrap());
    assert_eq!(shown, 0);
    let table = mounted(c);
    let has = |words: &[&str]| table.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(has(&["kubernetes.io~nfs/v", "vers=4.2", " rw"]), "{table:?}");
    assert!(has(&["kubernetes.io~local-volume/v", "noatime", "vers=4.1", "timeo=50"]), "{table:?}");
    assert!(has(&["kubernetes.io~local-volume/v ro", "vers=4.1"]), "{table:?}");
    assert!(has(&["kubernetes.io~local-volume/v", "vers=3", "nolock"]), "{table:?}");
}

/// What a server or this node refuses is told.
fn refusals_are_told(c: &Cluster) {
    start(c, &pod("none", &inline("/none"), &json!({})));
    c.k_with("apply -f -", &claimed("locks", "/data", &["vers=3"]));
    start(c, &pod("locks", &of_claim("locks", false), &json!({})));
    c.told(
        "--field-selector involvedObject.name=none",
        &["MountVolume.SetUp failed for volume \"v\"", "exports no such directory"],
    );
    c.told("--field-selector involvedObject.name=locks", &["FailedMount", "rpc.statd, which does not run on this node"]);
    c.k("delete pod none locks --timeout=300s");
}

#[test]
#[ignore = "needs a kernel with NFS: `cargo xtask kernel`"]
fn exports_are_shared_and_outlive_their_pods() {
    let mut c = Cluster::prepare(KNARR);
    let export = serve(&mut c);
    c.start_server();
    pods_share(&c, &export);
    refusals_are_told(&c);

    // The kubelet is killed, and another finds what is mounted.
    let before = mounted(&c);
    c.kill_server();
    c.start_server();
    assert_eq!(run(&c, "inline", "cat /data/file").stdout, "one\n");
    assert_eq!(mounted(&c), before);
    c.k("delete pod --all --timeout=300s");
    assert_eq!(mounted(&c), Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(export.join("data/file")).unwrap(), "one\n", "nobody looks into it");
}

/// A server that does not answer holds its own pods and no others, and they can be taken away.
#[test]
#[ignore = "needs a kernel with NFS: `cargo xtask kernel`"]
fn a_dead_server_holds_its_own_pods_alone() {
    let mut c = Cluster::prepare(KNARR);
    let export = serve(&mut c);
    c.start_server();
    c.k_with("apply -f -", &claimed("shared", "/data", &[]));
    start(&c, &pod("first", &of_claim("shared", false), &json!({"subPath": "sub"})));
    start(&c, &pod("second", &inline("/data"), &json!({})));
    ready(&c, "pod/first pod/second");
    assert_eq!(run(&c, "first", "echo one >/data/file").code, Some(0));

    c.lose_packets(100);
    // Its processes hang, too, and so does who waits for a start.
    let hanging = c.background("exec second -- dd if=/dev/zero of=/data/large bs=1M count=4");
    start(&c, &pod("late", &inline("/data"), &json!({})));
    c.told("--field-selector involvedObject.name=late", &["MountVolume.SetUp failed for volume \"v\""]);
    start(&c, &pod("other", &json!({"emptyDir": {}}), &json!({})));
    ready(&c, "pod/other");
    c.k("get --raw /api/v1/nodes/n1/proxy/stats/summary");
    c.k("get --raw /api/v1/nodes/n1/proxy/metrics");
    c.k("delete pod first --timeout=300s");
    c.k("delete pod second --timeout=300s");
    drop(hanging);
    assert_eq!(mounted(&c), Vec::<String>::new());

    c.lose_packets(0);
    ready(&c, "pod/late");
    eventually("what was written is there", || (run(&c, "late", "cat /data/sub/file").stdout == "one\n").then_some(()));
    assert_eq!(std::fs::read_to_string(export.join("data/sub/file")).unwrap(), "one\n");
    c.k("delete pod --all --timeout=300s");
    assert_eq!(mounted(&c), Vec::<String>::new());
}

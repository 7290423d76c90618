//! Volumes of a storage driver (CSI) that runs as a process of the machine, with what its sidecars do: provisioning, attachment, growth.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testing::{Background, Cluster, eventually, programs};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/csi/driver.py");
const NAME: &str = "shore.example.com";
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

const CLASS: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: shore}
provisioner: shore.example.com
volumeBindingMode: WaitForFirstConsumer
allowVolumeExpansion: true
mountOptions: [noatime]
parameters:
  csi.storage.k8s.io/node-stage-secret-name: word
  csi.storage.k8s.io/node-stage-secret-namespace: default
---
apiVersion: v1
kind: Secret
metadata: {name: word}
stringData: {word: aye}
---
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: shore.example.com}
spec:
  podInfoOnMount: true
  volumeLifecycleModes: [Persistent, Ephemeral]
  fsGroupPolicy: File
  tokenRequests: [{audience: harbour, expirationSeconds: 3600}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: shore, resources: {requests: {storage: 1Mi}}}
"#;

/// The driver, and where it has its sockets.
struct Shore {
    running: Background,
    pid: Pid,
}

impl Shore {
    fn start(c: &Cluster) -> Self {
        let kubelet = c.data_dir().join("kubelet");
        let path = |path: PathBuf| path.display().to_string();
        let mut command = c.machine().command(Path::new("sh"));
        let program = path(programs::python());
        let line = format!(
            "exec {program} -u {DRIVER} --name {NAME} --node-id berth-1 --state {} --socket {} --registration {} --kubeconfig {} 2>&1",
            path(c.data_dir().join("shore")),
            path(kubelet.join("plugins").join(NAME).join("csi.sock")),
            path(kubelet.join("plugins_registry")),
            path(c.data_dir().join("kubeconfig")),
        );
        let running = Background::spawn(command.args(["-c", &line]));
        running.line("\"serving\"");
        let pid = c.machine().processes().into_iter().find(|(_, line)| line.starts_with(&program)).unwrap().0;
        Self { running, pid: Pid::from_raw(pid) }
    }

    /// The next call of this name.
    fn call(&self, name: &str) -> Value {
        serde_json::from_str(&self.running.line(&format!("\"call\": \"{name}\""))).unwrap()
    }
}

fn pod(name: &str, volume: &Value, more: &Value) -> String {
    let script = "echo $(hostname) >>/data/log; exec sleep 100000";
    let container = json!({"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let mut volume = volume.clone();
    volume["name"] = json!("data");
    let mut spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [volume]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn claimed() -> Value {
    json!({"persistentVolumeClaim": {"claimName": "data"}})
}

fn ready(c: &Cluster, pod: &str) {
    c.k(&format!("wait --for=condition=Ready pod/{pod} --timeout=90s"));
}

/// The way of a volume (CSI specification, "Volume Lifecycle"): made, attached, staged, published, and back, whoever is killed meanwhile.
#[test]
fn a_volume_of_a_driver_from_its_creation_to_its_end() {
    let mut c = Cluster::start(KNARR);
    c.k_with("apply -f -", CLASS);
    let shore = Shore::start(&c);
    assert_eq!(shore.call("NotifyRegistrationStatus")["request"]["pluginRegistered"], true);
    let node = c.k("get csinode -o jsonpath={.items[0].spec.drivers[0]}");
    let node: Value = serde_json::from_str(&node).unwrap();
    assert_eq!(
        node,
        json!({"name": NAME, "nodeID": "berth-1", "topologyKeys": ["topology.shore.example.com/node"], "allocatable": {"count": 7}})
    );
    assert_eq!(c.k(r"get node -o jsonpath={.items[0].metadata.labels.topology\.shore\.example\.com/node}"), "berth-1");

    c.k_with("create -f -", &pod("one", &claimed(), &json!({"securityContext": {"fsGroup": 2000}})));
    ready(&c, "one");
    let staged = shore.call("NodeStageVolume");
    let request = &staged["request"];
    assert_eq!((&request["publishContext"]["berth"], &request["secrets"]["word"]), (&json!("berth-1"), &json!("aye")));
    assert_eq!(request["volumeCapability"]["mount"], json!({"fsType": "ext4", "mountFlags": ["noatime"]}));
    assert_eq!(request["volumeCapability"]["accessMode"]["mode"], "SINGLE_NODE_MULTI_WRITER");
    let published = shore.call("NodePublishVolume");
    let context = &published["request"]["volumeContext"];
    assert_eq!((&context["made"], &context["csi.storage.k8s.io/pod.name"]), (&json!("here"), &json!("one")));
    let tokens: Value = serde_json::from_str(context["csi.storage.k8s.io/serviceAccount.tokens"].as_str().unwrap()).unwrap();
    assert!(tokens["harbour"]["token"].as_str().unwrap().len() > 100 && tokens["harbour"]["expirationTimestamp"].is_string());
    assert_eq!(c.kubectl(&["exec", "one", "--", "stat", "-c", "%g", "/data"]), "2000\n");
    c.told("", &["SuccessfulAttachVolume"]);
    // Said before the driver was asked to stage it: who detaches volumes goes by that.
    let used = c.k("get node -o jsonpath={.items[0].status.volumesInUse}");
    assert!(used.contains("kubernetes.io/csi/shore.example.com^pvc-"), "{used}");

    // Another pod of the node has the same volume; both keep it when the server is killed.
    c.k_with("create -f -", &pod("two", &claimed(), &json!({})));
    ready(&c, "two");
    c.kill_server();
    c.start_server();
    // The node may not serve yet when the API does.
    eventually("the pod is reached", || {
        (c.try_kubectl(&["exec", "two", "--", "cat", "/data/log"]).stdout == "one\ntwo\n").then_some(())
    });

    // It grows while it is used; a driver that cannot do it yet is asked again, and who has the volume is told.
    let refusals = c.machine().path(&c.data_dir().join("shore-refuses"));
    std::fs::create_dir(&refusals).unwrap();
    std::fs::write(refusals.join("NodeExpandVolume"), "").unwrap();
    c.k("patch pvc data --type=merge -p {\"spec\":{\"resources\":{\"requests\":{\"storage\":\"2Mi\"}}}}");
    assert_eq!(shore.call("ControllerExpandVolume")["refused"], Value::Null);
    c.k("wait --for=jsonpath={.spec.capacity.storage}=2097152 pv --all --timeout=60s");
    // A node asks every minute, and whenever it looks at a pod.
    c.k("annotate pod two looked=at");
    assert_eq!(shore.call("NodeExpandVolume")["refused"], "not now");
    c.told("", &["VolumeResizeFailed", "NodeExpandVolume.NodeExpandVolume failed for volume", "not now"]);
    base::trees::remove(&refusals).unwrap();
    c.k("annotate pod two looked=again --overwrite");
    eventually("the driver accepts it", || shore.call("NodeExpandVolume")["refused"].is_null().then_some(()));
    c.k("wait --for=jsonpath={.status.capacity.storage}=2097152 pvc/data --timeout=90s");

    // The first pod goes, and the stage stays. The driver is killed before the second goes, which waits for the next one.
    c.k("delete pod one --timeout=60s");
    assert_eq!(shore.call("NodeUnpublishVolume")["refused"], Value::Null);
    kill(shore.pid, Signal::SIGKILL).unwrap();
    drop(shore);
    c.k("delete pod two --wait=false");
    // The next one refuses to unstage: the pod goes all the same, and the volume stays attached until it is done.
    std::fs::create_dir(&refusals).unwrap();
    std::fs::write(refusals.join("NodeUnstageVolume"), "").unwrap();
    let shore = Shore::start(&c);
    c.k("wait --for=delete pod/two --timeout=90s");
    assert_eq!(shore.call("NodeUnstageVolume")["refused"], "not now");
    assert_eq!(shore.call("NodeUnstageVolume")["refused"], "not now");
    assert!(c.k("get node -o jsonpath={.items[0].status.volumesInUse}").contains("kubernetes.io/csi/shore.example.com^pvc-"));
    base::trees::remove(&refusals).unwrap();
    eventually("the driver accepts it", || shore.call("NodeUnstageVolume")["refused"].is_null().then_some(()));
    c.k("delete pvc data --timeout=60s");
    assert_eq!(shore.call("ControllerUnpublishVolume")["refused"], Value::Null);
    eventually("the volume is gone", || (c.k("get pv,volumeattachment -o name").is_empty()).then_some(()));
    let left = std::fs::read_dir(c.machine().path(&c.data_dir().join("shore"))).unwrap().count();
    assert_eq!(left, 0, "the driver has nothing left");
    let stages = c.machine().path(&c.data_dir().join("kubelet/plugins/kubernetes.io/csi").join(NAME));
    assert_eq!(std::fs::read_dir(stages).unwrap().count(), 0);
}

/// KEP-4876: "periodically update CSINode.Spec.Drivers[*].Allocatable.Count", and "ResourceExhausted ... immediately updates"; the pod fails,
/// so that another in its place finds another node.
#[test]
fn the_count_of_volumes_follows_the_driver() {
    let c = Cluster::start(KNARR);
    c.k_with(
        "apply -f -",
        &CLASS.replace("podInfoOnMount: true", "podInfoOnMount: true\n  nodeAllocatableUpdatePeriodSeconds: 10"),
    );
    let file = |name: &str| c.machine().path(&c.data_dir().join(name));
    let _shore = Shore::start(&c);
    let counted = |expected: &str| {
        let count = || c.k("get csinode -o jsonpath={.items[*].spec.drivers[*].allocatable.count}");
        eventually(expected, || (count() == expected).then_some(()));
    };
    counted("7");
    std::fs::write(file("shore-room"), "3").unwrap();
    counted("3");
    std::fs::write(file("shore-full"), "").unwrap();
    c.k_with("create -f -", &pod("one", &claimed(), &json!({"restartPolicy": "Never"})));
    c.k("wait --for=jsonpath={.status.phase}=Failed pod/one --timeout=90s");
    let status = c.k("get pod one -o jsonpath={.status.reason}:{.status.message}");
    assert!(status.starts_with("VolumeAttachmentLimitExceeded:"), "{status}");
    assert!(status.ends_with("all berths are taken"), "{status}");
}

/// KEP-596: a volume that a pod describes itself comes and goes with it, where its driver offers that.
#[test]
fn volumes_in_pods() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", CLASS);
    let inline = json!({"csi": {"driver": NAME, "volumeAttributes": {"sea": "north"}}});
    c.k_with("create -f -", &pod("waits", &inline, &json!({})));
    let reason = format!("driver name {NAME} not found in the list of registered CSI drivers");
    c.told("", &[&reason]);
    let shore = Shore::start(&c);
    ready(&c, "waits");
    assert_eq!(c.kubectl(&["exec", "waits", "--", "cat", "/data/who"]), "waits");
    let context = shore.call("NodePublishVolume")["request"]["volumeContext"].clone();
    assert_eq!((&context["sea"], &context["csi.storage.k8s.io/ephemeral"]), (&json!("north"), &json!("true")));
    // Whoever deletes a pod is told why it stays.
    let refusals = c.machine().path(&c.data_dir().join("shore-refuses"));
    std::fs::create_dir(&refusals).unwrap();
    std::fs::write(refusals.join("NodeUnpublishVolume"), "").unwrap();
    c.k("delete pod waits --wait=false");
    assert_eq!(shore.call("NodeUnpublishVolume")["refused"], "not now");
    c.told("", &["FailedUnMount", "UnmountVolume.TearDown failed for volume \"data\"", "not now"]);
    base::trees::remove(&refusals).unwrap();
    c.k("wait --for=delete pod/waits --timeout=60s");
    eventually("the driver accepts it", || shore.call("NodeUnpublishVolume")["refused"].is_null().then_some(()));
    eventually("the driver has nothing left", || {
        (std::fs::read_dir(c.machine().path(&c.data_dir().join("shore"))).unwrap().count() == 0).then_some(())
    });

    // The socket goes, and with it the driver; who needs it is told.
    let socket = c.data_dir().join("kubelet/plugins_registry").join(format!("{NAME}-reg.sock"));
    std::fs::remove_file(c.machine().path(&socket)).unwrap();
    eventually("the driver is gone from the node", || {
        (c.k("get csinode -o jsonpath={.items[0].spec.drivers}").trim_matches(['[', ']']).is_empty()).then_some(())
    });
}

/// A volume of mode Block is staged and published as one, and is the container's device (CSI specification, "NodePublishVolume": `block`).
#[test]
fn a_device_of_a_driver() {
    let c = Cluster::start(KNARR);
    c.k_with("apply -f -", CLASS);
    let shore = Shore::start(&c);
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "disk"}, "spec": {"volumeMode": "Block",
        "accessModes": ["ReadWriteOnce"], "storageClassName": "shore", "resources": {"requests": {"storage": "1Mi"}}}});
    c.k_with("create -f -", &claim.to_string());
    let script = "echo ahoy | dd of=/dev/disk conv=sync,fsync bs=512 && exec sleep 100000";
    let container = json!({"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script],
        "volumeDevices": [{"name": "disk", "devicePath": "/dev/disk"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "writer"}, "spec": {"terminationGracePeriodSeconds": 0,
        "securityContext": {"fsGroup": 2000}, "containers": [container],
        "volumes": [{"name": "disk", "persistentVolumeClaim": {"claimName": "disk"}}]}});
    c.k_with("create -f -", &pod.to_string());
    ready(&c, "writer");
    assert_eq!(shore.call("NodeStageVolume")["request"]["volumeCapability"]["block"], json!({}));
    assert_eq!(shore.call("NodePublishVolume")["request"]["volumeCapability"]["block"], json!({}));
    let read = ["exec", "writer", "--", "head", "-c", "4", "/dev/disk"];
    eventually("the container has written to it", || (c.kubectl(&read) == "ahoy").then_some(()));
    let name = c.k("get pvc disk -o jsonpath={.spec.volumeName}");
    let handle = c.k(&format!("get pv {name} -o jsonpath={{.spec.csi.volumeHandle}}"));
    let disk = c.machine().path(&c.data_dir().join("shore").join(handle).join("disk"));
    eventually("what was written is in the volume", || std::fs::read(&disk).unwrap().starts_with(b"ahoy\n").then_some(()));
    c.k("delete pod writer --timeout=60s");
    assert_eq!(shore.call("NodeUnpublishVolume")["refused"], Value::Null);
    assert_eq!(shore.call("NodeUnstageVolume")["refused"], Value::Null);
    c.k("delete pvc disk --timeout=60s");
    eventually("the volume is gone", || (c.k("get pv -o name").is_empty()).then_some(()));
}

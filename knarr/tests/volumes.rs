//! Storage for stateful workloads: claims, volumes made by hand and on demand, data that outlives pods and servers.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::{Value, json};
use testing::{Cluster, Outcome, eventually};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";
const PYTHON: &str = "127.0.0.1:5000/python:3.11";

/// Its pods count in a file of their claim how often they were started.
fn counters(replicas: u32, retention: &Value) -> String {
    let labels = json!({"app": "db"});
    let script = "echo started >> /data/log; exec sleep 10000";
    let container = json!({"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000}, "volumeMounts": [{"name": "data", "mountPath": "/data"}]});
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
        "replicas": replicas, "serviceName": "db", "selector": {"matchLabels": labels}, "volumeClaimTemplates": [claim],
        "persistentVolumeClaimRetentionPolicy": retention,
        "template": {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}}})
    .to_string()
}

/// Waits until the pod has been started so often.
fn starts(c: &Cluster, pod: &str, number: usize) {
    let log = || c.try_kubectl(&["exec", pod, "--", "cat", "/data/log"]).stdout.lines().count();
    eventually(&format!("{pod} has started {number} times"), || (log() == number).then_some(()));
}

fn claims(c: &Cluster) -> Vec<String> {
    c.k("get pvc -o name").lines().map(str::to_owned).collect()
}

#[test]
fn a_stateful_set_keeps_its_data() {
    let mut c = Cluster::start(KNARR);
    let policy = |scaled: &str| json!({"whenDeleted": "Delete", "whenScaled": scaled});
    c.k_with("apply -f -", &counters(2, &policy("Retain")));
    c.k("rollout status statefulset/db --timeout=60s");
    assert_eq!(claims(&c), ["persistentvolumeclaim/data-db-0", "persistentvolumeclaim/data-db-1"]);
    c.k("wait --for=jsonpath={.status.phase}=Bound pvc/data-db-0 --timeout=60s");
    assert_eq!(c.k("get pvc data-db-0 -o jsonpath={.spec.storageClassName}"), "local-path");
    // A claim grows where its class allows it.
    c.k(r#"patch storageclass local-path -p {"allowVolumeExpansion":true}"#);
    c.k(r#"patch pvc data-db-0 -p {"spec":{"resources":{"requests":{"storage":"2Mi"}}}}"#);
    c.k("wait --for=jsonpath={.status.capacity.storage}=2Mi pvc/data-db-0 --timeout=60s");
    starts(&c, "db-0", 1);
    starts(&c, "db-1", 1);

    // A pod that is lost comes back to its volume, and so does one that was scaled away.
    c.k("delete pod db-0");
    starts(&c, "db-0", 2);
    c.k("scale statefulset/db --replicas=1");
    c.k("wait --for=delete pod/db-1 --timeout=60s");
    assert_eq!(claims(&c).len(), 2);
    c.k("scale statefulset/db --replicas=2");
    starts(&c, "db-1", 2);

    // The server is killed and another one starts: the pods run on, and a new pod finds the data.
    c.kill_server();
    c.start_server();
    starts(&c, "db-0", 2);
    c.k("delete pod db-0");
    starts(&c, "db-0", 3);

    // What is scaled away goes with its claim, volume and directory, if the set says so.
    c.k_with("apply -f -", &counters(1, &policy("Delete")));
    c.k("wait --for=delete pvc/data-db-1 --timeout=60s");
    let directories = || std::fs::read_dir(c.data_dir().join("volumes")).map(Iterator::count).unwrap_or(0);
    eventually("one directory is left", || (directories() == 1).then_some(()));
    c.k("delete statefulset db");
    eventually("nothing is left", || (c.k("get pvc,pv -o name").is_empty() && directories() == 0).then_some(()));
}

fn volume(name: &str, path: &str, more: &Value) -> String {
    let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "hostPath": {"path": path, "type": "DirectoryOrCreate"}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn claim(name: &str, class: &str) -> String {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}})
    .to_string()
}

/// A pod with one volume at /data.
fn pod(name: &str, volume: &Value) -> String {
    let mut source = volume.clone();
    source["name"] = "v".into();
    let container = json!({"name": "main", "image": BUSYBOX, "command": ["sleep", "10000"], "volumeMounts": [{"name": "v", "mountPath": "/data"}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [source]}})
    .to_string()
}

#[test]
fn volumes_by_hand_and_of_pods() {
    let c = Cluster::start(KNARR);
    let path = c.scratch().join("disk");
    c.k_with("apply -f -", &claim("mine", ""));
    c.k_with("apply -f -", &pod("user", &json!({"persistentVolumeClaim": {"claimName": "mine"}})));
    // It may have heard of the pod before it has of the claim.
    let condition = || c.k("get pod user -o jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}");
    let unbound = "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.";
    eventually("the scheduler says why", || condition().starts_with(unbound).then_some(()));
    c.k_with("apply -f -", &volume("disk", path.to_str().unwrap(), &json!({})));
    c.k("wait --for=condition=Ready pod/user --timeout=60s");
    assert_eq!(c.k("get pv disk -o jsonpath={.status.phase}"), "Bound");
    c.kubectl(&["exec", "user", "--", "sh", "-c", "echo hello > /data/file"]);
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "hello\n");

    // A claim in use stays until its pod is gone; the volume is released and kept.
    c.k("delete pvc mine --wait=false");
    assert_eq!(c.k("get pvc mine -o jsonpath={.status.phase}"), "Bound");
    c.k("delete pod user");
    c.k("wait --for=delete pvc/mine --timeout=60s");
    c.k("wait --for=jsonpath={.status.phase}=Released pv/disk --timeout=60s");
    assert!(path.join("file").exists());

    // A claim of the pod's own comes and goes with it.
    let template = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    c.k_with("apply -f -", &pod("scratch", &json!({"ephemeral": {"volumeClaimTemplate": template}})));
    c.k("wait --for=condition=Ready pod/scratch --timeout=60s");
    assert_eq!(claims(&c), ["persistentvolumeclaim/scratch-v"]);
    c.kubectl(&["exec", "scratch", "--", "touch", "/data/file"]);
    c.k("delete pod scratch");
    eventually("the claim and its volume are gone", || {
        (claims(&c).is_empty() && c.k("get pv -o name") == "persistentvolume/disk\n").then_some(())
    });
}

/// A volume at /dev or /etc: daemons of storage and devices see the node's devices, and a pod keeps its names, its terminal and its memory
/// whatever is mounted there. The node's own directory stays as it was.
#[test]
fn volumes_at_places_of_the_runtime() {
    let c = Cluster::start(KNARR);
    let listing = || {
        let mut names: Vec<_> = std::fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // The mount point of a pod's termination message, which runc makes there too, and which the first such pod of a machine leaves; and what
        // comes and goes with the files that others use as devices.
        names.retain(|name| name != "termination-log" && !name.to_string_lossy().starts_with("loop"));
        names.sort();
        (names, std::fs::read_link("/dev/ptmx").ok(), std::fs::read_link("/dev/fd").ok())
    };
    let before = listing();
    let run = |name: &str, place: &str, volume: &Value, privileged: bool| {
        let container = json!({"name": "main", "image": BUSYBOX, "command": ["sleep", "10000"], "securityContext": {"privileged": privileged},
            "volumeMounts": [{"name": "v", "mountPath": place}]});
        let mut source = volume.clone();
        source["name"] = "v".into();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [source]}});
        c.k_with("apply -f -", &pod.to_string());
        c.k(&format!("wait --for=condition=Ready pod/{name} --timeout=60s"));
    };
    let inside = |pod: &str, line: &str| c.kubectl(&["exec", pod, "--", "sh", "-c", line]);
    for (name, privileged) in [("devices", true), ("look", false)] {
        run(name, "/dev", &json!({"hostPath": {"path": "/dev"}}), privileged);
        assert_eq!(
            inside(name, "ls /dev | grep -v ^loop | sort"),
            Outcome::of(std::process::Command::new("sh").args(["-c", "ls /dev | grep -v ^loop | LC_ALL=C sort"])).stdout
        );
        let reads =
            c.try_kubectl(&["exec", name, "--", "sh", "-c", "head -c 1 /dev/kmsg > /dev/null; echo x > /dev/null && echo done"]);
        assert!(reads.stdout.contains("done"), "{reads:?}");
        // Memory and terminals are the pod's own.
        inside(name, "echo mine > /dev/shm/of-the-pod");
        assert!(!Path::new("/dev/shm/of-the-pod").exists());
        assert_eq!(inside(name, "ls /dev/pts"), "ptmx\n");
        c.k(&format!("delete pod {name}"));
    }
    assert_eq!(listing(), before);
    run("etc", "/etc", &json!({"emptyDir": {}}), false);
    assert!(inside("etc", "cat /etc/resolv.conf").contains("default.svc.cluster.local"));
    assert_eq!(inside("etc", "cat /etc/hostname; ls /etc"), "etc\nhostname\nhosts\nresolv.conf\n");
}

/// Configuration at a path and keys below it, which most charts do.
#[test]
fn volumes_below_volumes() {
    let c = Cluster::start(KNARR);
    c.k("create configmap settings --from-literal=app.conf=loud");
    c.k("create secret generic keys --from-literal=tls.key=hidden");
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mounts = [
        mount("keys", "/etc/app/certs"),
        mount("settings", "/etc/app"),
        mount("scratch", "/etc/app/run/a"),
        mount("all", "/all"),
        mount("scratch", "/all/x"),
    ];
    let volumes = json!([{"name": "settings", "configMap": {"name": "settings"}}, {"name": "keys", "secret": {"secretName": "keys"}}, {"name": "scratch", "emptyDir": {}},
        {"name": "all", "projected": {"sources": [{"configMap": {"name": "settings"}}, {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}]);
    let container = json!({"name": "main", "image": BUSYBOX, "command": ["sleep", "10000"], "volumeMounts": mounts});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": volumes}});
    c.k_with("apply -f -", &pod.to_string());
    c.k("wait --for=condition=Ready pod/app --timeout=60s");
    let inside = |line: &str| c.kubectl(&["exec", "app", "--", "sh", "-c", line]);
    assert_eq!(
        inside("cat /etc/app/app.conf /etc/app/certs/tls.key /all/name; touch /etc/app/run/a/x && ls /all/x"),
        "loudhiddenappx\n"
    );
    // A change reaches the container, and the mount points stay.
    c.k("patch configmap settings -p {\"data\":{\"app.conf\":\"quiet\",\"new\":\"yes\"}}");
    eventually("the change is seen", || (inside("cat /etc/app/app.conf") == "quiet").then_some(()));
    assert_eq!(inside("cat /etc/app/new /etc/app/certs/tls.key; ls /etc/app"), "yeshiddenapp.conf\ncerts\nnew\nrun\n");
    // Log collectors find the container under the name that they know.
    let id = c.k("get pod app -o jsonpath={.status.containerStatuses[0].containerID}");
    let links = c.data_dir().join("containers");
    let link = links.join(format!("app_default_main-{}.log", id.split_once("://").unwrap().1));
    assert!(std::fs::read_link(&link).unwrap().starts_with(c.data_dir().join("logs")), "{id}");
    c.k("delete pod app");
    eventually("the link goes with the pod", || link.symlink_metadata().is_err().then_some(()));
}

fn attributes_class(name: &str) -> String {
    format!(
        "{{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {{name: {name}}}, driverName: d.example.com, parameters: {{iops: '1'}}}}\n---\n"
    )
}

/// KEP-3751: a class has the finalizer `kubernetes.io/vac-protection` from its creation on, which goes when it is deleted and no claim
/// and no volume names it.
#[test]
fn attributes_classes_stay_while_they_are_named() {
    let c = Cluster::start(KNARR);
    let used = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, volumeAttributesClassName: gold, resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: other
  volumeAttributesClassName: silver
  capacity: {storage: 1Mi}
  csi: {driver: d.example.com, volumeHandle: h}
"#;
    c.k_with("apply -f -", &(["gold", "silver", "unused"].map(attributes_class).concat() + used));
    for name in ["gold", "silver", "unused"] {
        let finalizers = c.k(&format!("get volumeattributesclass {name} -o jsonpath={{.metadata.finalizers}}"));
        assert_eq!(finalizers, r#"["kubernetes.io/vac-protection"]"#);
    }
    // Whoever decides on the last one has decided on those before.
    c.k("delete volumeattributesclass gold silver --wait=false");
    c.k("delete volumeattributesclass unused --timeout=60s");
    assert_eq!(c.k("get volumeattributesclass -o name").lines().count(), 2);
    for (object, class) in [("persistentvolumeclaim/data", "gold"), ("persistentvolume/disk", "silver")] {
        assert_ne!(c.k(&format!("get volumeattributesclass {class} -o jsonpath={{.metadata.deletionTimestamp}}")), "");
        c.k(&format!("delete {object} --timeout=60s"));
        c.k(&format!("wait --for=delete volumeattributesclass/{class} --timeout=60s"));
    }
}

/// A file that is a block device of the machine, for as long as this is there.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        std::fs::File::create(file).unwrap().set_len(1 << 20).unwrap();
        let made = std::process::Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(String::from_utf8(made.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// "volumeDevices is the list of block devices to be used by the container" (API reference): the container has the device of a local volume of
/// mode Block, to write it or, with a claim that is read-only, to read it; and no other device.
#[test]
fn local_block_devices() {
    let mut c = Cluster::start(KNARR);
    let (file, other) = (c.scratch().join("disk"), c.scratch().join("other"));
    let (device, foreign) = (Loop::new(&file), Loop::new(&other));
    let node = c.k("get node -o jsonpath={.items[0].metadata.name}");
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]);
    let affinity = json!({"required": {"nodeSelectorTerms": terms}});
    let bound = |name: &str, path: &str| {
        let local = json!({"volumeMode": "Block", "hostPath": null, "local": {"path": path}, "nodeAffinity": affinity,
            "claimRef": {"namespace": "default", "name": name}});
        c.k_with("create -f -", &volume(name, path, &local));
        let mut claim: Value = serde_json::from_str(&claim(name, "")).unwrap();
        claim["spec"]["volumeMode"] = json!("Block");
        claim["spec"]["volumeName"] = json!(name);
        c.k_with("create -f -", &claim.to_string());
    };
    bound("disk", &device.0);
    bound("nodisk", file.to_str().unwrap());
    let user = |name: &str, claim: &str, to_read: bool, uses: Value| {
        let mut container = json!({"name": "main", "image": BUSYBOX, "command": ["sleep", "10000"]});
        container.as_object_mut().unwrap().extend(uses.as_object().unwrap().clone());
        let source = json!({"name": "v", "persistentVolumeClaim": {"claimName": claim, "readOnly": to_read}});
        let spec = json!({"terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [source]});
        c.k_with(
            "create -f -",
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string(),
        );
    };
    let as_device = || json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/disk"}]});
    user("writer", "disk", false, as_device());
    user("reader", "disk", true, as_device());
    user("mounts", "disk", false, json!({"volumeMounts": [{"name": "v", "mountPath": "/data"}]}));
    user("nodevice", "nodisk", false, as_device());
    c.k("wait --for=condition=Ready pod/writer pod/reader --timeout=60s");
    let write = ["sh", "-c", "echo ahoy | dd of=/dev/disk conv=sync,fsync bs=512"];
    c.kubectl(&[&["exec", "writer", "--"], &write[..]].concat());
    assert!(std::fs::read(&file).unwrap().starts_with(b"ahoy\n"));
    assert_eq!(c.kubectl(&["exec", "reader", "--", "head", "-c", "4", "/dev/disk"]), "ahoy");
    let refused = c.try_kubectl(&[&["exec", "reader", "--"], &write[..]].concat());
    assert!(refused.code != Some(0) && refused.stderr.contains("Operation not permitted"), "{refused:?}");
    // A node of another device may be made, and not be opened.
    let minor = foreign.0.trim_start_matches("/dev/loop");
    let script = format!("mknod /other b 7 {minor} && head -c 1 /other");
    let refused = c.try_kubectl(&["exec", "writer", "--", "sh", "-c", &script]);
    assert!(refused.code != Some(0) && refused.stderr.contains("Operation not permitted"), "{refused:?}");
    c.told("", &["FailedMount", "volume v has volumeMode Block, but is specified in volumeMounts"]);
    c.told("", &["FailedMapVolume", "MapVolume.MapPodDevice failed for volume \"nodisk\"", "is not a block device"]);

    // The pods keep their devices when the server is killed, and give them back when they go.
    c.kill_server();
    c.start_server();
    eventually("the pod is reached", || {
        (c.try_kubectl(&["exec", "writer", "--", "head", "-c", "4", "/dev/disk"]).stdout == "ahoy").then_some(())
    });
    c.k("delete pod --all --timeout=60s");
    let pods = c.machine().path(&c.data_dir().join("kubelet/pods"));
    eventually("nothing is left of the pods", || (std::fs::read_dir(&pods).unwrap().count() == 0).then_some(()));
}

/// Directories that a pod with no rights has nested are removed with it, and end nobody.
#[test]
fn what_a_pod_has_nested_ends_nobody() {
    let c = Cluster::start(KNARR);
    let script = "import os\nos.chdir('/data')\nfor _ in range(20000):\n  os.mkdir('d')\n  os.chdir('d')\nopen('/dev/termination-log', 'w').write('nested')";
    let security =
        json!({"runAsNonRoot": true, "runAsUser": 1000, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nester"}, "spec": {"restartPolicy": "Never",
        "volumes": [{"name": "data", "emptyDir": {}}],
        "containers": [{"name": "main", "image": PYTHON, "command": ["python3", "-c", script], "securityContext": security,
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}});
    c.k_with("create -f -", &pod.to_string());
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/nester --timeout=60s");
    assert_eq!(c.k("get pod nester -o jsonpath={.status.containerStatuses[0].state.terminated.message}"), "nested");
    let uid = c.k("get pod nester -o jsonpath={.metadata.uid}");
    let (server, directory) = (c.server_pid(), c.machine().path(&c.data_dir().join("kubelet/pods").join(uid)));
    assert!(directory.join("volumes/kubernetes.io~empty-dir/data/d/d/d").exists());
    c.k("delete pod nester --timeout=60s");
    eventually("its directory is gone", || (!directory.exists()).then_some(()));
    assert!(Path::new(&format!("/proc/{server}")).exists());
    c.k("get nodes");
}

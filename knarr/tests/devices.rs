//! Devices of a plugin that runs as a process of the machine.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testing::{Background, Cluster, eventually, programs};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const PLUGIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/devices/plugin.py");
const NAME: &str = "example.com/berth";
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

/// The plugin, and its process.
struct Harbour {
    running: Background,
    pid: Pid,
}

impl Harbour {
    fn start(c: &Cluster, more: &str) -> Self {
        let path = |path: PathBuf| path.display().to_string();
        let device = c.data_dir().join("berth");
        if !device.exists() {
            // The control of loop devices, which no container has by itself.
            mknod(&device, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 237)).unwrap();
            std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o666)).unwrap();
        }
        let program = path(programs::python());
        let (kubelet, device) = (path(c.data_dir().join("kubelet")), path(device));
        let line = format!("exec {program} -u {PLUGIN} --kubelet {kubelet} --device {device} {more} 2>&1");
        let mut command = c.machine().command(Path::new("sh"));
        let running = Background::spawn(command.args(["-c", &line]));
        running.line("\"serving\"");
        let pid = c.machine().processes().into_iter().find(|(_, line)| line.starts_with(&program)).unwrap().0;
        Self { running, pid: Pid::from_raw(pid) }
    }

    /// The next call of this name.
    fn call(&self, name: &str) -> Value {
        serde_json::from_str(&self.running.line(&format!("\"call\": \"{name}\""))).unwrap()
    }

    fn end(self) {
        kill(self.pid, Signal::SIGKILL).unwrap();
    }
}

fn pod(name: &str, script: &str, berths: &str, more: &Value) -> String {
    let resources = json!({"limits": {NAME: berths}});
    let container = json!({"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script], "resources": resources});
    let mut spec = json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string()
}

/// Waits until the node says that it has so many, and that pods may take so many.
fn node_has(c: &Cluster, capacity: &str, allocatable: &str) {
    let part = |list: &str| format!(r"{{.items[0].status.{list}.example\.com/berth}}");
    let query = format!("get node -o jsonpath={} {}", part("capacity"), part("allocatable")).replace("} {", "}/{");
    eventually("the node's berths", || (c.k(&query) == format!("{capacity}/{allocatable}")).then_some(()));
}

/// Waits until the status of a pod with the first berth says how that is.
fn is_told(c: &Cluster, pod: &str, health: &str) {
    let expected = json!([{"name": NAME, "resources": [{"resourceID": "berth-0", "health": health}]}]);
    let query = format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].allocatedResourcesStatus}}");
    eventually("the health of the pod's berth", || {
        (serde_json::from_str::<serde_json::Value>(&c.k(&query)).ok() == Some(expected.clone())).then_some(())
    });
}

fn ready(c: &Cluster, pod: &str) {
    c.k(&format!("wait --for=condition=Ready pod/{pod} --timeout=90s"));
}

const SLEEP: &str = "for d in /dev/berth-*; do echo $d; true < $d && echo open; done; test -e /harbour/plugin.py && echo harbour; \
    echo BERTHS=$BERTHS; exec sleep 100000";

/// The way of a device (device plugins, "Device plugin implementation"): registered, listed, given, taken back, whoever is killed meanwhile.
/// [sig-node] Device Plugin: Verifies the Kubelet device plugin functionality; Can schedule a pod that requires a device; Keeps device plugin
/// assignments across pod and kubelet restarts.
#[test]
fn devices_of_a_plugin_are_given_to_pods() {
    let mut c = Cluster::start(KNARR);
    let mut harbour = Harbour::start(&c, "");
    harbour.call("registered");
    node_has(&c, "3", "3");

    c.k_with("create -f -", &pod("one", SLEEP, "2", &json!({})));
    ready(&c, "one");
    let preferred = harbour.call("GetPreferredAllocation");
    let asked = json!({"availableDeviceIDs": ["berth-0", "berth-1", "berth-2"], "allocationSize": 2});
    assert_eq!(preferred["request"]["containerRequests"], json!([asked]));
    let allocated = harbour.call("Allocate");
    assert_eq!(
        allocated["request"]["containerRequests"],
        json!([{"devicesIds": ["berth-1", "berth-2"]}]),
        "those that it prefers"
    );
    assert_eq!(harbour.call("PreStartContainer")["request"], json!({"devicesIds": ["berth-1", "berth-2"]}));
    c.logged("one", "/dev/berth-1\nopen\n/dev/berth-2\nopen\nharbour\nBERTHS=berth-1,berth-2\n");

    // The scheduler counts them, and what others ask of the kubelet is told.
    c.k_with("create -f -", &pod("two", SLEEP, "2", &json!({})));
    c.k("wait --for=condition=PodScheduled=False pod/two --timeout=60s");
    assert!(c.k("get pod two -o jsonpath={.status.conditions[0].message}").contains("Insufficient example.com/berth"));
    harbour.running.write("resources\n");
    let told = harbour.call("resources");
    let devices = json!([{"resourceName": NAME, "deviceIds": ["berth-1", "berth-2"], "topology": {"nodes": [{}]}}]);
    let one = json!({"name": "one", "namespace": "default", "containers": [{"name": "main", "devices": devices}]});
    assert_eq!((&told["pods"], &told["one"]["podResources"]), (&json!([one]), &one));
    assert_eq!(told["allocatable"]["devices"][0]["deviceIds"], json!(["berth-0", "berth-1", "berth-2"]));

    // Both the plugin and the kubelet go and come back: the pod keeps what it has, nobody else gets it.
    c.kill_server();
    c.start_server();
    harbour.call("registered");
    node_has(&c, "3", "3");
    c.k_with("create -f -", &pod("three", SLEEP, "1", &json!({})));
    ready(&c, "three");
    assert_eq!(harbour.call("Allocate")["request"]["containerRequests"], json!([{"devicesIds": ["berth-0"]}]));
    c.k("delete pod one");
    ready(&c, "two");
    assert_eq!(harbour.call("Allocate")["request"]["containerRequests"], json!([{"devicesIds": ["berth-1", "berth-2"]}]));

    // A pod that has ended gives them back, though it is still there.
    c.k("delete pod two");
    c.k_with("create -f -", &pod("done", "true", "2", &json!({})));
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/done --timeout=60s");
    c.k_with("create -f -", &pod("next", SLEEP, "2", &json!({})));
    ready(&c, "next");
    c.k("delete pod next done");

    // What is not healthy cannot be had.
    harbour.running.write("berth-1 unhealthy\n");
    node_has(&c, "3", "2");
    // Who has it is told, in the status of the pod (KEP-4680).
    is_told(&c, "three", "Healthy");
    harbour.running.write("berth-0 unhealthy\n");
    node_has(&c, "3", "1");
    is_told(&c, "three", "Unhealthy");
    harbour.end();
    node_has(&c, "3", "0");
    is_told(&c, "three", "Unknown");
    assert_eq!(c.k("get pod three -o jsonpath={.status.phase}"), "Running");
}

/// Refusals: of plugins that make no sense, and of pods that are bound to the node though it has not what they ask for.
#[test]
fn what_cannot_be_given_is_refused() {
    let c = Cluster::start(KNARR);
    let mut harbour = Harbour::start(&c, "--berths 4");
    harbour.call("registered");
    node_has(&c, "4", "4");
    for (version, resource, why) in [
        ("v1alpha", NAME, "requested API version \"v1alpha\" is not supported by kubelet. Supported version is [\"v1beta1\"]"),
        ("v1beta1", "cpu", "the ResourceName \"cpu\" is invalid"),
        ("v1beta1", "kubernetes.io/x", "the ResourceName \"kubernetes.io/x\" is invalid"),
    ] {
        harbour.running.write(&format!("register {version} {resource}\n"));
        assert_eq!(harbour.call("refused")["why"], why);
    }
    let node = c.k("get node -o jsonpath={.items[0].metadata.name}");
    let bound = json!({"nodeName": node});
    let check = |name: &str, berths: &str, why: &str| {
        c.k_with("create -f -", &pod(name, SLEEP, berths, &bound));
        c.k(&format!("wait --for=jsonpath={{.status.phase}}=Failed pod/{name} --timeout=60s"));
        let status = c.k(&format!("get pod {name} -o jsonpath={{.status.reason}}:{{.status.message}}"));
        assert_eq!(
            status,
            format!("UnexpectedAdmissionError:Pod was rejected: Allocate failed due to {why}, which is unexpected")
        );
    };
    check("many", "5", "requested number of devices unavailable for example.com/berth. Requested: 5, Available: 4");
    check("long", "3", "rpc error: code = InvalidArgument desc = no ship has more than two berths");
    // Nothing is left of that.
    c.k_with("create -f -", &pod("one", SLEEP, "2", &bound));
    c.k_with("create -f -", &pod("two", SLEEP, "2", &bound));
    ready(&c, "one");
    ready(&c, "two");
    check("none", "1", "requested number of devices unavailable for example.com/berth. Requested: 1, Available: 0");
    c.k("delete pod one two");
    for number in 0..4 {
        harbour.running.write(&format!("berth-{number} unhealthy\n"));
    }
    node_has(&c, "4", "0");
    check("ill", "1", "no healthy devices present; cannot allocate unhealthy devices example.com/berth");
}

/// A file of the machine, which goes with the test.
struct CdiFile(String);

impl Drop for CdiFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Plugins may also make themselves known by a socket in the directory `plugins_registry`, as storage drivers do. This one names its devices
/// by the Container Device Interface, too (KEP-4009), with what its specification calls container edits.
#[test]
fn a_plugin_is_found_by_its_socket() {
    let c = Cluster::start(KNARR);
    let file = CdiFile(format!("/var/run/cdi/berths-{}.json", std::process::id()));
    let harbour = Harbour::start(&c, &format!("--watched --berths 1 --cdi {}", file.0));
    assert_eq!(harbour.call("NotifyRegistrationStatus")["request"]["pluginRegistered"], true);
    node_has(&c, "1", "1");
    // An init container and the container after it have the same device.
    let resources = json!({"limits": {NAME: "1"}});
    let init = json!({"name": "init", "image": BUSYBOX, "command": ["test", "-c", "/dev/berth-0"], "resources": resources});
    c.k_with("create -f -", &pod("one", SLEEP, "1", &json!({"initContainers": [init]})));
    ready(&c, "one");
    assert_eq!(c.kubectl(&["exec", "one", "--", "sh", "-c", "echo $CRANE_OF_0; id -G | grep -o 4242"]), "yes\n4242\n");
    // Programs of the node ran for both containers, and for the end of the one that has ended.
    let hooks = || std::fs::read_to_string(c.data_dir().join("kubelet/hooks")).unwrap();
    let [begun, ended] = ["createRuntime\ncreateContainer\n", "poststop\n"];
    assert_eq!(hooks(), format!("{begun}{ended}{begun}"));
    // Without a grace period its object goes before its container has ended.
    c.k("delete pod one");
    let all = format!("{begun}{ended}{begun}{ended}");
    eventually("the hooks of the second end", || (hooks() == all).then_some(()));
    std::fs::remove_file(c.data_dir().join("kubelet/plugins_registry/berths.sock")).unwrap();
    node_has(&c, "1", "0");
}

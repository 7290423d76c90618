//! Devices that pods claim (dynamic resource allocation), of a driver that runs as a process of the machine.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use testing::{Background, Cluster, eventually, programs};

const KNARR: &str = env!("CARGO_BIN_EXE_knarr");
const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/claims/driver.py");
const BUSYBOX: &str = "127.0.0.1:5000/busybox:1.36";

/// The driver, and its process.
struct Driver {
    running: Background,
    pid: Pid,
    vendor: String,
}

impl Driver {
    fn start(c: &Cluster, more: &str) -> Self {
        let path = |path: PathBuf| path.display().to_string();
        let device = c.data_dir().join("crane");
        // The control of loop devices, which no container has by itself.
        mknod(&device, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(10, 237)).unwrap();
        std::fs::set_permissions(&device, std::fs::Permissions::from_mode(0o666)).unwrap();
        let program = path(programs::python());
        let node = c.k("get node -o jsonpath={.items[0].metadata.name}");
        let vendor = format!("cranes-{}.example.com", std::process::id());
        let (kubelet, device, kubeconfig) =
            (path(c.data_dir().join("kubelet")), path(device), path(c.data_dir().join("kubeconfig")));
        let places = format!("--kubelet {kubelet} --device {device} --kubeconfig {kubeconfig}");
        let line = format!("exec {program} -u {DRIVER} {places} --node {node} --vendor {vendor} {more} 2>&1");
        let mut command = c.machine().command(Path::new("sh"));
        let running = Background::spawn(command.args(["-c", &line]));
        running.line("\"serving\"");
        let pid = c.machine().processes().into_iter().find(|(_, line)| line.starts_with(&program)).unwrap().0;
        Self { running, pid: Pid::from_raw(pid), vendor }
    }

    /// The next call of this name.
    fn call(&self, name: &str) -> Value {
        serde_json::from_str(&self.running.line(&format!("\"call\": \"{name}\""))).unwrap()
    }

    /// Ends, and takes its socket along.
    fn leave(&self, c: &Cluster) {
        kill(self.pid, Signal::SIGKILL).unwrap();
        for entry in std::fs::read_dir(c.data_dir().join("kubelet/plugins_registry")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    /// The name of the claim that the next call of this name is about.
    fn claim(&self, call: &str) -> String {
        self.call(call)["request"]["claims"][0]["name"].as_str().unwrap().to_owned()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        for entry in std::fs::read_dir("/var/run/cdi").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.vendor) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn create(c: &Cluster, object: &Value) {
    c.k_with("create -f -", &object.to_string());
}

fn request(selector: Option<&str>) -> Value {
    let selectors: Vec<Value> = selector.into_iter().map(|expression| json!({"cel": {"expression": expression}})).collect();
    let exactly = json!({"deviceClassName": "crane", "selectors": selectors});
    json!({"devices": {"requests": [{"name": "crane", "exactly": exactly}]}})
}

/// A pod of so many containers, all of which have the claim behind `source`.
fn pod(name: &str, script: &str, containers: usize, source: &Value) -> Value {
    let mut entry = json!({"name": "crane"});
    entry.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    let container = |number: usize| {
        json!({"name": format!("c{number}"), "image": BUSYBOX, "command": ["sh", "-c", script],
            "resources": {"claims": [{"name": "crane"}]}})
    };
    let containers: Vec<Value> = (0..containers).map(container).collect();
    let spec = json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": containers, "resourceClaims": [entry]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

/// A class of cranes, which may stand for an extended resource.
fn class(c: &Cluster, resource: Option<&str>) {
    let selector = json!([{"cel": {"expression": "device.driver == 'cranes.example.com'"}}]);
    let spec = json!({"selectors": selector, "extendedResourceName": resource});
    create(c, &json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "crane"}, "spec": spec}));
}

/// A pod whose containers, init containers among them, ask for so many of an extended resource each.
fn asking(name: &str, resource: &str, init: &[(&str, u32)], containers: &[(&str, u32)]) -> Value {
    let of = |(name, amount): &(&str, u32), end: &str| {
        json!({"name": name, "image": BUSYBOX, "command": ["sh", "-c", format!("env | grep CRANE; test -c /dev/crane && {end}")],
            "resources": {"limits": {resource: amount}}})
    };
    let init: Vec<Value> = init.iter().map(|one| of(one, "echo open")).collect();
    let containers: Vec<Value> = containers.iter().map(|one| of(one, "exec sleep 100000")).collect();
    let spec =
        json!({"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "initContainers": init, "containers": containers});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn ready(c: &Cluster, pod: &str) {
    c.k(&format!("wait --for=condition=Ready pod/{pod} --timeout=90s"));
}

const SLEEP: &str =
    "true < /dev/crane && echo open; test -e /crane/driver.py && echo mounted; echo CRANE=$CRANE; exec sleep 100000";

/// The way of a claim (KEP-4381): made from a template or by hand, allocated, reserved, prepared, given back, whoever is killed meanwhile.
/// [sig-node] [DRA] kubelet registers plugin; must run pods that use claims and claim templates; must retry NodePrepareResources; must
/// unprepare resources.
#[test]
fn claimed_devices_are_given_to_pods() {
    let mut c = Cluster::start(KNARR);
    let mut driver = Driver::start(&c, "");
    assert_eq!(driver.call("registered")["request"]["pluginRegistered"], true);
    class(&c, None);
    let far = "device.attributes['cranes.example.com'].reach > 0";
    create(
        &c,
        &json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "far"}, "spec": request(Some(far))}),
    );
    create(
        &c,
        &json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "any"}, "spec": {"spec": request(None)}}),
    );

    // Two containers share a claim; the driver refuses at first.
    driver.running.write("fail\n");
    driver.call("fail");
    create(&c, &pod("one", SLEEP, 2, &json!({"resourceClaimName": "far"})));
    assert_eq!(driver.claim("NodePrepareResources"), "far");
    c.told("--field-selector reason=FailedPrepareDynamicResources", &["the cranes are on strike"]);
    driver.running.write("work\n");
    ready(&c, "one");
    for container in ["c0", "c1"] {
        c.logged(&format!("one -c {container}"), "open\nmounted\nCRANE=crane-1\n");
    }
    // A claim is made for a pod that names a template.
    create(&c, &pod("two", SLEEP, 1, &json!({"resourceClaimTemplateName": "any"})));
    ready(&c, "two");
    c.logged("two", "open\nmounted\nCRANE=crane-0\n");
    let made = c.k("get pod two -o jsonpath={.status.resourceClaimStatuses[0].resourceClaimName}");
    assert!(made.starts_with("two-crane-"), "{made}");
    assert_eq!(c.k(&format!("get resourceclaim {made} -o jsonpath={{.status.reservedFor[0].name}}")), "two");

    // There are two cranes: the third pod waits, also when the server is another one.
    create(&c, &pod("three", SLEEP, 1, &json!({"resourceClaimTemplateName": "any"})));
    let waits = "get pod three -o jsonpath={.status.conditions[*].message}";
    eventually("the reason", || c.k(waits).contains("cannot allocate all claims").then_some(()));
    c.kill_server();
    c.start_server();
    assert_eq!(driver.call("registered")["request"]["pluginRegistered"], true);
    c.k("delete pod two");
    assert_eq!(driver.claim("NodeUnprepareResources"), made);
    ready(&c, "three");
    c.logged("three", "open\nmounted\nCRANE=crane-0\n");
    eventually("the end of the claim", || (!c.k("get resourceclaim -o name").contains(&made)).then_some(()));

    // A claim outlives its pods, and has no device without them.
    c.k("delete pod one");
    assert_eq!(driver.claim("NodeUnprepareResources"), "far");
    let state = "get resourceclaim far -o jsonpath={.status.allocation}{.status.reservedFor}";
    eventually("the claim to be free", || c.k(state).is_empty().then_some(()));
    create(&c, &pod("done", "true", 1, &json!({"resourceClaimName": "far"})));
    c.k("wait --for=jsonpath={.status.phase}=Succeeded pod/done --timeout=60s");
    assert_eq!(driver.claim("NodeUnprepareResources"), "far");
    eventually("the claim to be free again", || c.k(state).is_empty().then_some(()));

    // The devices go with their driver, and stay away over a restart that finds none.
    assert!(c.k("get resourceslices -o name").contains("resourceslice"));
    driver.leave(&c);
    c.kill_server();
    c.start_server();
    eventually("the end of the slices", || c.k("get resourceslices -o name").is_empty().then_some(()));
}

/// KEP-4680: "the health of devices that are allocated to a Pod ... as part of Pod Status", also of drivers of claimed devices.
#[test]
fn the_health_of_claimed_devices_is_told() {
    let c = Cluster::start(KNARR);
    let mut driver = Driver::start(&c, "");
    class(&c, None);
    create(
        &c,
        &json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "any"}, "spec": request(None)}),
    );
    create(&c, &pod("one", SLEEP, 1, &json!({"resourceClaimName": "any"})));
    ready(&c, "one");
    let told = |health: &str, message: Value| {
        eventually(health, || {
            let told = c.k("get pod one -o jsonpath={.status.containerStatuses[0].allocatedResourcesStatus}");
            let told: Value = serde_json::from_str(&told).ok()?;
            let device = &told[0]["resources"][0];
            let is = told[0]["name"] == "claim:crane" && device["health"] == health && device["message"] == message;
            is.then(|| device["resourceID"].as_str().unwrap_or_default().to_owned())
        })
    };
    let id = told("Healthy", Value::Null);
    assert!(id.contains("/crane="), "the device has the name by which the container got it: {id}");
    driver.running.write("sick\n");
    assert_eq!(told("Unhealthy", json!("the rope is worn")), id);
    driver.running.write("well\n");
    told("Healthy", Value::Null);
    // Of a driver that is gone nobody knows how its devices are.
    driver.leave(&c);
    told("Unknown", Value::Null);
}

/// Extended resources that a class stands for (KEP-5004), by its own name and by the implicit one: the scheduler makes a claim, containers get
/// the devices of their requests, and the claim goes with the pod.
/// [sig-node] [DRA] must run a pod with extended resource with one container one resource; must run a pod with both implicit and explicit
/// extended resource.
#[test]
fn extended_resources_come_by_claims() {
    let c = Cluster::start(KNARR);
    let driver = Driver::start(&c, "");
    class(&c, Some("example.com/crane"));
    // The init container uses the crane of a container that comes after it.
    create(&c, &asking("both", "example.com/crane", &[("i", 1)], &[("a", 1), ("b", 1)]));
    ready(&c, "both");
    let claim = driver.claim("NodePrepareResources");
    assert!(claim.starts_with("both-extended-resources-"), "{claim}");
    for (container, log) in [("a", "CRANE=crane-0\n"), ("b", "CRANE=crane-1\n"), ("i", "CRANE=crane-0\nopen\n")] {
        c.logged(&format!("both -c {container}"), log);
    }
    let status = c.k("get pod both -o jsonpath={.status.extendedResourceClaimStatus}");
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["resourceClaimName"], claim.as_str());
    let mapping = |container: &str, request: &str| json!({"containerName": container, "resourceName": "example.com/crane", "requestName": request});
    let mappings =
        [mapping("a", "container-1-request-0"), mapping("b", "container-2-request-0"), mapping("i", "container-1-request-0")];
    assert_eq!(status["requestMappings"], json!(mappings));
    let told = "{.metadata.annotations}{.metadata.ownerReferences[0].name}{.status.reservedFor[0].name}";
    let told = c.k(&format!("get resourceclaim {claim} -o jsonpath={told}"));
    assert_eq!(told, "{\"resource.kubernetes.io/extended-resource-claim\":\"true\"}bothboth");

    // There are two cranes; the name that every class has is another one for them.
    create(&c, &asking("waits", "deviceclass.resource.kubernetes.io/crane", &[], &[("a", 1)]));
    let waits = "get pod waits -o jsonpath={.status.conditions[*].message}";
    eventually("the reason", || c.k(waits).contains("cannot allocate all claims").then_some(()));
    c.k("delete pod both");
    assert_eq!(driver.claim("NodeUnprepareResources"), claim);
    ready(&c, "waits");
    c.logged("waits", "CRANE=crane-0\n");
    eventually("the end of the claim", || (!c.k("get resourceclaim -o name").contains(&claim)).then_some(()));
    c.k("delete pod waits");
    eventually("the end of the other claim", || c.k("get resourceclaim -o name").is_empty().then_some(()));
}

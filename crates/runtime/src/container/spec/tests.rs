#![allow(clippy::unwrap_used)]
use super::*;
use crate::api::{ProcessUser, Resources, SecurityContext};

fn spec(config: &ContainerConfig, image: &ImageConfig, sandbox: &SandboxConfig) -> Result<Value> {
    spec_of(config, image, sandbox, &[], &|path, _| Ok(path.to_owned()))
}

fn spec_of(
    config: &ContainerConfig,
    image: &ImageConfig,
    sandbox: &SandboxConfig,
    anonymous: &[Mount],
    resolve: &dyn Fn(&Path, &BTreeSet<PathBuf>) -> io::Result<PathBuf>,
) -> Result<Value> {
    let (user, cgroups) = (ProcessUser::default(), Cgroups::detect().unwrap());
    let devices = devices::resolve(&config.devices).unwrap();
    Input {
        config,
        image,
        sandbox,
        user: &user,
        cgroup: "k/pod/c",
        cgroups: &cgroups,
        available: Available(u64::MAX),
        shared_dir: Path::new("/run/sb"),
        shim: 7,
        joined: config.target.as_ref().map(|_| 9).or((sandbox.pid == NamespaceMode::Pod).then_some(8)),
        oom_floor: 2,
        root: Path::new("/c/rootfs"),
        has_users: false,
        seccomp: config.security.seccomp.as_ref().map(|_| json!({"defaultAction": "SCMP_ACT_ALLOW"})),
        anonymous,
        devices: &devices,
        resolve,
    }
    .spec()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn check_args(entrypoint: &[&str], cmd: &[&str], command: &[&str], args: &[&str], expected: Option<&[&str]>) {
    let image = ImageConfig { entrypoint: strings(entrypoint), cmd: strings(cmd), ..Default::default() };
    let config = ContainerConfig { command: strings(command), args: strings(args), ..Default::default() };
    let spec = spec(&config, &image, &SandboxConfig::default()).ok();
    assert_eq!(spec.map(|spec| spec["process"]["args"].clone()), expected.map(|list| json!(list)), "{command:?} {args:?}");
}

/// Conformance: [sig-node] Containers should be able to override the image's default arguments (container cmd) [NodeConformance] [Conformance]
/// Conformance: [sig-node] Containers should be able to override the image's default command (container entrypoint) [NodeConformance] [Conformance]
/// Conformance: [sig-node] Containers should be able to override the image's default command and arguments [NodeConformance] [Conformance]
/// Conformance: [sig-node] Containers should use the image defaults if command and args are blank [NodeConformance] [Conformance]
#[test]
fn command_and_args_follow_the_pod_api() {
    check_args(&["e"], &["c"], &[], &[], Some(&["e", "c"]));
    check_args(&["e"], &["c"], &[], &["a"], Some(&["e", "a"]));
    check_args(&["e"], &["c"], &["x"], &[], Some(&["x"]));
    check_args(&["e"], &["c"], &["x"], &["a"], Some(&["x", "a"]));
    check_args(&[], &["c"], &[], &[], Some(&["c"]));
    check_args(&[], &[], &[], &[], None);
}

fn simple() -> ContainerConfig {
    ContainerConfig { command: strings(&["x"]), ..Default::default() }
}

#[test]
fn the_pods_environment_wins() {
    let image = ImageConfig { env: strings(&["A=image", "PATH=/img"]), ..Default::default() };
    let config = ContainerConfig { env: vec![("A".into(), "pod".into()), ("B".into(), "x=y".into())], ..simple() };
    let spec = spec(&config, &image, &SandboxConfig { hostname: "h".into(), ..Default::default() }).unwrap();
    assert_eq!(spec["process"]["env"], json!(["PATH=/img", "HOSTNAME=h", "A=pod", "B=x=y"]));
}

/// execve(2): what a program is given are strings that end with NUL. Of a pod the kubelet says so before.
#[test]
fn nul_characters_of_images_are_refused_by_name() {
    let check = |change: fn(&mut ImageConfig), expected: &str| {
        let mut image = ImageConfig { entrypoint: strings(&["sh"]), env: strings(&["A=b"]), ..Default::default() };
        let of = |image: &ImageConfig| spec(&ContainerConfig::default(), image, &SandboxConfig::default());
        of(&image).unwrap();
        change(&mut image);
        let refused = of(&image).unwrap_err().to_string();
        assert!(refused.contains(&format!("{expected} has a NUL character")), "{refused}");
    };
    check(|image| image.env.push("X=a\0b".into()), r#"environment variable "X""#);
    check(|image| image.env.push("a\0b".into()), r#"environment variable "a\0b""#);
    check(|image| image.entrypoint.push("a\0b".into()), r#"argument "a\0b""#);
    check(|image| image.cmd = strings(&["\0"]), r#"argument "\0""#);
    check(|image| image.working_dir = "/\0".into(), r#"working directory "/\0""#);
}

/// A ConfigMap has room for more variables than can be compared each with each.
#[test]
fn many_variables_and_mounts_take_no_longer_than_they_are_many() {
    let many = 50_000;
    let env = (0..many).map(|number| (format!("K{number}"), String::new())).collect();
    let mount = |number| Mount { host_path: "/h".into(), container_path: format!("/m/{number}").into(), ..Mount::default() };
    let config = ContainerConfig { env, mounts: (0..many).map(mount).collect(), ..simple() };
    let begin = std::time::Instant::now();
    let resolve = |path: &Path, taken: &BTreeSet<PathBuf>| {
        assert!(!taken.contains(path));
        Ok(path.to_owned())
    };
    let spec = spec_of(&config, &ImageConfig::default(), &SandboxConfig::default(), &[], &resolve).unwrap();
    assert_eq!(spec["process"]["env"].as_array().unwrap().len(), many + 2);
    assert!(spec["mounts"].as_array().unwrap().len() > many);
    assert!(begin.elapsed() < std::time::Duration::from_secs(30), "each was compared with each: {:?}", begin.elapsed());
}

/// The OCI runtime specification, config.md, Linux Process: `apparmorProfile`. Commands are executed by the same document.
#[test]
fn the_app_armor_profile_is_the_processes() {
    let check = |app_armor: Option<api::AppArmor>, expected: Value| {
        let config = ContainerConfig { security: SecurityContext { app_armor, ..Default::default() }, ..simple() };
        let spec = spec(&config, &ImageConfig::default(), &SandboxConfig::default()).unwrap();
        assert_eq!(spec["process"]["apparmorProfile"], expected);
    };
    check(None, json!(null));
    check(Some(AppArmor::Unconfined), json!(null));
    check(Some(AppArmor::Localhost("p".to_owned())), json!("p"));
}

/// As runc, which refuses what would hide the files of processes (`checkProcMount`).
#[test]
fn neither_the_root_nor_the_files_of_processes_are_covered() {
    let check = |source: &str, at: &str, expected: Option<&str>| {
        let mount = Mount { host_path: source.into(), container_path: at.into(), ..Mount::default() };
        let config = ContainerConfig { mounts: vec![mount], ..simple() };
        let made = spec(&config, &ImageConfig::default(), &SandboxConfig::default());
        assert_eq!(made.err().map(|error| error.to_string()).as_deref(), expected, "{source} at {at}");
    };
    check("/tmp", "/", Some("mount destination /: it is the root of the container, where its image is"));
    check("/tmp", "/proc", Some("mount destination /proc: only a file system of type proc can be mounted there"));
    check("/proc", "/proc", None);
    check("/tmp", "/proc/1", Some("mount destination /proc/1: it is inside of /proc"));
    check("/proc", "/proc/self/attr", Some("mount destination /proc/self/attr: it is inside of /proc"));
    check("/tmp/cpuinfo", "/proc/cpuinfo", None);
    check("/tmp", "/process", None);
}

fn namespace_types(sandbox: &SandboxConfig) -> Vec<String> {
    let spec = spec(&simple(), &ImageConfig::default(), sandbox).unwrap();
    let list = spec["linux"]["namespaces"].as_array().unwrap();
    let name = |n: &Value| format!("{}{}", n["type"].as_str().unwrap(), n["path"].as_str().unwrap_or_default());
    list.iter().map(name).filter(|n| n != "cgroup").collect()
}

#[test]
fn namespaces_are_the_pods() {
    let private = SandboxConfig { pid: NamespaceMode::Container, ..Default::default() };
    assert_eq!(namespace_types(&private), ["mount", "network/proc/7/ns/net", "uts/proc/7/ns/uts", "ipc/proc/7/ns/ipc", "pid"]);
    assert_eq!(namespace_types(&SandboxConfig::default()).last().unwrap(), "pid/proc/8/ns/pid");
    let beside = ContainerConfig { target: Some("main".into()), ..simple() };
    let beside = spec(&beside, &ImageConfig::default(), &private).unwrap();
    assert!(beside["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "pid", "path": "/proc/9/ns/pid"})));
    let host = SandboxConfig { host_network: true, pid: NamespaceMode::Node, ipc: NamespaceMode::Node, ..Default::default() };
    assert_eq!(namespace_types(&host), ["mount"]);
}

#[test]
fn limits_privileges_and_scores_are_carried() {
    let resources = Resources { memory_limit: Some(5), cpu_quota: Some(0), oom_score_adj: Some(-5), ..Default::default() };
    let config = ContainerConfig { resources, ..simple() };
    let made = |config: &ContainerConfig| spec(config, &ImageConfig::default(), &SandboxConfig::default()).unwrap();
    let spec = made(&config);
    assert_eq!(spec["linux"]["resources"]["memory"]["limit"], 5);
    assert_eq!(spec["linux"]["resources"]["cpu"], Value::Null);
    assert_eq!(spec["process"]["oomScoreAdj"], 2);
    assert_eq!(made(&simple())["process"]["oomScoreAdj"], 2, "nobody asked");
    // Version 2 has these for every container, limited or not (KEP-2400, `NoSwap`).
    let unified = Cgroups::detect().unwrap().unified();
    for config in [&config, &simple()] {
        assert_eq!(made(config)["linux"]["resources"]["unified"]["memory.oom.group"] == "1", unified);
    }
    assert_eq!(memory_files(true), BTreeMap::from([("memory.oom.group", "1"), ("memory.swap.max", "0")]));
    assert_eq!(memory_files(false), BTreeMap::from([("memory.oom.group", "1")]));
    let resources = Resources { cpus: Some("0-3".into()), memory_nodes: Some("1".into()), ..Default::default() };
    let pinned = made(&ContainerConfig { resources, ..simple() });
    assert_eq!(pinned["linux"]["resources"]["cpu"], json!({"cpus": "0-3", "mems": "1"}));
    assert_eq!(spec["process"]["noNewPrivileges"], Value::Null);
    let privileged = ContainerConfig { security: SecurityContext { privileged: true, ..Default::default() }, ..simple() };
    let spec = made(&privileged);
    assert_eq!(spec["linux"]["maskedPaths"], Value::Null);
    assert!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len() > 30);
}

#[test]
fn the_pods_mounts_replace_the_default_ones() {
    let mount = |path: &str, readonly| Mount {
        host_path: "/h".into(),
        container_path: path.into(),
        readonly,
        propagation: Propagation::HostToContainer,
        ..Mount::default()
    };
    let config = ContainerConfig { mounts: vec![mount("/a/b", true), mount("/dev/shm", false), mount("/a", false)], ..simple() };
    let spec = spec(&config, &ImageConfig::default(), &SandboxConfig::default()).unwrap();
    let mounts = spec["mounts"].as_array().unwrap();
    let destinations: Vec<&str> = mounts.iter().map(|m| m["destination"].as_str().unwrap()).collect();
    assert_eq!(destinations.iter().filter(|d| **d == "/dev/shm").count(), 1);
    let own: Vec<&str> = destinations.into_iter().filter(|path| path.starts_with("/a") || *path == "/dev/shm").collect();
    assert_eq!(own, ["/a", "/a/b", "/dev/shm"]);
    let nested = mounts.iter().find(|mount| mount["destination"] == "/a/b").unwrap();
    assert_eq!(nested["options"], json!(["rbind", "rslave", "ro"]));
    let all = Mount { recursive_readonly: true, propagation: Propagation::Private, ..mount("/r", true) };
    assert_eq!(super::pod_mount(&all)["options"], json!(["rbind", "rprivate", "ro", "rro"]));
    assert_eq!(spec["linux"]["rootfsPropagation"], "slave");
}

/// As containerd and CRI-O, which sort all mounts (`orderedMounts`): a volume at /etc does not take the pod's names away.
#[test]
fn volumes_come_below_the_files_of_the_pod() {
    let mount = |path: &str| Mount { host_path: format!("/host{path}").into(), container_path: path.into(), ..Mount::default() };
    let sandbox =
        |handler: &str| SandboxConfig { resolv_conf: Some(String::new()), runtime_handler: handler.into(), ..Default::default() };
    let check = |handler: &str, mounts: &[&str], below: &str, expected: &[&str], dev: Option<&[&str]>| {
        let config = ContainerConfig { mounts: mounts.iter().map(|path| mount(path)).collect(), ..simple() };
        let spec = spec(&config, &ImageConfig::default(), &sandbox(handler)).unwrap();
        let all = spec["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap());
        assert_eq!(all.filter(|path| path.starts_with(below)).collect::<Vec<_>>(), expected, "{mounts:?}");
        let text = spec["annotations"]["knarr.runtime/dev"].as_str().map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(text.map(|text| text["above"].clone()), dev.map(|above| json!(above)), "{mounts:?}");
    };
    check("", &["/etc"], "/etc", &["/etc", "/etc/hostname", "/etc/resolv.conf"], None);
    check("", &["/etc/resolv.conf"], "/etc", &["/etc/hostname", "/etc/resolv.conf"], None);
    check("", &["/sys"], "/sys", &["/sys"], None);
    // The volume at /dev comes last, and what is mounted below it again above it.
    let dev = ["/dev", "/dev/pts", "/dev/mqueue", "/dev/shm"];
    let above = ["/dev/mqueue", "/dev/pts", "/dev/shm", "/dev/x"];
    check("", &["/dev"], "/dev", &dev, Some(&above[..3]));
    check("", &["/dev", "/dev/shm"], "/dev", &dev, Some(&above[..3]));
    let nested = ["/dev", "/dev/pts", "/dev/mqueue", "/dev/shm", "/dev/x", "/dev/x/y"];
    check("", &["/dev", "/dev/x", "/dev/x/y"], "/dev", &nested, Some(&above));
    // runc leaves a /dev alone that is a volume.
    check("runc", &["/dev"], "/dev", &dev, None);
}

#[test]
fn destinations_are_where_the_images_links_lead() {
    let mount = |path: &str| Mount { host_path: format!("/host{path}").into(), container_path: path.into(), ..Mount::default() };
    let sandbox = SandboxConfig { resolv_conf: Some(String::new()), ..Default::default() };
    let resolve = |path: &Path, taken: &BTreeSet<PathBuf>| {
        assert!(taken.contains(&PathBuf::from("/proc")));
        let path = path.to_str().unwrap();
        let moved = path.replace("/var/run", "/run").replace("/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf");
        Ok(PathBuf::from(moved.replace("/evil", "/proc/self")))
    };
    let destinations = |mounts: &[&str], anonymous: &[Mount]| {
        let config = ContainerConfig { mounts: mounts.iter().map(|path| mount(path)).collect(), ..simple() };
        let spec = spec_of(&config, &ImageConfig::default(), &sandbox, anonymous, &resolve)?;
        let all: Vec<String> = spec["mounts"].as_array().unwrap().iter().map(|m| destination(m).display().to_string()).collect();
        let is_ours = |path: &String| ["/proc", "/sys", "/dev", "/etc/hostname"].iter().any(|own| path.starts_with(own));
        Ok::<_, Error>(all.into_iter().filter(|path| !is_ours(path)).collect::<Vec<_>>())
    };
    let stub = "/run/systemd/resolve/stub-resolv.conf";
    assert_eq!(destinations(&["/var/run/secrets/x", "/run"], &[]).unwrap(), ["/run", "/run/secrets/x", stub]);
    assert_eq!(destinations(&["/data/sub"], &[mount("/data")]).unwrap(), ["/data", "/data/sub", stub]);
    let error = destinations(&["/evil/x"], &[]).unwrap_err().to_string();
    assert!(error.contains("it leads to /proc/self/x, which is inside of /proc"), "{error}");
}

/// Device plugin API, `ContainerAllocateResponse`: "Devices for the container", "Container annotations to pass to the container runtime".
#[test]
fn devices_and_annotations_are_carried() {
    let device = |path: &str| crate::api::Device {
        host_path: "/dev/null".into(),
        container_path: path.into(),
        permissions: "rw".into(),
        ..Default::default()
    };
    let annotations = [("a.io/b", "c"), ("knarr.io/resources", "x")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config =
        ContainerConfig { devices: vec![device("/dev/x"), device("/elsewhere")], annotations: annotations.into(), ..simple() };
    let spec = spec(&config, &ImageConfig::default(), &SandboxConfig::default()).unwrap();
    let nodes = spec["linux"]["devices"].as_array().unwrap();
    assert_eq!(nodes.iter().map(|node| &node["path"]).collect::<Vec<_>>(), ["/dev/x"]);
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"});
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{"allow": false, "access": "rwm"}, rule, rule]));
    let mounts = spec["mounts"].as_array().unwrap();
    assert!(mounts.iter().any(|mount| mount["destination"] == "/elsewhere" && mount["source"] == "/dev/null"), "{mounts:?}");
    assert_eq!(spec["annotations"], json!({"a.io/b": "c"}));
}

//! The OCI configuration of a container (OCI runtime specification, config.md and config-linux.md).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::{Value, json};

use super::caps::{self, Available};
use super::cgroup::{Cgroups, Hierarchy};
use super::dev_volume::{DEV, Dev};
use super::devices::{self, Node};
use crate::api::{
    self, AppArmor, ContainerConfig, Error, HookStage, Mount, NamespaceMode, ProcessUser, Propagation, RESERVED, Result,
    SandboxConfig,
};
use crate::images::manifest::ImageConfig;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Files below /proc that a mount may replace, as runc has it: what lxcfs shows a container of its own.
const PROC_FILES: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Annotation for the helper: load the seccomp filter and keep these capabilities.
const CONFINED: &str = "knarr.runtime/confined";

/// Annotation for the helper: the volume at /dev.
const VOLUME_AT_DEV: &str = "knarr.runtime/dev";

/// What the helper confines a process to: the capabilities to keep, and the system call filter.
pub(crate) type Confinement = (Vec<String>, LinuxSeccomp);

/// What the helper shall confine the container's processes to, if it shall.
pub(crate) fn confinement(spec: &Spec) -> Option<Confinement> {
    let kept = spec.annotations().as_ref()?.get(CONFINED)?;
    let profile = spec.linux().as_ref()?.seccomp().clone()?;
    Some((kept.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(), profile))
}

/// The volume that the helper shall mount at /dev, if there is one.
pub(super) fn volume_at_dev(spec: &Spec) -> std::result::Result<Option<Dev>, String> {
    let text = spec.annotations().as_ref().and_then(|annotations| annotations.get(VOLUME_AT_DEV));
    text.map(|text| serde_json::from_str(text)).transpose().map_err(|error| format!("{VOLUME_AT_DEV}: {error}"))
}

/// Everything that a configuration depends on.
pub(crate) struct Input<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageConfig,
    pub(crate) sandbox: &'a SandboxConfig,
    pub(crate) user: &'a ProcessUser,
    /// The container's cgroup, relative to the root of every hierarchy.
    pub(crate) cgroup: &'a str,
    pub(crate) cgroups: &'a Cgroups,
    pub(crate) available: Available,
    /// Directory of what the pod's containers share: `shm`, `hostname`, `resolv.conf`.
    pub(crate) shared_dir: &'a Path,
    /// Where its root file system is mounted.
    pub(crate) root: &'a Path,
    /// The pod's namespaces belong to a user namespace.
    pub(crate) has_users: bool,
    /// The process that holds the pod's namespaces, and one of the pid namespace that the container joins, if it joins one.
    pub(crate) shim: u32,
    pub(crate) joined: Option<u32>,
    /// Lowest OOM score adjustment of a container: the shim and the server are killed after it.
    pub(crate) oom_floor: i32,
    /// The system call filter; none for privileged containers and where none is wanted.
    pub(crate) seccomp: Option<Value>,
    /// Directories for what the image declares as volumes and the pod mounts nothing at.
    pub(crate) anonymous: &'a [Mount],
    /// Devices that the container is given.
    pub(crate) devices: &'a [Node],
    /// Where a destination leads in the container's root file system, given what is mounted before it.
    pub(crate) resolve: &'a dyn Fn(&Path, &BTreeSet<PathBuf>) -> io::Result<PathBuf>,
}

impl Input<'_> {
    /// The whole document.
    pub(crate) fn spec(&self) -> Result<Value> {
        let shared = self.config.mounts.iter().any(|mount| mount.propagation == Propagation::Bidirectional);
        let slave = self.config.mounts.iter().any(|mount| mount.propagation == Propagation::HostToContainer);
        let mut linux = json!({
            "namespaces": self.namespaces(),
            "cgroupsPath": format!("/{}", self.cgroup),
            "resources": self.resources(),
        });
        if shared || slave {
            linux["rootfsPropagation"] = json!(if shared { "shared" } else { "slave" });
        }
        let security = &self.config.security;
        if !security.privileged && !security.unmasked_proc {
            linux["maskedPaths"] = json!(api::MASKED_PATHS);
            linux["readonlyPaths"] = json!(api::READONLY_PATHS);
        }
        let (given, _) = devices::split(self.devices, self.has_users);
        let mut nodes = if security.privileged { devices::of_host() } else { Vec::new() };
        nodes.retain(|node| !given.iter().any(|new| new.path == node.path));
        let nodes: Vec<Value> = nodes.iter().chain(given).map(Node::entry).collect();
        if !nodes.is_empty() {
            linux["devices"] = json!(nodes);
        }
        if let Some(profile) = &self.seccomp {
            linux["seccomp"] = profile.clone();
        }
        let others = self.config.annotations.iter().filter(|(name, _)| !name.starts_with(RESERVED));
        let mut annotations: serde_json::Map<String, Value> = others.map(|(name, value)| (name.clone(), json!(value))).collect();
        if self.confined() {
            let kept = caps::for_container(security, self.available);
            annotations.insert(CONFINED.to_owned(), json!(kept.join(",")));
        }
        let (mounts, dev) = self.mounts()?;
        if let Some(dev) = dev {
            annotations.insert(VOLUME_AT_DEV.to_owned(), json!(json!(dev).to_string()));
        }
        let process = self.process(self.args()?, self.config.tty);
        refuse_nul(&process)?;
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "annotations": annotations,
            "process": process,
            "root": {"path": self.root, "readonly": security.readonly_rootfs},
            "mounts": mounts,
            "linux": linux,
        });
        // The OCI runtime does more for a container with hooks, even if there are none.
        if !self.config.hooks.is_empty() {
            spec["hooks"] = self.hooks();
        }
        Ok(spec)
    }

    fn hooks(&self) -> Value {
        let mut hooks = serde_json::Map::new();
        for stage in HookStage::ALL {
            let of_stage = self.config.hooks.iter().filter(|hook| hook.stage == stage);
            let entries: Vec<Value> = of_stage
                .map(|hook| {
                    let mut entry = json!({"path": hook.path, "timeout": hook.timeout.as_secs()});
                    for (name, words) in [("args", &hook.args), ("env", &hook.env)] {
                        if !words.is_empty() {
                            entry[name] = json!(words);
                        }
                    }
                    entry
                })
                .collect();
            if !entries.is_empty() {
                hooks.insert(stage.name().to_owned(), Value::Array(entries));
            }
        }
        Value::Object(hooks)
    }

    /// The process document of the container's init, or of a command executed beside it.
    pub(crate) fn process(&self, args: Vec<String>, terminal: bool) -> Value {
        let mut capabilities = caps::for_container(&self.config.security, self.available);
        if self.confined() && !self.config.security.no_new_privs {
            // To load the filter; the helper gives them up with it.
            let needed = ["SYS_ADMIN", "SETPCAP"].into_iter().filter(|name| self.available.has(name));
            capabilities
                .extend(needed.map(|name| format!("CAP_{name}")).filter(|name| !capabilities.contains(name)).collect::<Vec<_>>());
        }
        let mut process = json!({
            "terminal": terminal,
            "user": {"uid": self.user.uid, "gid": self.user.gid, "additionalGids": self.user.groups},
            "args": args,
            "env": self.env(terminal),
            "cwd": self.working_dir(),
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": [],
            },
        });
        // `false` makes the runtime refuse some filters: absent is the same to the kernel.
        if self.config.security.no_new_privs && !self.config.security.privileged {
            process["noNewPrivileges"] = json!(true);
        }
        if let Some(AppArmor::Localhost(profile)) = &self.config.security.app_armor {
            process["apparmorProfile"] = json!(profile);
        }
        // A container for which nobody asks must not have what protects the shim, either.
        let wanted = self.config.resources.oom_score_adj.unwrap_or(0);
        let score = wanted.max(self.oom_floor);
        if score != wanted {
            tracing::debug!(wanted, score, "oom_score_adj is raised: this process has no lower one that is let go of first");
        }
        process["oomScoreAdj"] = json!(score);
        process
    }

    /// Whether the helper shall load the filter. Other OCI runtimes do that themselves.
    fn confined(&self) -> bool {
        self.seccomp.is_some() && self.is_built_in()
    }

    /// Whether the container is made by the helper itself, and not by another OCI runtime.
    fn is_built_in(&self) -> bool {
        matches!(self.sandbox.runtime_handler.as_str(), "" | "knarr")
    }

    /// Entrypoint and command of image and pod, by the rules of the Pod API.
    fn args(&self) -> Result<Vec<String>> {
        let (config, image) = (self.config, self.image);
        let mut args = if config.command.is_empty() { image.entrypoint.clone() } else { config.command.clone() };
        match config.args.is_empty() {
            false => args.extend(config.args.iter().cloned()),
            true if config.command.is_empty() => args.extend(image.cmd.iter().cloned()),
            true => {}
        }
        if args.is_empty() {
            return Err(Error::Create("no command specified: neither the image nor the container has one".to_owned()));
        }
        Ok(args)
    }

    fn env(&self, terminal: bool) -> Vec<String> {
        let ours = [DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", self.sandbox.hostname)];
        let ours = ours.into_iter().chain(terminal.then(|| "TERM=xterm".to_owned()));
        let pod = self.config.env.iter().map(|(name, value)| format!("{name}={value}"));
        let all = ours.chain(self.image.env.iter().cloned()).chain(pod);
        // The last one of a name counts, at the place of the first.
        let env: IndexMap<String, String> =
            all.map(|entry| (entry.split('=').next().unwrap_or_default().to_owned(), entry)).collect();
        env.into_values().collect()
    }

    /// The working directory.
    pub(crate) fn working_dir(&self) -> String {
        let dir = [&self.config.working_dir, &self.image.working_dir].into_iter().find(|dir| !dir.is_empty());
        match dir {
            Some(dir) if dir.starts_with('/') => dir.clone(),
            Some(dir) => format!("/{dir}"),
            None => "/".to_owned(),
        }
    }

    fn namespaces(&self) -> Value {
        let shim = |name: &str| json!({"type": kind_of(name), "path": format!("/proc/{}/ns/{name}", self.shim)});
        let mut namespaces = vec![json!({"type": "mount"})];
        if self.has_users {
            namespaces.push(shim("user"));
        }
        if !self.sandbox.host_network {
            namespaces.push(shim("net"));
            namespaces.push(shim("uts"));
        }
        if self.sandbox.ipc != NamespaceMode::Node {
            namespaces.push(shim("ipc"));
        }
        match (self.sandbox.pid, self.joined) {
            (NamespaceMode::Node, _) => {}
            (_, Some(one)) => namespaces.push(json!({"type": "pid", "path": format!("/proc/{one}/ns/pid")})),
            _ => namespaces.push(json!({"type": "pid"})),
        }
        if self.cgroups.unified() && !self.config.security.privileged {
            namespaces.push(json!({"type": "cgroup"}));
        }
        Value::Array(namespaces)
    }

    /// Whether swap can be limited, by the pod's group: the container's own is not there yet.
    fn limits_swap(&self) -> bool {
        let of_pod = self.cgroup.rsplit_once('/').map(|(parent, _)| parent);
        of_pod.is_some_and(|group| self.cgroups.limits_swap(group))
    }

    fn resources(&self) -> Value {
        let limits = &self.config.resources;
        let others = json!({"allow": self.config.security.privileged, "access": "rwm"});
        let rules: Vec<Value> = std::iter::once(others).chain(self.devices.iter().map(Node::rule)).collect();
        let mut resources = json!({"devices": rules});
        let mut cpu = serde_json::Map::new();
        let mut set = |name: &str, value: Option<i64>| {
            if let Some(value) = value.filter(|value| *value > 0) {
                cpu.insert(name.to_owned(), json!(value));
            }
        };
        set("quota", limits.cpu_quota);
        set("period", limits.cpu_period.and_then(|period| i64::try_from(period).ok()));
        set("shares", limits.cpu_shares.and_then(|shares| i64::try_from(shares).ok()));
        if let Some(cpus) = &limits.cpus {
            cpu.insert("cpus".to_owned(), json!(cpus));
        }
        if let Some(nodes) = &limits.memory_nodes {
            cpu.insert("mems".to_owned(), json!(nodes));
        }
        if !cpu.is_empty() {
            resources["cpu"] = Value::Object(cpu);
        }
        if let Some(memory) = limits.memory_limit.filter(|memory| *memory > 0) {
            resources["memory"] = json!({"limit": memory});
            if !self.cgroups.unified() && self.limits_swap() {
                resources["memory"]["swap"] = json!(memory);
            }
        }
        if self.cgroups.unified() && self.cgroups.limits_memory() {
            resources["unified"] = json!(memory_files(self.limits_swap()));
        }
        let huge = limits.huge_pages.iter().map(|(size, limit)| json!({"pageSize": size, "limit": limit}));
        if !limits.huge_pages.is_empty() && self.cgroups.limits_huge_pages() {
            resources["hugepageLimits"] = huge.collect();
        }
        if let Some(pids) = limits.pids_limit.filter(|pids| *pids > 0) {
            resources["pids"] = json!({"limit": pids});
        }
        resources
    }

    /// Kernel file systems, then files of ours and what pod and image ask for, parents before what is below them, as containerd and CRI-O sort
    /// them. The pod's own mounts replace ours at the same place. A volume at /dev comes apart.
    fn mounts(&self) -> Result<(Vec<Value>, Option<Dev>)> {
        let (_, devices) = devices::split(self.devices, self.has_users);
        let mut own: Vec<&Mount> = self.anonymous.iter().chain(&self.config.mounts).chain(&devices).collect();
        let is_dev = |mount: &&&Mount| self.is_built_in() && mount.container_path == Path::new(DEV);
        let dev = own.iter().find(is_dev).copied();
        own.retain(|mount| !is_dev(&mount));
        let replaces = |mount: &&&Mount, ours: &Value| destination(ours) == mount.container_path;
        let (mut mounts, mut files) = (self.kernel_mounts(), self.shared_files());
        files.retain(|ours| !own.iter().any(|mount| replaces(&mount, ours)));
        // A volume at /sys is the node's with all that is below it; what is below /dev stays the container's own.
        let hides = |mount: &&Mount, ours: &Value| {
            mount.container_path != Path::new(DEV) && destination(ours).starts_with(&mount.container_path)
        };
        mounts.retain(|ours| !own.iter().any(|mount| replaces(&mount, ours) || hides(mount, ours)));
        // Those below a volume come after it.
        let is_below = |ours: &mut Value| own.iter().any(|mount| destination(ours).starts_with(&mount.container_path));
        let mut placed: Vec<Value> = mounts.extract_if(.., is_below).collect();
        let mut taken: BTreeSet<PathBuf> = mounts.iter().chain(&placed).map(destination).collect();
        let mut wanted: Vec<Value> = files.into_iter().chain(own.iter().map(|mount| pod_mount(mount))).collect();
        wanted.sort_by_key(depth);
        for mut bind in wanted {
            let place = self.place(&bind, &taken)?;
            bind["destination"] = json!(place);
            taken.insert(place);
            placed.push(bind);
        }
        // Again: a link in the image may lead below what the pod mounts.
        placed.sort_by_key(depth);
        mounts.extend(placed);
        Ok((mounts, dev.map(|mount| Dev::new(mount, &taken))))
    }

    /// Where the destination of a mount leads. An image whose links lead into the kernel's files is refused, as runc does, and what
    /// would hide the files of processes.
    fn place(&self, mount: &Value, taken: &BTreeSet<PathBuf>) -> Result<PathBuf> {
        let named = destination(mount);
        let failed = |text: String| Error::Create(format!("mount destination {}: {text}", named.display()));
        let place = (self.resolve)(&named, taken).map_err(|error| failed(error.to_string()))?;
        let led_into = |root: &str| place.starts_with(root) && !named.starts_with(root);
        if let Some(root) = ["/proc", "/sys"].into_iter().find(|root| led_into(root)) {
            return Err(failed(format!("it leads to {}, which is inside of {root}", place.display())));
        }
        if place == Path::new("/") {
            return Err(failed("it is the root of the container, where its image is".to_owned()));
        }
        match place.strip_prefix("/proc").map(Path::to_str) {
            Ok(Some("")) if !is_proc(mount) => Err(failed("only a file system of type proc can be mounted there".to_owned())),
            Ok(inside) if !inside.is_some_and(|inside| inside.is_empty() || PROC_FILES.contains(&inside)) => {
                Err(failed("it is inside of /proc".to_owned()))
            }
            _ => Ok(place),
        }
    }

    fn kernel_mounts(&self) -> Vec<Value> {
        let sys = if self.config.security.privileged { "rw" } else { "ro" };
        let mut mounts = vec![
            special("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            special("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            special("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            special("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            special("/sys", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        ];
        mounts.extend(self.cgroup_mounts());
        mounts
    }

    /// What the pod's containers share.
    fn shared_files(&self) -> Vec<Value> {
        let shm = match self.sandbox.ipc {
            NamespaceMode::Node => PathBuf::from("/dev/shm"),
            _ => self.shared_dir.join("shm"),
        };
        let mut binds = vec![bind(&shm, "/dev/shm", &["nosuid", "noexec", "nodev", "rw"])];
        let files = if self.config.security.readonly_rootfs { "ro" } else { "rw" };
        binds.push(bind(&self.shared_dir.join("hostname"), "/etc/hostname", &[files]));
        if self.sandbox.resolv_conf.is_some() {
            binds.push(bind(&self.shared_dir.join("resolv.conf"), "/etc/resolv.conf", &[files]));
        }
        binds
    }

    /// The container's own cgroup, by bind mounts: a mount of type cgroup ends up writable.
    fn cgroup_mounts(&self) -> Vec<Value> {
        let mode = if self.config.security.privileged { "rw" } else { "ro" };
        let options = ["nosuid", "noexec", "nodev", mode];
        let source = |hierarchy: &Hierarchy| match self.config.security.privileged {
            true => hierarchy.mount.clone(),
            false => hierarchy.mount.join(self.cgroup),
        };
        if self.cgroups.unified() {
            return self.cgroups.hierarchies().iter().map(|h| bind(&source(h), "/sys/fs/cgroup", &options)).collect();
        }
        let mut mounts = vec![special("/sys/fs/cgroup", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"])];
        for hierarchy in self.cgroups.hierarchies() {
            mounts.push(bind(&source(hierarchy), &hierarchy.mount.to_string_lossy(), &options));
        }
        mounts
    }
}

/// Refuses what execve(2) cannot give a program, whose strings end with NUL: an image may have it, too.
fn refuse_nul(process: &Value) -> Result<()> {
    let words = |list: &'static str| process[list].as_array().into_iter().flatten().filter_map(Value::as_str);
    let has_nul = |word: &&str| word.contains('\0');
    let env =
        words("env").find(has_nul).map(|entry| format!("environment variable {:?}", entry.split('=').next().unwrap_or_default()));
    let args = || words("args").find(has_nul).map(|word| format!("argument {word:?}"));
    let cwd = || process["cwd"].as_str().filter(has_nul).map(|path| format!("working directory {path:?}"));
    match env.or_else(args).or_else(cwd) {
        None => Ok(()),
        Some(what) => Err(Error::Create(format!("{what} has a NUL character, which no process can be given"))),
    }
}

/// Files of version 2 that every container's group has, whatever its limits: as upstream, one that is out of memory ends as a whole, and
/// nothing of it is swapped out (`NoSwap`).
fn memory_files(limits_swap: bool) -> BTreeMap<&'static str, &'static str> {
    let swap = limits_swap.then_some(("memory.swap.max", "0"));
    [("memory.oom.group", "1")].into_iter().chain(swap).collect()
}

/// Whether what is mounted is of the type proc.
fn is_proc(mount: &Value) -> bool {
    let source = mount["source"].as_str().unwrap_or_default();
    statfs(source).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
}

fn destination(mount: &Value) -> PathBuf {
    PathBuf::from(mount["destination"].as_str().unwrap_or_default())
}

fn depth(mount: &Value) -> usize {
    destination(mount).components().count()
}

fn kind_of(name: &str) -> &str {
    if name == "net" { "network" } else { name }
}

fn special(destination: &str, kind: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": kind, "source": kind, "options": options})
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    let options: Vec<&str> = ["bind"].iter().chain(options).copied().collect();
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

fn pod_mount(mount: &Mount) -> Value {
    let propagation = match mount.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let mut options = vec!["rbind", propagation, if mount.readonly { "ro" } else { "rw" }];
    if mount.readonly && mount.recursive_readonly {
        options.push("rro");
    }
    if mount.image.is_some() {
        options.extend(["nosuid", "nodev"]);
    }
    json!({"destination": mount.container_path, "type": "bind", "source": mount.host_path, "options": options})
}

#[cfg(test)]
mod tests;

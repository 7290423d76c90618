//! The Container Device Interface (CNCF, version 0.8 and before): names of devices, such as `vendor.example/gpu=0`, and the files that say what
//! containers get with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::api::{ContainerEdits, Device, DeviceKind, DeviceNumbers, HOOK_TIMEOUT, Hook, HookStage, Mount, Propagation};
use serde::Deserialize;

/// Where the files are. What stands in a later one is right.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Most bytes of a file, and most files of a directory: more are not read.
const FILE: u64 = 4 << 20;
const FILES: usize = 1024;

/// Why a name cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// No file names it, or it is no name.
    #[error("CDI device injection failed: unresolvable CDI devices {0}")]
    Unknown(String),
    /// What comes with it is not done here.
    #[error("CDI device {device} asks for {what}, which this kubelet does not support")]
    Unsupported {
        /// Its name.
        device: String,
        /// What it asks for.
        what: String,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    kind: String,
    container_edits: Edits,
    devices: Vec<Named>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Named {
    name: String,
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<Program>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<u32>,
    intel_rdt: Option<serde_json::Value>,
    net_devices: Vec<serde_json::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: PathBuf,
    host_path: PathBuf,
    #[serde(rename = "type")]
    kind: String,
    major: u32,
    minor: u32,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bind {
    host_path: PathBuf,
    container_path: PathBuf,
    options: Vec<String>,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Program {
    hook_name: String,
    path: PathBuf,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// What containers get with devices of these names; one that is named twice comes once. The files are read as they are now.
///
/// # Errors
/// A name that no file has, or one that asks for what is not done.
pub(crate) async fn resolve(mut names: Vec<String>) -> Result<ContainerEdits, String> {
    let mut known = BTreeSet::new();
    names.retain(|name| known.insert(name.clone()));
    if names.is_empty() {
        return Ok(ContainerEdits::default());
    }
    let read = move || {
        let specs: Vec<Spec> = DIRECTORIES.iter().flat_map(|directory| read(Path::new(directory))).collect();
        of(&specs, &names)
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// The files of a directory that can be understood, in the order of their names.
fn read(directory: &Path) -> Vec<Spec> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(directory = %directory.display(), %error, "cannot look for CDI devices");
            }
            return Vec::new();
        }
    };
    let is_spec = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json" || extension == "yaml");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_spec).collect();
    paths.sort();
    if paths.len() > FILES {
        tracing::warn!(directory = %directory.display(), "there are more than {FILES} files of CDI devices: the rest is not looked at");
        paths.truncate(FILES);
    }
    let spec = |path: &PathBuf| match read_one(path) {
        Ok(spec) => Some(spec),
        Err(error) => {
            tracing::warn!(file = %path.display(), error, "CDI devices of a file cannot be used");
            None
        }
    };
    paths.iter().filter_map(spec).collect()
}

fn read_one(path: &Path) -> Result<Spec, String> {
    let bytes = base::records::read_file(path, FILE).map_err(|error| error.to_string())?;
    parse(std::str::from_utf8(&bytes).map_err(|error| error.to_string())?)
}

/// JSON is YAML.
fn parse(text: &str) -> Result<Spec, String> {
    let (value, _) = apimachinery::yaml::parse(text).map_err(|error| error.to_string())?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn of(specs: &[Spec], names: &[String]) -> Result<ContainerEdits, Error> {
    let (mut all, mut kinds) = (ContainerEdits::default(), BTreeSet::new());
    for name in names {
        let found = name.split_once('=').and_then(|(kind, device)| {
            let of_kind = specs.iter().enumerate().rev().filter(|(_, spec)| spec.kind == kind && !kind.is_empty());
            of_kind.into_iter().find_map(|(at, spec)| Some((at, spec, spec.devices.iter().find(|one| one.name == device)?)))
        });
        let Some((at, spec, device)) = found else { return Err(Error::Unknown(name.clone())) };
        if kinds.insert(at) {
            add(&mut all, name, &spec.container_edits)?;
        }
        add(&mut all, name, &device.container_edits)?;
    }
    Ok(all)
}

/// Puts edits behind those that are there.
fn add(all: &mut ContainerEdits, name: &str, edits: &Edits) -> Result<(), Error> {
    let unsupported = |what: &str| Error::Unsupported { device: name.to_owned(), what: what.to_owned() };
    let refused = [(edits.intel_rdt.is_some(), "Intel RDT"), (!edits.net_devices.is_empty(), "network devices")];
    if let Some((_, what)) = refused.iter().find(|(asked, _)| *asked) {
        return Err(unsupported(what));
    }
    let variables: BTreeMap<&str, &str> = edits.env.iter().filter_map(|one| one.split_once('=')).collect();
    all.env.retain(|(known, _)| !variables.contains_key(known.as_str()));
    all.env.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    for node in &edits.device_nodes {
        let device = device(node).map_err(|what| unsupported(&what))?;
        all.devices.retain(|known| known.container_path != device.container_path);
        all.devices.push(device);
    }
    for bind in &edits.mounts {
        let mount = mount(bind).map_err(|what| unsupported(&what))?;
        all.mounts.retain(|known| known.container_path != mount.container_path);
        all.mounts.push(mount);
    }
    for program in &edits.hooks {
        all.hooks.push(hook(program).map_err(|what| unsupported(&what))?);
    }
    // That of root is no group that a device needs.
    all.groups.extend(edits.additional_gids.iter().filter(|group| **group != 0));
    Ok(())
}

fn hook(program: &Program) -> Result<Hook, String> {
    let stage = HookStage::ALL.into_iter().find(|stage| stage.name() == program.hook_name);
    let stage = stage.ok_or_else(|| format!("a hook named {:?}", program.hook_name))?;
    if !program.path.is_absolute() {
        return Err(format!("a hook whose path {:?} is not absolute", program.path));
    }
    if let Some(entry) = program.env.iter().find(|entry| entry.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        return Err(format!("a hook with {entry:?} as a variable"));
    }
    let timeout = match program.timeout.map(u64::try_from) {
        None => HOOK_TIMEOUT,
        Some(Ok(seconds @ 1..)) if Duration::from_secs(seconds) <= HOOK_TIMEOUT => Duration::from_secs(seconds),
        Some(_) => return Err(format!("a hook with a timeout that is not from 1 to {} seconds", HOOK_TIMEOUT.as_secs())),
    };
    Ok(Hook { stage, path: program.path.clone(), args: program.args.clone(), env: program.env.clone(), timeout })
}

fn device(node: &Node) -> Result<Device, String> {
    let kind = match node.kind.as_str() {
        "" => None,
        "b" => Some(DeviceKind::Block),
        "c" | "u" => Some(DeviceKind::Character),
        other => return Err(format!("a device node of type {other:?}")),
    };
    // Without numbers it is what is at the path of the host.
    let numbered = kind.filter(|_| node.major != 0 || node.minor != 0);
    Ok(Device {
        host_path: if node.host_path.as_os_str().is_empty() { node.path.clone() } else { node.host_path.clone() },
        container_path: node.path.clone(),
        permissions: node.permissions.clone(),
        numbers: numbered.map(|kind| DeviceNumbers { kind, major: node.major, minor: node.minor }),
        mode: node.file_mode,
        uid: node.uid,
        gid: node.gid,
    })
}

fn mount(bind: &Bind) -> Result<Mount, String> {
    if !matches!(bind.kind.as_str(), "" | "bind" | "none") {
        return Err(format!("a mount of type {:?}", bind.kind));
    }
    let has = |option: &str| bind.options.iter().any(|one| one == option);
    let propagation = if has("rshared") || has("shared") {
        Propagation::Bidirectional
    } else if has("rslave") || has("slave") {
        Propagation::HostToContainer
    } else {
        Propagation::default()
    };
    Ok(Mount {
        host_path: bind.host_path.clone(),
        container_path: bind.container_path.clone(),
        readonly: has("ro"),
        propagation,
        ..Mount::default()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SPEC: &str = "
cdiVersion: 0.6.0
kind: vendor.example/gpu
containerEdits:
  env: [ALL=1]
devices:
- name: zero
  containerEdits:
    env: [GPU=0]
    deviceNodes: [{path: /dev/gpu0, hostPath: /dev/null, permissions: rw}]
    mounts: [{hostPath: /lib/gpu, containerPath: /gpu, options: [ro, nosuid]}]
- name: one
  containerEdits: {env: [GPU=1]}
- name: hook
  containerEdits:
    hooks: [{hookName: createContainer, path: /bin/true, args: [it, one], env: [A=b], timeout: 5}]
    additionalGids: [0, 44]
";

    #[track_caller]
    fn check(specs: &[&str], names: &[&str], expected: Result<&[(&str, &str)], &str>) -> ContainerEdits {
        let specs: Vec<Spec> = specs.iter().map(|text| parse(text).unwrap()).collect();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let found = of(&specs, &names);
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let env = found.as_ref().map(|edits| edits.env.clone()).map_err(ToString::to_string);
        assert_eq!(env, expected.map(|all| all.iter().map(own).collect()).map_err(str::to_owned));
        found.unwrap_or_default()
    }

    /// Container Device Interface, "CDI JSON Specification": edits of the file and of each device that is asked for.
    #[test]
    fn names_stand_for_what_files_say() {
        let found = check(&[SPEC], &["vendor.example/gpu=zero"], Ok(&[("ALL", "1"), ("GPU", "0")]));
        let device = &found.devices[0];
        assert_eq!((device.container_path.to_str(), device.host_path.to_str()), (Some("/dev/gpu0"), Some("/dev/null")));
        assert_eq!((device.permissions.as_str(), device.numbers), ("rw", None));
        assert!(found.mounts[0].readonly);
        check(&[SPEC], &["vendor.example/gpu=zero", "vendor.example/gpu=one"], Ok(&[("ALL", "1"), ("GPU", "1")]));
        let later = r#"{"kind": "vendor.example/gpu", "devices": [{"name": "one", "containerEdits": {"env": ["GPU=later"]}}]}"#;
        check(&[SPEC, later], &["vendor.example/gpu=one"], Ok(&[("GPU", "later")]));
        let unknown = "CDI device injection failed: unresolvable CDI devices vendor.example/gpu=two";
        check(&[SPEC], &["vendor.example/gpu=two"], Err(unknown));
        check(&[SPEC], &["zero"], Err("CDI device injection failed: unresolvable CDI devices zero"));
    }

    /// CDI specification: `hooks` of the container edits, which become those of the OCI configuration, and `additionalGids`, of which "0 is
    /// ignored".
    #[test]
    fn hooks_and_groups_are_taken_over() {
        let found = check(&[SPEC], &["vendor.example/gpu=hook"], Ok(&[("ALL", "1")]));
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let hook = Hook {
            stage: HookStage::CreateContainer,
            path: "/bin/true".into(),
            args: words(&["it", "one"]),
            env: words(&["A=b"]),
            timeout: Duration::from_secs(5),
        };
        assert_eq!((found.hooks, found.groups), (vec![hook], vec![44]));
        let refused = |hook: &str, what: &str| {
            let spec = format!("{{kind: a/b, devices: [{{name: c, containerEdits: {{hooks: [{hook}]}}}}]}}");
            let why = format!("CDI device a/b=c asks for {what}, which this kubelet does not support");
            check(&[&spec], &["a/b=c"], Err(&why));
        };
        refused("{hookName: prestop, path: /bin/true}", "a hook named \"prestop\"");
        refused("{hookName: poststop, path: bin/true}", "a hook whose path \"bin/true\" is not absolute");
        refused("{hookName: poststop, path: /bin/true, env: [A]}", "a hook with \"A\" as a variable");
        let late = "a hook with a timeout that is not from 1 to 60 seconds";
        refused("{hookName: poststop, path: /bin/true, timeout: 0}", late);
        refused("{hookName: poststop, path: /bin/true, timeout: 61}", late);
    }
}

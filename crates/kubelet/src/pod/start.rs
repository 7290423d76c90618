//! Making and starting a container: everything from its specification to the runtime's configuration.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::events::Type;
use jiff::Timestamp;
use k8s_openapi::api::core::v1;
use runtime::api::{Container, ContainerConfig, ContainerState, Device, Image, Mount, Sandbox};

use super::last_words;
use crate::allocation::RESOURCES;
use crate::context::{Context, HOSTS};
use crate::env::{self, Environment, Files};
use crate::expand::{ALL, TooLong, expand};
use crate::logs::links;
use crate::pod::cleanup::forget_links;
use crate::refs::PodReferences;
use crate::security::{self, Around};
use crate::spec::{Member, Model};
use crate::volumes::mounts::{self, Surroundings};
use crate::volumes::{self, gid, sub_path};
use crate::{cdi, claims, hosts, images, metrics, resources};

/// Most bytes of a file with variables.
const ENV_FILE: u64 = 1 << 20;
/// Largest that all of them may be for one container, bytes.
const ENV_FILES: usize = 8 << 20;

/// What a start needs beside the shared context.
pub struct Start {
    /// The pod.
    pub model: Model,
    /// The container.
    pub member: Member,
    /// Its image.
    pub image: Image,
    /// The pod's sandbox.
    pub sandbox: Sandbox,
    /// Number of this container.
    pub attempt: u32,
    /// Its references.
    pub refs: Arc<PodReferences>,
}

/// Waiting reason and message, and the container that was made but did not start.
pub type Failed = (String, String, Option<Box<Container>>);

/// Makes and starts the container.
pub async fn start(cx: &Arc<Context>, start: Start) -> Result<Container, Failed> {
    let role = start.member.role;
    let result = begin(cx, start).await;
    metrics::container_started(role, result.as_ref().map(drop).map_err(|(reason, ..)| reason.as_str()));
    result
}

async fn begin(cx: &Arc<Context>, start: Start) -> Result<Container, Failed> {
    let (model, member) = (&start.model, &start.member);
    let made = match unstarted(cx, &start).await {
        Some(made) => made,
        None => make(cx, &start).await?,
    };
    if let Err(error) = cx.runtime().start_container(&made.id).await {
        cx.container_event(model, member, Type::Warning, "Failed", format!("Error: {error}"));
        let mut made = cx.runtime().container(&made.id).await.unwrap_or(made);
        // One that never ran has ended now.
        made.finished = made.finished.or_else(|| (made.state == ContainerState::Created).then(Timestamp::now));
        return Err(("RunContainerError".to_owned(), error.to_string(), Some(Box::new(made))));
    }
    cx.container_event(model, member, Type::Normal, "Started", "Container started");
    match cx.runtime().container(&made.id).await {
        Ok(mut container) => {
            link_log(cx, model, &container).await;
            // It may have ended already.
            last_words::add(cx, model, &mut container).await;
            Ok(container)
        }
        // It runs, and is found when it is looked for again: nothing says that it has ended.
        Err(error) => Err(("RunContainerError".to_owned(), error.to_string(), None)),
    }
}

/// Makes the log known to log collectors, without which the container runs all the same.
async fn link_log(cx: &Context, model: &Model, container: &Container) {
    let name = links::name((model.namespace(), model.name()), &container.name, &container.id);
    let link = links::directory(&cx.options.pod_logs_dir).join(name);
    if let Err(error) = links::make(&link, &container.log_path).await {
        tracing::warn!(link = %link.display(), %error, "log collectors will not find a container's log");
    }
}

/// The container that a kubelet made before it was killed, if it had come so far. A second one would run beside it.
async fn unstarted(cx: &Context, start: &Start) -> Option<Container> {
    let containers = cx.runtime().containers(Some(&start.sandbox.id)).await.ok()?;
    let name = &start.member.spec.name;
    containers.into_iter().find(|c| c.name == *name && c.attempt == start.attempt && c.state != ContainerState::Exited)
}

async fn make(cx: &Arc<Context>, start: &Start) -> Result<Container, Failed> {
    let (model, member) = (&start.model, &start.member);
    let config = match configure(cx, start).await {
        Ok(config) => config,
        Err(message) => {
            cx.container_event(model, member, Type::Warning, "Failed", format!("Error: {message}"));
            return Err(("CreateContainerConfigError".to_owned(), message, None));
        }
    };
    forget_old(cx, start).await;
    let (cpus, images) = (config.resources.cpus.clone(), mounts::image_volumes(model, &member.spec).count());
    let created = match cx.runtime().create_container(&start.sandbox.id, config).await {
        Ok(made) => {
            let (uid, name) = (model.uid(), member.spec.name.as_str());
            cx.cpus.check(cx.runtime().as_ref(), uid, name, &made.id, cpus.as_deref()).await.map(|()| made)
        }
        failed => failed,
    };
    metrics::image_volumes(images, created.is_ok());
    match created {
        Ok(made) => {
            cx.container_event(model, member, Type::Normal, "Created", "Container created");
            Ok(made)
        }
        Err(error) => {
            cx.container_event(model, member, Type::Warning, "Failed", format!("Error: {error}"));
            Err(("CreateContainerError".to_owned(), error.to_string(), None))
        }
    }
}

/// Of the containers that ended, only the newest stays, with its log, for `lastState` and `logs --previous`.
async fn forget_old(cx: &Context, start: &Start) {
    let Ok(containers) = cx.runtime().containers(Some(&start.sandbox.id)).await else { return };
    for old in containers.iter().filter(|old| old.name == start.member.spec.name && old.attempt + 1 < start.attempt) {
        if let Err(error) = cx.runtime().remove_container(&old.id).await {
            tracing::warn!(container = old.id, %error, "cannot remove an old container");
            continue;
        }
        forget_links(cx, old.log_path.clone()).await;
        let last_words = cx.termination_log(start.model.uid(), &old.name, old.attempt);
        let logs = crate::logs::files::list(&old.log_path).await.unwrap_or_default();
        for path in logs.into_iter().chain([last_words]) {
            // What is left here goes with the pod.
            let _ = tokio::fs::remove_file(path).await;
        }
    }
}

/// The runtime's configuration; the error says what is wrong with the specification or its references.
async fn configure(cx: &Arc<Context>, start: &Start) -> Result<ContainerConfig, String> {
    start.refs.known_to(&start.member).await.map_err(|unread| unread.to_string())?;
    let files = read_files(cx, start).await?;
    let environment = environment(cx, start, &files)?;
    let profiles = cx.options.data_dir.join("seccomp");
    let pod_dir = cx.pod_dir(start.model.uid());
    let groups = tokio::task::spawn_blocking(move || gid::all(&pod_dir)).await.map_err(|error| error.to_string())?;
    let groups = groups.map_err(|error| format!("cannot read the groups of volumes: {error}"))?;
    let around = Around { profiles: &profiles, seccomp_default: cx.options.seccomp_default, groups: &groups };
    let security = security::effective(&start.model, &start.member, &start.image, around).map_err(|error| error.to_string())?;
    let images = image_volumes(cx, start).await?;
    let mounts = prepare_mounts(cx, start, environment.variables.iter().cloned().collect(), images).await?;
    let spec = &start.member.spec;
    let (command, args) = words(spec, &environment).map_err(|error| error.to_string())?;
    let mut limits = resources::container(&start.model, spec, cx.machine.memory_bytes);
    cx.cpus.confine(&mut limits, start.model.uid(), &spec.name);
    limits.memory_nodes = cx.memory.nodes_of(start.model.uid(), &spec.name);
    let (given, of_plugins) = cx.devices.edits(&start.model, &start.member).await?;
    let named = [claims::prepare::cdi_devices(cx, &start.model, &start.member)?, of_plugins].concat();
    let mut config = ContainerConfig {
        name: spec.name.clone(),
        attempt: start.attempt,
        image: start.image.id.clone(),
        image_reference: spec.image.clone().unwrap_or_default(),
        image_digest: images::digest(&start.image, spec.image.as_deref().unwrap_or_default()),
        command,
        args,
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        mounts,
        devices: block_devices(cx, start).await?,
        hooks: Vec::new(),
        log_path: Path::new(&spec.name).join(format!("{}.log", start.attempt)),
        stdin: spec.stdin.unwrap_or(false),
        stdin_once: spec.stdin_once.unwrap_or(false),
        tty: spec.tty.unwrap_or(false),
        resources: limits,
        security,
        annotations: BTreeMap::from([(RESOURCES.to_owned(), start.member.record().to_owned())]),
        target: start.member.target.clone(),
        stop_signal: spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        log_limit: Some(cx.options.log_limit),
        env: environment.variables,
    };
    config.supply(given);
    config.edit(cdi::resolve(named).await?);
    refuse_nul(&config)?;
    Ok(config)
}

/// Command and arguments.
fn words(spec: &v1::Container, environment: &Environment) -> Result<(Vec<String>, Vec<String>), TooLong> {
    let known: HashMap<&str, &String> = environment.variables.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let mut bytes: usize = environment.variables.iter().map(|(name, value)| name.len() + value.len()).sum();
    let mut expanded = |words: &Option<Vec<String>>| {
        let one = |word: &String| {
            let word = expand(word, |name| known.get(name))?;
            bytes += word.len();
            if bytes > ALL { Err(TooLong::All) } else { Ok(word) }
        };
        words.iter().flatten().map(one).collect::<Result<Vec<_>, _>>()
    };
    Ok((expanded(&spec.command)?, expanded(&spec.args)?))
}

/// What a program is given ends at the first NUL (execve(2)), so that none can stand in it.
fn refuse_nul(config: &ContainerConfig) -> Result<(), String> {
    let refused = |what: String| Err(format!("{what} has a NUL character, which no process can be given"));
    if let Some((name, _)) = config.env.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
        return refused(format!("environment variable {name:?}"));
    }
    if let Some(word) = config.command.iter().chain(&config.args).find(|word| word.contains('\0')) {
        return refused(format!("argument {word:?}"));
    }
    if config.working_dir.contains('\0') { refused("workingDir".to_owned()) } else { Ok(()) }
}

/// The files that the container has variables from (KEP-3721). They are in volumes that last as long as the pod.
async fn read_files(cx: &Arc<Context>, start: &Start) -> Result<Files, String> {
    let wanted: Vec<_> = env::files(&start.member.spec).map(|file| (file.volume_name.clone(), file.path.clone())).collect();
    let (cx, model) = (cx.clone(), start.model.clone());
    let read = move || {
        let pod_dir = cx.pod_dir(model.uid());
        let mut bytes = 0;
        let one = |(name, path): (String, String)| {
            let volume = model.spec().volumes.iter().flatten().find(|volume| volume.name == name);
            let volume = volume.ok_or_else(|| format!("cannot find the volume {name:?} referenced by FileKeyRef"))?;
            if volume.empty_dir.is_none() {
                return Err(format!("the volume {name:?} referenced by FileKeyRef is no emptyDir"));
            }
            let text = sub_path::read(&volumes::path(&pod_dir, volume), &path, ENV_FILE);
            let text = text.map_err(|error| (error.kind() != io::ErrorKind::NotFound).then(|| error.to_string()));
            bytes += text.as_ref().map_or(0, String::len);
            if bytes > ENV_FILES {
                return Err(format!("files of variables have more than {} MiB together", ENV_FILES >> 20));
            }
            Ok(((name, path), text))
        };
        wanted.into_iter().map(one).collect()
    };
    tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?
}

fn environment(cx: &Context, start: &Start, files: &Files) -> Result<Environment, String> {
    let (model, member) = (&start.model, &start.member);
    let services = cx.services.in_namespace(model.namespace());
    let master = cx.services.get(Some("default"), "kubernetes").filter(|_| model.namespace() != "default");
    let services: Vec<_> = services.into_iter().chain(master).collect();
    let variables = env::service_variables(model, services.iter().map(Arc::as_ref));
    let ips = if model.host_network() { cx.options.node_ips.clone() } else { start.sandbox.ips.clone() };
    let facts = cx.facts(ips);
    let built =
        env::build(model, &member.spec, &variables, start.refs.as_ref(), files, &facts).map_err(|error| error.to_string())?;
    for (kind, name, keys) in &built.skipped {
        let keys = keys.join(", ");
        let message = format!(
            "Keys [{keys}] from the EnvFrom {kind} {}/{name} were skipped since they are considered invalid environment variable names.",
            model.namespace()
        );
        cx.container_event(model, member, Type::Warning, "InvalidEnvironmentVariableNames", message);
    }
    Ok(built)
}

/// The images that the container's volumes show, which were pulled with its own.
async fn image_volumes(cx: &Context, start: &Start) -> Result<BTreeMap<String, String>, String> {
    let mut images = BTreeMap::new();
    for (volume, source) in mounts::image_volumes(&start.model, &start.member.spec) {
        let reference = source.reference.as_deref().unwrap_or_default();
        let image = cx.runtime().image(reference).await.map_err(|error| error.to_string())?;
        images.extend(image.map(|image| (volume.to_owned(), image.id)));
    }
    Ok(images)
}

/// The block devices of the container's volumes.
async fn block_devices(cx: &Context, start: &Start) -> Result<Vec<Device>, String> {
    let (pod_dir, model, spec) = (cx.pod_dir(start.model.uid()), start.model.clone(), start.member.spec.clone());
    let work = move || volumes::block::of_container(&pod_dir, &model, &spec);
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// The container's volumes, its /etc/hosts and the file for its last words.
async fn prepare_mounts(
    cx: &Arc<Context>,
    start: &Start,
    env: HashMap<String, String>,
    images: BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let ips = if start.model.host_network() { cx.options.node_ips.clone() } else { start.sandbox.ips.clone() };
    let (cx, model, spec, attempt) = (cx.clone(), start.model.clone(), start.member.spec.clone(), start.attempt);
    volumes::remote::all_answer(mounts::places(&model, &spec, &cx.pod_dir(model.uid()))).await?;
    let work = move || {
        let (pod_dir, features) = (cx.pod_dir(model.uid()), cx.runtime().features());
        let around = Surroundings { pod_dir: &pod_dir, env: &env, images: &images, features };
        let mut mounts = mounts::of_container(&model, &spec, &around)?;
        let io = |error: io::Error| error.to_string();
        if !mounts.iter().any(|mount| mount.container_path == Path::new("/etc/hosts")) {
            let host_file = fs::read_to_string("/etc/hosts").unwrap_or_default();
            let text = hosts::managed_text(&model, &cx.options.cluster_dns.domain, &ips, &host_file);
            mounts.push(file(pod_dir.join(HOSTS), &text, 0o644, "/etc/hosts").map_err(io)?);
        }
        let path = spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !path.is_empty() {
            let log = cx.termination_log(model.uid(), &spec.name, attempt);
            mounts.push(file(log, "", 0o666, path).map_err(io)?);
        }
        Ok(mounts)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}

/// Whether the file has this content. A container may have made it as large as a disk: no more than that is read.
fn holds(at: &Path, text: &str) -> bool {
    let Ok(file) = fs::File::open(at) else { return false };
    let mut found = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, text.len() as u64 + 1), &mut found).is_ok() && found == text.as_bytes()
}

/// Writes a file of ours in place (a container may have it mounted) and mounts it at `inside`.
fn file(at: PathBuf, text: &str, mode: u32, inside: &str) -> io::Result<Mount> {
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    if !holds(&at, text) {
        fs::write(&at, text)?;
        fs::set_permissions(&at, fs::Permissions::from_mode(mode))?;
    }
    Ok(Mount { host_path: at, container_path: PathBuf::from(inside), ..Mount::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// execve(2): what a program is given are strings that end with NUL.
    #[test]
    fn nul_characters_are_refused_by_name() {
        let check = |change: fn(&mut ContainerConfig), named: &str| {
            let mut config = ContainerConfig { command: vec!["sh".into()], ..ContainerConfig::default() };
            assert!(refuse_nul(&config).is_ok());
            change(&mut config);
            let refused = refuse_nul(&config).unwrap_err();
            assert!(refused.starts_with(named), "{refused}");
        };
        check(|config| config.env = vec![("a".into(), "b".into()), ("x".into(), "a\0b".into())], r#"environment variable "x""#);
        check(|config| config.args = vec!["a\0b".into()], r#"argument "a\0b""#);
        check(|config| config.command.push("\0".into()), r#"argument "\0""#);
        check(|config| config.working_dir = "/\0".into(), "workingDir");
    }

    #[test]
    fn a_file_that_a_container_made_huge_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join(HOSTS);
        let text = "127.0.0.1 localhost\n";
        assert!(!holds(&at, text));
        fs::write(&at, text).unwrap();
        assert!(holds(&at, text));
        // Sparse: reading it whole would take all memory.
        fs::OpenOptions::new().write(true).open(&at).unwrap().set_len(1 << 42).unwrap();
        assert!(!holds(&at, text));
        file(at.clone(), text, 0o644, "/etc/hosts").unwrap();
        assert_eq!(fs::metadata(&at).unwrap().len(), text.len() as u64);
    }
}

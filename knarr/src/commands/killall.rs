//! `knarr killall`: ends the pods that a server left running.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::tasks::Tasks;
use runtime::api::{PodNetwork, Runtime};

use crate::cli::Killall;
use crate::node::{connect, endpoint_of, runtime_options};
use crate::paths::{Paths, spelled};
use crate::{preflight, process};

/// Stops every pod, unmounts and removes what they used, and takes down the pod network. Nothing stays but the data
/// directory with the cluster's objects.
pub(crate) fn run(options: &Killall) -> Result<()> {
    preflight::check(false)?;
    let data_dir = spelled(&options.data_dir)?;
    if !data_dir.exists() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (tasks, _failures) = Tasks::root();
        let paths = Paths::new(&data_dir);
        // Fails when a server or an agent runs: it would start the pods again.
        let _lock = process::lock(&paths.lock())?;
        let store = match paths.store().exists() {
            true => Some(store::Fjall::open(store::Options::new(paths.store()), &tasks).await.context("stop the server first")?),
            false => None,
        };
        let runtime = opened(&paths, &tasks).await?;
        for sandbox in runtime.sandboxes().await? {
            println!("stopping {}/{}", sandbox.pod.namespace, sandbox.pod.name);
            runtime.stop_sandbox(&sandbox.id).await?;
            runtime.remove_sandbox(&sandbox.id).await?;
        }
        if let Some(other) = network::teardown(network::Options::new(paths.network(), Vec::new(), Vec::new())).await? {
            println!(
                "the network of this machine stays: it is that of the node in {}",
                other.parent().unwrap_or(&other).display()
            );
        }
        for directory in [&data_dir, &paths.run()] {
            unmount_below(directory)?;
        }
        remove_cgroups(&paths.cgroup())?;
        remove(&paths.run())?;
        remove(&paths.runtime_records())?;
        match std::fs::remove_file(paths.runtime_endpoint()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        remove_logs(&paths)?;
        if let Some(store) = store {
            store.close().await;
        }
        tasks.drain(Duration::from_secs(5)).await;
        Ok(())
    })
}

/// The runtime that has the pods.
async fn opened(paths: &Paths, tasks: &Tasks) -> Result<Arc<dyn Runtime>> {
    if let Some(endpoint) = endpoint_of(paths)? {
        return Ok(Arc::new(connect(&endpoint, paths, tasks).await?));
    }
    let no_network: Option<Arc<dyn PodNetwork>> = None;
    let options = runtime_options(paths, runtime::Registries::default(), no_network, tasks);
    Ok(Arc::new(runtime::Engine::open(options).await?))
}

/// Unmounts what pods had mounted below the data directory, the deepest first.
fn unmount_below(data_dir: &Path) -> Result<()> {
    // The table of mounts knows no links. What is not there has no mounts below it.
    let Ok(data_dir) = std::fs::canonicalize(data_dir) else { return Ok(()) };
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mut points: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(unescape).collect();
    points.retain(|point| Path::new(point).starts_with(&data_dir) && Path::new(point) != data_dir);
    points.sort_by_key(|point| std::cmp::Reverse(point.len()));
    for point in points {
        unmount(&point).with_context(|| point.clone())?;
    }
    Ok(())
}

/// Unmounts what is mounted at a place. A mount that went with another one, by propagation, since the table was read is no error (umount(2): EINVAL).
fn unmount(point: &str) -> nix::Result<()> {
    use nix::errno::Errno;
    match nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH) {
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn remove(directory: &Path) -> Result<()> {
    base::trees::remove(directory).with_context(|| directory.display().to_string())
}

/// Removes the logs of this directory's pods, the links to them, and the directories that they were in unless somebody else has put something
/// there.
fn remove_logs(paths: &Paths) -> Result<()> {
    let links = kubelet::logs::links::directory(&paths.pod_logs());
    for pod in std::fs::read_dir(paths.kubelet().join("pods")).into_iter().flatten().flatten() {
        if let Ok(logs) = std::fs::read_link(kubelet::context::log_record(&pod.path())) {
            kubelet::logs::links::remove(&links, &logs).with_context(|| links.display().to_string())?;
            remove(&logs)?;
        }
    }
    for directory in [paths.pod_logs(), links] {
        match std::fs::remove_dir(&directory) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                return Err(error).with_context(|| directory.display().to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the cgroups that pods were in, in every hierarchy. Those that still hold processes stay.
fn remove_cgroups(name: &str) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    for mount in mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()) {
        if let [_, point, "cgroup" | "cgroup2", ..] = mount[..] {
            remove_tree(&Path::new(point).join(name));
        }
    }
    Ok(())
}

fn remove_tree(cgroup: &Path) {
    let children = std::fs::read_dir(cgroup).into_iter().flatten().flatten().map(|entry| entry.path());
    children.filter(|path| path.is_dir()).for_each(|path| remove_tree(&path));
    // Busy or absent: the kernel knows better.
    let _ = std::fs::remove_dir(cgroup);
}

/// Mount tables write blanks as octal escapes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    /// The table of mounts was read before, and what it named may be gone.
    #[test]
    fn what_is_not_mounted_any_more_is_no_error() {
        if !nix::unistd::Uid::effective().is_root() {
            return eprintln!("SKIPPED: unmounting needs root");
        }
        let directory = tempfile::tempdir().unwrap();
        super::unmount(&directory.path().display().to_string()).unwrap();
        super::unmount(&directory.path().join("none").display().to_string()).unwrap();
        assert!(super::unmount("").is_ok() && super::unmount(&"x".repeat(5000)).is_err());
    }
}

//! What a cluster is made of, in a file before it is made.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::tls::write_private;
use network::hosts::{self, Families, Wire};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::process::{self, create_private};

/// How long a node may take to end when it is asked, and time between two looks.
const GRACE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(20);

/// The file's contents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    dir: PathBuf,
    bridge: String,
    network: [u8; 3],
    #[serde(default)]
    families: Families,
    nodes: u8,
    /// Of the process that watches over the nodes.
    pid: u32,
}

/// The name of the cluster's bridge, by which its other parts are named, too.
pub(super) fn bridge(dir: &Path) -> String {
    format!("kd-{:06x}", crate::paths::fnv(dir.as_os_str().as_encoded_bytes()) & 0xff_ffff)
}

/// Held by the process that watches over the cluster.
pub(super) fn lock_file(dir: &Path) -> PathBuf {
    dir.join("lock")
}

/// What a cluster that was started in the background says.
pub(super) fn log_file(dir: &Path) -> PathBuf {
    dir.join("dev.log")
}

/// For clients.
pub(super) fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join("kubeconfig")
}

fn file(dir: &Path) -> PathBuf {
    dir.join("dev.json")
}

/// Makes the directory, unless it has files that no cluster has made: at the end of the cluster it is removed.
pub(super) fn claim(dir: &Path) -> Result<()> {
    // Mount options hold paths of it.
    if dir.to_string_lossy().contains([':', ',', '\\']) {
        bail!("the cluster's directory {} must be without ':', ',' and '\\'", dir.display());
    }
    create_private(dir)?;
    let ours = [log_file(dir), lock_file(dir)];
    let others = |entry: &std::io::Result<std::fs::DirEntry>| entry.as_ref().is_ok_and(|entry| !ours.contains(&entry.path()));
    if State::load(dir)?.is_none() && std::fs::read_dir(dir)?.any(|entry| others(&entry)) {
        bail!("{} has other files: give the cluster a directory of its own (--data-dir)", dir.display());
    }
    Ok(())
}

impl State {
    pub(super) fn new(dir: &Path, wire: Wire, nodes: u8) -> Self {
        let Wire { bridge, network, families } = wire;
        Self { dir: dir.to_owned(), bridge, network, families, nodes, pid: std::process::id() }
    }

    /// The state of a directory, if a cluster is or was there.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = file(dir);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub(super) fn save(&self) -> Result<()> {
        Ok(write_private(&file(&self.dir), &serde_json::to_vec(self)?)?)
    }

    pub(super) fn wire(&self) -> Wire {
        Wire { bridge: self.bridge.clone(), network: self.network, families: self.families }
    }

    /// The numbers of the nodes; the first is the server's.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.nodes
    }

    pub(super) fn namespace(&self, number: u8) -> PathBuf {
        hosts::namespace_path(&format!("{}-n{number}", self.bridge))
    }

    pub(super) fn data_dir(&self, number: u8) -> PathBuf {
        self.dir.join(format!("n{number}"))
    }

    pub(super) fn log(&self, number: u8) -> PathBuf {
        self.dir.join(format!("n{number}.log"))
    }

    /// Where the process id of a node is.
    pub(super) fn pid_file(&self, number: u8) -> PathBuf {
        self.dir.join(format!("n{number}.pid"))
    }

    /// Removes the files of the cluster, those of its nodes first, and the directory, unless somebody has put others there.
    pub(super) fn remove_files(&self) -> Result<()> {
        let remove = |path: &Path| {
            let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).with_context(|| path.display().to_string())
                }
                _ => Ok(()),
            }
        };
        for number in self.numbers() {
            [self.data_dir(number), self.log(number), self.pid_file(number)].iter().try_for_each(|path| remove(path))?;
        }
        let dir = &self.dir;
        [kubeconfig(dir), log_file(dir), file(dir), lock_file(dir)].iter().try_for_each(|path| remove(path))?;
        match std::fs::remove_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                tracing::warn!(directory = %dir.display(), "files that the cluster did not make stay");
                Ok(())
            }
            removed => removed.with_context(|| dir.display().to_string()),
        }
    }

    /// Whether the process that watches over the cluster is there: it holds the directory.
    pub(super) fn is_alive(&self) -> bool {
        process::is_locked(&lock_file(&self.dir)).unwrap_or(false)
    }

    /// Ends that process, and waits for its end.
    pub(super) fn terminate(&self) -> Result<()> {
        if self.is_alive() {
            let file = File::open(lock_file(&self.dir))?;
            end(self.pid, Signal::SIGTERM);
            process::wait_until_free(&file)?;
        }
        Ok(())
    }

    /// Ends the processes of the nodes that are still there: asked first, then without asking.
    pub(super) async fn end_nodes(&self) {
        let pid = |number| std::fs::read_to_string(self.pid_file(number)).ok()?.trim().parse::<u32>().ok();
        let all: Vec<(u32, PathBuf)> = self.numbers().filter_map(|number| Some((pid(number)?, self.data_dir(number)))).collect();
        let alive = || all.iter().filter(|(pid, dir)| is_ours(*pid, dir)).collect::<Vec<_>>();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            alive().iter().for_each(|(pid, _)| end(*pid, signal));
            let asked = std::time::Instant::now();
            while !alive().is_empty() && asked.elapsed() < GRACE {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Cuts a node off from the others, or connects it again.
    pub(super) fn plug(&self, node: &str, is_in: bool) -> Result<()> {
        Ok(self.wire().plug(self.number(node)?, is_in)?)
    }

    /// The number of a node.
    pub(super) fn number(&self, node: &str) -> Result<u8> {
        let number = node.strip_prefix('n').and_then(|number| number.parse().ok());
        let number = number.filter(|number| self.numbers().any(|one| one == *number));
        number.with_context(|| format!("there is no node {node:?}: they are n1 to n{}", self.nodes))
    }
}

fn end(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        // It may have ended meanwhile.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// Whether the process is one that works in the directory: its number may be another's by now.
fn is_ours(pid: u32, dir: &Path) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == dir.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_state_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert!(State::load(dir.path()).unwrap().is_none());
        let wire = Wire { bridge: bridge(dir.path()), network: [172, 30, 7], families: Families::V4 };
        State::new(dir.path(), wire, 3).save().unwrap();
        let state = State::load(dir.path()).unwrap().unwrap();
        assert_eq!(
            (state.numbers().collect::<Vec<_>>(), state.wire().address(2).to_string()),
            (vec![1, 2, 3], "172.30.7.2".into())
        );
        // The names of hosts' ends have at most 15 characters.
        assert!(state.bridge.len() + "-255".len() <= 15);
        assert!(!state.is_alive());
        let _held = process::lock(&lock_file(dir.path())).unwrap();
        assert!(state.is_alive());
    }

    /// What was in the directory before, and what somebody puts there later, is not the cluster's.
    #[test]
    fn files_of_others_stay() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("new");
        claim(&dir).unwrap();
        std::fs::write(log_file(&dir), "started").unwrap();
        claim(&dir).unwrap();
        let wire = Wire { bridge: bridge(&dir), network: [172, 30, 7], families: Families::V4 };
        let state = State::new(&dir, wire, 2);
        let make = || {
            state.save().unwrap();
            std::fs::create_dir_all(state.data_dir(2).join("db")).unwrap();
        };
        make();
        claim(&dir).unwrap();
        state.remove_files().unwrap();
        assert!(!dir.exists());

        std::fs::create_dir(&dir).unwrap();
        make();
        std::fs::write(dir.join("precious"), "x").unwrap();
        state.remove_files().unwrap();
        let names = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(names(&dir), ["precious"]);
        assert!(claim(&dir).unwrap_err().to_string().contains("has other files"));
        let odd = home.path().join("a:b");
        assert!(claim(&odd).unwrap_err().to_string().contains("must be without") && !odd.exists());
    }

    #[test]
    fn a_number_of_another_process_is_not_ours() {
        assert!(!is_ours(1, Path::new("/no/such/directory")));
    }
}

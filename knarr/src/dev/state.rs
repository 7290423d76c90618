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

use crate::cli;
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
    /// Of the process that watches over the nodes; none when the file was damaged.
    pid: Option<i32>,
}

/// The name of the cluster's bridge, by which its other parts are named, too.
pub(super) fn bridge(dir: &Path) -> String {
    format!("kd-{:06x}", crate::paths::fnv(dir.as_os_str().as_encoded_bytes()) & 0xff_ffff)
}

/// The name of the cluster in its kubeconfig: that of its directory, as far as the characters are those of such names.
fn cluster_name(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let name: String = name.chars().filter(|character| cli::fits_cluster_name(*character)).take(63).collect();
    let name = name.trim_start_matches(|first: char| !first.is_ascii_alphanumeric());
    if name.is_empty() { "knarr-dev".to_owned() } else { name.to_owned() }
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

/// The file says nothing: a disk was full, or lost what was written last.
#[derive(Debug, thiserror::Error)]
#[error("{} is damaged ({error}): knarr dev stop removes what is left of its cluster", path.display())]
struct Damaged {
    path: PathBuf,
    error: serde_json::Error,
}

/// What the file of a directory says, if there is one.
fn read(dir: &Path) -> Result<Option<serde_json::Result<State>>> {
    let path = file(dir);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// What is in a directory; nothing where there is none.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The number of the node that a part of a cluster is named after: `n7`, `n7.log`.
fn numbered(name: &str) -> Option<u8> {
    name.strip_prefix('n')?.split('.').next()?.parse().ok()
}

impl State {
    pub(super) fn new(dir: &Path, wire: Wire, nodes: u8) -> Self {
        let Wire { bridge, network, families } = wire;
        Self { dir: dir.to_owned(), bridge, network, families, nodes, pid: Some(std::process::id().cast_signed()) }
    }

    /// The state of a directory, if a cluster is or was there.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>> {
        let damaged = |error| Damaged { path: file(dir), error };
        Ok(read(dir)?.transpose().map_err(damaged)?)
    }

    /// The same for who removes the cluster: of a file that is damaged, what can be seen takes the place.
    pub(super) fn load_to_remove(dir: &Path) -> Result<Option<Self>> {
        let found = |read: serde_json::Result<Self>| {
            read.unwrap_or_else(|error| {
                tracing::warn!(file = %file(dir).display(), %error, "the file is damaged, removing what is found of its cluster");
                Self::found(dir)
            })
        };
        Ok(read(dir)?.map(found))
    }

    /// What is left of a cluster, by the names of its parts. Its network is not known: what is removed goes by names.
    fn found(dir: &Path) -> Self {
        let bridge = bridge(dir);
        let prefix = format!("{bridge}-");
        let files = names(dir);
        let namespaces = hosts::namespace_path("").parent().map(names).unwrap_or_default();
        let namespaces = namespaces.iter().filter_map(|name| name.strip_prefix(&prefix));
        let nodes = files.iter().map(String::as_str).chain(namespaces).filter_map(numbered).max().unwrap_or(0);
        Self { dir: dir.to_owned(), bridge, network: [0; 3], families: Families::default(), nodes, pid: None }
    }

    pub(super) fn save(&self) -> Result<()> {
        Ok(write_private(&file(&self.dir), &serde_json::to_vec(self)?)?)
    }

    pub(super) fn wire(&self) -> Wire {
        Wire { bridge: self.bridge.clone(), network: self.network, families: self.families }
    }

    pub(super) fn cluster_name(&self) -> String {
        cluster_name(&self.dir)
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

    /// Removes the files of the cluster, those of its nodes first, and the directory, unless somebody has put others there.
    pub(super) fn remove_files(&self) -> Result<()> {
        let remove = |path: &Path| base::trees::remove(path).with_context(|| path.display().to_string());
        for number in self.numbers() {
            [self.data_dir(number), self.log(number)].iter().try_for_each(|path| remove(path))?;
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
            let path = lock_file(&self.dir);
            let file = File::open(&path)?;
            let watching = self.pid.map_or_else(|| process::holders(&path), |pid| Ok(vec![pid]))?;
            watching.into_iter().for_each(|pid| end(pid, Signal::SIGTERM));
            process::wait_until_free(&file)?;
        }
        Ok(())
    }

    /// Ends the processes of the nodes that are still there: asked first, then without asking.
    pub(super) async fn end_nodes(&self) {
        let all: Vec<PathBuf> = self.numbers().map(|number| self.data_dir(number)).collect();
        let alive = || process::all().filter(|pid| all.iter().any(|dir| is_node(*pid, dir))).collect::<Vec<_>>();
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            alive().into_iter().for_each(|pid| end(pid, signal));
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

fn end(pid: i32, signal: Signal) {
    // It may have ended meanwhile.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Whether the process is that of the node which works in the directory.
fn is_node(pid: i32, dir: &Path) -> bool {
    works_in(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(), dir)
}

/// Whether a command line, whose words end with NUL, is one that `node::spawn` makes for a node.
fn works_in(line: &[u8], dir: &Path) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let is_node = words.get(1).is_some_and(|role| matches!(*role, b"server" | b"agent"));
    is_node && words.windows(2).any(|pair| pair == [b"--data-dir".as_slice(), dir.as_os_str().as_encoded_bytes()])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

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

    /// The server takes each name that a directory gives.
    #[test]
    fn clusters_are_called_after_their_directories() {
        let of = |dir: &str| cluster_name(Path::new(dir));
        let names = ["/var/lib/knarr-dev", "/tmp/blue", "/tmp/7 of \u{fc}s: b", "/", "/tmp/..-7", "/tmp/--"].map(of);
        assert_eq!(names, ["knarr-dev", "blue", "7ofsb", "knarr-dev", "7", "knarr-dev"]);
        for name in names {
            cli::Cli::try_parse_from(["knarr", "server", "--cluster-name", &name]).unwrap();
        }
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
    fn what_is_left_is_found_without_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for text in ["", "{", "[]", "{\"dir\": \"/x\"}"] {
            std::fs::write(file(dir), text).unwrap();
            let error = State::load(dir).unwrap_err().to_string();
            assert!(error.contains("dev.json is damaged (") && error.contains("knarr dev stop"), "{error}");
        }
        std::fs::create_dir(dir.join("n2")).unwrap();
        for name in ["n3.log", "n2.log", "news", "lock"] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        let state = State::load_to_remove(dir).unwrap().unwrap();
        assert_eq!((state.numbers().collect::<Vec<_>>(), state.wire().bridge), (vec![1, 2, 3], bridge(dir)));
        assert!(State::load_to_remove(&dir.join("none")).unwrap().is_none());
        state.remove_files().unwrap();
        assert_eq!(names(dir), ["news"]);
    }

    #[test]
    fn processes_of_nodes() {
        let check = |line: &str, expected| assert_eq!(works_in(line.replace(' ', "\0").as_bytes(), Path::new("/d/n1")), expected);
        check("knarr server --node-name n1 --data-dir /d/n1", true);
        check("knarr agent --data-dir /d/n1 --server x", true);
        check("knarr agent --data-dir /d/n10", false);
        check("knarr killall --data-dir /d/n1", false);
        check("rm -r /d/n1", false);
        check("", false);
    }
}

//! Where things are on disk.

use std::io;
use std::path::{Component, Path, PathBuf};

use base::files::{self, Outlives};

/// The data directory when none is given.
pub(crate) const DEFAULT: &str = "/var/lib/knarr";

/// A data directory, however somebody has spelled it: absolute, without `.`, `..` and a slash at the end, since sockets and cgroups are
/// named after it. Links in it stay what they are.
///
/// # Errors
/// There is no working directory.
pub(crate) fn spelled(path: &Path) -> io::Result<PathBuf> {
    let mut spelled = PathBuf::new();
    for component in std::path::absolute(path)?.components() {
        match component {
            Component::ParentDir => {
                // Above a link is what is above where it leads.
                spelled = spelled.canonicalize().unwrap_or(spelled);
                spelled.pop();
            }
            other => spelled.push(other),
        }
    }
    Ok(spelled)
}

/// The parts of a data directory, and what belongs to it elsewhere on the machine.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
    /// Tells clusters of one machine apart; empty for the default directory.
    suffix: String,
}

impl Paths {
    /// The directory as [`spelled`].
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), suffix: suffix(root, |run| Path::new(run).exists()) }
    }

    /// The store.
    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Certificates and keys.
    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// What `knarr secrets-encryption` has the server encrypt.
    pub(crate) fn encryption(&self) -> PathBuf {
        self.root.join("encryption.yaml")
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The token by which machines join.
    pub(crate) fn token(&self) -> PathBuf {
        self.root.join("token")
    }

    /// Held by the agent that works here.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The node's name, once a server has run here.
    pub(crate) fn node_name(&self) -> PathBuf {
        self.root.join("node-name")
    }

    /// Writes the node's name down.
    ///
    /// # Errors
    /// It cannot be written, and no name is there.
    pub(crate) fn keep_node_name(&self, name: &str) -> io::Result<()> {
        let path = self.node_name();
        files::unless_older(&path, files::replace(&path, name.as_bytes(), Outlives::Process))
    }

    /// What the cluster is, as the server has said to the agent that works here.
    pub(crate) fn cluster(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// Volumes and other state of pods.
    pub(crate) fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// Persistent volumes that are directories of this machine.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// Images and containers.
    pub(crate) fn runtime(&self) -> PathBuf {
        self.root.join("runtime")
    }

    /// The socket of the runtime that runs the pods, where it is not the built-in one.
    pub(crate) fn runtime_endpoint(&self) -> PathBuf {
        self.root.join("container-runtime-endpoint")
    }

    /// What the runtime at that socket does not give back of pods.
    pub(crate) fn runtime_records(&self) -> PathBuf {
        self.root.join("cri")
    }

    /// Leases of pod addresses.
    pub(crate) fn network(&self) -> PathBuf {
        self.root.join("network")
    }

    /// Container logs: where log collectors expect them, for the default directory.
    pub(crate) fn pod_logs(&self) -> PathBuf {
        if self.suffix.is_empty() { PathBuf::from("/var/log/pods") } else { self.root.join("logs") }
    }

    /// Sockets and namespaces of pods: short, as socket addresses are, and gone when the machine restarts.
    pub(crate) fn run(&self) -> PathBuf {
        PathBuf::from(format!("/run/knarr{}", self.suffix))
    }

    /// The socket of `knarr image`.
    pub(crate) fn images(&self) -> PathBuf {
        self.run().join("images.sock")
    }

    /// The socket of `knarr snapshot`.
    pub(crate) fn snapshots(&self) -> PathBuf {
        self.run().join("snapshots.sock")
    }

    /// The cgroup of all pods.
    pub(crate) fn cgroup(&self) -> String {
        format!("knarr{}", self.suffix)
    }
}

/// What tells the directory from others of the machine. Until directories were [`spelled`] in one way, one with a slash at the end had another
/// name: pods that run under that keep it until the machine starts again.
fn suffix(root: &Path, runs: impl Fn(&str) -> bool) -> String {
    let of = |bytes: &[u8]| format!("-{:08x}", fnv(bytes));
    let own = if root == Path::new(DEFAULT) { String::new() } else { of(root.as_os_str().as_encoded_bytes()) };
    let former = of(root.join("").as_os_str().as_encoded_bytes());
    let has = |suffix: &str| runs(&format!("/run/knarr{suffix}"));
    if has(&former) && !has(&own) { former } else { own }
}

/// FNV-1a, 32 bits.
pub(crate) fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_runs_under_a_former_name_keeps_it() {
        let check = |root: &str, running: &[&str], expected: &str| {
            assert_eq!(suffix(Path::new(root), |run| running.contains(&run)), expected, "{root} {running:?}");
        };
        let [own, former] = ["/data", "/data/"].map(|path| format!("-{:08x}", fnv(path.as_bytes())));
        let [own_runs, former_runs] = [&own, &former].map(|suffix| format!("/run/knarr{suffix}"));
        check(DEFAULT, &[], "");
        check("/data", &[], &own);
        check("/data", &[&former_runs], &former);
        check("/data", &[&former_runs, &own_runs], &own);
    }

    #[test]
    fn a_directory_is_spelled_in_one_way() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        std::fs::create_dir_all(home.join("a/b")).unwrap();
        std::os::unix::fs::symlink(home.join("a/b"), home.join("link")).unwrap();
        let check = |path: &str, expected: &str| {
            let [path, expected] = [path, expected].map(|path| format!("{}/{path}", home.display()));
            // As text: paths are alike whatever their slashes.
            assert_eq!(spelled(Path::new(&path)).unwrap().into_os_string(), *expected, "{path}");
        };
        check("a", "a");
        check("a/", "a");
        check("./a//b/.", "a/b");
        check("a/../a/b", "a/b");
        check("new/../a", "a");
        check("link", "link");
        check("link/../c", "a/c");
        assert_eq!(spelled(Path::new("/..")).unwrap(), Path::new("/"));
    }
}

//! Where things are on disk.

use std::path::{Path, PathBuf};

/// The data directory when none is given.
pub(crate) const DEFAULT: &str = "/var/lib/knarr";

/// The parts of a data directory, and what belongs to it elsewhere on the machine.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
    /// Tells clusters of one machine apart; empty for the default directory.
    suffix: String,
}

impl Paths {
    /// The directory must be given as an absolute path.
    pub(crate) fn new(root: &Path) -> Self {
        let suffix =
            if root == Path::new(DEFAULT) { String::new() } else { format!("-{:08x}", fnv(root.as_os_str().as_encoded_bytes())) };
        Self { root: root.to_owned(), suffix }
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

/// FNV-1a, 32 bits.
pub(crate) fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

//! Clients that others wrote, against the cluster: programs that `cargo xtask` fetched, each with the cluster's kubeconfig.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::wait::PATIENCE;
use crate::{Cluster, Outcome};

/// A program below the directory where `cargo xtask` keeps what it fetches, or the one that a variable names.
///
/// # Panics
/// When it is not there.
pub fn fetched(path: &str, variable: &str, command: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let path = target.join("xtask").join(path);
    assert!(path.exists(), "{} is missing: `cargo xtask {command}` fetches it", path.display());
    path
}

/// Helm.
pub fn helm() -> PathBuf {
    fetched("helm-4.2.3/helm", "KNARR_HELM", "helm")
}

/// Python with the official client, kopf and gRPC.
pub fn python() -> PathBuf {
    fetched("python-36.0.3-kopf-1.45.2-grpc-1.85.1/bin/python", "KNARR_PYTHON", "python")
}

/// The program in `knarr/tests/informers`.
pub fn informers() -> PathBuf {
    fetched("go/informers", "KNARR_INFORMERS", "clients")
}

/// The API server in `knarr/tests/wardle`.
pub fn wardle() -> PathBuf {
    fetched("go/wardle", "KNARR_WARDLE", "clients")
}

/// etcd, where that keeps its objects.
pub fn etcd() -> PathBuf {
    fetched("etcd/usr/bin/etcd", "KNARR_ETCD", "clients")
}

impl Cluster {
    /// A command of a client, in the test's directory. It ends in three times [`PATIENCE`] at the latest: what a command is told to wait for
    /// may take twice that, and then it says itself what it has waited for.
    pub fn client_command(&self, program: &Path) -> Command {
        self.limited_command(program, 3 * *PATIENCE)
    }

    /// A client that does many things after each other.
    pub fn patient_command(&self, program: &Path) -> Command {
        self.limited_command(program, 4 * *PATIENCE)
    }

    fn limited_command(&self, program: &Path, limit: Duration) -> Command {
        let mut command = Command::new("timeout");
        command.arg(limit.as_secs().to_string()).arg(program);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.scratch()).current_dir(self.scratch());
        command.stdin(Stdio::null());
        command
    }

    /// Runs Helm whatever comes out of it. What stands between blanks is an argument.
    pub fn try_helm(&self, line: &str) -> Outcome {
        Outcome::of(self.client_command(&helm()).args(line.split_whitespace()))
    }

    /// Runs Helm and returns its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn helm(&self, line: &str) -> String {
        let outcome = self.try_helm(line);
        assert_eq!(outcome.code, Some(0), "helm {line}: {}\n{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }
}

//! Programs for tests.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::configuration::Provider;
use crate::images::patterns::Pattern;

/// Shell scripts in a directory. They are all written before one runs: a file that is open for writing in a child cannot be executed.
pub(super) struct Programs(tempfile::TempDir);

impl Programs {
    pub(super) fn new(scripts: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, script) in scripts {
            let mut options = fs::OpenOptions::new();
            let mut file = options.create_new(true).write(true).mode(0o755).open(directory.path().join(name)).unwrap();
            write!(file, "#!/bin/sh\n{script}\n").unwrap();
        }
        Self(directory)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A provider for images of `r.io` whose answers are kept for an hour.
pub(super) fn provider(programs: &Programs, name: &str) -> Provider {
    Provider {
        name: name.to_owned(),
        program: programs.path(name),
        args: Vec::new(),
        env: Vec::new(),
        api_version: "credentialprovider.kubelet.k8s.io/v1".to_owned(),
        images: vec![Pattern::parse("r.io").unwrap()],
        lifetime: Duration::from_secs(3600),
        tokens: None,
    }
}

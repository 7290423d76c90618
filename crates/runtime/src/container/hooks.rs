//! Hooks of a container (OCI runtime specification, runtime.md "Lifecycle"). Those until its program runs are libcontainer's; those for its
//! end are run here, by a helper of whoever sees the end: its shim, or the engine where that is gone.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libcontainer::container::{ContainerStatus, State};
use libcontainer::hooks::run_hooks;
use oci_spec::runtime::Spec;

use super::helper::HelperRequest;
use super::{enter, helper};

/// What libcontainer says of a hook that failed in the container's own process.
const IN_CONTAINER: &str = "failed to run start container hooks";

impl HelperRequest {
    /// Runs the hooks for the end of a container whose bundle is `bundle`.
    pub(crate) fn over(id: &str, bundle: &Path, oci_root: &Path) -> Self {
        Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            process: None,
            target: None,
            console: None,
            oci_root: oci_root.to_owned(),
            runtime: None,
            users: None,
            result: PathBuf::new(),
            is_over: true,
        }
    }

    /// Runs the helper to its end, as the engine does. Blocking.
    pub(crate) fn run(&self, program: &Path) -> io::Result<()> {
        let argument = serde_json::to_string(self)?;
        let mut command = Command::new(program);
        command.arg0("knarr").arg("oci-helper").arg(argument).env("RUST_BACKTRACE", "0");
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    }
}

/// Of what the container's process has reported, that a hook before its program failed.
pub(super) fn start_failure(reports: &str) -> Option<String> {
    reports.lines().find(|line| line.contains(IN_CONTAINER)).map(|line| format!("startContainer hook: {line}"))
}

/// Runs all hooks for the end of a container, also after one that fails: "the remaining hooks and lifecycle continue as if the hook had
/// succeeded". Gives the helper's exit code.
pub(super) fn poststop(request: &HelperRequest) -> i32 {
    let mut code = 0;
    let mut tell = |what: &str| {
        code = 1;
        let _ = writeln!(io::stderr(), "poststop hook of container {}: {what}", request.id);
    };
    let spec: Spec = match enter::read(&request.bundle.join("config.json")) {
        Ok(spec) => spec,
        Err(error) => {
            tell(&error);
            return code;
        }
    };
    let mut state = State::new(&request.id, ContainerStatus::Stopped, None, request.bundle.clone());
    state.annotations.clone_from(spec.annotations());
    for hook in spec.hooks().iter().flat_map(|hooks| hooks.poststop().iter().flatten()) {
        if let Err(error) = run_hooks(Some(&vec![hook.clone()]), Some(&state), None, None, None) {
            tell(&format!("{}: {}", hook.path().display(), helper::chain(&error)));
        }
    }
    code
}

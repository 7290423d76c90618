//! One run of a plugin (CNI specification, section 2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::programs::{self, Limits};
use serde_json::{Map, Value};

use super::{Error, Pod};

/// The interface in the pod.
const INTERFACE: &str = "eth0";
/// A plugin may ask its own servers for an address.
const LIMITS: Limits = Limits { time: Duration::from_secs(120), answer: 1 << 20 };

/// What a plugin is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
        }
    }
}

/// What one plugin is asked for one sandbox.
pub(super) struct Call<'a> {
    pub(super) command: Command,
    pub(super) sandbox: &'a str,
    pub(super) netns: &'a Path,
    pub(super) pod: &'a Pod,
    pub(super) directories: &'a [PathBuf],
    pub(super) configuration: Map<String, Value>,
}

impl Call<'_> {
    /// Runs it, and returns its result; one that takes something away has none.
    pub(super) async fn run(self) -> Result<Value, Error> {
        let kind = self.configuration["type"].as_str().unwrap_or_default().to_owned();
        let failed = |why: String| Error::Plugin { plugin: kind.clone(), command: self.command.name(), why };
        let program = self.directories.iter().map(|directory| directory.join(&kind)).find(|path| path.exists());
        let program = program.ok_or_else(|| failed(format!("there is no such program in {}", paths(self.directories))))?;
        let mut command = tokio::process::Command::new(program);
        command.env_clear().envs(self.environment());
        let question = Value::from(self.configuration.clone()).to_string();
        let mut complaint = Vec::new();
        let answer = programs::ask(command, question.as_bytes(), LIMITS, &mut complaint).await;
        let (status, output) = answer.map_err(|error| failed(error.to_string()))?;
        let said = serde_json::from_slice::<Value>(&output);
        if !status.success() {
            let complaint = String::from_utf8_lossy(&complaint);
            return Err(failed(said.ok().as_ref().and_then(reason).unwrap_or_else(|| format!("{status} {}", complaint.trim()))));
        }
        match self.command {
            Command::Add => said.map_err(|error| failed(format!("its result cannot be read: {error}"))),
            Command::Del => Ok(Value::Null),
        }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let Pod { namespace, name, uid } = self.pod;
        let sandbox = self.sandbox;
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={sandbox};K8S_POD_UID={uid}"
        );
        // Who takes something away is told of no namespace that has gone.
        let netns =
            if self.command == Command::Add || self.netns.exists() { self.netns.display().to_string() } else { String::new() };
        vec![
            ("PATH", std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())),
            ("CNI_COMMAND", self.command.name().to_owned()),
            ("CNI_CONTAINERID", sandbox.to_owned()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", INTERFACE.to_owned()),
            ("CNI_ARGS", args),
            ("CNI_PATH", paths(self.directories)),
        ]
    }
}

/// Why a plugin has failed, as it says itself.
fn reason(said: &Value) -> Option<String> {
    let message = said["msg"].as_str()?;
    Some(match said["details"].as_str().filter(|details| !details.is_empty()) {
        Some(details) => format!("{message}: {details}"),
        None => message.to_owned(),
    })
}

fn paths(directories: &[PathBuf]) -> String {
    directories.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
}

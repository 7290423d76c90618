//! The processes of nodes.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use network::hosts::{self, Families};
use tokio::process::{Child, Command};

use super::state::State;

/// Ranges of IPv6 for pods and services.
const POD_CIDR_V6: &str = "fd42::/48";
const SERVICE_CIDR_V6: &str = "fd43::/112";

/// This program, also after its file was replaced by another version or is gone: a cluster ends as what it began as.
pub(super) const PROGRAM: &str = "/proc/self/exe";
/// How long a node that has ended rests before it starts again: doubled each time, and as at first once it has run for longer than the longest.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);

/// A node's process.
pub(super) struct Running {
    state: State,
    number: u8,
    arguments: Vec<OsString>,
    child: Child,
}

impl Running {
    /// Starts the server with its node.
    pub(super) fn server(state: &State, more: Vec<OsString>) -> Result<Self> {
        let address = state.wire().address(1).to_string();
        let name = state.cluster_name();
        let own = ["server", "--cluster-name", &name, "--bind-address", &address];
        let mut arguments: Vec<OsString> = own.into_iter().map(OsString::from).collect();
        let ranges = match state.wire().families {
            Families::V4 => None,
            Families::V6 => Some((POD_CIDR_V6.to_owned(), SERVICE_CIDR_V6.to_owned())),
            Families::Both => Some((format!("10.42.0.0/16,{POD_CIDR_V6}"), format!("10.43.0.0/16,{SERVICE_CIDR_V6}"))),
        };
        if let Some((pods, services)) = ranges {
            arguments.extend(["--cluster-cidr", &pods, "--service-cidr", &services].map(OsString::from));
        }
        arguments.extend(more);
        Self::start(state, 1, arguments)
    }

    /// Starts an agent.
    pub(super) fn agent(state: &State, number: u8, token: &Path, more: Vec<OsString>) -> Result<Self> {
        let server = format!("https://{}", SocketAddr::new(state.wire().address(1), 6443));
        let own: [OsString; 5] = ["agent".into(), "--server".into(), server.into(), "--token-file".into(), token.into()];
        Self::start(state, number, own.into_iter().chain(more).collect())
    }

    fn start(state: &State, number: u8, arguments: Vec<OsString>) -> Result<Self> {
        let child = spawn(state, number, &arguments)?;
        Ok(Self { state: state.clone(), number, arguments, child })
    }

    /// An error when the process has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("node n{} has ended ({status}): {}", self.number, last_line(&self.state.log(self.number))),
            None => Ok(()),
        }
    }

    /// Starts the process again whenever it has ended, as a machine does with its services: the others go on meanwhile, and nothing of the
    /// node is lost.
    pub(super) async fn keep(mut self) -> Result<Infallible> {
        let mut rest = REST;
        loop {
            let start = Instant::now();
            let status = self.child.wait().await?;
            if start.elapsed() > LONGEST_REST {
                rest = REST;
            }
            let log = self.state.log(self.number);
            tracing::error!(node = self.number, %status, log = %log.display(), "the process of a node has ended, it starts again in {rest:?}");
            tokio::time::sleep(rest).await;
            rest = (2 * rest).min(LONGEST_REST);
            self.child = spawn(&self.state, self.number, &self.arguments)?;
        }
    }
}

/// Starts the process of a node in its network. Its log goes on.
fn spawn(state: &State, number: u8, arguments: &[OsString]) -> Result<Child> {
    let output = File::options().create(true).append(true).open(state.log(number))?;
    let name = format!("n{number}");
    let addresses: Vec<String> = state.wire().addresses(number).iter().map(|address| address.addr().to_string()).collect();
    let mut command = Command::new(PROGRAM);
    command
        .arg0("knarr")
        .args(arguments)
        .args(["--node-name", &name, "--node-ip", &addresses.join(","), "--data-dir"])
        .arg(state.data_dir(number));
    // Signals of the terminal are for us, who end the nodes in order.
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    let handle = tokio::runtime::Handle::current();
    let spawned = hosts::within(&state.namespace(number), move || {
        let _entered = handle.enter();
        command.spawn()
    });
    spawned?.with_context(|| format!("node {name}"))
}

/// The last line of a log.
pub(super) fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it says nothing").to_owned()
}

/// Removes what the pods of a node have left on the machine.
pub(super) async fn clean(state: &State, number: u8) -> Result<()> {
    let data_dir = state.data_dir(number);
    let cleaned = hosts::within(&state.namespace(number), move || {
        std::process::Command::new(PROGRAM)
            .arg0("knarr")
            .arg("killall")
            .arg("--data-dir")
            .arg(data_dir)
            .stdout(Stdio::null())
            .output()
    });
    let output = cleaned.and_then(|done| done).with_context(|| format!("pods of node n{number} may be left"))?;
    if !output.status.success() {
        bail!("pods of node n{number} are left: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

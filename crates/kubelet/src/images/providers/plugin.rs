//! Runs the program of a provider: the request goes to its standard input, the response comes from its standard output.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use apimachinery::time::duration_text;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::Failure;
use super::configuration::Provider;
use super::exchange::{Request, Response};
use crate::metrics;

/// Longest that a program may run (upstream's).
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of a response.
const RESPONSE: u64 = 1 << 20;
/// Most bytes that the log shows of a program's standard error.
const COMPLAINT: u64 = 4 << 10;

/// The program of a provider.
pub(super) struct Plugin {
    name: String,
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    limit: Duration,
}

impl Plugin {
    /// As it is configured.
    pub(super) fn new(provider: &Provider) -> Self {
        let Provider { name, program, args, env, .. } = provider.clone();
        Self { name, program, args, env, limit: LIMIT }
    }

    /// Asks it. The program and what it has started end when it takes too long, writes too much, or nobody waits for the answer any more.
    ///
    /// # Errors
    /// There is no answer. What the program has complained of is in the log only: it may say more than a pod's owner may know.
    pub(super) async fn ask(&self, request: &Request) -> Result<Response, Failure> {
        let begun = Instant::now();
        let (output, complaint) = self.run(request).await;
        let answer = output.and_then(|output| Response::read(&output, request));
        metrics::plugin_ran(&self.name, begun.elapsed(), answer.is_err());
        if let Err(failure) = &answer {
            let complaint = String::from_utf8_lossy(&complaint);
            tracing::warn!(provider = self.name, %failure, complaint = complaint.trim(), "no image credentials");
        }
        answer
    }

    /// Runs the program to its end: its output, and the beginning of its complaints.
    async fn run(&self, request: &Request) -> (Result<Vec<u8>, Failure>, Vec<u8>) {
        let mut complaint = Vec::new();
        let run = self.exchange(request, &mut complaint);
        let output = match tokio::time::timeout(self.limit, run).await {
            Ok(output) => output,
            Err(_) => Err(Failure::Timeout(duration_text(self.limit))),
        };
        (output, complaint)
    }

    async fn exchange(&self, request: &Request, complaint: &mut Vec<u8>) -> Result<Vec<u8>, Failure> {
        let failed = |error: std::io::Error| Failure::Start(error.to_string());
        let question = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = Group(command.process_group(0).kill_on_drop(true).spawn().map_err(failed)?, true);
        let (mut stdin, stdout, stderr) = (group.0.stdin.take(), group.0.stdout.take(), group.0.stderr.take());
        let write = async {
            // A program may answer without reading its question.
            if let Some(mut stdin) = stdin.take() {
                let _ = stdin.write_all(&question).await;
            }
            Ok(())
        };
        let (output, (), ()) = tokio::try_join!(read(stdout), write, listen(stderr, complaint))?;
        // Both streams have ended, so nobody of the group waits for anything of ours; the program is waited for last, so that its number stays
        // its own for as long as somebody may be killed by it.
        let status = group.0.wait().await.map_err(failed)?;
        group.1 = false;
        if status.success() { Ok(output) } else { Err(Failure::Exit(status)) }
    }
}

/// All of a program's output, unless that is too much.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Failure> {
    let (mut output, Some(stream)) = (Vec::new(), stream) else { return Ok(Vec::new()) };
    let read = stream.take(RESPONSE + 1).read_to_end(&mut output).await;
    read.map_err(|error| Failure::Start(error.to_string()))?;
    if output.len() as u64 > RESPONSE { Err(Failure::TooLong(RESPONSE)) } else { Ok(output) }
}

/// Keeps the beginning of a stream and reads the rest, so that its writer does not wait.
async fn listen(stream: Option<impl AsyncRead + Unpin>, beginning: &mut Vec<u8>) -> Result<(), Failure> {
    if let Some(mut stream) = stream {
        let failed = |error: std::io::Error| Failure::Start(error.to_string());
        (&mut stream).take(COMPLAINT).read_to_end(beginning).await.map_err(failed)?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map_err(failed)?;
    }
    Ok(())
}

/// A program in a process group of its own, and whether it may still run.
struct Group(Child, bool);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.id().and_then(|id| i32::try_from(id).ok());
        if let (true, Some(leader)) = (self.1, leader) {
            // It has ended when there is no such group.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests;

//! Runs the program of a provider: the request goes to its standard input, the response comes from its standard output.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use apimachinery::time::duration_text;
use base::programs::{self, Limits};
use tokio::process::Command;

use super::Failure;
use super::configuration::Provider;
use super::exchange::{Request, Response};
use crate::metrics;

/// Longest that a program may run (upstream's).
const LIMIT: Duration = Duration::from_secs(60);
/// Most bytes of a response.
const RESPONSE: u64 = 1 << 20;

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
        let output = self.exchange(request, &mut complaint).await;
        (output, complaint)
    }

    async fn exchange(&self, request: &Request, complaint: &mut Vec<u8>) -> Result<Vec<u8>, Failure> {
        let question = serde_json::to_vec(request).map_err(|error| Failure::Start(error.to_string()))?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        let limits = Limits { time: self.limit, answer: RESPONSE };
        match programs::ask(command, &question, limits, complaint).await {
            Ok((status, output)) if status.success() => Ok(output),
            Ok((status, _)) => Err(Failure::Exit(status)),
            Err(programs::Error::Io(error)) => Err(Failure::Start(error.to_string())),
            Err(programs::Error::TooLong(most)) => Err(Failure::TooLong(most)),
            Err(programs::Error::Timeout(limit)) => Err(Failure::Timeout(duration_text(limit))),
        }
    }
}

#[cfg(test)]
mod tests;

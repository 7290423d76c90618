//! `exec` and `attach`: a command in a container, with its standard streams and a terminal.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use futures::SinkExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::Api;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::error::{Error, Result};
use crate::output::{print_bytes, tell};
use crate::pods;
use crate::session::{Connection, Session};
use crate::terminal::{self, Ends, Raw};

/// Bytes of a stream that are on the way at once.
const BUFFER: usize = 64 << 10;

/// What both have.
#[derive(Args, Clone, Debug)]
struct Streams {
    /// Pass standard input.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// With a terminal.
    #[arg(short, long)]
    tty: bool,
    /// The container, if it is not the first or the one that the pod notes.
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Tell nothing but what the command says.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `exec`.
#[derive(Args, Clone, Debug)]
pub struct Exec {
    /// POD, or TYPE/NAME: one of the pods that it has.
    target: String,
    #[command(flatten)]
    streams: Streams,
    /// The command and its arguments, behind --.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Options of `attach`.
#[derive(Args, Clone, Debug)]
pub struct Attach {
    /// POD, or TYPE/NAME: one of the pods that it has.
    target: String,
    #[command(flatten)]
    streams: Streams,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Exit(i32),
    Failed(String),
    /// This program was asked to end by a signal; what becomes of the command is not known.
    Signal(u8),
}

/// Runs `exec`; the exit code is that of the command.
pub(crate) async fn exec(options: &Exec) -> Result<ExitCode> {
    run(&options.target, &options.streams, Some(&options.command)).await
}

/// Runs `attach`.
pub(crate) async fn attach(options: &Attach) -> Result<ExitCode> {
    run(&options.target, &options.streams, None).await
}

async fn run(target: &str, options: &Streams, command: Option<&[String]>) -> Result<ExitCode> {
    let session = Session::open(&options.connection).await?;
    let found = pods::target(&session, target).await?;
    let Some(pod) = found.pods.first() else { return Err(Error::usage("no pods are there")) };
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Succeeded" | "Failed") {
        return Err(Error::usage(format!("cannot exec into a container in a completed pod; current phase is {phase}")));
    }
    let (container, chosen) = pods::container(pod, options.container.as_deref())?;
    if !chosen && !options.quiet {
        pods::tell_default(pod, container);
    }
    let tty = options.tty && terminal::is_typed();
    if options.tty && !tty {
        tell("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let params = AttachParams {
        container: Some(container.to_owned()),
        stdin: options.stdin,
        stdout: true,
        stderr: !tty,
        tty,
        max_stdin_buf_size: Some(BUFFER),
        max_stdout_buf_size: Some(BUFFER),
        max_stderr_buf_size: Some(BUFFER),
    };
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let api = Api::<Pod>::namespaced(session.client.clone(), namespace);
    let started = match command {
        Some(command) => api.exec(pods::name(pod), command, &params).await,
        None => api.attach(pods::name(pod), &params).await,
    };
    let process = started.map_err(|error| session.failed(error))?;
    let outcome = if tty { on_terminal(process).await? } else { converse(process).await? };
    match outcome {
        Outcome::Exit(0) => Ok(ExitCode::SUCCESS),
        Outcome::Exit(code) => {
            if !options.quiet {
                tell(&format!("command terminated with exit code {code}"));
            }
            Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
        }
        Outcome::Failed(why) => Err(Error::usage(why)),
        // As a shell tells it.
        Outcome::Signal(number) => Ok(ExitCode::from(128 + number)),
    }
}

/// Passes the terminal on, and gives it back at the end, also at that of a signal.
async fn on_terminal(mut process: AttachedProcess) -> Result<Outcome> {
    let mut ends = Ends::new()?;
    let mut resizes = terminal::resizes()?;
    let sizes = process.terminal_size();
    let _raw = Raw::enter()?;
    let sizing = async {
        let Some(mut sizes) = sizes else { return std::future::pending().await };
        loop {
            if let Some((width, height)) = terminal::size()
                && sizes.send(TerminalSize { width, height }).await.is_err()
            {
                return std::future::pending().await;
            }
            resizes.recv().await;
        }
    };
    tokio::select! {
        outcome = converse(process) => outcome,
        signal = ends.wait() => Ok(Outcome::Signal(signal)),
        never = sizing => never,
    }
}

/// Passes the streams on until the command has ended.
async fn converse(mut process: AttachedProcess) -> Result<Outcome> {
    let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
    let status = process.take_status();
    let typing = async {
        if let Some(mut stdin) = stdin {
            // Either end may end first; the command's says how it went.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        }
        std::future::pending().await
    };
    let complain = |bytes: &[u8]| std::io::stderr().write_all(bytes).map_err(|error| Error::io("standard error", error));
    let ending = async {
        futures::try_join!(show(stdout, print_bytes), show(stderr, complain))?;
        Ok(match status {
            Some(status) => status.await,
            None => None,
        })
    };
    let status: Result<Option<Status>> = tokio::select! {
        status = ending => status,
        never = typing => never,
    };
    let lost = || Outcome::Failed("the connection has ended before the command: whether it goes on is not known".to_owned());
    let outcome = status?.map_or_else(lost, |status| outcome(&serde_json::to_value(status).unwrap_or_default()));
    drop(process);
    Ok(outcome)
}

async fn show(stream: Option<impl AsyncRead + Unpin>, write: impl Fn(&[u8]) -> Result<()>) -> Result<()> {
    let Some(mut stream) = stream else { return Ok(()) };
    let mut buffer = vec![0; BUFFER];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        write(&buffer[..length])?;
    }
    Ok(())
}

/// What the `metav1.Status` at the end of a session says.
fn outcome(status: &Value) -> Outcome {
    if status["status"] == "Success" {
        return Outcome::Exit(0);
    }
    let causes = status["details"]["causes"].as_array().filter(|_| status["reason"] == "NonZeroExitCode");
    let code = causes.into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
    match code.and_then(|cause| cause["message"].as_str()?.parse().ok()) {
        Some(code) => Outcome::Exit(code),
        None => {
            Outcome::Failed(status["message"].as_str().unwrap_or("the server does not say why the command failed").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn outcomes() {
        let check = |status: Value, expected: Outcome| assert_eq!(outcome(&status), expected, "{status}");
        check(json!({"status": "Success"}), Outcome::Exit(0));
        let causes = json!({"causes": [{"reason": "ExitCode", "message": "3"}]});
        check(json!({"status": "Failure", "reason": "NonZeroExitCode", "details": causes}), Outcome::Exit(3));
        check(
            json!({"status": "Failure", "reason": "InternalError", "message": "no such file"}),
            Outcome::Failed("no such file".to_owned()),
        );
    }
}

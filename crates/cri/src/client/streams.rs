//! Exec and attach: the runtime says where the streams of a session are, and the kubelet goes there.

use ::runtime::api::{self, Error, Result, Streams};
use base::tasks::OnFailure;
use streaming::exec::{Outcome, client};
use streaming::join::Process;
use tokio::sync::oneshot;

use super::Inner;
use crate::messages::*;

impl Inner {
    /// Runs a command in a container.
    pub(super) async fn exec(&self, container: &str, asked: api::ExecRequest) -> Result<Streams> {
        let streams = wanted(&asked);
        let request = ExecRequest {
            container_id: container.to_owned(),
            cmd: asked.command,
            tty: streams.tty,
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            ..Default::default()
        };
        let address = self.call(request).await?.url;
        self.session("exec", container, &address, streams).await
    }

    /// Attaches to a container.
    pub(super) async fn attach(&self, container: &str, asked: &api::ExecRequest) -> Result<Streams> {
        let streams = wanted(asked);
        let request = AttachRequest {
            container_id: container.to_owned(),
            stdin: streams.stdin,
            tty: streams.tty,
            stdout: streams.stdout,
            stderr: streams.stderr,
            ..Default::default()
        };
        let address = self.call(request).await?.url;
        self.session("attach", container, &address, streams).await
    }

    /// The session at an address. It ends with its streams when they are dropped; what was written to standard input before has a time
    /// to be read.
    async fn session(&self, what: &str, container: &str, address: &str, streams: streaming::exec::Streams) -> Result<Streams> {
        let Process { stdin, stdout, stderr, resize, exit } =
            client::connect(address, streams).await.map_err(|error| Error::Internal(error.to_string()))?;
        let (mut ended, end) = oneshot::channel();
        self.tasks.spawn_until_cancelled(format!("{what} in {container}"), OnFailure::Log, async move {
            let mut exit = exit;
            tokio::select! {
                outcome = &mut exit => {
                    // Who asked may be gone by now.
                    let _ = ended.send(match outcome {
                        Outcome::Exit(code) => Ok(code),
                        Outcome::Failed(why) => Err(Error::Internal(why)),
                    });
                }
                () = ended.closed() => {
                    if streams.stdin {
                        // The end of the command is of interest to nobody.
                        let _ = tokio::time::timeout(streaming::LAST, exit).await;
                    }
                }
            }
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(Streams { stdin, stdout, stderr, resize, exit: end })
    }
}

/// "If tty is true, stderr MUST be false" (`ExecRequest`): a terminal has one output.
fn wanted(asked: &api::ExecRequest) -> streaming::exec::Streams {
    streaming::exec::Streams { stdin: asked.stdin, stdout: asked.stdout, stderr: asked.stderr && !asked.tty, tty: asked.tty }
}

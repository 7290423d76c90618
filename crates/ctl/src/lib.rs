//! The built-in client: what a person at a machine with nothing but `knarr` looks at and changes in a cluster, so that kubectl is a choice.
//!
//! Names, output, messages and exit codes are kubectl's. Nothing here knows kinds but where a command is about one (logs of pods, rollouts of
//! deployments): resources are found by discovery, tables are the server's, and what is applied is merged by the server.
//!
//! | module | what it holds |
//! |---|---|
//! | `session` | which cluster, and requests |
//! | `discovery`, `selection`, `manifests` | which objects are meant: names of resources, arguments, files; pure but for reading |
//! | `lists` | pages, watches, following one object |
//! | `table`, `template`, `output`, `describe` | what is printed of an object; pure |
//! | all others | one command each |

// What is told goes through `output`, which shows control characters instead of sending them to a terminal.
#![warn(clippy::print_stderr, clippy::print_stdout)]

mod api_resources;
mod delete;
mod describe;
mod discovery;
mod error;
mod exec;
mod forward;
mod get;
mod lists;
mod logs;
mod manifests;
mod mark;
mod output;
mod pods;
mod rollout;
mod scale;
mod selection;
mod session;
mod table;
mod template;
mod terminal;
#[cfg(test)]
mod testing;
mod times;
mod top;
mod wait;
mod write;

use std::process::ExitCode;

use clap::Subcommand;

pub use output::visible;
pub use session::DATA_DIR;

use error::Error;
use mark::Mark;

/// The commands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Show objects of a cluster.
    Get(Box<get::Options>),
    /// Show an object in words, with what was told about it.
    Describe(Box<describe::Options>),
    /// Make objects what files say that they are, and create those that are not there.
    Apply(Box<write::Apply>),
    /// Create objects of files.
    Create(Box<write::Create>),
    /// Delete objects.
    Delete(Box<delete::Options>),
    /// Set how many replicas there are to be.
    Scale(Box<scale::Options>),
    /// Follow, restart and take back changes of workloads.
    Rollout(Box<rollout::Options>),
    /// Wait until objects are as they should be, or gone.
    Wait(Box<wait::Options>),
    /// Set labels of objects, and take them away.
    Label(Box<mark::Options>),
    /// Set annotations of objects, and take them away.
    Annotate(Box<mark::Options>),
    /// Show what containers have written.
    Logs(Box<logs::Options>),
    /// Run a command in a container.
    Exec(Box<exec::Exec>),
    /// Go on with what runs in a container.
    Attach(Box<exec::Attach>),
    /// Lead ports of this machine to those of a pod.
    PortForward(Box<forward::Options>),
    /// Show what nodes and pods use.
    Top(Box<top::Options>),
    /// Show what the server serves.
    ApiResources(Box<api_resources::Options>),
}

/// Runs a command, and tells what goes wrong on standard error. The code is 0 when all went well, that of the command that was executed, or 1.
pub fn run(command: &Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::tell(&format!("error: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(dispatch(command)) {
        Ok(code) => code,
        // Whoever read the output has seen enough.
        Err(Error::Closed) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    };
    // A thread may still wait for somebody to type.
    runtime.shutdown_background();
    code
}

async fn dispatch(command: &Command) -> error::Result<ExitCode> {
    match command {
        Command::Get(options) => get::run(options).await,
        Command::Describe(options) => describe::run(options).await,
        Command::Apply(options) => write::apply(options).await,
        Command::Create(options) => write::create(options).await,
        Command::Delete(options) => delete::run(options).await,
        Command::Scale(options) => scale::run(options).await,
        Command::Rollout(options) => rollout::run(options).await,
        Command::Wait(options) => wait::run(options).await,
        Command::Label(options) => mark::run(options, Mark::Labels).await,
        Command::Annotate(options) => mark::run(options, Mark::Annotations).await,
        Command::Logs(options) => logs::run(options).await,
        Command::Exec(options) => return exec::exec(options).await,
        Command::Attach(options) => return exec::attach(options).await,
        Command::PortForward(options) => forward::run(options).await,
        Command::Top(options) => top::run(options).await,
        Command::ApiResources(options) => api_resources::run(options).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

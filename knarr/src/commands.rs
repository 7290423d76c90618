//! What the subcommands do.

mod certificate;
mod image;
mod killall;
mod secrets_encryption;
mod snapshot;
pub(crate) mod status;
mod token;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::{agent, dev, server};

/// Runs one subcommand. The client's have exit codes of their own, and tell their failures themselves, in kubectl's words.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Client(command) => return Ok(ctl::run(&command)),
        Command::Server(options) => server::run(*options),
        Command::Agent(options) => agent::run(*options),
        Command::Token(options) => token::run(&options),
        Command::Certificate(options) => certificate::run(&options),
        Command::SecretsEncryption(options) => secrets_encryption::run(&options),
        Command::Snapshot(options) => snapshot::run(&options),
        Command::Image(options) => image::run(&options),
        Command::Dev(options) => dev::run(options),
        Command::Status(options) => status::run(&options),
        Command::Killall(options) => killall::run(&options),
        Command::Version => {
            println!("knarr {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), apiserver::VERSION);
            Ok(())
        }
        Command::Completion { shell } => match std::io::stdout().write_all(&Cli::completion(shell)) {
            // Whoever reads it has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        },
    }
    .map(|()| ExitCode::SUCCESS)
}

//! What the subcommands do.

mod certificate;
mod image;
mod killall;
mod secrets_encryption;
mod snapshot;
pub(crate) mod status;
mod token;

use anyhow::Result;

use crate::cli::Command;
use crate::{agent, dev, server};

/// Runs one subcommand.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
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
    }
}

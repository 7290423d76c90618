//! What the subcommands do.

mod killall;
mod status;

use anyhow::Result;

use crate::cli::Command;
use crate::server;

/// Runs one subcommand.
pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Server(options) => server::run(*options),
        Command::Status(options) => status::run(&options),
        Command::Killall(options) => killall::run(&options),
        Command::Version => {
            println!("knarr {} (Kubernetes {})", env!("CARGO_PKG_VERSION"), apiserver::VERSION);
            Ok(())
        }
    }
}

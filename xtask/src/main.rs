//! Developer commands: `cargo xtask COMMAND`.

mod schema;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Make the API's type tables from the Go sources of Kubernetes.
    Schema(schema::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Schema(args) => schema::run(&args),
    }
}

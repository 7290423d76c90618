//! Developer commands: `cargo xtask COMMAND`.

mod images;
mod schema;
mod tools;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Make OCI images from Debian packages.
    Images(images::Options),
    /// Make the API's type tables from the Go sources of Kubernetes.
    Schema(schema::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Images(options) => images::run(&options),
        Command::Schema(args) => schema::run(&args),
    }
}

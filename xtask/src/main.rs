//! Developer commands: `cargo xtask COMMAND`.

mod images;
mod kubectl;
mod schema;
mod tools;
mod up;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Build, start a cluster on this machine, run the example on it and show its page.
    Up(up::Options),
    /// Remove what `up` made.
    Down(up::Options),
    /// Make OCI images from Debian packages.
    Images(images::Options),
    /// Make the API's type tables from the Go sources of Kubernetes.
    Schema(schema::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Up(options) => up::up(&options),
        Command::Down(options) => up::down(&options),
        Command::Images(options) => images::run(&options),
        Command::Schema(args) => schema::run(&args),
    }
}

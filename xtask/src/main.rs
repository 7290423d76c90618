//! Developer commands: `cargo xtask COMMAND`.

#![allow(unreachable_pub, reason = "a program has no interface: `pub` says what a module offers the others")]

mod bench;
mod clients;
mod conformance;
mod debian;
mod fuzz;
mod golang;
mod helm;
mod images;
mod kernel;
mod kills;
mod kubectl;
mod oracle;
mod pebble;
mod python;
mod schema;
mod simulate;
mod steps;
mod test;
mod tidy;
mod tools;
mod up;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
enum Command {
    /// Build, start a cluster on this machine, run the example on it and show its page.
    Up(up::Options),
    /// Remove what `up` made.
    Down(up::Options),
    /// Run every check and every test, as CI does.
    Test(test::Options),
    /// Check what the compiler does not: layers, licences, lengths.
    Tidy,
    /// Measure the release binary and print a table.
    Bench,
    /// Drive upstream's end-to-end suite against a cluster of the release binary.
    Conformance(conformance::Options),
    /// Compare what Knarr computes with what upstream's own libraries compute.
    Oracle(oracle::Options),
    /// Simulate clusters with faults, one for each seed.
    Simulate(simulate::Options),
    /// Run the tests that change their inputs at random, for longer.
    Fuzz(fuzz::Options),
    /// Run the tests with clients that take long to fetch or to build.
    Clients(clients::Options),
    /// Run the tests that need another kernel than this machine's, in an emulated machine.
    Kernel(kernel::Options),
    /// Kill the server and shims at random moments of pods' lives.
    Kills(kills::Options),
    /// Make OCI images from Debian packages.
    Images(images::Options),
    /// Fetch kubectl and print where it is.
    Kubectl,
    /// Fetch Helm and print where it is.
    Helm,
    /// Fetch the Python client and print which Python has it.
    Python,
    /// Fetch pebble, an ACME server for tests, and print where its programs are.
    Pebble,
    /// Make the API's type tables from the Go sources of Kubernetes.
    Schema(schema::Args),
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up::up(&options),
        Command::Down(options) => up::down(&options),
        Command::Test(options) => test::run(&options),
        Command::Tidy => tidy::run(),
        Command::Bench => bench::run(),
        Command::Conformance(options) => conformance::run(&options),
        Command::Oracle(options) => oracle::run(&options),
        Command::Simulate(options) => simulate::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Clients(options) => clients::run(&options),
        Command::Kernel(options) => kernel::run(&options),
        Command::Kills(options) => kills::run(&options),
        Command::Images(options) => images::run(&options),
        Command::Kubectl => kubectl::path().map(|path| println!("{}", path.display())),
        Command::Helm => helm::path().map(|path| println!("{}", path.display())),
        Command::Python => python::path().map(|path| println!("{}", path.display())),
        Command::Pebble => pebble::path().map(|path| println!("{}", path.display())),
        Command::Schema(args) => schema::run(&args),
    }
}

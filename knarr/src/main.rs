//! `knarr`: a whole Kubernetes cluster in one process.

mod bootstrap;
mod cli;
mod commands;
mod identity;
mod kubeconfig;
mod node;
mod paths;
mod preflight;
mod server;
mod version;

use std::process::ExitCode;

use clap::Parser;

/// A fifth of what creating an object costs was the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Shims and the OCI helper are this same program: they are small, and go their own way before anything else.
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = runtime::dispatch(&args) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let cli = cli::Cli::parse_from(args);
    // The client library logs failed requests as errors; who made them says what they mean.
    let level = format!("kube_client::client::builder=off,{}", cli.log_level);
    if let Err(error) = base::logging::init(cli.format(), &level) {
        eprintln!("knarr: --log-level: {error}");
        return ExitCode::from(2);
    }
    match commands::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("knarr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

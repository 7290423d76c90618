//! `cargo xtask kills`: the server and shims are killed at random moments of pods' lives, many times.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::{bench, kubectl, tools};

/// Options of `cargo xtask kills`.
#[derive(Args)]
pub struct Options {
    /// How many rounds, each of a few pods and at least two kills.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// Another one makes other pods and pauses.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Another build of knarr: each server is of the other build than the one before it.
    #[arg(long)]
    other: Option<PathBuf>,
}

/// Runs the test.
pub fn run(options: &Options) -> Result<()> {
    kubectl::path()?;
    let mut nextest = tools::cargo();
    nextest.args(["nextest", "run", "--package", "knarr", "--locked", "--test", "kills", "--no-capture"]);
    nextest.env("KNARR_KILLS", options.rounds.to_string()).env("KNARR_SEED", options.seed.to_string());
    if let Some(other) = &options.other {
        let other = other.canonicalize().with_context(|| format!("no such program: {}", other.display()))?;
        nextest.env("KNARR_OTHER", other);
    }
    bench::with_registry(|| tools::run(&mut nextest))
}

//! `cargo xtask kills`: the server and shims are killed at random moments of pods' lives, many times.

use anyhow::Result;
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
}

/// Runs the test.
pub fn run(options: &Options) -> Result<()> {
    kubectl::path()?;
    let mut nextest = tools::cargo();
    nextest.args(["nextest", "run", "--package", "knarr", "--locked", "--test", "kills", "--no-capture"]);
    nextest.env("KNARR_KILLS", options.rounds.to_string()).env("KNARR_SEED", options.seed.to_string());
    bench::with_registry(|| tools::run(&mut nextest))
}

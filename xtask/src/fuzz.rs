//! `cargo xtask fuzz`: the tests that change their inputs at random, for longer, and with other inputs than in `cargo xtask test`.

use anyhow::Result;
use clap::Args;

use crate::tools;

/// Options of `cargo xtask fuzz`.
#[derive(Args)]
pub struct Options {
    /// Seconds of each test.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Where the random numbers begin: the same seed makes the same inputs.
    #[arg(long, default_value_t = 2)]
    seed: u64,
}

/// Runs them, two or more at a time.
pub fn run(options: &Options) -> Result<()> {
    let mut tests = tools::cargo();
    tests.args(["nextest", "run", "--workspace", "--no-fail-fast", "-E", "test(/(^|::)fuzz_/)"]);
    tests.env("KNARR_FUZZ_SECONDS", options.seconds.to_string()).env("KNARR_FUZZ_SEED", options.seed.to_string());
    tools::run(&mut tests)
}

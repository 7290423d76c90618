//! `cargo xtask oracle`: what Knarr computes, against what upstream's own Go libraries compute from the same.

use anyhow::Result;
use clap::Args;

use crate::{golang, tools};

/// Options of `cargo xtask oracle`.
#[derive(Args)]
pub struct Options {
    /// How many cases.
    #[arg(long, default_value_t = 10_000)]
    cases: u32,
    /// Where the random numbers begin: the same seed makes the same cases.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Builds the oracle and asks it.
pub fn run(options: &Options) -> Result<()> {
    let program = golang::build("oracle", "oracle")?;
    // Both are asked before either fails: one says nothing of the other.
    let ask = |(package, example): (&str, &str)| {
        let mut compare = tools::cargo();
        compare.args(["run", "--quiet", "--package", package, "--example", example, "--"]);
        tools::run(compare.arg(&program).args([options.cases.to_string(), options.seed.to_string()]))
    };
    let asked = [("apimachinery", "oracle"), ("structural", "schema-oracle")].map(ask);
    asked.into_iter().collect()
}

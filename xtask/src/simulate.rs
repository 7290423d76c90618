//! `cargo xtask simulate`: a whole cluster under simulated time, once for each seed. What a seed violates, the same seed violates again.

use anyhow::Result;
use clap::Args;

use crate::tools;

/// Options of `cargo xtask simulate`.
#[derive(Args)]
pub struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many run at the same time; as many as there are processors, if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Print every commit: for one seed.
    #[arg(long)]
    trace: bool,
    /// Use the build of the tests, which is slower and may be there already.
    #[arg(long)]
    dev: bool,
}

/// Builds the simulator and runs it.
pub fn run(options: &Options) -> Result<()> {
    let jobs = options.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    let mut simulate = tools::cargo();
    simulate.args(["run", "--quiet", "--package", "simulator", "--bin", "simulate"]);
    if !options.dev {
        simulate.args(["--profile", "simulate"]);
    }
    simulate.args([
        "--",
        "--seeds",
        &options.seeds.to_string(),
        "--seed",
        &options.seed.to_string(),
        "--jobs",
        &jobs.to_string(),
    ]);
    if options.trace {
        simulate.arg("--trace");
    }
    tools::run(&mut simulate)
}

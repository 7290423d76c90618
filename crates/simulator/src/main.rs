//! Runs seeds and tells of those that violate something. `cargo xtask simulate` calls it.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use simulator::Runner;

/// A sixth of a seed's time went into the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulates a cluster, once for each seed.
#[derive(Parser)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Print every commit.
    #[arg(long)]
    trace: bool,
    /// Print one line for each seed, whatever came of it.
    #[arg(long)]
    each: bool,
    /// Print what the components log, of this level and above.
    #[arg(long)]
    log: Option<tracing::Level>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Gives the number of seeds that violated something.
fn run(options: &Options) -> Result<u64> {
    if let Some(level) = options.log {
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).init();
    }
    let runner = Runner::new(options.trace)?;
    let (begun, mut bad, mut commits, mut millis) = (Instant::now(), 0, 0, 0);
    let last = options.seed.saturating_add(options.seeds);
    runner.run(options.seed..last, options.jobs, |outcome| {
        let report = &outcome.report;
        commits += report.commits;
        millis += report.millis;
        if options.each {
            println!(
                "seed {}: history {:016x}, {} commits in {} s",
                outcome.seed,
                report.digest,
                report.commits,
                report.millis / 1000
            );
        }
        if !report.violations.is_empty() {
            bad += 1;
            println!("seed {} violates:", outcome.seed);
            report.violations.iter().for_each(|what| println!("  {what}"));
        }
    })?;
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{} seeds, {bad} with violations; {commits} commits in {:.1} simulated hours; {took:.1} s, {:.0} seeds a minute",
        options.seeds,
        millis as f64 / 3_600_000.0,
        options.seeds as f64 * 60.0 / took,
    );
    Ok(bad)
}

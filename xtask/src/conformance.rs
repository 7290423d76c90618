//! `cargo xtask conformance`: upstream's end-to-end suite against a running cluster.
//!
//! The suite is a directory with a program `run` that takes `-f FOCUS`, `-n NODES` and `-o REPORT`, finds the cluster by
//! `KUBECONFIG` and the images by `REGISTRY`, and prints `N passed, N failed` at last.
//!
//! `--report` asks nobody: it writes which of upstream's conformance tests the project's own tests cite.

mod citations;
pub mod report;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::tools;

/// Options of `cargo xtask conformance`.
#[derive(Args)]
pub struct Options {
    /// Write the table of cited conformance tests into docs/conformance.md instead, and print its figures.
    #[arg(long, exclusive = true)]
    report: bool,
    /// Directory of the suite.
    #[arg(long, default_value = "../shared/conformance")]
    suite: PathBuf,
    /// Regular expression of test names.
    #[arg(long, default_value = r"\[Conformance\]")]
    focus: String,
    /// Tests side by side; serial tests need 1.
    #[arg(long, default_value_t = 4)]
    nodes: u8,
    /// The cluster, such as the one that `cargo xtask up` started.
    #[arg(long, default_value = "/var/lib/knarr/kubeconfig")]
    kubeconfig: PathBuf,
    /// Registry with the suite's images.
    #[arg(long, default_value = "127.0.0.1:5000")]
    registry: String,
}

/// Runs the suite's tests, or reports what the project's own tests cite.
pub fn run(options: &Options) -> Result<()> {
    if options.report {
        return report::run();
    }
    let program = tools::root().join(&options.suite).join("run");
    if !program.exists() {
        bail!("{} is not there: name the directory of the suite with --suite", program.display());
    }
    if !options.kubeconfig.exists() {
        bail!(
            "{} is not there: `cargo xtask up` starts a cluster, or name another with --kubeconfig",
            options.kubeconfig.display()
        );
    }
    let report = tools::root().join("conformance-report");
    let mut suite = Command::new(program);
    suite.env("KUBECONFIG", &options.kubeconfig).env("REGISTRY", &options.registry);
    suite.args(["-f", &options.focus, "-n", &options.nodes.to_string(), "-o"]).arg(report);
    tools::run(&mut suite)
}

//! `cargo xtask clients`: the tests with clients that take long to fetch or to build, which `cargo xtask test` leaves out.

use anyhow::Result;
use clap::Args;

use crate::{bench, debian, golang, kubectl, python, tools};

/// Options of `cargo xtask clients`.
#[derive(Args)]
pub struct Options {
    /// Further arguments of `cargo nextest run`, such as a filter.
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Fetches and builds the clients and runs their tests.
pub fn run(options: &Options) -> Result<()> {
    tools::install(&["curl", "runc"])?;
    kubectl::path()?;
    python::path()?;
    golang::build("informers", "knarr/tests/informers")?;
    golang::build("wardle", "knarr/tests/wardle")?;
    debian::programs("etcd-server", "etcd", "etcd")?;
    debian::programs("containerd", "containerd", "containerd")?;
    let mut nextest = tools::cargo();
    nextest.args(["nextest", "run", "--package", "knarr", "--locked", "--run-ignored", "only"]).args(&options.nextest);
    bench::with_registry(|| tools::run(&mut nextest))
}

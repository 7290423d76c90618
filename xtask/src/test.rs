//! `cargo xtask test`: every check there is, in the order in which they are cheapest to fail. CI runs exactly this.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::steps::Steps;
use crate::{bench, helm, kubectl, pebble, python, tidy, tools};

/// What the tests call: namespaces, addresses, packet filter, a terminal, a bus, certificates as others read and make them.
const PACKAGES: &[&str] =
    &["util-linux", "bsdutils", "iproute2", "nftables", "dbus-daemon", "openssl", "containernetworking-plugins"];

/// Options of `cargo xtask test`.
#[derive(Args)]
pub struct Options {
    /// Leave out the checks and run the tests only.
    #[arg(long)]
    only_tests: bool,
    /// Further arguments of `cargo nextest run`, such as a filter.
    #[arg(last = true)]
    nextest: Vec<String>,
}

/// Runs everything, and stops at the first step that fails.
pub fn run(options: &Options) -> Result<()> {
    let mut steps = Steps::default();
    let cargo = |arguments: &[&str]| tools::run(tools::cargo().args(arguments));
    steps.run("prerequisites", prerequisites)?;
    if !options.only_tests {
        steps.run("formatting", || cargo(&["fmt", "--all", "--check"]))?;
        steps.run("tidy", tidy::run)?;
        steps.run("clippy", || {
            cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
        })?;
        steps.run("documentation", documentation)?;
    }
    steps.run("kubectl", kubectl::path)?;
    steps.run("Helm", helm::path)?;
    steps.run("the Python client", python::path)?;
    steps.run("pebble", pebble::path)?;
    steps.run("build the tests", || cargo(&["nextest", "run", "--workspace", "--locked", "--no-run"]))?;
    steps.run("tests, with a registry of the images", || {
        let mut nextest = tools::cargo();
        nextest.args(["nextest", "run", "--workspace", "--locked"]).args(&options.nextest);
        bench::with_registry(|| tools::run(&mut nextest))
    })?;
    steps.print();
    Ok(())
}

fn documentation() -> Result<()> {
    let mut cargo = tools::cargo();
    cargo.args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    tools::run(cargo.env("RUSTDOCFLAGS", "-D warnings"))
}

fn prerequisites() -> Result<()> {
    let nextest = Command::new("cargo").args(["nextest", "--version"]).output();
    if !nextest.is_ok_and(|output| output.status.success()) {
        bail!("cargo-nextest is not installed: cargo install --locked cargo-nextest");
    }
    if tools::output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("the tests make namespaces, cgroups and mounts: run them as root");
    }
    tools::install(PACKAGES)
}

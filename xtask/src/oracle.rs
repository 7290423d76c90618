//! `cargo xtask oracle`: what Knarr computes, against what upstream's own Go libraries compute from the same.
//!
//! The Go program in `oracle/` and the libraries that it needs are built in the old way, from Debian's packages and without the
//! network. It is no part of `cargo xtask test`: Go and the packages are 120 MB, and the build takes minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::debian::Sid;
use crate::tools;

/// What the program imports; the rest follows.
const PACKAGES: &[&str] = &["golang-go", "golang-k8s-client-go-dev", "golang-k8s-sigs-structured-merge-diff-v6-dev"];

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
    let program = build()?;
    let mut compare = tools::cargo();
    compare.args(["run", "--quiet", "--package", "apimachinery", "--example", "oracle", "--"]);
    compare.arg(program).args([options.cases.to_string(), options.seed.to_string()]);
    tools::run(&mut compare)
}

/// The oracle, built from its sources.
fn build() -> Result<PathBuf> {
    let work = tools::work_dir().join("oracle");
    let go = match toolchain(&work) {
        Some(go) => go,
        None => {
            eprintln!("fetching Go and upstream's libraries from Debian");
            fs::create_dir_all(&work)?;
            let sid = Sid::update(work.join("apt"))?;
            sid.unpack(&sid.closure(PACKAGES, "golang-")?, &work)?;
            toolchain(&work).context("golang-go brought no Go")?
        }
    };
    let sources = work.join("gopath/src/oracle");
    fs::create_dir_all(&sources)?;
    for entry in fs::read_dir(tools::root().join("oracle"))? {
        let path = entry?.path();
        if let Some(name) = path.file_name() {
            fs::copy(&path, sources.join(name))?;
        }
    }
    let program = work.join("oracle");
    let mut command = Command::new(go.join("bin/go"));
    command.args(["build", "-o"]).arg(&program).arg("oracle").current_dir(&sources);
    command.env("GOROOT", &go).env("GOCACHE", work.join("cache")).env("HOME", &work);
    command.env("GOPATH", format!("{}:{}", work.join("gopath").display(), work.join("usr/share/gocode").display()));
    command.envs([("GO111MODULE", "off"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", ""), ("CGO_ENABLED", "0")]);
    tools::run(&mut command)?;
    Ok(program)
}

/// The unpacked Go, if it is there: `usr/lib/go-1.27`.
fn toolchain(work: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(work.join("usr/lib")).ok()?;
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.filter(|path| path.join("bin/go").exists() && path.file_name().is_some_and(|name| name != "go")).max()
}

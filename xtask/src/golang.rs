//! Go programs that use upstream's own libraries, built in the old way from Debian's packages and without the network.
//!
//! They are no part of `cargo xtask test`: Go and the packages are 120 MB, and the build takes minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::debian::Sid;
use crate::tools;

/// What the programs import; the rest follows.
const PACKAGES: &[&str] = &[
    "golang-go",
    "golang-k8s-apiextensions-apiserver-dev",
    "golang-k8s-apiserver-dev",
    "golang-k8s-client-go-dev",
    "golang-k8s-sigs-structured-merge-diff-v6-dev",
];

/// Builds the program whose sources lie in a directory of the workspace.
pub fn build(name: &str, sources: &str) -> Result<PathBuf> {
    let work = tools::work_dir().join("go");
    let go = match toolchain(&work) {
        Some(go) => go,
        None => {
            eprintln!("fetching Go and upstream's libraries from Debian");
            tools::make_whole(&work, |work| {
                let sid = Sid::update(work.join("apt"))?;
                sid.unpack(&sid.closure(PACKAGES, "golang-")?, work)
            })?;
            toolchain(&work).context("golang-go brought no Go")?
        }
    };
    let directory = work.join("gopath/src").join(name);
    fs::create_dir_all(&directory)?;
    for entry in fs::read_dir(tools::root().join(sources))? {
        let path = entry?.path();
        if let Some(file) = path.file_name() {
            fs::copy(&path, directory.join(file))?;
        }
    }
    let program = work.join(name);
    let mut command = Command::new(go.join("bin/go"));
    command.args(["build", "-o"]).arg(&program).arg(name).current_dir(&directory);
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

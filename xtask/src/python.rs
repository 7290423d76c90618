//! Python with what the tests run, in an environment of its own: the official client, kopf, with which people write operators, and gRPC, which
//! storage drivers speak.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::tools;

/// The version that the tests run with: of the API that Knarr serves.
pub const VERSION: &str = "36.0.3";
/// The version of kopf that the tests run with.
const KOPF: &str = "1.45.2";
/// The version of gRPC that the tests' storage driver runs with.
const GRPC: &str = "1.85.1";

/// The environment's Python, made on first use.
pub fn path() -> Result<PathBuf> {
    let directory = tools::work_dir().join(format!("python-{VERSION}-kopf-{KOPF}-grpc-{GRPC}"));
    let program = directory.join("bin/python");
    // Written last, so that an environment which was not finished is made again.
    let complete = directory.join("complete");
    if !complete.exists() {
        eprintln!("fetching the Python client {VERSION}, kopf {KOPF} and gRPC {GRPC}");
        if !python().args(["-c", "import ensurepip, venv"]).status().is_ok_and(|status| status.success()) {
            tools::install(&["python3-venv"])?;
        }
        tools::run(python().args(["-m", "venv", "--clear"]).arg(&directory))?;
        let mut install = Command::new(&program);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        install.args([format!("kubernetes=={VERSION}"), format!("kopf=={KOPF}")]);
        install.args([format!("grpcio=={GRPC}"), format!("grpcio-tools=={GRPC}")]);
        tools::run(&mut install)?;
        fs::write(complete, "")?;
    }
    Ok(program)
}

fn python() -> Command {
    let mut python = Command::new("python3");
    python.stdin(Stdio::null()).stderr(Stdio::null());
    python
}

//! The official Python client of the version that the tests run with, in an environment of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::tools;

/// The version that the tests run with: of the API that Knarr serves.
pub const VERSION: &str = "36.0.3";

/// The environment's Python, made on first use.
pub fn path() -> Result<PathBuf> {
    let directory = tools::work_dir().join(format!("python-{VERSION}"));
    let program = directory.join("bin/python");
    // Written last, so that an environment which was not finished is made again.
    let complete = directory.join("complete");
    if !complete.exists() {
        eprintln!("fetching the Python client {VERSION}");
        if !python().args(["-c", "import ensurepip, venv"]).status().is_ok_and(|status| status.success()) {
            tools::install(&["python3-venv"])?;
        }
        tools::run(python().args(["-m", "venv", "--clear"]).arg(&directory))?;
        let mut install = Command::new(&program);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", &format!("kubernetes=={VERSION}")]);
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

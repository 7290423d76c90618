//! kubectl of the version that Knarr serves, from Debian: the release of this machine may have another one, or none.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::debian::Sid;
use crate::tools;

/// The version that the tests run with.
pub const VERSION: &str = "1.36.4";
const PACKAGE: &str = "kubectl";

/// The program, fetched and unpacked on first use. Nothing is installed on the machine.
pub fn path() -> Result<PathBuf> {
    let directory = tools::work_dir().join(format!("kubectl-{VERSION}"));
    let program = directory.join("usr/bin/kubectl");
    if !program.exists() {
        eprintln!("fetching kubectl {VERSION}");
        let lists = directory.join("apt");
        Sid::update(lists.clone())?.unpack(&[PACKAGE.to_owned()], &directory)?;
        tools::remove(lists)?;
    }
    if !program.exists() {
        bail!("package {PACKAGE} has no usr/bin/kubectl");
    }
    Ok(program)
}

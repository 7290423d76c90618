//! kubectl of the version that Knarr serves, from Debian: the release of this machine may have another one, or none.

use std::path::PathBuf;

use anyhow::Result;

use crate::debian;

/// The version that the tests run with.
pub const VERSION: &str = "1.36.4";
/// And the package that it is in.
const PROGRAM: &str = "kubectl";

/// The program, fetched and unpacked on first use. Nothing is installed on the machine.
pub fn path() -> Result<PathBuf> {
    Ok(debian::programs(PROGRAM, &format!("{PROGRAM}-{VERSION}"), PROGRAM)?.join(PROGRAM))
}

//! pebble, an ACME server for tests, from Debian: nothing is installed on the machine.

use std::path::PathBuf;

use anyhow::Result;

use crate::debian;

/// The directory with its programs, fetched and unpacked on first use.
pub fn path() -> Result<PathBuf> {
    debian::programs("pebble", "pebble", "pebble-challtestsrv")
}

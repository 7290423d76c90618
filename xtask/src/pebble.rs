//! pebble, an ACME server for tests, from Debian: nothing is installed on the machine.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::debian::Sid;
use crate::tools;

/// The directory with its programs, fetched and unpacked on first use.
pub fn path() -> Result<PathBuf> {
    let directory = tools::work_dir().join("pebble");
    let programs = directory.join("usr/bin");
    if !programs.join("pebble").exists() {
        eprintln!("fetching pebble");
        let lists = directory.join("apt");
        Sid::update(lists.clone())?.unpack(&["pebble".to_owned()], &directory)?;
        fs::remove_dir_all(lists)?;
    }
    if !programs.join("pebble-challtestsrv").exists() {
        bail!("Debian's package pebble has no usr/bin/pebble-challtestsrv");
    }
    Ok(programs)
}

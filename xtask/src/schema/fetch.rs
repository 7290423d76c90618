//! Fetches the Go sources: Debian packages of the unstable suite, from the mirror that this machine already uses.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::Sid;

const PACKAGES: [&str; 4] =
    ["golang-k8s-api-dev", "golang-k8s-apimachinery-dev", "golang-k8s-apiextensions-apiserver-dev", "golang-k8s-client-go-dev"];

/// Downloads and unpacks the packages into `dir`. Returns the `k8s.io` directory.
pub(crate) fn fetch(dir: &Path) -> Result<PathBuf> {
    let sid = Sid::update(dir.to_owned()).context("the packages can be unpacked by hand, and named with --source")?;
    sid.unpack(&PACKAGES.map(str::to_owned), dir)?;
    Ok(dir.join("usr/share/gocode/src/k8s.io"))
}

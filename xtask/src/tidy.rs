//! `cargo xtask tidy`: what the compiler and clippy do not check.
//!
//! Each check returns the complaints it has; the command prints them all and fails when there is one.

mod circles;
mod generic;
mod layers;
mod lists;
mod packages;
mod shape;
pub mod source;

use anyhow::{Result, bail};

use crate::conformance::report;

/// Runs every check.
pub fn run() -> Result<()> {
    let files = source::read()?;
    let metadata = packages::metadata()?;
    let mut complaints = layers::check(&metadata);
    complaints.extend(packages::licences(&metadata));
    complaints.extend(packages::duplicates()?);
    complaints.extend(source::check(&files));
    complaints.extend(lists::check(&files));
    complaints.extend(generic::check(&files));
    complaints.extend(circles::check(&files));
    complaints.extend(shape::check(&files));
    complaints.extend(report::complaints(&files));
    for complaint in &complaints {
        eprintln!("tidy: {complaint}");
    }
    if !complaints.is_empty() {
        bail!("{} complaints", complaints.len());
    }
    Ok(())
}

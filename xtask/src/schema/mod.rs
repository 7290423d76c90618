//! `cargo xtask schema`: makes the tables of `crates/schema/data` from the Go sources of the Kubernetes API.
//!
//! The sources are the Debian packages `golang-k8s-api-dev`, `golang-k8s-apimachinery-dev` and `golang-k8s-client-go-dev`.

mod go;
mod golden;
mod packages;
mod table;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// Arguments of `cargo xtask schema`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The unpacked `k8s.io` directory.
    #[arg(long)]
    source: PathBuf,
}

/// Writes the data files.
pub(crate) fn run(args: &Args) -> Result<()> {
    let source = packages::Source::read(&args.source)?;
    let types = table::types(&source)?;
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/schema");
    fs::write(home.join("data/v1.36.table"), table::write(&source, &types)?)?;
    let golden = golden::collect(&args.source, &source, &types)?;
    fs::write(home.join("testdata/golden.json.gz"), compress(golden.as_bytes())?)?;
    Ok(())
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

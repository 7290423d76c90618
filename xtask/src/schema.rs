//! `cargo xtask schema`: makes the tables of `crates/schema/data` from the Go sources of the Kubernetes API.
//!
//! The sources are the Debian packages `golang-k8s-api-dev`, `golang-k8s-apimachinery-dev`,
//! `golang-k8s-apiextensions-apiserver-dev` and `golang-k8s-client-go-dev`. The output is committed; run this again for a new version of the API only.

mod crosscheck;
mod docs;
mod fetch;
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
    /// The unpacked `k8s.io` directory. Without it the packages are downloaded from Debian unstable.
    #[arg(long)]
    source: Option<PathBuf>,
}

/// Writes the data files.
pub(crate) fn run(args: &Args) -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("knarr-schema-{}", std::process::id()));
    let root = match &args.source {
        Some(root) => root.clone(),
        None => fetch::fetch(&scratch)?,
    };
    let result = generate(&root);
    if args.source.is_none() {
        crate::tools::remove(&scratch)?;
    }
    result
}

fn generate(root: &Path) -> Result<()> {
    let source = packages::Source::read(root)?;
    let types = table::types(&source)?;
    crosscheck::check(root, &types)?;
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/schema");
    fs::write(home.join("data/v1.36.table"), table::write(&source, &types)?)?;
    fs::write(home.join("data/v1.36.docs.gz"), compress(&docs::write(&source, &types)?)?)?;
    fs::write(home.join("testdata/golden.json.gz"), compress(&golden::collect(root, &source, &types)?)?)?;
    Ok(())
}

fn compress(text: &str) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?)
}

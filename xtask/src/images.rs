//! `cargo xtask images`: real OCI images from this machine's Debian packages, served by a registry of this machine.
//!
//! No image registry is needed on the network: tests and the example run on these.

mod layer;
mod layout;
mod recipes;
mod registry;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

pub use registry::Registry;

use crate::tools;

/// Debian packages that the images are made from, and the tools that serve them.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "nginx-light",
    "redis-server",
    "redis-tools",
    "python3.11",
    "python3-redis",
    "python3-psycopg2",
    "uwsgi-core",
    "uwsgi-plugin-python3",
    "postgresql-15",
    "docker-registry",
    "skopeo",
];

/// Options of `cargo xtask images`.
#[derive(Args)]
pub struct Options {
    /// Where the OCI layouts go.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also serve them at 127.0.0.1:5000.
    #[arg(long)]
    serve: bool,
}

/// Makes the layouts and prints where they are.
pub fn run(options: &Options) -> Result<()> {
    let out = options.out.clone().unwrap_or_else(|| tools::work_dir().join("images"));
    build(&out)?;
    if options.serve {
        Registry::start(&tools::work_dir().join("registry"), &out)?;
    }
    println!("{}", out.display());
    Ok(())
}

/// Installs what is missing and writes every image as an OCI layout `OUT/NAME_TAG`. What is there already stays.
pub fn build(out: &Path) -> Result<()> {
    tools::install(PACKAGES)?;
    std::fs::create_dir_all(out)?;
    for recipe in recipes::RECIPES {
        let missing = recipe.tags.iter().any(|tag| !out.join(format!("{}_{tag}", recipe.name)).join("index.json").exists());
        if missing {
            layout::write(out, recipe)?;
        }
    }
    Ok(())
}

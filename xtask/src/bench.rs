//! `cargo xtask bench`: the release binary on a machine of its own, under a load generator that is a release build too.

use std::process::Command;

use anyhow::Result;

use crate::{images, tools, up};

/// Builds both, serves the images, measures.
pub fn run() -> Result<()> {
    let binary = up::build("release")?;
    tools::run(tools::cargo().args(["build", "--release", "--package", "testing", "--bin", "bench"]))?;
    with_registry(|| tools::run(Command::new(tools::target_dir().join("release/bench")).arg(&binary)))
}

/// Does something while the registry of the images serves; one that was there before stays.
pub fn with_registry<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (layouts, registry) = (tools::work_dir().join("images"), tools::work_dir().join("registry"));
    images::build(&layouts)?;
    let serves = images::Registry::answers();
    images::Registry::start(&registry, &layouts)?;
    let result = work();
    if !serves {
        images::Registry::stop(&registry)?;
    }
    result
}

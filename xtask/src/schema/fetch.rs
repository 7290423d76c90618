//! Fetches the Go sources: Debian packages of the unstable suite, from the mirror that this machine already uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

const PACKAGES: [&str; 4] =
    ["golang-k8s-api-dev", "golang-k8s-apimachinery-dev", "golang-k8s-apiextensions-apiserver-dev", "golang-k8s-client-go-dev"];
const SOURCES: &str = "/etc/apt/sources.list.d/debian.sources";

/// Downloads and unpacks the packages into `dir`. Returns the `k8s.io` directory.
pub(crate) fn fetch(dir: &Path) -> Result<PathBuf> {
    let sources = fs::read_to_string(SOURCES).with_context(|| format!("no {SOURCES}: unpack the packages and give --source"))?;
    let value = |key: &str| {
        let line = sources.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|value| value.split_whitespace().next()).with_context(|| format!("no {key} in {SOURCES}"))
    };
    fs::create_dir_all(dir.join("lists/partial"))?;
    fs::create_dir_all(dir.join("cache/archives/partial"))?;
    let list = dir.join("sid.list");
    fs::write(&list, format!("deb [signed-by={}] {} sid main\n", value("Signed-By:")?, value("URIs:")?))?;
    let options = [
        format!("Dir::Etc::SourceList={}", list.display()),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", dir.join("lists").display()),
        format!("Dir::Cache={}", dir.join("cache").display()),
    ];
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(options.iter().flat_map(|option| ["-o", option])).args(arguments);
        run(command.current_dir(dir))
    };
    apt(&["update"])?;
    apt(&[&["download"], &PACKAGES[..]].concat())?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(dir))?;
        }
    }
    Ok(dir.join("usr/share/gocode/src/k8s.io"))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

//! Packages of Debian, of the machine's release or of the unstable one, fetched and unpacked beside what is installed: nothing on the machine changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::tools;

/// The unstable release: package lists and a cache of our own in a directory.
pub struct Sid {
    directory: PathBuf,
}

/// The directory with the programs of a package, fetched and unpacked on first use. `program` is one of them.
pub fn programs(package: &str, name: &str, program: &str) -> Result<PathBuf> {
    let directory = tools::work_dir().join(name);
    let programs = directory.join("usr/bin");
    if !programs.join(program).exists() {
        eprintln!("fetching {name}");
        tools::make_whole(&directory, |directory| {
            let lists = directory.join("apt");
            Sid::update(lists.clone())?.unpack(&[package.to_owned()], directory)?;
            tools::remove(lists)
        })?;
    }
    ensure!(programs.join(program).exists(), "Debian's package {package} has no usr/bin/{program}");
    Ok(programs)
}

impl Sid {
    /// Reads the package lists of the mirror that this machine uses.
    pub fn update(directory: PathBuf) -> Result<Self> {
        fs::create_dir_all(directory.join("lists/partial"))?;
        fs::create_dir_all(directory.join("cache/archives/partial"))?;
        fs::write(directory.join("sid.list"), source()?)?;
        let sid = Self { directory };
        tools::output(&mut sid.apt(&["update"]))?;
        Ok(sid)
    }

    fn apt(&self, arguments: &[&str]) -> Command {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let mut command = Command::new("apt-get");
        command.args(["-q", "-o", "Dir::Etc::SourceParts=/dev/null", "-o", "APT::Sandbox::User=root"]);
        // Whatever is installed on this machine, under this name or another, is not what we want.
        command.args(["-o", "Dir::State::status=/dev/null"]);
        command.arg("-o").arg(format!("Dir::Etc::SourceList={}", path("sid.list")));
        command.arg("-o").arg(format!("Dir::State::Lists={}", path("lists")));
        command.arg("-o").arg(format!("Dir::Cache={}", path("cache")));
        command.args(arguments).current_dir(&self.directory);
        command
    }

    /// These packages and all that they need, as far as their names begin with `prefix`.
    pub fn closure(&self, packages: &[&str], prefix: &str) -> Result<Vec<String>> {
        let install = ["install", "--no-install-recommends", "--print-uris", "-y"];
        let listed = tools::output(self.apt(&install).args(packages))?;
        let files = listed.lines().filter_map(|line| line.strip_prefix('\'')?.split(' ').nth(1));
        let names = files.filter_map(|file| Some(file.split_once('_')?.0.to_owned()));
        Ok(names.filter(|name| name.starts_with(prefix)).collect())
    }

    /// Downloads packages and unpacks them into a directory.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        tools::output(self.apt(&["download"]).args(packages))?;
        unpack(&self.directory, into)
    }
}

/// Downloads packages of the release that the machine has and unpacks them into a directory.
pub fn download<'a>(packages: impl IntoIterator<Item = &'a str>, into: &Path) -> Result<()> {
    let mut apt = Command::new("apt-get");
    apt.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(packages).current_dir(into);
    tools::output(&mut apt)?;
    unpack(into, into)
}

/// Unpacks the packages that are in a directory into another one, and removes them.
fn unpack(packages: &Path, into: &Path) -> Result<()> {
    for entry in fs::read_dir(packages)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "deb") {
            tools::run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(into))?;
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A source line for unstable, derived from the machine's own Debian source.
fn source() -> Result<String> {
    for path in ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"] {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if let Some(uri) = field("URIs:") {
            let key = field("Signed-By:").map(|key| format!("[signed-by={key}] ")).unwrap_or_default();
            return Ok(format!("deb {key}{uri} sid main\n"));
        }
        let line = text.lines().find(|line| line.starts_with("deb "));
        if let Some(uri) = line.and_then(|line| line.split_whitespace().find(|word| word.contains("://"))) {
            return Ok(format!("deb {uri} sid main\n"));
        }
    }
    bail!("no Debian package source found in /etc/apt")
}

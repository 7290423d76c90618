//! What several commands need: the machine's packages, programs and this workspace's directories.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The workspace's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Cargo's target directory.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where these commands keep what they make.
pub fn work_dir() -> PathBuf {
    target_dir().join("xtask")
}

/// Cargo, as it started this program. What `cargo run` tells this program about its own package is kept from it: build
/// scripts watch such variables (`ring`'s does), and would run again after every plain `cargo build`.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_this_package)) {
        cargo.env_remove(name);
    }
    cargo
}

/// Whether cargo sets the variable for the package that it builds or runs.
fn of_this_package(variable: &str) -> bool {
    const PREFIXES: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_"];
    const NAMES: [&str; 3] = ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    PREFIXES.iter().any(|prefix| variable.starts_with(prefix)) || NAMES.contains(&variable)
}

/// Runs a command with this program's output; a failure names the command.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Runs a command and returns what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Installs the Debian packages that are missing.
pub fn install(packages: &[&str]) -> Result<()> {
    let missing: Vec<_> = packages.iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.iter().map(|package| **package).collect::<Vec<_>>().join(" "));
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        // Packages that start a service must not do so here.
        apt.env("RUNLEVEL", "1");
        // Somebody else may be installing: seconds to wait.
        apt.args(["-o", "DPkg::Lock::Timeout=300"]);
        apt
    };
    run(apt().args(["update", "-q"]))?;
    run(apt().args(["install", "-q", "-y", "--no-install-recommends"]).args(missing))
}

/// Whether a package of Debian is installed.
pub fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["-W", "-f", "${Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|output| output.stdout.ends_with(b"install ok installed"))
}

/// Removes a directory with all that is in it, however deep containers have made it.
pub fn remove(directory: impl AsRef<Path>) -> Result<()> {
    run(Command::new("rm").args(["-rf", "--"]).arg(directory.as_ref()))
}

/// Has a directory made that is not there, or not as it is to be. It is made beside its place and gets there when it is whole: what an
/// interrupted run leaves is not taken for it.
pub fn make_whole(directory: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut part = directory.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    remove(&part)?;
    std::fs::create_dir_all(&part)?;
    make(&part)?;
    remove(directory)?;
    Ok(std::fs::rename(&part, directory)?)
}

/// Ends a process that these commands started, if it still is the program that they started.
pub fn terminate(pid: &str, program: &str) -> Result<()> {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if !String::from_utf8_lossy(&command).contains(program) {
        return Ok(());
    }
    run(Command::new("kill").arg(pid))?;
    let start = std::time::Instant::now();
    while Path::new(&format!("/proc/{pid}")).exists() && start.elapsed() < Duration::from_secs(15) {
        pause();
    }
    Ok(())
}

/// A short wait between two looks at another program's state, which tells nobody when it changes.
#[allow(clippy::disallowed_methods)]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_interrupted_is_made_from_the_beginning() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("kernel-6.1");
        let interrupted = make_whole(&directory, |part| {
            std::fs::write(part.join("half"), "")?;
            bail!("interrupted")
        });
        assert!(interrupted.is_err() && !directory.exists());
        std::fs::create_dir_all(directory.join("left")).unwrap();
        make_whole(&directory, |part| Ok(std::fs::write(part.join("whole"), "")?)).unwrap();
        let names =
            |path: &Path| -> Vec<_> { std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
        assert_eq!((names(&directory), names(root.path())), (vec!["whole".into()], vec!["kernel-6.1".into()]));
    }

    #[test]
    fn cargo_hears_nothing_of_this_package() {
        let check = |variable, expected| assert_eq!(of_this_package(variable), expected, "{variable}");
        check("CARGO_PKG_NAME", true);
        check("CARGO_MANIFEST_DIR", true);
        check("CARGO_MANIFEST_LINKS", true);
        check("CARGO_TARGET_DIR", false);
        check("CARGO_HOME", false);
        check("PATH", false);
        // The tests are run with such variables set.
        let handed_on = cargo();
        assert!(handed_on.get_envs().any(|(name, value)| name == "CARGO_PKG_NAME" && value.is_none()));
    }
}

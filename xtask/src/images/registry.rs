//! A registry of this machine, filled with the images: Debian's `docker-registry`.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::recipes::RECIPES;
use crate::tools;

/// Where the registry listens.
const ADDRESS: &str = "127.0.0.1:5000";

/// A running registry. It goes on running until [`Registry::stop`].
pub struct Registry {
    directory: PathBuf,
}

impl Registry {
    /// Starts the registry, unless one answers already, and pushes what it lacks.
    pub fn start(directory: &Path, layouts: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let registry = Self { directory: directory.to_owned() };
        if !Self::answers() {
            let child = registry.spawn()?;
            fs::write(registry.pid_file(), child.id().to_string())?;
        }
        push(layouts)?;
        Ok(registry)
    }

    /// Whether a registry listens.
    pub fn answers() -> bool {
        TcpStream::connect(ADDRESS).is_ok()
    }

    fn spawn(&self) -> Result<Child> {
        let data = self.directory.join("data");
        let config = self.directory.join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{ADDRESS}\"}}\n",
                data.display()
            ),
        )?;
        let log = fs::File::create(self.directory.join("registry.log"))?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("docker-registry")?;
        let start = Instant::now();
        while TcpStream::connect(ADDRESS).is_err() {
            if let Some(status) = child.try_wait()? {
                bail!("docker-registry ended with {status}: see {}", self.directory.join("registry.log").display());
            }
            if start.elapsed() > Duration::from_secs(20) {
                bail!("docker-registry does not listen on {ADDRESS} after 20 s");
            }
            tools::pause();
        }
        Ok(child)
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join("registry.pid")
    }

    /// Stops the registry that was started in this directory, if any.
    pub fn stop(directory: &Path) -> Result<()> {
        let registry = Self { directory: directory.to_owned() };
        if let Ok(pid) = fs::read_to_string(registry.pid_file()) {
            tools::terminate(pid.trim(), "docker-registry")?;
            fs::remove_file(registry.pid_file())?;
        }
        Ok(())
    }
}

fn push(layouts: &Path) -> Result<()> {
    for recipe in RECIPES {
        for tag in recipe.tags {
            let target = format!("docker://{ADDRESS}/{}:{tag}", recipe.name);
            let there =
                Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &target]).output().context("skopeo")?;
            if there.status.success() {
                continue;
            }
            let source = format!("oci:{}:{tag}", layouts.join(format!("{}_{tag}", recipe.name)).display());
            tools::run(Command::new("skopeo").args(["copy", "-q", "--dest-tls-verify=false", &source, &target]))?;
        }
    }
    Ok(())
}

//! `cargo xtask up` and `cargo xtask down`: a cluster on this machine, with the example running on it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::steps::Steps;
use crate::{images, kubectl, tools};

const NODE_PORT: u16 = 30080;
/// How long the cluster and the example may take before this gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// Options of `cargo xtask up` and `down`.
#[derive(Args)]
pub struct Options {
    /// Data directory of the cluster.
    #[arg(long, default_value = "/var/lib/knarr")]
    data_dir: PathBuf,
}

/// Builds, starts, applies, fetches.
pub fn up(options: &Options) -> Result<()> {
    let mut steps = Steps::default();
    let layouts = tools::work_dir().join("images");
    let binary = steps.run("build the binary", build_quick)?;
    steps.run("make the images", || images::build(&layouts))?;
    steps.run("serve the images", || images::Registry::start(&registry_dir(), &layouts).map(drop))?;
    let kubectl = steps.run("fetch kubectl", kubectl::path)?;
    steps.run("start the cluster", || start(&binary, &options.data_dir))?;
    let kubeconfig = options.data_dir.join("kubeconfig");
    let run = |arguments: &[&str]| tools::run(Command::new(&kubectl).arg("--kubeconfig").arg(&kubeconfig).args(arguments));
    steps.run("apply examples/journal", || run(&["apply", "-f", &tools::root().join("examples/journal").to_string_lossy()]))?;
    steps.run("wait for the journal", || {
        for name in ["redis", "api", "front"] {
            run(&["-n", "journal", "rollout", "status", "--timeout=120s", &format!("deployment/{name}")])?;
        }
        Ok(())
    })?;
    let page = steps.run("fetch the page", || {
        request("POST", "/entries", "Landed on Knarr")?;
        Ok(format!("{}\n{}", request("GET", "/", "")?, request("GET", "/entries", "")?))
    })?;
    println!("\n{page}");
    println!("page        http://127.0.0.1:{NODE_PORT}/");
    println!("kubeconfig  {}", kubeconfig.display());
    println!("kubectl     {}", kubectl.display());
    steps.print();
    Ok(())
}

/// Stops the cluster with its pods, the registry, and removes what they kept.
pub fn down(options: &Options) -> Result<()> {
    let pid_file = options.data_dir.join("server.pid");
    if let Ok(pid) = fs::read_to_string(&pid_file) {
        tools::terminate(pid.trim(), "knarr")?;
    }
    if options.data_dir.exists() {
        let binary = build_quick()?;
        tools::run(Command::new(binary).arg("killall").arg("--data-dir").arg(&options.data_dir))?;
        tools::remove(&options.data_dir)?;
    }
    images::Registry::stop(&registry_dir())?;
    println!("the cluster and {} are gone", options.data_dir.display());
    Ok(())
}

fn registry_dir() -> PathBuf {
    tools::work_dir().join("registry")
}

/// The binary for a first look: the profile `quick` is the release without link-time optimisation.
fn build_quick() -> Result<PathBuf> {
    build("quick")
}

/// The binary of an optimised profile of Cargo.toml, `release` or `quick`.
pub fn build(profile: &str) -> Result<PathBuf> {
    tools::run(tools::cargo().args(["build", "--profile", profile, "--locked", "--package", "knarr"]))?;
    Ok(tools::target_dir().join(profile).join("knarr"))
}

fn start(binary: &Path, data_dir: &Path) -> Result<()> {
    fs::create_dir_all(data_dir)?;
    let status = |wait: &str| {
        let mut command = Command::new(binary);
        command.arg("status").arg("--data-dir").arg(data_dir).args(["--wait", "--timeout", wait]);
        command
    };
    let running =
        data_dir.join("kubeconfig").exists() && status("1s").stderr(Stdio::null()).stdout(Stdio::null()).status()?.success();
    if running {
        return Ok(());
    }
    let log = fs::File::create(data_dir.join("server.log"))?;
    let mut server = Command::new(binary);
    server.arg("server").arg("--data-dir").arg(data_dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Its own process group: ending this command does not end the cluster.
    std::os::unix::process::CommandExt::process_group(&mut server, 0);
    let mut child = server.spawn()?;
    fs::write(data_dir.join("server.pid"), child.id().to_string())?;
    let start = Instant::now();
    while !data_dir.join("kubeconfig").exists() {
        if let Some(ended) = child.try_wait()? {
            bail!("knarr server ended with {ended}:\n{}", fs::read_to_string(data_dir.join("server.log"))?);
        }
        if start.elapsed() > PATIENCE {
            bail!("knarr server has no kubeconfig after {PATIENCE:?}: see {}", data_dir.join("server.log").display());
        }
        tools::pause();
    }
    tools::run(&mut status("120s"))
}

/// One HTTP/1.0 request to the example's node port.
fn request(method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", NODE_PORT)).context("the node port does not answer")?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: journal\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    if !head.contains(" 200 ") {
        bail!("{method} {path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

//! Parts that need no cluster: each runs in a process of its own, in a network namespace of its own, and prints its rows.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;

use super::extensions::webhook;
use super::{names, services, traffic, web};

/// A part by its name; it gets the arguments that follow.
type Part = (&'static str, fn(&[String]) -> Result<()>);

/// The parts, in the order in which they are measured.
pub const PARTS: [&str; 4] = ["services", "dns", "traffic", "ingress"];

/// What a process of this program may be asked to be.
const ROLES: [Part; 9] = [
    ("services", |_| services::measure()),
    ("dns", |_| names::measure()),
    ("traffic", |_| traffic::measure()),
    ("ingress", |_| web::measure()),
    ("proxied", services::proxied),
    ("answering", names::answering),
    ("echo", names::echo),
    ("ingressing", web::ingressing),
    ("reviewing", webhook::reviewing),
];

/// A row of the table.
pub fn row(measure: &str, goal: &str, value: impl std::fmt::Display) {
    println!("| {measure:<70} | {goal:<18} | {value:>12} |");
}

/// Plays a part in this process: in a network of its own, where only the loopback is up.
///
/// # Errors
/// When it cannot be measured.
pub fn play(role: &str, arguments: &[String]) -> Result<()> {
    let (_, part) = ROLES.iter().find(|(name, _)| *name == role).with_context(|| format!("no part {role:?}"))?;
    if PARTS.contains(&role) {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace: this needs root")?;
        command("ip link set lo up")?;
    }
    part(arguments)
}

/// Lets another process of this program play a part, to its end.
///
/// # Errors
/// When it fails.
pub fn run(role: &str, arguments: &[String]) -> Result<()> {
    let status = this(role, arguments)?.status()?;
    ensure!(status.success(), "{role} {arguments:?}: {status}");
    Ok(())
}

/// Lets another process of this program play a part, to its end; what it prints. This one goes on meanwhile.
///
/// # Errors
/// When it fails.
pub async fn told(role: &str, arguments: &[String]) -> Result<String> {
    let output = tokio::process::Command::from(this(role, arguments)?).stderr(Stdio::inherit()).output().await?;
    ensure!(output.status.success(), "{role} {arguments:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Another process of this program that serves until it is dropped.
pub struct Serving {
    child: Child,
    /// The line that it has printed.
    pub line: String,
}

impl Serving {
    /// Starts it, and reads its first line.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(role: &str, arguments: &[String]) -> Result<Self> {
        let mut child = this(role, arguments)?.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        ensure!(!line.is_empty(), "{role} has not started");
        Ok(Self { child, line: line.trim().to_owned() })
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn this(role: &str, arguments: &[String]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("alone").arg(role).args(arguments);
    Ok(command)
}

/// Runs a command of the shell.
///
/// # Errors
/// When it fails.
pub fn command(line: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", line]).status()?;
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

/// Keeps the calling thread, and those that it starts, on one core.
///
/// # Errors
/// When the kernel refuses.
pub fn stay_on(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Whether a program is installed.
pub fn has(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin"].iter().any(|directory| Path::new(directory).join(program).exists())
}

/// One of many times, microseconds: of 100 sorted ones, that at `percent`.
pub fn at_percent(times: &mut [u32], percent: usize) -> u32 {
    times.sort_unstable();
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(0)
}

//! `knarr dev`: a throw-away cluster on this machine, each node in a network of its own.
//!
//! Every node is a process of its own, `knarr server` or `knarr agent`, as it would be on another machine. One process watches over them; what
//! it has made is in a file before it is made, so that `knarr dev stop` removes all of it also after a crash.

mod forward;
mod node;
mod state;

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base::tasks::Tasks;
use clap::ValueEnum;
use network::hosts::{self, Wire};

use crate::cli::{Dev, DevCommand};
use crate::commands::status;
use crate::paths::{Paths, spelled};
use crate::preflight;
use crate::process::{self, Ending};
use node::Running;
use state::State;

/// How long a cluster may take to be ready, and time between two looks: nothing tells when it is.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);
/// The last line that a cluster prints when it is ready.
const READY: &str = "export KUBECONFIG=";

/// Runs the command.
pub(crate) fn run(options: Dev) -> Result<()> {
    preflight::check(true)?;
    let options = Dev { data_dir: spelled(&options.data_dir)?, ..options };
    let dir = &options.data_dir;
    match &options.command {
        Some(DevCommand::Stop) => stop(dir),
        Some(DevCommand::Cut { node }) => running(dir)?.plug(node, false),
        Some(DevCommand::Heal { node }) => running(dir)?.plug(node, true),
        Some(DevCommand::Exec { node, command }) => exec(&running(dir)?, node, command),
        None => start(options),
    }
}

/// Starts a cluster where none runs.
fn start(options: Dev) -> Result<()> {
    let left = State::load(&options.data_dir)?;
    if left.is_some() && process::stays_locked(&state::lock_file(&options.data_dir))? {
        bail!("a cluster runs in {} already: end it first (knarr dev stop)", options.data_dir.display());
    }
    if options.detach { detach(&options) } else { process::run(serve(options, left)) }
}

/// The data directories of the nodes of a cluster, by their names; none where no cluster is.
pub(crate) fn data_dirs(dir: &Path) -> Result<Option<Vec<(String, PathBuf)>>> {
    let state = State::load(dir)?;
    Ok(state.map(|state| state.numbers().map(|number| (format!("n{number}"), state.data_dir(number))).collect()))
}

/// The data directory of the server that is meant by one: of a throw-away cluster that is its first node's.
pub(crate) fn server_dir(dir: &Path) -> Result<PathBuf> {
    let dir = spelled(dir)?;
    let first = data_dirs(&dir)?.and_then(|nodes| nodes.into_iter().next());
    Ok(first.map_or(dir, |(_, first)| first))
}

/// The administrator's kubeconfig, as users know it: that of a throw-away cluster is beside its nodes.
pub(crate) fn kubeconfig(dir: &Path) -> Result<PathBuf> {
    let dir = spelled(dir)?;
    Ok(if data_dirs(&dir)?.is_some() { state::kubeconfig(&dir) } else { Paths::new(&dir).kubeconfig() })
}

fn running(dir: &Path) -> Result<State> {
    State::load(dir)?.filter(State::is_alive).context("no cluster runs here: start one (knarr dev)")
}

/// Becomes the command, in the network of the node.
fn exec(state: &State, node: &str, command: &[OsString]) -> Result<()> {
    let path = state.namespace(state.number(node)?);
    let shell = [std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    let (program, arguments) = command.split_first().or(shell.split_first()).context("a command")?;
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    let program = program.display().to_string();
    Err(hosts::within(&path, move || command.exec())?).context(program)
}

/// Ends the process that watches over the cluster; what is left of one that has died is removed here.
fn stop(dir: &Path) -> Result<()> {
    let Some(state) = State::load_to_remove(dir)? else {
        eprintln!("no cluster is in {}", dir.display());
        return Ok(());
    };
    state.terminate()?;
    // It removes everything itself; what it left, we do.
    match State::load_to_remove(dir)? {
        Some(left) => tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(remove(&left)),
        None => Ok(()),
    }
}

/// Starts the cluster in a process of its own, and returns when it is ready.
fn detach(options: &Dev) -> Result<()> {
    state::claim(&options.data_dir)?;
    let log = std::fs::File::create(state::log_file(&options.data_dir))?;
    let mut command = std::process::Command::new(node::PROGRAM);
    let family = options.ip_family.to_possible_value();
    let family = family.as_ref().map_or("ipv4", |family| family.get_name());
    command
        .arg0("knarr")
        .args(["dev", "--nodes", &options.nodes.to_string(), "--ip-family", family, "--data-dir"])
        .arg(&options.data_dir);
    for port in &options.forward {
        command.args(["--forward", &port.to_string()]);
    }
    command.args(options.of_nodes());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0).spawn()?;
    for line in child.stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
        let line = line?;
        println!("{line}");
        if line.starts_with(READY) {
            return Ok(());
        }
    }
    let log = std::fs::read_to_string(state::log_file(&options.data_dir)).unwrap_or_default();
    bail!("the cluster did not become ready: {}", log.lines().last().unwrap_or("it says no more"))
}

async fn serve(options: Dev, left: Option<State>) -> Result<()> {
    let (tasks, failures) = Tasks::root();
    let mut ending = Ending::new(failures)?;
    let dir = options.data_dir.clone();
    if let Some(left) = left {
        println!("removing the cluster that was in {} before, and its data: it was not stopped", dir.display());
        remove(&left).await?;
    }
    state::claim(&dir)?;
    process::lock_for_life(&state::lock_file(&dir))?;
    let state = State::new(&dir, Wire::free(&state::bridge(&dir), options.ip_family.families())?, options.nodes);
    state.save()?;
    let ended = ending.wait(watch(&options, &state, &tasks)).await;
    tasks.drain(Duration::from_secs(1)).await;
    remove(&state).await?;
    ended
}

/// Starts the cluster and watches over its processes.
async fn watch(options: &Dev, state: &State, tasks: &Tasks) -> Result<()> {
    let start = Instant::now();
    let wire = state.wire();
    wire.set_up()?;
    for number in state.numbers() {
        let path = state.namespace(number);
        wire.add_host(number, &path)?;
        for port in &options.forward {
            forward::start(&path, *port, tasks)?;
        }
    }
    let mut all = vec![Running::server(state, options.of_nodes())?];
    let token = state.data_dir(1).join("token");
    while !token.exists() {
        all[0].check()?;
        tokio::time::sleep(LOOK).await;
    }
    for number in state.numbers().skip(1) {
        all.push(Running::agent(state, number, &token, options.of_nodes())?);
    }
    let paths = Paths::new(&state.data_dir(1));
    loop {
        let report = status::look(&paths).await;
        if report
            .is_ok_and(|report| report.lines().filter(|line| line.starts_with("node ")).count() == usize::from(options.nodes))
        {
            break;
        }
        all.iter_mut().try_for_each(Running::check)?;
        if start.elapsed() > PATIENCE {
            bail!("the cluster is not ready after {PATIENCE:?}: {}", node::last_line(&state.log(1)));
        }
        tokio::time::sleep(LOOK).await;
    }
    let kubeconfig = state::kubeconfig(&options.data_dir);
    // The server's own, which it renews.
    base::files::remove(&kubeconfig)?;
    std::os::unix::fs::symlink(paths.kubeconfig(), &kubeconfig)?;
    println!("{} node(s) ready after {:.1} s", options.nodes, start.elapsed().as_secs_f64());
    println!("{READY}{}", kubeconfig.display());
    futures::future::try_join_all(all.into_iter().map(Running::keep)).await.map(drop)
}

/// Removes everything that a cluster was made of. What cannot be removed is told, and is still in the file for the next attempt.
async fn remove(state: &State) -> Result<()> {
    state.end_nodes().await;
    for number in state.numbers() {
        let path = state.namespace(number);
        if path.exists() {
            node::clean(state, number).await?;
        }
        state.wire().remove_host(number, &path)?;
    }
    state.wire().remove()?;
    state.remove_files()
}

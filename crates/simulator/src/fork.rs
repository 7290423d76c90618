//! Seeds in processes of their own.

#![allow(unsafe_code, reason = "processes are forked")]

use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::tls::Authority;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};
use serde_json::{Value, json};
use store::memory::Disk;

use crate::machine;
use crate::server::Site;
use crate::story::{self, Report};

/// Real seconds after which a seed is believed to run for ever.
const LIMIT: u32 = 300;

/// What a seed came to, or how its process ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// What it came to.
    pub report: Report,
}

/// Runs seeds. It holds what all of them begin with.
pub struct Runner {
    disk: Arc<Disk>,
    authority: Arc<Authority>,
    directory: tempfile::TempDir,
    trace: bool,
}

/// A seed whose process runs.
struct Child {
    seed: u64,
    process: Pid,
    answer: OwnedFd,
}

impl Runner {
    /// Starts a cluster once, so that seeds need not.
    ///
    /// # Errors
    /// When it does not start.
    pub fn new(trace: bool) -> Result<Self> {
        let authority = Arc::new(Authority::in_memory("simulated")?);
        let directory = tempfile::tempdir()?;
        let runner = Self { disk: Arc::default(), authority, directory, trace };
        let site = runner.site();
        on_its_own(0, async move { story::found(&site).await })??;
        Ok(runner)
    }

    fn site(&self) -> Site {
        Site { disk: self.disk.clone(), authority: self.authority.clone(), pki: self.directory.path().to_owned() }
    }

    /// Runs seeds, so many at a time, and tells of each as it ends.
    ///
    /// # Errors
    /// When there can be no process.
    pub fn run(&self, seeds: impl IntoIterator<Item = u64>, at_once: usize, mut tell: impl FnMut(Outcome)) -> Result<()> {
        let mut running: std::collections::VecDeque<Child> = std::collections::VecDeque::new();
        for seed in seeds {
            if running.len() >= at_once.max(1)
                && let Some(child) = running.pop_front()
            {
                tell(child.wait()?);
            }
            running.push_back(self.start(seed)?);
        }
        running.into_iter().try_for_each(|child| child.wait().map(&mut tell))
    }

    fn start(&self, seed: u64) -> Result<Child> {
        let (answer, end) = pipe()?;
        // SAFETY: this process has one thread, so the child finds no lock taken.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { child } => Ok(Child { seed, process: child, answer }),
            ForkResult::Child => {
                drop(answer);
                nix::unistd::alarm::set(LIMIT);
                let (site, trace) = (self.site(), self.trace);
                let report = on_its_own(seed, story::play(site, seed, trace));
                let report =
                    report.unwrap_or_else(|error| Report { violations: vec![format!("{error:#}")], ..Report::default() });
                let written = nix::unistd::write(&end, report.encode().as_bytes());
                // SAFETY: ends this process without what the parent would do at its end, such as removing the directory.
                unsafe { libc::_exit(i32::from(written.is_err())) }
            }
        }
    }
}

impl Child {
    fn wait(self) -> Result<Outcome> {
        let mut text = String::new();
        std::fs::File::from(self.answer).read_to_string(&mut text)?;
        let status = waitpid(self.process, None)?;
        let report = match status {
            WaitStatus::Exited(_, 0) => Report::decode(&text),
            other => Report { violations: vec![format!("its process ended: {other:?}")], ..Report::default() },
        };
        Ok(Outcome { seed: self.seed, report })
    }
}

/// Runs a future on a thread of its own that simulates: with its own hash maps' keys, which follow from the seed.
fn on_its_own<T: Send + 'static>(seed: u64, future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let simulate = move || {
        machine::simulate(seed);
        if seed != 0 {
            // What every cluster has was made a while ago.
            machine::jump(3600);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let output = runtime.block_on(future);
        runtime.shutdown_timeout(Duration::ZERO);
        std::io::Result::Ok(output)
    };
    let thread = std::thread::Builder::new().name("simulation".into()).stack_size(16 << 20).spawn(simulate)?;
    match thread.join() {
        Ok(output) => Ok(output?),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            anyhow::bail!("panic: {}", text.unwrap_or_default())
        }
    }
}

impl Report {
    fn encode(&self) -> String {
        json!([self.violations, self.digest, self.commits, self.millis]).to_string()
    }

    fn decode(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let violations = value[0].as_array().into_iter().flatten().filter_map(|what| what.as_str().map(str::to_owned));
        let number = |index: usize| value[index].as_u64().unwrap_or(0);
        Self { violations: violations.collect(), digest: number(1), commits: number(2), millis: number(3) }
    }
}

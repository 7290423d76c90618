//! Steps of a command: each says what it does, how long it took, and its own name when it fails.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The steps done so far.
#[derive(Default)]
pub struct Steps(Vec<(String, Duration)>);

impl Steps {
    /// Runs one step.
    pub fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("==> {name}");
        let start = Instant::now();
        let result = step().with_context(|| format!("step failed: {name}"))?;
        self.0.push((name.to_owned(), start.elapsed()));
        Ok(result)
    }

    /// Prints the time of each step.
    pub fn print(&self) {
        for (name, time) in &self.0 {
            println!("{:>8.2} s  {name}", time.as_secs_f64());
        }
        println!("{:>8.2} s  together", self.0.iter().map(|(_, time)| *time).sum::<Duration>().as_secs_f64());
    }
}

//! Environment variables that are meant for this process alone.

use std::ffi::OsString;
use std::fs;
use std::io;

/// Takes variables out of the environment, so that no program that this process starts has them, and gives those that were there. To be
/// called first in `main`: other threads might read the environment meanwhile.
///
/// # Errors
/// Some are there, and this process has other threads, or it cannot be said whether it has. They stay.
pub fn take(names: &[&'static str]) -> io::Result<Vec<(&'static str, OsString)>> {
    let given: Vec<_> = names.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
    if given.is_empty() {
        return Ok(given);
    }
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has several threads"));
    }
    for (name, _) in &given {
        // SAFETY: this is the only thread, and nobody else can start one.
        unsafe { std::env::remove_var(name) };
    }
    Ok(given)
}

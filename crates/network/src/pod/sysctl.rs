//! Kernel settings of the calling thread's network namespace.

use std::io;
use std::path::PathBuf;

/// A setting could not be changed.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {key} to {value}: {source}; set it on the host or run with a writable /proc/sys/net")]
pub struct Error {
    key: String,
    value: &'static str,
    source: io::Error,
}

/// Sets `key` (with slashes, below /proc/sys) unless it has the value already. A host may be set up right and read-only.
pub(crate) fn set(key: String, value: &'static str) -> Result<(), Error> {
    let path = PathBuf::from("/proc/sys").join(&key);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| Error { key: key.clone(), value, source })?;
    tracing::info!(key, value, "changed a kernel setting of this machine");
    Ok(())
}

/// Sets `key` where the kernel has it.
pub(crate) fn set_if_there(key: &str, value: &'static str) -> Result<(), Error> {
    match PathBuf::from("/proc/sys").join(key).exists() {
        true => set(key.to_owned(), value),
        false => Ok(()),
    }
}

/// Whether `key` is there and has the value.
pub(crate) fn is(key: &str, value: &str) -> bool {
    std::fs::read_to_string(PathBuf::from("/proc/sys").join(key)).is_ok_and(|now| now.trim() == value)
}

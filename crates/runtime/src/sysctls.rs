//! Kernel parameters of pods.

use std::io;
use std::path::Path;

/// Sets one in the namespaces of the calling thread.
pub(crate) fn set(name: &str, value: &str) -> io::Result<()> {
    let path = pods::sysctls::file(name).ok_or_else(|| io::Error::other(format!("there is no sysctl {name:?}")))?;
    std::fs::write(Path::new("/proc/sys").join(path), value)
        .map_err(|error| io::Error::new(error.kind(), format!("sysctl {name}={value}: {error}")))
}

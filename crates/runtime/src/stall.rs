//! Telling that processes wait for memory (PSI, Documentation/accounting/psi.rst in the kernel).

use std::fs::File;
use std::io::{self, Write};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const FILE: &str = "/proc/pressure/memory";
/// Some process has waited for 200 of 2000 milliseconds. The kernel tells at most once in that time, and of no shorter ones to
/// those without `CAP_SYS_RESOURCE`.
const TRIGGER: &[u8] = b"some 200000 2000000\0";

/// The kernel's word that memory is short.
pub struct Stalls(Option<AsyncFd<File>>);

impl Stalls {
    /// Asks for it; a kernel that does not tell is not waited for.
    pub fn open() -> Self {
        let open = || -> io::Result<AsyncFd<File>> {
            let mut file = File::options().read(true).write(true).open(FILE)?;
            file.write_all(TRIGGER)?;
            // SAFETY: the file has one descriptor for as long as it lives, and nobody takes it out of here.
            unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }.map_err(Into::into)
        };
        Self(open().inspect_err(|error| tracing::debug!(%error, "the kernel does not tell when memory is short")).ok())
    }

    /// Ends when it is told. Safe to drop and call again.
    pub async fn next(&mut self) {
        let Some(descriptor) = &self.0 else { return std::future::pending().await };
        match descriptor.ready(Interest::PRIORITY).await {
            Ok(mut guard) => {
                let is_closed = guard.ready().is_error() || guard.ready().is_read_closed();
                guard.clear_ready();
                drop(guard);
                if is_closed {
                    self.0 = None;
                }
            }
            Err(_) => self.0 = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The kernel takes the trigger, or there is no such file; an idle machine is not told of anything.
    #[tokio::test]
    async fn a_kernel_that_tells_is_asked() {
        let mut stalls = Stalls::open();
        assert_eq!(stalls.0.is_some(), File::options().write(true).open(FILE).is_ok());
        let mut silent = Stalls(None);
        let waited = tokio::time::timeout(Duration::from_millis(1), silent.next()).await;
        assert!(waited.is_err(), "a kernel that does not tell is never heard");
        stalls.0 = None;
    }
}

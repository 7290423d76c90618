//! The log of the kernel (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg): a record a read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const FILE: &str = "/dev/kmsg";
/// Longest record, bytes: the kernel refuses a read with less room than it needs.
const RECORD: usize = 8192;

/// What the kernel says from now on.
pub struct KernelLog(AsyncFd<File>);

impl KernelLog {
    /// Follows it.
    ///
    /// # Errors
    /// It cannot be read: it is for root, and not in every container.
    pub fn open() -> io::Result<Self> {
        let mut file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(FILE)?;
        file.seek(SeekFrom::End(0))?;
        // SAFETY: the file has one descriptor for as long as it lives, and nobody takes it out of here.
        unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }.map(Self).map_err(Into::into)
    }

    /// The next record as the kernel writes it: `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`, and lines of its dictionary. Safe to drop and call
    /// again.
    ///
    /// # Errors
    /// It cannot be read any more.
    pub async fn next(&self) -> io::Result<String> {
        let mut buffer = vec![0; RECORD];
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|file| file.get_ref().read(&mut buffer)) {
                Ok(Ok(length)) => return Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned()),
                // Records were overwritten before they were read: the next read goes on after them.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EPIPE as i32) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

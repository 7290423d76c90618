//! Tells when the kernel has killed a process because the whole machine had no memory left, as upstream's `oomwatcher`. That a container has
//! reached its own limit is told by the container's end.
//!
//! The kernel says it in its log (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg): one record a read, and nothing to do while it is silent.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use client::events::Type;
use k8s_openapi::api::core::v1::ObjectReference;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use tokio::io::unix::AsyncFd;

use crate::context::Context;

const LOG: &str = "/dev/kmsg";
/// Longest record: the kernel refuses a read with less room than it needs.
const RECORD: usize = 8192;

/// A process that was killed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Victim {
    pid: u32,
    name: String,
}

/// What a record says. Records of processes (facility 1 and above) say nothing: anybody who may write to the log could make them.
fn victim(record: &str) -> Option<Victim> {
    let (head, text) = record.split_once(';')?;
    let priority: u32 = head.split(',').next()?.parse().ok()?;
    if priority >> 3 != 0 {
        return None;
    }
    let text = text.lines().next()?.strip_prefix("Out of memory: Killed process ")?;
    let (pid, rest) = text.split_once(" (")?;
    // The name may have parentheses.
    let (name, _) = rest.rsplit_once(") total-vm:")?;
    Some(Victim { pid: pid.parse().ok()?, name: name.to_owned() })
}

/// The kernel's log from now on.
struct Records(AsyncFd<File>);

impl Records {
    fn open() -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(LOG)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(AsyncFd::new(file)?))
    }

    async fn next(&self) -> io::Result<String> {
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

/// Tells of it until cancelled, or until the log cannot be read. `node` is what events are about.
pub async fn run(cx: Arc<Context>, node: ObjectReference) -> Result<(), Infallible> {
    let Err(error) = watch(&cx, &node).await;
    tracing::warn!(%error, "{LOG} cannot be read: events do not tell when the machine is out of memory");
    Ok(())
}

async fn watch(cx: &Context, node: &ObjectReference) -> io::Result<Infallible> {
    let records = Records::open()?;
    loop {
        if let Some(Victim { pid, name }) = victim(&records.next().await?) {
            tracing::warn!(pid, name, "the machine was out of memory: the kernel has killed a process");
            let message = format!("System OOM encountered, victim process: {name}, pid: {pid}");
            cx.recorder.event(node, Type::Warning, "SystemOOM", message);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_of_the_kernel() {
        let check = |record: &str, expected: Option<(u32, &str)>| {
            let found = victim(record);
            assert_eq!(found.as_ref().map(|victim| (victim.pid, victim.name.as_str())), expected, "{record}");
        };
        let rest = "total-vm:1048576kB, anon-rss:524288kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1084kB oom_score_adj:0\n";
        check(&format!("3,1044,86543210,-;Out of memory: Killed process 4242 (stress) {rest}"), Some((4242, "stress")));
        check(&format!("3,1044,86543210,-;Out of memory: Killed process 7 (a) (b) {rest} SUBSYSTEM=x\n"), Some((7, "a) (b")));
        // A container at its own limit.
        check(&format!("3,1044,86543210,-;Memory cgroup out of memory: Killed process 4242 (stress) {rest}"), None);
        // Whatever a process has written to the log.
        check(&format!("11,1044,86543210,-;Out of memory: Killed process 4242 (stress) {rest}"), None);
        check("6,1,1,-;usb 1-1: new device\n", None);
        check("", None);
    }

    #[tokio::test]
    async fn the_log_is_followed_and_nobody_is_believed_but_the_kernel() {
        let records = Records::open().unwrap();
        let line = format!("Out of memory: Killed process {} (test) total-vm:1kB", std::process::id());
        std::fs::write(LOG, &line).unwrap();
        let found = async {
            loop {
                let record = records.next().await.unwrap();
                if record.contains(&line) {
                    return record;
                }
            }
        };
        let record = tokio::time::timeout(std::time::Duration::from_secs(10), found).await.unwrap();
        assert_eq!(victim(&record), None, "{record}");
    }
}

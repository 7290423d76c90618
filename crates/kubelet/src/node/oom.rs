//! Tells when the kernel has killed a process because the whole machine had no memory left, as upstream's `oomwatcher`. That a container has
//! reached its own limit is told by the container's end.
//!
//! The kernel says it in its log, and there is nothing to do while it is silent.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use client::events::Type;
use k8s_openapi::api::core::v1::ObjectReference;
use runtime::KernelLog;

use crate::context::Context;

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

/// Tells of it until cancelled, or until the log cannot be read. `node` is what events are about.
pub async fn run(cx: Arc<Context>, node: ObjectReference) -> Result<(), Infallible> {
    let Err(error) = watch(&cx, &node).await;
    tracing::warn!(%error, "the log of the kernel cannot be read: events do not tell when the machine is out of memory");
    Ok(())
}

async fn watch(cx: &Context, node: &ObjectReference) -> io::Result<Infallible> {
    let log = KernelLog::open()?;
    loop {
        if let Some(Victim { pid, name }) = victim(&log.next().await?) {
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
        let log = KernelLog::open().unwrap();
        let line = format!("Out of memory: Killed process {} (test) total-vm:1kB", std::process::id());
        // Without the end of its line the kernel waits for the rest of it.
        std::fs::write("/dev/kmsg", format!("{line}\n")).unwrap();
        let found = async {
            loop {
                let record = log.next().await.unwrap();
                if record.contains(&line) {
                    return record;
                }
            }
        };
        let record = tokio::time::timeout(std::time::Duration::from_secs(60), found).await.unwrap();
        assert_eq!(victim(&record), None, "{record}");
    }
}

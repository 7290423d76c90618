//! What a container that ended says of itself: its termination message file, or the end of its log.

use std::io::SeekFrom;
use std::path::Path;

use runtime::api::{Container, ContainerState};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::context::Context;
use crate::logs::files::open;
use crate::logs::line::{Filter, LogOptions};
use crate::spec::Model;

/// Most of a termination message, bytes: the last ones of its file.
const MESSAGE: usize = 4096;
/// Most of all of a pod together, bytes: each of its containers has the same part.
const MESSAGES: usize = 12 << 10;
/// Most of a log that stands in for it.
const LOG_BYTES: u64 = 2048;
const LOG_LINES: usize = 80;

/// Adds the message to containers that ended.
pub async fn add(cx: &Context, model: &Model, container: &mut Container) {
    if container.state != ContainerState::Exited {
        return;
    }
    let Some(member) = model.member(&container.name) else { return };
    let file = cx.termination_log(model.uid(), &container.name, container.attempt);
    // What cannot be read is as good as not written.
    let mut text = written(&file).await.unwrap_or_default();
    let fallback = member.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if text.is_empty() && fallback && container.exit_code != Some(0) {
        text = tail(container).await.unwrap_or_default();
    }
    if !text.is_empty() {
        container.message = shortened(&text, limit(model.members.len()));
    }
}

/// The end of a file, as upstream reads it: who writes more than there is room for says last what was the matter.
async fn written(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = open(path).await?;
    let start = file.metadata().await?.len().saturating_sub(MESSAGE as u64);
    file.seek(SeekFrom::Start(start)).await?;
    let mut text = Vec::new();
    file.take(MESSAGE as u64).read_to_end(&mut text).await?;
    Ok(if start > 0 { whole_characters(&text).to_vec() } else { text })
}

/// The text without half a character at its beginning.
fn whole_characters(text: &[u8]) -> &[u8] {
    let half = text.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    &text[half..]
}

/// Bytes of a container's message where the pod has so many containers.
fn limit(containers: usize) -> usize {
    MESSAGE.min(MESSAGES / containers.max(1))
}

/// The text, as much as there is room for.
fn shortened(text: &[u8], limit: usize) -> String {
    let mut text = String::from_utf8_lossy(text).into_owned();
    text.truncate(text.floor_char_boundary(limit));
    text
}

async fn tail(container: &Container) -> std::io::Result<Vec<u8>> {
    let mut file = open(&container.log_path).await?;
    // The log has a prefix on every line: read more than will be kept.
    let start = file.metadata().await?.len().saturating_sub(LOG_BYTES * 8);
    file.seek(SeekFrom::Start(start)).await?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).await?;
    Ok(last_lines(&text, start > 0))
}

/// The contents of the last log lines as the container wrote them: without prefixes, and without an end that it did not write.
fn last_lines(log: &[u8], cut: bool) -> Vec<u8> {
    let mut filter = Filter::new(LogOptions::default());
    let mut text = Vec::new();
    for line in log.split(|byte| *byte == b'\n').skip(usize::from(cut)) {
        filter.push(line, &mut text);
    }
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let kept = lines[lines.len().saturating_sub(LOG_LINES)..].concat();
    match kept.len().checked_sub(LOG_BYTES as usize) {
        Some(start) => whole_characters(&kept[start..]).to_vec(),
        None => kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// tasks/debug/debug-application/determine-reason-pod-failure: "The total message length across all containers is limited to 12KiB,
    /// divided equally among each container."
    #[test]
    fn messages_of_a_pod_are_limited_together() {
        let check = |containers: usize, expected: usize| assert_eq!(limit(containers), expected, "{containers}");
        check(0, 4096);
        check(1, 4096);
        check(3, 4096);
        check(4, 3072);
        check(12, 1024);
        assert_eq!(shortened("a\u{20ac}b".as_bytes(), 3), "a", "no half characters");
        assert_eq!(shortened("a\u{20ac}b".as_bytes(), 4), "a\u{20ac}");
        // What is no UTF-8 becomes longer.
        assert_eq!(shortened(&[0xff; 8], 8).len(), 6);
    }

    /// "reads at most max bytes from the end of the file" (`tail.ReadAtMost`).
    #[tokio::test]
    async fn the_end_of_a_long_message_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let check = async |text: Vec<u8>, length: usize, begins: &str, ends: &str| {
            std::fs::write(&path, text).unwrap();
            let told = String::from_utf8(written(&path).await.unwrap()).unwrap();
            assert_eq!((told.len(), told.starts_with(begins), told.ends_with(ends)), (length, true, true), "{told}");
        };
        check(b"short".to_vec(), 5, "short", "short").await;
        check(["x".repeat(9000), "why\n".to_owned()].concat().into(), MESSAGE, "xx", "xwhy\n").await;
        // Three bytes each: the first of those that are read is the last one of a character.
        check("\u{20ac}".repeat(2000).into(), 4095, "\u{20ac}", "\u{20ac}").await;
    }

    #[test]
    fn keeps_the_last_lines() {
        let line = |n: usize| format!("2026-01-01T00:00:00Z stderr F line {n}\n");
        let text: String = (0..100).map(line).collect();
        let kept = String::from_utf8(last_lines(text.as_bytes(), false)).unwrap();
        assert!(kept.starts_with("line 20\n") && kept.ends_with("line 99\n"));
        assert_eq!(last_lines(b"half a line\n2026 stdout F whole\n", true), b"whole\n");
        assert_eq!(last_lines(b"2026 stdout F one\n2026 stdout P DO\n2026 stdout P NE\n", false), b"one\nDONE");
    }
}

//! What the engine and a shim say to each other: frames of one kind byte, a length and a payload on a unix socket.
//!
//! A connection carries one request. `Watch` turns it into a stream of events; `Exec` and `Attach` turn it into a session
//! with standard streams; the others get one reply. One session per connection makes back-pressure the socket's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use base::files::{self, Outlives};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::IdRange;

/// Largest payload of a frame, bytes.
pub(crate) const FRAME_LIMIT: usize = 16 << 20;
/// Bytes of the head of a frame.
pub(crate) const HEAD: usize = 5;
/// Most data in one frame.
pub(crate) const DATA: usize = 32 << 10;
/// How long a process has to read what its client has said before it went.
pub(crate) const LAST: std::time::Duration = std::time::Duration::from_secs(30);

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Request = 0,
    Reply = 1,
    Stdin = 2,
    Stdout = 3,
    Stderr = 4,
    /// Two big-endian u16: columns, rows.
    Resize = 5,
    StdinEnd = 6,
    /// The exit code, big-endian i32.
    Exit = 7,
    /// Kill the session's process.
    Kill = 8,
    Event = 9,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Kind; 10] = [
            Kind::Request,
            Kind::Reply,
            Kind::Stdin,
            Kind::Stdout,
            Kind::Stderr,
            Kind::Resize,
            Kind::StdinEnd,
            Kind::Exit,
            Kind::Kill,
            Kind::Event,
        ];
        ALL.get(usize::from(byte)).copied()
    }
}

/// The frame as bytes.
pub(crate) fn encode(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.push(kind as u8);
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The JSON frame of `value`.
pub(crate) fn encode_json(kind: Kind, value: &impl Serialize) -> Vec<u8> {
    // Only a map with keys that are not strings could fail, and there is none.
    encode(kind, &serde_json::to_vec(value).unwrap_or_default())
}

/// Takes one whole frame from the front of `buffer`; none when there is not enough yet.
pub(crate) fn decode(buffer: &mut Vec<u8>) -> Result<Option<(Kind, Vec<u8>)>, String> {
    let Some(head) = buffer.get(..HEAD) else { return Ok(None) };
    let (kind, length) = decode_head(head)?;
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    let payload = buffer[HEAD..HEAD + length].to_vec();
    buffer.drain(..HEAD + length);
    Ok(Some((kind, payload)))
}

/// Kind and payload length of a frame.
pub(crate) fn decode_head(head: &[u8]) -> Result<(Kind, usize), String> {
    let &[byte, a, b, c, d] = head else { return Err("short frame".to_owned()) };
    let kind = Kind::from_byte(byte).ok_or_else(|| format!("unknown frame {byte}"))?;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > FRAME_LIMIT {
        return Err(format!("frame of {length} bytes is too large"));
    }
    Ok((kind, length))
}

/// What a shim is made from; `shim.json` in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShimConfig {
    pub(crate) new_net: bool,
    pub(crate) new_ipc: bool,
    pub(crate) new_uts: bool,
    /// The namespaces belong to a user namespace with these ids.
    #[serde(default)]
    pub(crate) users: Option<IdRange>,
    /// One pid namespace for the pod.
    pub(crate) new_pid: bool,
    pub(crate) hostname: String,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// The pod's cgroup, relative to the root of every hierarchy: what a sandbox that was not finished leaves.
    #[serde(default)]
    pub(crate) cgroup: String,
    /// Where the OCI runtime keeps its state.
    pub(crate) oci_root: PathBuf,
    /// Another OCI runtime than the built-in one.
    pub(crate) runtime: Option<PathBuf>,
}

/// What a started shim tells; `shim-state.json` in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShimState {
    pub(crate) pid: u32,
    /// The process in the pod's user namespace that holds it and the others, where there is one.
    #[serde(default)]
    pub(crate) holder: Option<u32>,
    /// The init of the pod's pid namespace.
    pub(crate) pod_init: Option<u32>,
}

/// A container to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartRequest {
    pub(crate) id: String,
    /// Its directory, which is the OCI bundle and gets `state.json`.
    pub(crate) dir: PathBuf,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    pub(crate) log: PathBuf,
    pub(crate) log_limit: Option<(u64, u32)>,
    /// Its cgroup, relative to the root of every hierarchy.
    pub(crate) cgroup: String,
    /// Its pid namespace is shared: what it leaves behind must be killed.
    pub(crate) shared_pid: bool,
    /// Hooks run once it has ended, before that is told. (Another OCI runtime runs them when its container is deleted.)
    #[serde(default)]
    pub(crate) poststop: bool,
}

/// A command to execute in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ExecSession {
    pub(crate) container: String,
    /// An OCI process document.
    pub(crate) process: String,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    /// It is killed when the connection ends: nobody would hear what it found.
    #[serde(default)]
    pub(crate) bound: bool,
}

/// The first frame of a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Start(StartRequest),
    Kill { id: String, signal: i32, all: bool },
    ReopenLog { id: String },
    Exec(ExecSession),
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool },
    Watch,
    Shutdown,
}

/// Which kind of failure a shim reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The container's process could not be executed.
    Start,
    /// It could not be made.
    Create,
    NotFound,
    Other,
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Ok,
    Error { kind: Failure, message: String },
}

/// What became of a container; `state.json` in its directory. Written by its shim, or by the engine when that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskState {
    pub(crate) pid: Option<u32>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// In a container's directory, what it was made from.
pub(crate) const RECORD: &str = "container.json";
/// In a container's directory, its [`TaskState`].
pub(crate) const STATE: &str = "state.json";

impl TaskState {
    /// Writes it to a container's directory. An end is flushed, with what the container was made from, without which it means nothing after
    /// a restart of the machine; that a container runs is no use then. Blocking.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self)?;
        if self.finished.is_none() {
            return files::replace(&dir.join(STATE), &bytes, Outlives::Process);
        }
        if let Ok(record) = File::open(dir.join(RECORD)) {
            record.sync_all()?;
        }
        files::replace(&dir.join(STATE), &bytes, Outlives::Machine)
    }
}

/// Something happened in a shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) container: String,
    pub(crate) state: TaskState,
}

/// What the OCI helper leaves in its result file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum HelperResult {
    Running { pid: i32 },
    Failed { kind: Failure, message: String },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn frames_arrive_whole_and_bounded() {
        let mut buffer = encode(Kind::Stdout, b"hello");
        buffer.extend(encode(Kind::Exit, &3i32.to_be_bytes()));
        let rest = buffer.split_off(7);
        assert_eq!(decode(&mut buffer).unwrap(), None);
        buffer.extend(rest);
        assert_eq!(decode(&mut buffer).unwrap(), Some((Kind::Stdout, b"hello".to_vec())));
        assert_eq!(decode(&mut buffer).unwrap(), Some((Kind::Exit, vec![0, 0, 0, 3])));
        assert_eq!(decode(&mut buffer).unwrap(), None);
        assert!(decode(&mut vec![200, 0, 0, 0, 0]).is_err());
        assert!(decode(&mut vec![1, 255, 255, 255, 255]).is_err());
    }

    #[test]
    fn kinds_are_their_numbers() {
        for byte in 0..=u8::MAX {
            if let Some(kind) = Kind::from_byte(byte) {
                assert_eq!(kind as u8, byte);
            }
        }
    }
}

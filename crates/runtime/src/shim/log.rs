//! Container output in the CRI log format: `TIMESTAMP stdout|stderr F|P TEXT`, one line each, `P` when the line goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use base::files;
use jiff::Timestamp;

use crate::rotation;

/// The log of a container that has none.
const NOWHERE: &str = "/dev/null";
/// Longest text of one log line, bytes; longer ones are split.
const LINE_LIMIT: usize = 16 << 10;

/// Writes the log of one container.
pub(super) struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    limit: Option<(u64, u32)>,
    /// What has arrived of a line, for stdout and stderr.
    lines: [Vec<u8>; 2],
}

impl LogWriter {
    /// Opens or continues the log at `path`; `limit` is bytes of one file and the number of files.
    pub(super) fn open(path: &Path, limit: Option<(u64, u32)>) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, limit, lines: [Vec::new(), Vec::new()] })
    }

    /// Adds output of stdout (0) or stderr (1).
    pub(super) fn write(&mut self, stream: usize, data: &[u8], now: Timestamp) -> io::Result<()> {
        let mut out = Vec::with_capacity(data.len() + 128);
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut rest = text;
            while self.lines[stream].len() + rest.len() > LINE_LIMIT {
                let (head, tail) = rest.split_at(LINE_LIMIT - self.lines[stream].len());
                self.lines[stream].extend_from_slice(head);
                self.flush_line(stream, "P", now, &mut out);
                rest = tail;
            }
            self.lines[stream].extend_from_slice(rest);
            if ends {
                self.flush_line(stream, "F", now, &mut out);
            }
            // One read may hold more than a file should.
            if self.limit.is_some_and(|(bytes, _)| self.size + out.len() as u64 > bytes) {
                self.append(&out)?;
                out.clear();
            }
        }
        self.append(&out)
    }

    /// Writes what is left of unfinished lines.
    pub(super) fn finish(&mut self, now: Timestamp) -> io::Result<()> {
        let mut out = Vec::new();
        for stream in 0..2 {
            if !self.lines[stream].is_empty() {
                self.flush_line(stream, "P", now, &mut out);
            }
        }
        self.append(&out)
    }

    fn flush_line(&mut self, stream: usize, tag: &str, now: Timestamp, out: &mut Vec<u8>) {
        let name = ["stdout", "stderr"][stream];
        let _ = write!(out, "{now:.9} {name} {tag} ");
        out.append(&mut self.lines[stream]);
        out.push(b'\n');
    }

    fn append(&mut self, out: &[u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.file.write_all(out) {
            // Half a line would spoil the next one.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += out.len() as u64;
        match self.limit {
            Some((bytes, files)) if bytes > 0 && self.size > bytes => self.rotate(files),
            _ => Ok(()),
        }
    }

    /// Goes on in the file that has the log's name now, or in a new one.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let file = open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = file;
        Ok(())
    }

    /// Renames the file to `NAME.TIME` and starts a new one; `files` counts both.
    fn rotate(&mut self, files: u32) -> io::Result<()> {
        let old = rotation::aside(&self.path);
        files::rename(&self.path, &old)?;
        // On a full disk the old file goes on under its name.
        self.file = open(&self.path).inspect_err(|_| drop(fs::rename(&old, &self.path)))?;
        self.size = 0;
        rotation::remove_surplus(&self.path, files)
    }
}

/// Opens a file of a log. Pods that can write where logs are may have put something else there: a link, by which any file of the host
/// would be written, or a pipe, whose other end would be waited for while the containers of the pod wait for their shim.
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().create(true).append(true).mode(0o640).custom_flags(flags).open(path)?;
    let is_log = path == Path::new(NOWHERE) || file.metadata()?.is_file();
    if is_log { Ok(file) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(writes: &[(usize, &str)], expected: &[(&str, &str, &str)]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let mut log = LogWriter::open(&path, None).unwrap();
        let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        for (stream, data) in writes {
            log.write(*stream, data.as_bytes(), now).unwrap();
        }
        log.finish(now).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        let lines: Vec<String> =
            expected.iter().map(|(s, tag, text)| format!("2026-01-02T03:04:05.600000000Z {s} {tag} {text}\n")).collect();
        assert_eq!(written, lines.concat());
    }

    /// Somebody else moves a log or removes it: it is begun anew.
    #[test]
    fn files_that_others_have_moved_are_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        let mut log = LogWriter::open(&path, Some((100, 2))).unwrap();
        let now: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        log.write(0, b"first\n", now).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        for number in 0..4 {
            log.write(0, format!("{number}{}\n", "x".repeat(80)).as_bytes(), now).unwrap();
        }
        log.write(0, b"last\n", now).unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("last"));
    }

    #[test]
    fn what_is_no_log_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::os::unix::fs::symlink(path("elsewhere"), path("link")).unwrap();
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        nix::unistd::mkfifo(&path("read"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = OpenOptions::new().read(true).write(true).open(path("read")).unwrap();
        fs::create_dir(path("directory")).unwrap();
        for name in ["link", "pipe", "read", "directory"] {
            assert!(LogWriter::open(&path(name), None).is_err(), "{name}");
        }
        drop(reader);
        assert!(!path("elsewhere").exists());
        let mut none = LogWriter::open(Path::new(NOWHERE), None).unwrap();
        none.write(0, b"text\n", Timestamp::now()).unwrap();
    }

    #[test]
    fn lines_are_tagged_and_split() {
        check(&[(0, "a\nb\n")], &[("stdout", "F", "a"), ("stdout", "F", "b")]);
        check(&[(0, "a"), (1, "x\n"), (0, "b\n")], &[("stderr", "F", "x"), ("stdout", "F", "ab")]);
        check(&[(0, "\n")], &[("stdout", "F", "")]);
        check(&[(0, "end")], &[("stdout", "P", "end")]);
        let long = "l".repeat(LINE_LIMIT + 5);
        let (head, tail) = long.split_at(LINE_LIMIT);
        check(&[(0, &long), (0, "\n")], &[("stdout", "P", head), ("stdout", "F", tail)]);
        check(&[(0, head), (0, "\n")], &[("stdout", "F", head)]);
    }

    /// `ReopenContainerLog`: "this is often called after the log file has been rotated" by who moved it away.
    #[test]
    fn a_log_goes_on_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("0.log"), dir.path().join("0.log.old"));
        let mut log = LogWriter::open(&path, None).unwrap();
        log.write(0, b"one\nha", Timestamp::now()).unwrap();
        fs::rename(&path, &aside).unwrap();
        log.reopen().unwrap();
        log.write(0, b"lf\n", Timestamp::now()).unwrap();
        let last = |path: &Path| fs::read_to_string(path).unwrap().split(' ').next_back().unwrap().to_owned();
        assert_eq!((last(&aside), last(&path)), ("one\n".to_owned(), "half\n".to_owned()));
        // What is there already is continued, and stays when a write fails.
        log.reopen().unwrap();
        assert_eq!(log.size, fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn files_rotate_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = LogWriter::open(&path, Some((100, 3))).unwrap();
        for _ in 0..20 {
            log.write(0, b"twenty bytes or so..\n", Timestamp::now()).unwrap();
        }
        let mut names: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(names[0], "0.log");
        assert!(names[1].starts_with("0.log.20"), "{names:?}");
    }
}

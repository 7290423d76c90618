//! Container logs as a stream of bytes.

pub mod files;
pub mod line;

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use bytes::Bytes;
use futures::Stream;
use futures::stream::{BoxStream, StreamExt};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use base::directory::Watch;
use line::Filter;
pub use line::LogOptions;

const CHUNK: usize = 64 << 10;

/// Tells whether the container has ended; each item is the answer after something happened to it.
pub type Ended = BoxStream<'static, bool>;

struct Reader {
    path: PathBuf,
    /// Files still to be read after the open one.
    rest: std::collections::VecDeque<PathBuf>,
    file: Option<File>,
    /// The beginning of a line whose end was not read yet.
    pending: Vec<u8>,
    filter: Filter,
    follow: Option<(Watch, Ended)>,
    ended: bool,
}

/// Reads the log at `path`. With `follow`, `ended` says when the container has ended; the stream ends then.
pub async fn read(
    path: PathBuf,
    options: LogOptions,
    ended: Ended,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let directory = path.parent().map(PathBuf::from).unwrap_or_default();
    // The watch begins before the first read, so that nothing falls between them.
    let follow = if options.follow { Some((Watch::new(&directory)?, ended)) } else { None };
    let files = files::list(&path).await?;
    let (index, position) = match options.tail {
        Some(lines) => files::tail(&files, lines).await?,
        None => (0, 0),
    };
    let mut rest: std::collections::VecDeque<_> = files.into_iter().skip(index).collect();
    let file = match rest.pop_front() {
        Some(first) => {
            let mut file = files::open(&first).await?;
            file.seek(SeekFrom::Start(position)).await?;
            Some(file)
        }
        None => None,
    };
    let reader = Reader { path, rest, file, pending: Vec::new(), filter: Filter::new(options), follow, ended: false };
    Ok(futures::stream::try_unfold(reader, |mut reader| async move { Ok(reader.next().await?.map(|bytes| (bytes, reader))) }))
}

impl Reader {
    /// The next bytes for the reader; none at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.filter.full() {
            if let Some(bytes) = self.read_some().await? {
                if !bytes.is_empty() {
                    return Ok(Some(bytes));
                }
                continue;
            }
            if self.next_file().await? {
                continue;
            }
            let Some((watch, ended)) = &mut self.follow else { return Ok(None) };
            if self.ended {
                return Ok(None);
            }
            tokio::select! {
                changed = watch.changed() => changed?,
                // What was written before the end is still to be read, so the end counts at the next pass.
                state = ended.next() => self.ended = state.unwrap_or(true),
            }
        }
        Ok(None)
    }

    /// What can be read now; none at the end of the file.
    async fn read_some(&mut self) -> io::Result<Option<Bytes>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        let mut chunk = vec![0; CHUNK];
        let length = file.read(&mut chunk).await?;
        if length == 0 {
            return Ok(None);
        }
        self.pending.extend_from_slice(&chunk[..length]);
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { return Ok(Some(Bytes::new())) };
        let rest = self.pending.split_off(end + 1);
        let lines = std::mem::replace(&mut self.pending, rest);
        let mut out = Vec::with_capacity(lines.len());
        for line in lines[..end].split(|byte| *byte == b'\n') {
            self.filter.push(line, &mut out);
        }
        Ok(Some(out.into()))
    }

    /// Goes on with a newer file: one that was there already, or the one that came with a rotation.
    async fn next_file(&mut self) -> io::Result<bool> {
        let next = match self.rest.pop_front() {
            Some(next) => next,
            None => self.path.clone(),
        };
        let file = match files::open(&next).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some(old) = &self.file {
            let (old, new) = (old.metadata().await?, file.metadata().await?);
            if old.ino() == new.ino() {
                return Ok(false);
            }
        }
        self.file = Some(file);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(text: &str) -> String {
        format!("2026-01-01T00:00:00Z stdout F {text}\n")
    }

    #[tokio::test]
    async fn reads_rotated_files_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(directory.path().join("0.log.1"), line("a")).unwrap();
        std::fs::write(&path, line("b") + &line("c")).unwrap();
        let check = async |tail: Option<u64>, expected: &str| {
            let options = LogOptions { tail, ..Default::default() };
            let stream = read(path.clone(), options, futures::stream::pending().boxed()).await.unwrap();
            let parts: Vec<Bytes> = stream.map(Result::unwrap).collect().await;
            assert_eq!(String::from_utf8(parts.concat()).unwrap(), expected);
        };
        check(None, "a\nb\nc\n").await;
        check(Some(2), "b\nc\n").await;
        check(Some(0), "").await;
    }

    #[tokio::test]
    async fn follows_over_a_rotation_until_the_container_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, line("a")).unwrap();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let ended = futures::stream::unfold(receiver, |mut r| async { r.recv().await.map(|e| (e, r)) }).boxed();
        let options = LogOptions { follow: true, ..Default::default() };
        let mut stream = Box::pin(read(path.clone(), options, ended).await.unwrap());
        assert_eq!(stream.next().await.unwrap().unwrap(), "a\n");
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(line("b").as_bytes()).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "b\n");
        std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
        std::fs::write(&path, line("c")).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "c\n");
        sender.send(true).await.unwrap();
        assert!(stream.next().await.is_none());
    }
}

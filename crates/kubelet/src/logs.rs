//! Container logs as a stream of bytes.

pub mod files;
pub mod line;
pub mod links;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures::Stream;
use futures::stream::{BoxStream, StreamExt};

use base::directory::Watch;
use files::LogFile;
use line::Filter;
pub use line::LogOptions;

/// Tells whether the container has ended; each item is the answer after something happened to it.
pub type Ended = BoxStream<'static, bool>;

struct Reader {
    path: PathBuf,
    /// Files still to be read after the open one.
    rest: VecDeque<LogFile>,
    file: Option<LogFile>,
    /// The beginning of a line whose end was not read yet.
    pending: Vec<u8>,
    filter: Filter,
    follow: Option<(Watch, Ended)>,
    ended: bool,
}

/// Reads the log at `path` as it is now. With `follow` the stream goes on with what comes; `ended` says when the container has
/// ended, which ends the stream.
pub async fn read(
    path: PathBuf,
    options: LogOptions,
    ended: Ended,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let directory = path.parent().map(PathBuf::from).unwrap_or_default();
    // The watch begins before the first read, so that nothing falls between them.
    let follow = if options.follow { Some((Watch::new(&directory)?, ended)) } else { None };
    let mut files = files::open_all(&path).await?;
    let (index, position) = match options.tail {
        Some(lines) => files::tail(&mut files, lines).await?,
        None => (0, 0),
    };
    let mut rest: VecDeque<_> = files.into_iter().skip(index).collect();
    for (number, file) in rest.iter_mut().enumerate() {
        file.seek(if number == 0 { position } else { 0 }).await?;
    }
    let file = rest.pop_front();
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
        if !file.read(self.follow.is_none(), &mut self.pending).await? {
            return Ok(None);
        }
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { return Ok(Some(Bytes::new())) };
        let rest = self.pending.split_off(end + 1);
        let lines = std::mem::replace(&mut self.pending, rest);
        let mut out = Vec::with_capacity(lines.len());
        for line in lines[..end].split(|byte| *byte == b'\n') {
            self.filter.push(line, &mut out);
        }
        Ok(Some(out.into()))
    }

    /// Goes on with a newer file: one that was there already, or those that came with rotations. False when there is none.
    async fn next_file(&mut self) -> io::Result<bool> {
        if let Some(next) = self.rest.pop_front() {
            self.file = Some(next);
            // Half a line at the end of a file belongs to nothing in the next one.
            self.pending.clear();
            return Ok(true);
        }
        if self.follow.is_none() {
            return Ok(false);
        }
        // What was written to the open file before it was rotated is read once more before the newer ones.
        self.rest = files::open_newer(&self.path, self.file.as_ref()).await?.into();
        Ok(!self.rest.is_empty())
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

    /// A container that writes fast and whose log is rotated meanwhile: a reader gets what was there when it asked.
    #[tokio::test]
    async fn what_comes_after_the_question_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, line("a") + &line("b") + &line("c") + "2026-01-01T00:00:00Z std").unwrap();
        for (tail, expected) in [(Some(2), "b\nc\n"), (None, "a\nb\nc\n"), (Some(0), "")] {
            let options = LogOptions { tail, ..Default::default() };
            let stream = read(path.clone(), options, futures::stream::pending().boxed()).await.unwrap();
            let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
            let whole = std::fs::metadata(&path).unwrap().len();
            file.write_all(b"out F d\n").unwrap();
            std::fs::rename(&path, directory.path().join("0.log.1")).unwrap();
            std::fs::write(&path, line("e")).unwrap();
            let parts: Vec<Bytes> = stream.map(Result::unwrap).collect().await;
            assert_eq!(String::from_utf8(parts.concat()).unwrap(), expected);
            std::fs::rename(directory.path().join("0.log.1"), &path).unwrap();
            file.set_len(whole).unwrap();
        }
    }

    /// Two rotations between two looks, and a line that came before the first of them.
    #[tokio::test]
    async fn who_follows_misses_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, line("a")).unwrap();
        let options = LogOptions { follow: true, ..Default::default() };
        let ended = futures::stream::iter([true]).chain(futures::stream::pending()).boxed();
        let mut stream = Box::pin(read(path.clone(), options, ended).await.unwrap());
        assert_eq!(stream.next().await.unwrap().unwrap(), "a\n");
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(line("b").as_bytes()).unwrap();
        for (number, text) in [(1, "c"), (2, "d")] {
            std::fs::rename(&path, directory.path().join(format!("0.log.{number}"))).unwrap();
            std::fs::write(&path, line(text)).unwrap();
        }
        let parts: Vec<Bytes> = stream.map(Result::unwrap).collect().await;
        assert_eq!(String::from_utf8(parts.concat()).unwrap(), "b\nc\nd\n");
    }
}

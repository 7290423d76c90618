//! The files of a container's log: older ones are `NAME.TIME`, the newest is `NAME`.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

const CHUNK: u64 = 64 << 10;

/// Opens a file of a log. No link is followed: pods that can write where logs are would have us read any file of the host.
pub async fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).await
}

/// Existing files, oldest first.
pub async fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut entries = tokio::fs::read_dir(path.parent().unwrap_or(Path::new("."))).await?;
    let mut files = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.')) {
            files.push(entry.path());
        }
    }
    files.sort();
    if tokio::fs::try_exists(path).await? {
        files.push(path.to_owned());
    }
    Ok(files)
}

/// A file of a log, held open: it may get another name or none while it is read.
pub struct LogFile {
    file: File,
    inode: u64,
    /// The end of its last whole line at the time when it was opened. A line is seen in the making when its container writes fast.
    end: u64,
    position: u64,
}

impl LogFile {
    async fn new(mut file: File) -> io::Result<Self> {
        let metadata = file.metadata().await?;
        let end = whole_lines(&mut file, metadata.len()).await?;
        file.seek(SeekFrom::Start(0)).await?;
        Ok(Self { file, inode: metadata.ino(), end, position: 0 })
    }

    /// Goes on at `position`.
    pub async fn seek(&mut self, position: u64) -> io::Result<()> {
        self.position = self.file.seek(SeekFrom::Start(position)).await?;
        Ok(())
    }

    /// Adds what can be read now to `out`: of what the file has by now, or, with `bounded`, of what it had when it was opened.
    /// False at the end.
    pub async fn read(&mut self, bounded: bool, out: &mut Vec<u8>) -> io::Result<bool> {
        let left = if bounded { self.end.saturating_sub(self.position) } else { u64::MAX };
        let length = (&mut self.file).take(left.min(CHUNK)).read_to_end(out).await?;
        self.position += length as u64;
        Ok(length > 0)
    }

    /// Whether it is no longer in the directory.
    async fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata().await?.nlink() == 0)
    }
}

/// The files of the log as they are now, oldest first. The newest is opened before the others are looked for: a rotation meanwhile
/// gives it another name, and what comes after it is left out.
pub async fn open_all(path: &Path) -> io::Result<Vec<LogFile>> {
    let newest = match open(path).await {
        Ok(file) => Some(LogFile::new(file).await?),
        // There is none between the two steps of a rotation.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for old in list(path).await?.iter().filter(|old| *old != path) {
        let opened = async { LogFile::new(open(old).await?).await };
        match opened.await {
            Ok(file) if newest.as_ref().is_some_and(|newest| newest.inode == file.inode) => break,
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.extend(newest);
    Ok(files)
}

/// The files that have come after `last`, oldest first.
pub async fn open_newer(path: &Path, last: Option<&LogFile>) -> io::Result<Vec<LogFile>> {
    let mut files = open_all(path).await?;
    let Some(last) = last else { return Ok(files) };
    match files.iter().position(|file| file.inode == last.inode) {
        Some(index) => Ok(files.split_off(index + 1)),
        // The oldest are removed first, so all that are left are newer.
        None if last.is_removed().await? => Ok(files),
        // It was given another name while the directory was read: that is a change, after which one looks again.
        None => Ok(Vec::new()),
    }
}

/// Where the last `lines` lines begin: index of the file, and position in it.
pub async fn tail(files: &mut [LogFile], lines: u64) -> io::Result<(usize, u64)> {
    let mut wanted = lines;
    for (index, file) in files.iter_mut().enumerate().rev() {
        if wanted == 0 {
            return Ok((index, file.end));
        }
        match tail_of(&mut file.file, file.end, wanted).await? {
            Ok(position) => return Ok((index, position)),
            Err(found) => wanted -= found,
        }
        if wanted == 0 {
            return Ok((index, 0));
        }
    }
    Ok((0, 0))
}

/// Position of the last `wanted` lines of a file that ends at `length`, or how many there are when that is not more.
async fn tail_of(file: &mut File, length: u64, wanted: u64) -> io::Result<Result<u64, u64>> {
    let (mut end, mut found) = (length, 0);
    while end > 0 {
        let (start, chunk) = chunk_before(file, end).await?;
        for (index, _) in chunk.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let position = start + index as u64 + 1;
            // The end of the last line begins none.
            if position == length {
                continue;
            }
            found += 1;
            if found == wanted {
                return Ok(Ok(position));
            }
        }
        end = start;
    }
    Ok(Err(found + u64::from(length > 0)))
}

/// The end of the last line that ends before `length`.
async fn whole_lines(file: &mut File, length: u64) -> io::Result<u64> {
    let mut end = length;
    while end > 0 {
        let (start, chunk) = chunk_before(file, end).await?;
        if let Some(index) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + index as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The bytes before `end` that are read at once, and where they begin.
async fn chunk_before(file: &mut File, end: u64) -> io::Result<(u64, Vec<u8>)> {
    let start = end.saturating_sub(CHUNK);
    file.seek(SeekFrom::Start(start)).await?;
    let mut chunk = vec![0; usize::try_from(end - start).unwrap_or(0)];
    file.read_exact(&mut chunk).await?;
    Ok((start, chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "s\n").unwrap();
        std::os::unix::fs::symlink("secret", directory.path().join("0.log")).unwrap();
        assert!(open(&directory.path().join("0.log")).await.is_err());
        assert!(open_all(&directory.path().join("0.log")).await.is_err());
        assert!(open(&directory.path().join("secret")).await.is_ok());
    }

    #[tokio::test]
    async fn finds_the_last_lines_across_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(directory.path().join("0.log.20260101-1"), "a\nb\n").unwrap();
        std::fs::write(directory.path().join("0.log.20260102-1"), "c\n").unwrap();
        // The last line is being written.
        std::fs::write(&path, "d\ne\nha").unwrap();
        std::fs::write(directory.path().join("1.log"), "x\n").unwrap();
        let files = list(&path).await.unwrap();
        assert_eq!(files.len(), 3);
        let check = async |lines: u64, expected: (usize, u64)| {
            let mut files = open_all(&path).await.unwrap();
            assert_eq!(tail(&mut files, lines).await.unwrap(), expected, "{lines}");
        };
        check(0, (2, 4)).await;
        check(1, (2, 2)).await;
        check(2, (2, 0)).await;
        check(3, (1, 0)).await;
        check(4, (0, 2)).await;
        check(5, (0, 0)).await;
        check(99, (0, 0)).await;
    }
}

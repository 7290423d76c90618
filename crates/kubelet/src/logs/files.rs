//! The files of a container's log: older ones are `NAME.TIME`, the newest is `NAME`.

use std::io::{self, SeekFrom};
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

/// Where the last `lines` lines begin: index of the file, and position in it.
pub async fn tail(files: &[PathBuf], lines: u64) -> io::Result<(usize, u64)> {
    let mut wanted = lines;
    for (index, path) in files.iter().enumerate().rev() {
        let mut file = open(path).await?;
        let length = file.metadata().await?.len();
        if wanted == 0 {
            return Ok((index, length));
        }
        match tail_of(&mut file, length, wanted).await? {
            Ok(position) => return Ok((index, position)),
            Err(found) => wanted -= found,
        }
        if wanted == 0 {
            return Ok((index, 0));
        }
    }
    Ok((0, 0))
}

/// Position of the last `wanted` lines of a file, or how many there are when that is not more.
async fn tail_of(file: &mut File, length: u64, wanted: u64) -> io::Result<Result<u64, u64>> {
    let (mut end, mut found) = (length, 0);
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(start)).await?;
        let mut chunk = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact(&mut chunk).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "s\n").unwrap();
        std::os::unix::fs::symlink("secret", directory.path().join("0.log")).unwrap();
        assert!(open(&directory.path().join("0.log")).await.is_err());
        assert!(tail(&[directory.path().join("0.log")], 1).await.is_err());
        assert!(open(&directory.path().join("secret")).await.is_ok());
    }

    #[tokio::test]
    async fn finds_the_last_lines_across_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(directory.path().join("0.log.20260101-1"), "a\nb\n").unwrap();
        std::fs::write(directory.path().join("0.log.20260102-1"), "c\n").unwrap();
        std::fs::write(&path, "d\ne\n").unwrap();
        std::fs::write(directory.path().join("1.log"), "x\n").unwrap();
        let files = list(&path).await.unwrap();
        assert_eq!(files.len(), 3);
        let check =
            async |lines: u64, expected: (usize, u64)| assert_eq!(tail(&files, lines).await.unwrap(), expected, "{lines}");
        check(0, (2, 4)).await;
        check(1, (2, 2)).await;
        check(2, (2, 0)).await;
        check(3, (1, 0)).await;
        check(4, (0, 2)).await;
        check(5, (0, 0)).await;
        check(99, (0, 0)).await;
    }
}

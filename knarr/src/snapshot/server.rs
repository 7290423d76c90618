//! The server's side of `knarr snapshot save`: who connects gets a snapshot, which is root only.
//!
//! An answer begins with `+`, and what follows is the file; or with `-`, and what follows says why there is none.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use base::listen::accepted;
use base::tasks::{OnFailure, Tasks};
use nix::sys::statvfs::fstatvfs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::paths::Paths;
use crate::private_socket;

/// What begins an answer with a snapshot, and one without.
pub(crate) const GIVEN: u8 = b'+';
pub(crate) const REFUSED: u8 = b'-';

/// How long who asks may take for a piece of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
const PIECE: usize = 256 << 10;
/// After how many bytes somebody looks how much of the disk is free.
const LOOK: usize = 8 << 20;

/// Serves from now on.
pub(crate) fn start(paths: &Paths, data_dir: PathBuf, engine: store::Fjall, tasks: &Tasks) -> Result<()> {
    // Containers of other users pass through it.
    std::fs::create_dir_all(paths.run()).with_context(|| paths.run().display().to_string())?;
    let listener = private_socket::bind(&paths.snapshots())?;
    tasks.spawn_until_cancelled("snapshots", OnFailure::Log, serve(listener, data_dir, engine));
    Ok(())
}

/// One after the other: a snapshot takes the disk that the store works with.
async fn serve(listener: UnixListener, data_dir: PathBuf, engine: store::Fjall) -> Result<()> {
    loop {
        let (stream, _) = accepted(|| listener.accept()).await;
        if !private_socket::is_ours(&stream) {
            continue;
        }
        if let Err(error) = answer(stream, data_dir.clone(), &engine).await {
            tracing::warn!(%error, "a snapshot did not reach who asked for it");
        }
    }
}

async fn answer(mut stream: UnixStream, data_dir: PathBuf, engine: &store::Fjall) -> Result<()> {
    match drafted(data_dir, engine).await {
        Ok(file) => {
            let (mut file, mut piece) = (tokio::fs::File::from_std(file), vec![0; PIECE]);
            send(&mut stream, &[GIVEN]).await?;
            loop {
                let length = file.read(&mut piece).await?;
                if length == 0 {
                    return Ok(());
                }
                send(&mut stream, &piece[..length]).await?;
            }
        }
        Err(error) => {
            tracing::warn!(%error, "a snapshot could not be made");
            send(&mut stream, format!("-{error:#}").as_bytes()).await
        }
    }
}

/// A snapshot in a file without a name: whoever asks for it may be slow, and the store's files have to stay while they are read.
async fn drafted(data_dir: PathBuf, engine: &store::Fjall) -> Result<File> {
    let file = tempfile::tempfile_in(&data_dir).with_context(|| data_dir.display().to_string())?;
    let Sparing { mut file, .. } = super::write(engine, &data_dir, Sparing { file, unlooked: 0 }).await?;
    file.rewind()?;
    Ok(file)
}

/// A file that ends before its disk is full: the store, whose disk it is, would take no writes.
struct Sparing {
    file: File,
    /// What was written since somebody looked how much is free, bytes.
    unlooked: usize,
}

impl Write for Sparing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unlooked == 0 {
            let disk = fstatvfs(&self.file)?;
            if disk.blocks_available().saturating_mul(disk.fragment_size()) < store::RESERVE + LOOK as u64 {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    "a snapshot does not fit on the disk of the data directory",
                ));
            }
        }
        let written = self.file.write(bytes)?;
        self.unlooked = (self.unlooked + written) * usize::from(self.unlooked + written < LOOK);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

async fn send(stream: &mut UnixStream, bytes: &[u8]) -> Result<()> {
    Ok(tokio::time::timeout(PATIENCE, stream.write_all(bytes)).await.context("it is not read")??)
}

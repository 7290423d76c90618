//! The server's side of `knarr snapshot save`: who connects gets a snapshot, which is root only.
//!
//! An answer begins with `+`, and what follows is the file; or with `-`, and what follows says why there is none.

use std::fs::File;
use std::io::Seek;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use base::listen::accepted;
use base::tasks::{OnFailure, Tasks};
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
    let draft = tempfile::tempfile_in(&data_dir).with_context(|| data_dir.display().to_string())?;
    let mut file = super::write(engine, &data_dir, draft).await?;
    file.rewind()?;
    Ok(file)
}

async fn send(stream: &mut UnixStream, bytes: &[u8]) -> Result<()> {
    Ok(tokio::time::timeout(PATIENCE, stream.write_all(bytes)).await.context("it is not read")??)
}

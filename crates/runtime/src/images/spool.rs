//! Streams of strangers, on their way to the disk.
//!
//! Whoever sends a layer decides how long that takes. So it goes to a file first, which costs no thread, and it is unpacked when all of it is
//! there: by a bounded number of threads, none of which ever waits for a peer.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio_util::sync::CancellationToken;

use super::layer::{LayerError, unpack_layer};
use super::origins::Origins;
use super::store::Store;

/// Bytes that are written at once.
const PIECE: usize = 256 << 10;
/// Longest that the download of a layer takes, whatever its pace: the bytes of one hold a connection and room on the disk meanwhile.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// What a stream should be.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Digest of the stream, where anybody has told it.
    pub(super) digest: Option<String>,
    /// Digest of the layer's uncompressed stream.
    pub(super) diff_id: String,
    /// Most bytes of the stream.
    pub(super) most: u64,
    /// What it shows of who may have the layer.
    pub(super) origins: Origins,
}

/// Unpacks a layer, as [`unpack_layer`] does, once all of it has come; its unpacked size. `seen` is told how many bytes have come.
pub(super) async fn unpacked<E: Display>(
    store: &Arc<Store>,
    stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
    expected: Expected,
    seen: impl FnMut(u64),
) -> Result<u64, LayerError> {
    let spooled = tokio::time::timeout(LONGEST, spool(store, stream, expected.most, seen)).await;
    let file = spooled.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("it takes longer than {LONGEST:?}")))??;
    let turn = store.turn().await;
    // Whoever no longer waits for the layer needs no rest of it.
    let wanted = CancellationToken::new();
    let _end = wanted.clone().drop_guard();
    let store = store.clone();
    let unpacking = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let (source, Expected { digest, diff_id, origins, .. }) = (Wanted { source: file, wanted }, expected);
        let size = store.add_layer(&diff_id, |target| unpack_layer(source, digest.as_deref(), &diff_id, target))?;
        store.add_origins(&diff_id, &origins)?;
        Ok::<_, LayerError>(size)
    });
    unpacking.await.map_err(|error| LayerError::Io(io::Error::other(error)))?
}

/// Writes a stream of at most `most` bytes to a file without a name, and goes back to its beginning.
async fn spool<E: Display>(
    store: &Arc<Store>,
    mut stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
    most: u64,
    mut seen: impl FnMut(u64),
) -> Result<File, LayerError> {
    let making = store.clone();
    let file = tokio::task::spawn_blocking(move || making.scratch()).await.map_err(io::Error::other)??;
    let mut out = BufWriter::with_capacity(PIECE, tokio::fs::File::from_std(file));
    let mut done = 0;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| io::Error::other(error.to_string()))?;
        if piece.len() as u64 > most - done {
            let text = format!("the data is larger than the {most} bytes of the manifest");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
        }
        out.write_all(&piece).await?;
        done += piece.len() as u64;
        seen(done);
    }
    out.flush().await?;
    let mut file = out.into_inner().into_std().await;
    file.rewind()?;
    Ok(file)
}

/// Keeps a document on disk while other things are waited for.
pub(super) async fn keep(store: &Arc<Store>, document: Bytes) -> io::Result<File> {
    let store = store.clone();
    let work = move || {
        let mut file = store.scratch()?;
        file.write_all(&document)?;
        file.rewind()?;
        Ok(file)
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A document that was kept.
pub(super) async fn recall(mut file: File) -> io::Result<Bytes> {
    let work = move || {
        let mut document = Vec::new();
        file.read_to_end(&mut document).map(|_| document.into())
    };
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Reads until nobody waits for it any more.
struct Wanted<R> {
    source: R,
    wanted: CancellationToken,
}

impl<R: Read> Read for Wanted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.wanted.is_cancelled() {
            return Err(io::Error::other("nobody waits for the layer any more"));
        }
        self.source.read(buffer)
    }
}

#[cfg(test)]
mod tests;

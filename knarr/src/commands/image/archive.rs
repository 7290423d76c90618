//! Archives from and to files.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Bytes of a piece, and pieces that wait for a node.
const PIECE: usize = 256 << 10;
const PIECES: usize = 8;

/// What stands for the standard input and output.
const STANDARD: &str = "-";

/// Streams that all have what is read, and where to put it.
pub(super) fn copies(count: usize) -> (Vec<impl Stream<Item = Bytes> + Send + use<>>, Vec<mpsc::Sender<Bytes>>) {
    let channels = (0..count).map(|_| {
        let (sender, mut receiver) = mpsc::channel(PIECES);
        (futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)), sender)
    });
    channels.unzip()
}

/// Reads a file once, for all that still listen. The slowest sets the pace.
pub(super) async fn read(file: &Path, copies: &mut Vec<mpsc::Sender<Bytes>>) -> Result<()> {
    let mut source: Box<dyn AsyncRead + Unpin> = match file == Path::new(STANDARD) {
        true => Box::new(own(std::io::stdin().as_fd())?),
        false => match File::open(file).await {
            Ok(file) => Box::new(file),
            Err(error) => {
                copies.clear();
                return Err(error.into());
            }
        },
    };
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = source.read_buf(&mut piece).await;
        if matches!(read, Ok(0) | Err(_)) || copies.is_empty() {
            copies.clear();
            return Ok(read.map(drop)?);
        }
        let piece = piece.freeze();
        let mut listening = Vec::with_capacity(copies.len());
        for copy in copies.drain(..) {
            if copy.send(piece.clone()).await.is_ok() {
                listening.push(copy);
            }
        }
        *copies = listening;
    }
}

/// A standard stream of this process as a file.
fn own(stream: BorrowedFd<'_>) -> std::io::Result<File> {
    Ok(File::from_std(stream.try_clone_to_owned()?.into()))
}

/// Writes a file that is there only when it is whole.
pub(super) async fn write(body: Incoming, output: &Path) -> Result<()> {
    if output == Path::new(STANDARD) {
        if std::io::stdout().is_terminal() {
            bail!("an archive is not for a terminal: give a file with --output");
        }
        return copy(body, &mut own(std::io::stdout().as_fd())?).await;
    }
    let name = output.file_name().with_context(|| format!("{} is not a file", output.display()))?;
    let part = output.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = async {
        let mut file = File::create(&part).await?;
        copy(body, &mut file).await?;
        file.sync_all().await?;
        Ok(tokio::fs::rename(&part, output).await?)
    };
    let written: Result<()> = written.await;
    if written.is_err() {
        // It may not even have been made.
        let _ = tokio::fs::remove_file(&part).await;
    }
    written.with_context(|| output.display().to_string())
}

async fn copy(mut body: Incoming, out: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    while let Some(frame) = body.frame().await {
        let data = frame.context("the archive is not whole")?.into_data().unwrap_or_default();
        out.write_all(&data).await?;
    }
    Ok(out.flush().await?)
}

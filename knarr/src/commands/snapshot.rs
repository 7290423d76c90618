//! `knarr snapshot`: a cluster in a file.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::cli::{Snapshot, SnapshotCommand};
use crate::dev;
use crate::paths::Paths;
use crate::process;
use crate::snapshot::server::{GIVEN, REFUSED};
use crate::snapshot::{self, Summary};

/// Runs one of them.
pub(crate) fn run(options: &Snapshot) -> Result<()> {
    let data_dir = dev::server_dir(&options.data_dir)?;
    let paths = Paths::new(&data_dir);
    match &options.command {
        SnapshotCommand::Save { file } => save(file, &data_dir, &paths),
        SnapshotCommand::Restore { file } => {
            // Before there is a directory: a damaged file leaves nothing.
            let summary = checked(file)?;
            process::create_private(&data_dir)?;
            let _lock = process::lock(&paths.lock())?;
            snapshot::restore(&summary, file, &data_dir, &paths.store())?;
            println!("restored {}: {}", data_dir.display(), said(&summary));
            Ok(())
        }
        SnapshotCommand::Status { file } => {
            println!("{}: {}", file.display(), said(&checked(file)?));
            Ok(())
        }
    }
}

fn said(Summary { head, end, .. }: &Summary) -> String {
    format!("{} objects at revision {}, saved {:.0} by knarr {}", end.records, end.revision, head.created, head.version)
}

fn checked(file: &Path) -> Result<Summary> {
    let open = File::open(file).with_context(|| file.display().to_string())?;
    snapshot::check(open).with_context(|| file.display().to_string())
}

fn save(file: &Path, data_dir: &Path, paths: &Paths) -> Result<()> {
    if file == Path::new("-") {
        bail!("a snapshot is not written to standard output, since it is read again to see that it is whole: name a file");
    }
    if std::fs::symlink_metadata(file).is_ok_and(|found| !found.is_file()) {
        bail!("{} is there, and is no regular file", file.display());
    }
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // New, with a name that nobody knows, for its owner only: what somebody else has put there is not written to.
    let part = tempfile::Builder::new().prefix(".knarr-snapshot-").tempfile_in(directory);
    let part = part.with_context(|| directory.display().to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fetch(part.as_file().try_clone()?, data_dir, paths))?.sync_all()?;
    // As the disk has it: a backup that nobody has read is none.
    let summary = checked(part.path())?;
    part.persist(file).map_err(|error| error.error).with_context(|| file.display().to_string())?;
    File::open(directory)?.sync_all()?;
    println!("saved {}: {}", file.display(), said(&summary));
    Ok(())
}

/// Has the server write a snapshot to `out`, or does so itself where none runs.
async fn fetch(out: File, data_dir: &Path, paths: &Paths) -> Result<File> {
    match UnixStream::connect(paths.snapshots()).await {
        Ok(stream) => receive(stream, out).await,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            if !paths.store().exists() {
                bail!("no server has started with the data directory {}: name that of one with --data-dir", data_dir.display());
            }
            let _lock = process::lock(&paths.lock())?;
            let (tasks, _failures) = Tasks::root();
            let engine = store::Fjall::open(store::Options::new(paths.store()), &tasks).await?;
            let written = snapshot::write(&engine, data_dir, out).await;
            engine.close().await;
            written
        }
        Err(error) => Err(error).with_context(|| format!("{}: are you root?", paths.snapshots().display())),
    }
}

async fn receive(mut stream: UnixStream, out: File) -> Result<File> {
    let mut out = tokio::fs::File::from_std(out);
    match stream.read_u8().await.context("the server does not answer")? {
        GIVEN => {
            tokio::io::copy(&mut stream, &mut out).await?;
            out.flush().await?;
            Ok(out.into_std().await)
        }
        REFUSED => {
            let mut why = String::new();
            stream.read_to_string(&mut why).await?;
            bail!("the server could not make a snapshot: {why}")
        }
        _ => bail!("what listens there is no server"),
    }
}

//! Snapshots: a cluster in one file. It holds what the store has, and the keys without which that is worth nothing. What nodes have
//! (images, volumes, logs) is theirs.

mod format;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use base::files;
use jiff::Timestamp;

pub(crate) use format::{End, Head};
use format::{FORMAT, Item, Line, Part, Reader, Row, Writer};

/// What is kept of a data directory besides the store. Certificates that these keys can issue again are left out.
const FILES: [&str; 7] = [
    "pki/ca.crt",
    "pki/ca.key",
    "pki/front-proxy-ca.crt",
    "pki/front-proxy-ca.key",
    "pki/service-account.key",
    "encryption.yaml",
    "token",
];

/// Largest of these files, bytes.
const FILE: usize = 1 << 20;

/// What a snapshot is of.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) head: Head,
    pub(crate) end: End,
    /// Its files of the data directory with their contents.
    files: BTreeMap<String, String>,
}

/// Writes a snapshot of the store and of the data directory to `out`, and gives that back.
///
/// # Errors
/// The store or a file cannot be read, or `out` cannot be written.
pub(crate) async fn write<W: Write + Send + 'static>(engine: &store::Fjall, data_dir: &Path, out: W) -> Result<W> {
    let head = Head { format: FORMAT, version: env!("CARGO_PKG_VERSION").to_owned(), created: Timestamp::now() };
    let mut writer = Writer::new(out, head)?;
    for name in FILES {
        let path = data_dir.join(name);
        match std::fs::read_to_string(&path) {
            Ok(content) => writer.line(&Line::File(Part { name: name.to_owned(), content }))?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    let each = |writer: &mut Writer<W>, copied| {
        let line = Row::of(copied).and_then(|row| writer.line(&Line::Record(row)));
        line.map_err(|error| store::Error::Failed(error.to_string()))
    };
    let (writer, revision) = engine.copy(writer, each).await?;
    Ok(writer.finish(revision)?)
}

/// Reads a whole snapshot and says what it is of.
///
/// # Errors
/// It cannot be read, is none, is not whole, or has what no cluster has.
pub(crate) fn check(file: impl Read) -> Result<Summary> {
    let mut reader = Reader::new(file)?;
    let (mut files, mut plausible) = (BTreeMap::new(), store::Plausible::default());
    while let Some(item) = reader.next()? {
        let good = match item {
            Item::Key(copied) => plausible.next(&copied).map_err(|error| error.to_string()),
            Item::File(Part { name, .. }) if !FILES.contains(&name.as_str()) => Err(format!("{name} is not of a data directory")),
            Item::File(Part { name, content }) if content.len() > FILE => Err(format!("{name} is too large")),
            Item::File(Part { name, content }) => {
                let twice = format!("{name} comes again");
                files.insert(name, content).map_or(Ok(()), |_| Err(twice))
            }
        };
        good.map_err(|cause| reader.wrong(&cause))?;
    }
    let end = reader.end.context("it has no end")?;
    plausible.end(end.revision, 0)?;
    Ok(Summary { head: reader.head, end, files })
}

/// Makes the store of a data directory, and its keys, those of a snapshot that was [checked](check).
///
/// # Errors
/// The directory has a store, or keys of another cluster: nothing has changed then. The file cannot be read any more.
pub(crate) fn restore(summary: &Summary, path: &Path, data_dir: &Path, store: &Path) -> Result<()> {
    for (name, content) in &summary.files {
        let present = data_dir.join(name);
        match std::fs::read_to_string(&present) {
            Ok(found) if found == *content => {}
            Ok(_) => bail!("{} is of another cluster: move it away first", present.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| present.display().to_string()),
        }
    }
    let mut restoring = store::Restoring::begin(store).with_context(|| store.display().to_string())?;
    let mut reader = Reader::new(File::open(path).with_context(|| path.display().to_string())?)?;
    while let Some(item) = reader.next()? {
        if let Item::Key(copied) = item {
            restoring.add(copied)?;
        }
    }
    for (name, content) in &summary.files {
        files::replace_private(&data_dir.join(name), content.as_bytes()).with_context(|| name.clone())?;
    }
    // Last: only now there is a store.
    restoring.finish(summary.end.revision, store::first_revision())?;
    Ok(())
}

#[cfg(test)]
mod tests;

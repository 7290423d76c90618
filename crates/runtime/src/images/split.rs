//! The tar stream of a layer without the contents of its files, so that the layer can be put together again byte by byte from the files
//! that it was unpacked to. An image's identifier and those of its layers are digests of these bytes: a stream that is merely equivalent
//! would be another image.
//!
//! The form is a zstd stream of records. A record is a tag and a number (u64, little endian): [`LITERAL`] is followed by as many bytes of
//! the stream; [`CONTENT`] stands for as many bytes of the file whose path follows, after its length (u32).

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use super::tree::{Tree, is};

const LITERAL: u8 = 0;
const CONTENT: u8 = 1;
/// Bytes of a stream that are written as one record.
const CHUNK: usize = 64 << 10;
/// Paths are no longer than the kernel takes them.
const PATH: usize = 4096;

/// Writes down a stream as it is read.
pub(super) struct Split<W: Write>(Rc<RefCell<State<W>>>);

struct State<W: Write> {
    out: W,
    literal: Vec<u8>,
    /// Bytes of contents that are still to come.
    content: u64,
    /// Whether a file whose contents are left out has been removed by a later entry.
    is_lossy: bool,
}

impl<W: Write> Split<W> {
    pub(super) fn new(out: W) -> Self {
        Self(Rc::new(RefCell::new(State { out, literal: Vec::with_capacity(CHUNK), content: 0, is_lossy: false })))
    }

    /// The stream `source`, of which everything that is read is written down.
    pub(super) fn recorded<R: Read>(&self, source: R) -> Recorded<R, W> {
        Recorded { source, state: self.0.clone() }
    }

    /// The next `size` bytes of the stream become the file at `path`, from the layer's root.
    pub(super) fn content(&self, path: &Path, size: u64) -> io::Result<()> {
        let path = path.as_os_str().as_bytes();
        if size == 0 || path.len() > PATH {
            return Ok(());
        }
        let mut state = self.0.borrow_mut();
        state.flush()?;
        state.content = size;
        state.out.write_all(&[CONTENT])?;
        state.out.write_all(&size.to_le_bytes())?;
        state.out.write_all(&(path.len() as u32).to_le_bytes())?;
        state.out.write_all(path)
    }

    /// A later entry has removed a file, or a directory of files.
    pub(super) fn removed(&self) {
        self.0.borrow_mut().is_lossy = true;
    }

    /// Writes what is left. True when the stream can be put together again.
    pub(super) fn finish(&self) -> io::Result<bool> {
        let mut state = self.0.borrow_mut();
        state.flush()?;
        Ok(!state.is_lossy)
    }
}

impl<W: Write> State<W> {
    fn seen(&mut self, bytes: &[u8]) -> io::Result<()> {
        let content = usize::try_from(self.content).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.content -= content as u64;
        self.literal.extend_from_slice(&bytes[content..]);
        if self.literal.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.literal.is_empty() {
            return Ok(());
        }
        self.out.write_all(&[LITERAL])?;
        self.out.write_all(&(self.literal.len() as u64).to_le_bytes())?;
        self.out.write_all(&self.literal)?;
        self.literal.clear();
        Ok(())
    }
}

/// See [`Split::recorded`].
pub(super) struct Recorded<R, W: Write> {
    source: R,
    state: Rc<RefCell<State<W>>>,
}

impl<R: Read, W: Write> Read for Recorded<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.state.borrow_mut().seen(&buffer[..count])?;
        Ok(count)
    }
}

/// A part of a stream.
enum Part {
    Literal(u64),
    Content { size: u64, path: Vec<u8> },
}

/// The parts of a stream, one after the other; who gets a [`Part::Literal`] reads its bytes before the next one.
struct Parts<R>(R);

impl<R: Read> Parts<R> {
    fn next(&mut self) -> io::Result<Option<Part>> {
        let mut tag = [0_u8];
        if self.0.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let mut size = [0_u8; 8];
        self.0.read_exact(&mut size)?;
        let size = u64::from_le_bytes(size);
        match tag[0] {
            LITERAL => Ok(Some(Part::Literal(size))),
            CONTENT => {
                let mut length = [0_u8; 4];
                self.0.read_exact(&mut length)?;
                let length = u32::from_le_bytes(length) as usize;
                if length > PATH {
                    return Err(damaged());
                }
                let mut path = vec![0; length];
                self.0.read_exact(&mut path)?;
                Ok(Some(Part::Content { size, path }))
            }
            _ => Err(damaged()),
        }
    }

    fn copy(&mut self, size: u64, out: &mut impl Write) -> io::Result<()> {
        if io::copy(&mut (&mut self.0).take(size), out)? == size { Ok(()) } else { Err(damaged()) }
    }
}

fn parts(split: &Path) -> io::Result<Parts<BufReader<zstd::stream::read::Decoder<'static, BufReader<File>>>>> {
    Ok(Parts(BufReader::new(zstd::stream::read::Decoder::new(File::open(split)?)?)))
}

/// Writes the stream that `split` is of, with the contents of the files below `root`, to `out`. Who reads it compares its digest. Blocking.
pub(super) fn assemble(split: &Path, root: &Path, out: &mut impl Write) -> io::Result<()> {
    let (mut parts, tree) = (parts(split)?, Tree::open(root)?);
    while let Some(part) = parts.next()? {
        match part {
            Part::Literal(size) => parts.copy(size, out)?,
            Part::Content { size, path } => {
                let file = regular(&tree, Path::new(OsStr::from_bytes(&path)))?;
                if io::copy(&mut file.take(size), out)? != size {
                    return Err(damaged());
                }
            }
        }
    }
    Ok(())
}

/// Opens a file that is one: whatever else is there now would be waited for, or lead elsewhere.
fn regular(tree: &Tree, path: &Path) -> io::Result<File> {
    let fd = tree.open_beneath(path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK)?;
    if !is(&fstat(fd.as_raw_fd())?, SFlag::S_IFREG) {
        return Err(damaged());
    }
    Ok(fd.into())
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the files of the layer are not those that it was unpacked to")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::images::unpack::unpack;
    use nix::unistd::Uid;

    /// Unpacks a stream and puts it together again.
    fn again(tar: &[u8], is_lossy: bool) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let (root, file) = (dir.path().join("fs"), dir.path().join("split"));
        std::fs::create_dir(&root).unwrap();
        let mut out = zstd::stream::write::Encoder::new(File::create(&file).unwrap(), 1).unwrap();
        {
            let split = Split::new(&mut out);
            let mut source = split.recorded(tar);
            unpack(&mut source, &root, &split)?;
            io::copy(&mut source, &mut io::sink())?;
            assert_eq!(split.finish()?, !is_lossy, "what is lost is known");
        }
        out.finish().unwrap();
        let mut found = Vec::new();
        assemble(&file, &root, &mut found)?;
        Ok(found)
    }

    fn append(builder: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, path: &str, data: &[u8], link: Option<&str>) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        match link {
            Some(link) => builder.append_link(&mut header, path, link).unwrap(),
            None => builder.append_data(&mut header, path, data).unwrap(),
        }
    }

    #[test]
    fn layers_are_put_together_as_they_were() {
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: unpacking sets owners, which needs root");
            return;
        }
        use tar::EntryType::{Directory, Fifo, Link, Regular, Symlink};
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, Directory, "lib/", b"", None);
        append(&mut builder, Symlink, "usr", b"", Some("lib"));
        append(&mut builder, Regular, "usr/through-a-link", &[7; 100_000], None);
        append(&mut builder, Regular, "empty", b"", None);
        append(&mut builder, Regular, &format!("long/{}", "n".repeat(200)), b"content", None);
        append(&mut builder, Link, "hard", b"", Some("lib/through-a-link"));
        append(&mut builder, Regular, "lib/.wh.gone", b"", None);
        append(&mut builder, Fifo, "pipe", b"", None);
        let mut tar = builder.into_inner().unwrap();
        // Some programs pad archives to whole records.
        tar.resize(tar.len() + 9000, 0);
        assert!(again(&tar, false).unwrap() == tar);

        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, Regular, "twice", b"first", None);
        append(&mut builder, Regular, "twice", b"other", None);
        let tar = builder.into_inner().unwrap();
        assert!(again(&tar, true).unwrap() != tar, "told by the digest");
        let mut builder = tar::Builder::new(Vec::new());
        append(&mut builder, Regular, "replaced", b"first", None);
        append(&mut builder, Fifo, "replaced", b"", None);
        assert!(again(&builder.into_inner().unwrap(), true).is_err(), "nobody waits for a writer");
    }
}

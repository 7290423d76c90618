//! One layer: verify, decompress and unpack a stream, in that order of trust and all at once.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::loose::Unpacked;
use super::split::Split;

/// The file beside an unpacked layer from which its stream is put together again: see [`super::split`].
pub(super) const SPLIT: &str = "split.zst";

/// Memory that a stream may make the xz decoder use: what its strongest preset needs. Those of gzip and zstd have limits.
const XZ_MEMORY: u64 = 128 << 20;

/// Why a layer is not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    #[error("digest mismatch: expected {expected}, the data has {actual}")]
    Digest { expected: String, actual: String },
    #[error("diff ID mismatch: the image configuration says {expected}, the layer has {actual}")]
    DiffId { expected: String, actual: String },
    #[error("no space left on device: free some space below {0} or remove images")]
    Full(String),
    #[error("{0}")]
    Io(io::Error),
}

/// Unpacks the layer `source` (gzip, zstd, xz or plain tar, told by its first bytes) into the empty directory `target`, and writes beside it
/// what it can be put together again from ([`SPLIT`]). `digest` is that of `source`, where anybody has told it; `diff_id` that of the
/// uncompressed stream.
pub(crate) fn unpack_layer(
    source: impl Read,
    digest: Option<&str>,
    diff_id: &str,
    target: &Path,
) -> Result<Unpacked, LayerError> {
    let mut hashed = Hashing::new(source);
    let (result, actual_diff) = {
        let mut plain = match decompress(&mut hashed) {
            Ok(decoder) => Hashing::new(decoder),
            Err(error) => return Err(LayerError::Io(error)),
        };
        (recorded(&mut plain, target), plain.digest())
    };
    if let Err(error) = &result
        && error.kind() == io::ErrorKind::StorageFull
    {
        return Err(LayerError::Full(target.display().to_string()));
    }
    // Data that is not what was asked for explains every other failure: read on to know.
    io::copy(&mut hashed, &mut io::sink()).map_err(LayerError::Io)?;
    let actual = hashed.digest();
    if let Some(digest) = digest.filter(|digest| **digest != actual) {
        return Err(LayerError::Digest { expected: digest.to_owned(), actual });
    }
    let unpacked = result.map_err(LayerError::Io)?;
    if actual_diff != diff_id {
        return Err(LayerError::DiffId { expected: diff_id.to_owned(), actual: actual_diff });
    }
    Ok(unpacked)
}

fn recorded(plain: &mut impl Read, target: &Path) -> io::Result<Unpacked> {
    let path = target.with_file_name(SPLIT);
    let mut out = zstd::stream::write::Encoder::new(File::create(&path)?, zstd::DEFAULT_COMPRESSION_LEVEL)?;
    let (unpacked, is_whole) = {
        let split = Split::new(&mut out);
        let mut source = split.recorded(plain);
        let unpacked = super::unpack::unpack(&mut source, target, &split)?;
        io::copy(&mut source, &mut io::sink())?;
        (unpacked, split.finish()?)
    };
    out.finish()?;
    // Without it the layer is neither exported nor offered to other nodes, which would find that it is another one.
    if !is_whole {
        fs::remove_file(&path)?;
    }
    Ok(unpacked)
}

/// Decompresses by the magic number of the stream.
pub(crate) fn decompress<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(64 << 10, source);
    let magic = source.fill_buf()?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let decoder = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, xz2::stream::CONCATENATED)?;
            Box::new(xz2::bufread::XzDecoder::new_stream(source, decoder))
        }
        _ => Box::new(source),
    })
}

/// The `sha256:...` digest of `data`.
pub(crate) fn digest_of(data: &[u8]) -> String {
    format_digest(Sha256::new_with_prefix(data))
}

fn format_digest(hash: Sha256) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(71);
    text.push_str("sha256:");
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Hashes what is read or written through it.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    length: u64,
}

impl<R> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), length: 0 }
    }

    /// How many bytes that were so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn digest(self) -> String {
        format_digest(self.hash)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hash.update(&buffer[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(encode: impl Fn(&[u8]) -> Vec<u8>) {
        let text = b"some tar".repeat(1000);
        let mut out = Vec::new();
        decompress(&encode(&text)[..]).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, text);
    }

    #[test]
    fn every_compression_is_recognised() {
        check(|data| data.to_vec());
        check(|data| zstd::encode_all(data, 1).unwrap());
        check(|data| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        });
        check(|data| {
            let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        });
    }

    #[test]
    fn wrong_data_is_named_by_both_digests() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("fs");
        std::fs::create_dir(&target).unwrap();
        let expected = digest_of(b"other");
        match unpack_layer(&b"\x1f\x8bgarbage"[..], Some(&expected), &expected, &target) {
            Err(LayerError::Digest { expected: e, actual }) => assert_eq!((e, actual), (expected, digest_of(b"\x1f\x8bgarbage"))),
            other => panic!("{other:?}"),
        }
    }
}

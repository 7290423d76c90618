//! Parts of documents, each compressed once. Put together they are one stream of gzip: a part begins with an empty window and ends at a
//! byte, and the checksum of all follows from theirs. So a document of many megabytes is never there as a whole, and a change
//! of one kind compresses what that kind says.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

use crate::body::{Body, ListBody};

/// A head without name and time, of an unknown system (RFC 1952).
const HEAD: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The last block, which is empty (RFC 1951).
const END: &[u8] = &[3, 0];
/// Shorter parts are kept as they are: a compressor costs more than it saves.
const SHORT: usize = 256;

static COMMA: LazyLock<Arc<Part>> = LazyLock::new(|| Arc::new(Part::new(b",")));

/// Some bytes of a document.
pub(super) struct Part {
    /// Blocks of deflate, of which none is the last.
    deflated: Bytes,
    length: usize,
    crc: Crc,
}

impl Part {
    pub(super) fn new(plain: &[u8]) -> Self {
        let mut crc = Crc::new();
        crc.update(plain);
        Self { deflated: deflate(plain).into(), length: plain.len(), crc }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn inflate(&self) -> Bytes {
        let mut plain = Vec::with_capacity(self.length);
        // What was packed here unpacks.
        let _ = flate2::read::DeflateDecoder::new(self.deflated.clone().chain_end()).read_to_end(&mut plain);
        plain.into()
    }
}

/// Blocks followed by the last one.
trait ChainEnd {
    fn chain_end(self) -> impl Read;
}

impl ChainEnd for Bytes {
    fn chain_end(self) -> impl Read {
        std::io::Cursor::new(self).chain(END)
    }
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    match u16::try_from(plain.len()) {
        Ok(0) => Vec::new(),
        Ok(length) if plain.len() < SHORT => [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), plain].concat(),
        _ => {
            let mut encoder = DeflateEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
            // A vector takes everything.
            let _ = encoder.write_all(plain).and_then(|()| encoder.flush());
            let mut blocks = std::mem::take(encoder.get_mut());
            blocks.shrink_to_fit();
            blocks
        }
    }
}

/// A document.
#[derive(Clone, Default)]
pub(super) struct Document(Vec<Arc<Part>>);

impl Document {
    /// Adds bytes of its own.
    pub(super) fn push(&mut self, plain: &[u8]) {
        self.0.push(Arc::new(Part::new(plain)));
    }

    /// Adds parts.
    pub(super) fn extend(&mut self, parts: impl IntoIterator<Item = Arc<Part>>) {
        self.0.extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    /// Adds parts with commas between them.
    pub(super) fn list(&mut self, parts: impl IntoIterator<Item = Arc<Part>>) {
        for (at, part) in parts.into_iter().filter(|part| !part.is_empty()).enumerate() {
            self.0.extend((at > 0).then(|| COMMA.clone()));
            self.0.push(part);
        }
    }

    /// Its bytes, which are made while they are sent.
    pub(super) fn plain(&self) -> Body {
        let length = length(&self.0);
        let parts = self.0.clone().into_iter().map(|part| part.inflate());
        Body::List(Box::new(ListBody::of(parts, length)))
    }

    /// Its bytes, gzipped.
    pub(super) fn gzip(&self) -> Body {
        let mut crc = Crc::new();
        self.0.iter().for_each(|part| crc.combine(&part.crc));
        let tail = [END, &crc.sum().to_le_bytes(), &crc.amount().to_le_bytes()].concat();
        let deflated: usize = self.0.iter().map(|part| part.deflated.len()).sum();
        let length = HEAD.len() + deflated + tail.len();
        let parts = self.0.clone().into_iter().map(|part| part.deflated.clone());
        let all = std::iter::once(Bytes::from_static(HEAD)).chain(parts).chain([Bytes::from(tail)]);
        Body::List(Box::new(ListBody::of(all, length)))
    }
}

/// How many bytes parts are.
pub(super) fn length(parts: &[Arc<Part>]) -> usize {
    parts.iter().map(|part| part.length).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bytes(body: Body) -> Vec<u8> {
        let Body::List(list) = body else { panic!("a list") };
        list.concat().to_vec()
    }

    #[track_caller]
    fn check(parts: &[&str], expected: &str) {
        let mut document = Document::default();
        document.push(b"[");
        document.list(parts.iter().map(|part| Arc::new(Part::new(part.as_bytes()))));
        document.push(b"]");
        assert_eq!(String::from_utf8(bytes(document.plain())).unwrap(), expected);
        // The decoder checks the length and the checksum.
        let (gzip, mut plain) = (bytes(document.gzip()), String::new());
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut plain).unwrap();
        assert_eq!(plain, expected);
    }

    #[test]
    fn parts_are_one_stream() {
        check(&[], "[]");
        check(&["1"], "[1]");
        check(&["", "1", "", "2"], "[1,2]");
        let long: Vec<String> = [SHORT - 1, SHORT, 70_000].map(|length| "0123456789".repeat(length)[..length].to_owned()).into();
        check(&[&long[0], &long[1], "x", &long[2]], &format!("[{},{},x,{}]", long[0], long[1], long[2]));
    }

    #[test]
    fn what_repeats_itself_is_short() {
        let part = Part::new("a sentence again and again. ".repeat(1000).as_bytes());
        assert!(part.deflated.len() < 1000, "{}", part.deflated.len());
    }
}

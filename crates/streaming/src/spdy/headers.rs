//! Header blocks: names and values, compressed with one zlib stream per direction that starts from a fixed dictionary
//! (SPDY protocol draft 3.1, section 2.6.10).

use std::io;
use std::sync::LazyLock;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Name and value pairs. Names are lower case.
pub(crate) type Headers = Vec<(String, String)>;

/// Uncompressed size that a peer may send.
const MAX_BLOCK: usize = 64 << 10;

const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges \
age allow authorization cache-control connection content-base content-encoding content-language content-length \
content-location content-md5 content-range content-type date etag expect expires from host if-match if-modified-since \
if-none-match if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade user-agent vary via warning \
www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin";

const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public\
privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut dictionary = Vec::with_capacity(1423);
    for word in WORDS.split(' ') {
        let word = word.replace('_', " ");
        dictionary.extend_from_slice(&(word.len() as u32).to_be_bytes());
        dictionary.extend_from_slice(word.as_bytes());
    }
    dictionary.extend_from_slice(TAIL.as_bytes());
    dictionary
});

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY headers: {}", what.into()))
}

/// The receiving direction.
pub(crate) struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// Decompresses and parses one block.
    pub(crate) fn read(&mut self, compressed: &[u8]) -> io::Result<Headers> {
        parse(&self.inflate(compressed)?)
    }

    fn inflate(&mut self, compressed: &[u8]) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(1024);
        let start = self.0.total_in();
        loop {
            let consumed = (self.0.total_in() - start) as usize;
            let input = &compressed[consumed.min(compressed.len())..];
            match self.0.decompress_vec(input, &mut block, FlushDecompress::Sync) {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|error| invalid(error.to_string()))?;
                }
                Err(error) => return Err(invalid(error.to_string())),
                Ok(Status::StreamEnd) => return Err(invalid("the compressed stream ended")),
                Ok(_) if block.len() < block.capacity() => return Ok(block),
                Ok(_) if block.len() >= MAX_BLOCK => return Err(invalid("too large")),
                Ok(_) => block.reserve(block.len()),
            }
        }
    }
}

/// The sending direction.
pub(crate) struct Deflater(Compress);

impl Deflater {
    pub(crate) fn new() -> io::Result<Self> {
        let mut compress = Compress::new(Compression::fast(), true);
        compress.set_dictionary(&DICTIONARY).map_err(|error| invalid(error.to_string()))?;
        Ok(Self(compress))
    }

    /// Writes and compresses one block.
    pub(crate) fn write(&mut self, headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let mut block = Vec::new();
        block.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&(text.len() as u32).to_be_bytes());
            block.extend_from_slice(text.as_bytes());
        }
        let mut compressed = Vec::with_capacity(block.len() + 64);
        let start = self.0.total_in();
        loop {
            let consumed = (self.0.total_in() - start) as usize;
            self.0
                .compress_vec(&block[consumed..], &mut compressed, FlushCompress::Sync)
                .map_err(|error| invalid(error.to_string()))?;
            if compressed.len() < compressed.capacity() {
                return Ok(compressed);
            }
            compressed.reserve(compressed.len());
        }
    }
}

fn parse(mut block: &[u8]) -> io::Result<Headers> {
    let count = number(&mut block)?;
    if count > MAX_BLOCK / 8 {
        return Err(invalid("too many"));
    }
    let mut headers = Vec::with_capacity(count.min(32));
    for _ in 0..count {
        let name = text(&mut block)?.to_ascii_lowercase();
        headers.push((name, text(&mut block)?));
    }
    Ok(headers)
}

fn number(block: &mut &[u8]) -> io::Result<usize> {
    let (head, rest) = block.split_first_chunk::<4>().ok_or_else(|| invalid("truncated"))?;
    *block = rest;
    Ok(u32::from_be_bytes(*head) as usize)
}

fn text(block: &mut &[u8]) -> io::Result<String> {
    let length = number(block)?;
    let (head, rest) = block.split_at_checked(length).ok_or_else(|| invalid("truncated"))?;
    *block = rest;
    String::from_utf8(head.to_vec()).map_err(|_| invalid("not UTF-8"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_dictionary_is_the_specified_one() {
        let mut compress = Compress::new(Compression::fast(), true);
        assert_eq!((DICTIONARY.len(), compress.set_dictionary(&DICTIONARY).unwrap()), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_share_one_compression_state() {
        let (mut deflater, mut inflater) = (Deflater::new().unwrap(), Inflater::default());
        let long = "x".repeat(5000);
        for value in ["error", "data", long.as_str(), ""] {
            let block = deflater.write(&[("Streamtype", value), ("port", "80")]).unwrap();
            let expected = vec![("streamtype".to_owned(), value.to_owned()), ("port".to_owned(), "80".to_owned())];
            assert_eq!(inflater.read(&block).unwrap(), expected);
        }
    }

    #[test]
    fn hostile_blocks() {
        let block = |headers: &[(&str, &str)]| Deflater::new().unwrap().write(headers).unwrap();
        let bomb = "a".repeat(MAX_BLOCK * 4);
        assert!(Inflater::default().read(&block(&[("a", &bomb)])).is_err());
        assert!(Inflater::default().read(b"no zlib").is_err());
        for bytes in [&[][..], &[0, 0, 0, 1], &[0, 0, 0, 1, 0, 0, 0, 9, b'a'], &[255; 8]] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}

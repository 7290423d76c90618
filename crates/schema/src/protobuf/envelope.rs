//! The frame around every Kubernetes protobuf body: four bytes and `runtime.Unknown`.

use super::Error;
use super::wire::{BYTES, Raw, Reader, put_bytes, put_nested, put_tag, put_varint};

/// The first bytes of every body.
pub const MAGIC: &[u8] = b"k8s\0";

/// Splits a body into `apiVersion`, `kind` and the object's message.
///
/// # Errors
/// The body lacks the prefix, is no `runtime.Unknown`, or carries another content encoding.
pub fn unwrap_envelope(bytes: &[u8]) -> Result<(&str, &str, &[u8]), Error> {
    let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(Error::Prefix)?);
    let (mut api_version, mut kind, mut body): (_, _, &[u8]) = ("", "", &[]);
    while let Some((number, raw)) = reader.next()? {
        match (number, raw) {
            (1, Raw::Bytes(meta)) => {
                let mut reader = Reader(meta);
                while let Some((number, raw)) = reader.next()? {
                    match (number, raw) {
                        (1, Raw::Bytes(bytes)) => api_version = text("apiVersion", bytes)?,
                        (2, Raw::Bytes(bytes)) => kind = text("kind", bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Raw::Bytes(raw)) => body = raw,
            (3, Raw::Bytes(encoding)) if !encoding.is_empty() => {
                let message =
                    format!("{:?} is not supported; send the object without an encoding", String::from_utf8_lossy(encoding));
                return Err(Error::Value { field: "contentEncoding", message });
            }
            _ => {}
        }
    }
    Ok((api_version, kind, body))
}

fn text<'a>(field: &'static str, bytes: &'a [u8]) -> Result<&'a str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Utf8(field))
}

/// Puts an object's message into the envelope.
pub fn wrap_envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let (mut out, end) = envelope(api_version, kind, raw.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(end);
    out
}

/// What stands before and behind a message of `length` bytes in its envelope, for messages that are too large to copy.
pub fn envelope(api_version: &str, kind: &str, length: usize) -> (Vec<u8>, &'static [u8]) {
    let mut out = Vec::with_capacity(length.min(1 << 20) + api_version.len() + kind.len() + 24);
    out.extend_from_slice(MAGIC);
    let meta = |out: &mut Vec<u8>| -> Result<(), std::convert::Infallible> {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
        Ok(())
    };
    let Ok(()) = put_nested(&mut out, 1, meta);
    put_tag(&mut out, 2, BYTES);
    put_varint(&mut out, length as u64);
    // Content encoding and type, both empty.
    (out, b"\x1a\0\x22\0")
}

/// Appends a length-delimited field: with number 2, one item of a list message.
pub fn put_message(out: &mut Vec<u8>, number: u32, message: &[u8]) {
    put_bytes(out, number, message);
}

/// The `WatchEvent` message (without envelope, as watches stream it) around an object that is in its own envelope.
/// `event` is `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
pub fn watch_event(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + event.len() + 16);
    put_bytes(&mut out, 1, event.as_bytes());
    let Ok(()) = put_nested(&mut out, 2, |out| -> Result<(), std::convert::Infallible> {
        put_bytes(out, 1, object);
        Ok(())
    });
    out
}

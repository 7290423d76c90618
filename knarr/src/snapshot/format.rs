//! The file of a snapshot: lines of JSON, compressed with zstd. `zstd -dc FILE | jq` shows it.
//!
//! The first line says what it is, the last one that nothing is missing; the frame's checksum tells of damage.

use std::io::{BufRead, BufReader, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{Copied, Lane, Record, Revision};

/// The form that this version writes. Raise it when an older version could not read the result.
pub(crate) const FORMAT: u32 = 1;

/// Longest line that is read, bytes: twice the largest value of a store, for what JSON escapes.
const LINE: u64 = 130 << 20;

/// Level of compression, zstd's own default: the disk is slower.
const LEVEL: i32 = 3;

/// One line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Line {
    Snapshot(Head),
    File(Part),
    Record(Row),
    End(End),
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) format: u32,
    /// The version that has made it.
    pub(crate) version: String,
    pub(crate) created: Timestamp,
}

/// A file of the data directory.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) content: String,
}

/// A key of the store.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    key: String,
    revision: Revision,
    /// The value, where it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The value in base64, where it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ephemeral: bool,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// What the store had reached.
    pub(crate) revision: Revision,
    /// Keys that the snapshot has.
    pub(crate) records: u64,
}

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it is no snapshot, or is damaged: line {line}: {cause}")]
    Line {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        cause: String,
    },
    #[error("it ends early: its end is missing")]
    Cut,
    #[error("it has format {0}, this version reads up to {FORMAT}: restore it with the version that has made it, or a newer one")]
    Newer(u32),
}

impl Row {
    pub(super) fn of(copied: Copied) -> Result<Self, Error> {
        let Copied { record, lane, expires } = copied;
        let key = String::from_utf8(record.key.into()).map_err(|error| std::io::Error::other(error.to_string()))?;
        let (value, bytes) = match String::from_utf8(record.value.into()) {
            Ok(text) => (Some(text), None),
            Err(other) => (None, Some(BASE64.encode(other.as_bytes()))),
        };
        let expires = Some(expires).filter(|expires| *expires != 0);
        Ok(Self { key, revision: record.revision, value, bytes, ephemeral: lane == Lane::Ephemeral, expires })
    }

    /// The key, or what is wrong with it.
    fn into_copied(self) -> Result<Copied, String> {
        let value = match (self.value, self.bytes) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(bytes)) => BASE64.decode(bytes).map_err(|error| error.to_string())?,
            _ => return Err(format!("{} has not one value", self.key)),
        };
        Ok(Copied {
            record: Record { key: self.key.into(), value: value.into(), revision: self.revision },
            lane: if self.ephemeral { Lane::Ephemeral } else { Lane::Durable },
            expires: self.expires.unwrap_or(0),
        })
    }
}

/// Writes a file.
pub(super) struct Writer<W: Write> {
    out: zstd::Encoder<'static, W>,
    records: u64,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W, head: Head) -> Result<Self, Error> {
        let mut out = zstd::Encoder::new(out, LEVEL)?;
        out.include_checksum(true)?;
        let mut writer = Self { out, records: 0 };
        writer.line(&Line::Snapshot(head))?;
        Ok(writer)
    }

    pub(super) fn line(&mut self, line: &Line) -> Result<(), Error> {
        self.records += u64::from(matches!(line, Line::Record(_)));
        let mut bytes = serde_json::to_vec(line).map_err(std::io::Error::from)?;
        bytes.push(b'\n');
        Ok(self.out.write_all(&bytes)?)
    }

    /// Writes the last line.
    pub(super) fn finish(mut self, revision: Revision) -> Result<W, Error> {
        let records = self.records;
        self.line(&Line::End(End { revision, records }))?;
        Ok(self.out.finish()?)
    }
}

/// What is between the first line and the last one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    File(Part),
    Key(Copied),
}

/// Reads a file.
pub(super) struct Reader<R: Read> {
    lines: BufReader<zstd::Decoder<'static, BufReader<R>>>,
    buffer: Vec<u8>,
    count: u64,
    records: u64,
    pub(super) head: Head,
    /// Once there are no more lines.
    pub(super) end: Option<End>,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(file: R) -> Result<Self, Error> {
        let lines = BufReader::new(zstd::Decoder::new(file)?);
        let head = Head { format: FORMAT, version: String::new(), created: Timestamp::UNIX_EPOCH };
        let mut reader = Self { lines, buffer: Vec::new(), count: 0, records: 0, head, end: None };
        /// Of any format.
        #[derive(Deserialize)]
        struct Any {
            snapshot: Format,
        }
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        reader.fill()?;
        let any: Any = reader.parsed()?;
        if any.snapshot.format > FORMAT {
            return Err(Error::Newer(any.snapshot.format));
        }
        match reader.parsed()? {
            Line::Snapshot(head) => reader.head = head,
            _ => return Err(reader.wrong("it does not say what it is")),
        }
        Ok(reader)
    }

    /// What comes next; none after the last line, when the whole file was read and is whole.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Error> {
        if !self.fill()? {
            return Err(Error::Cut);
        }
        match self.parsed()? {
            Line::Snapshot(_) => Err(self.wrong("it begins again")),
            Line::End(end) if end.records != self.records => {
                Err(self.wrong(&format!("{} of {} records are there", self.records, end.records)))
            }
            Line::End(end) => {
                self.end = Some(end);
                // The checksum is behind the last line.
                if self.fill()? { Err(self.wrong("it goes on behind its end")) } else { Ok(None) }
            }
            Line::File(part) => Ok(Some(Item::File(part))),
            Line::Record(row) => {
                self.records += 1;
                Ok(Some(Item::Key(row.into_copied().map_err(|cause| self.wrong(&cause))?)))
            }
        }
    }

    /// Reads a line; false at the end.
    fn fill(&mut self) -> Result<bool, Error> {
        self.buffer.clear();
        self.count += 1;
        let read =
            self.lines.by_ref().take(LINE).read_until(b'\n', &mut self.buffer).map_err(|error| self.wrong(&error.to_string()))?;
        Ok(read > 0)
    }

    fn parsed<T: for<'a> Deserialize<'a>>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.buffer).map_err(|error| self.wrong(&error.to_string()))
    }

    /// What is wrong with the line that was read last.
    pub(super) fn wrong(&self, cause: &str) -> Error {
        Error::Line { line: self.count, cause: cause.to_owned() }
    }
}

#[cfg(test)]
mod tests;

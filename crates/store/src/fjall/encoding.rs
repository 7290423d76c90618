//! How records look on disk. Integers are big-endian, so that keys sort by number.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Error, Event, Lane, Record, Revision};

const PUT: u8 = 0;
const DELETE: u8 = 1;

/// Kind, previous revision, key length.
const ENTRY_HEAD: usize = 1 + 8 + 4;

/// One event of the durable lane, under its revision. The newest entry of a key that is not a deletion is the key's current
/// value: a value is written once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) revision: Revision,
    /// The revision that wrote the value before, 0 for a creation.
    pub(super) previous: Revision,
    pub(super) key: Bytes,
    /// None for a deletion.
    pub(super) value: Option<Bytes>,
}

impl Entry {
    pub(super) fn encode(&self) -> Bytes {
        let value = self.value.as_deref().unwrap_or_default();
        let mut out = BytesMut::with_capacity(ENTRY_HEAD + self.key.len() + value.len());
        out.put_u8(if self.value.is_some() { PUT } else { DELETE });
        out.put_u64(self.previous);
        // Keys are paths: far below 4 GiB, the queue refuses longer ones.
        out.put_u32(u32::try_from(self.key.len()).unwrap_or(u32::MAX));
        out.put_slice(&self.key);
        out.put_slice(value);
        out.freeze()
    }

    /// The length of [`Entry::encode`].
    pub(super) fn encoded_len(&self) -> u64 {
        encoded_len(&self.key, self.value.as_deref().unwrap_or_default())
    }

    pub(super) fn decode(revision: Revision, bytes: &Bytes) -> Result<Self, Error> {
        let corrupt = || Error::Damaged(format!("the entry of revision {revision} is corrupt"));
        if bytes.len() < ENTRY_HEAD {
            return Err(corrupt());
        }
        let end = ENTRY_HEAD + u32::from_be_bytes(field(bytes, 9)) as usize;
        if end > bytes.len() {
            return Err(corrupt());
        }
        let value = match bytes[0] {
            PUT => Some(bytes.slice(end..)),
            DELETE => None,
            _ => return Err(corrupt()),
        };
        Ok(Self { revision, previous: u64::from_be_bytes(field(bytes, 1)), key: bytes.slice(ENTRY_HEAD..end), value })
    }

    /// The record that the entry wrote, none for a deletion.
    pub(super) fn into_record(self) -> Option<Record> {
        Some(Record { key: self.key, value: self.value?, revision: self.revision })
    }

    pub(super) fn into_event(self, previous: Option<Record>) -> Event {
        Event { revision: self.revision, key: self.key, value: self.value, previous, lane: Lane::Durable, note: None }
    }
}

/// The length of an entry of the log.
pub(super) fn encoded_len(key: &[u8], value: &[u8]) -> u64 {
    (ENTRY_HEAD + key.len() + value.len()) as u64
}

/// A record of the ephemeral lane, with its expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) record: Record,
    /// Milliseconds since 1970, 0 for never.
    pub(super) expires: u64,
}

impl Stored {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(16 + self.record.value.len());
        out.put_u64(self.record.revision);
        out.put_u64(self.expires);
        out.put_slice(&self.record.value);
        out.freeze()
    }

    pub(super) fn decode(key: Bytes, bytes: &Bytes) -> Result<Self, Error> {
        if bytes.len() < 16 {
            return Err(Error::Damaged(format!("the record of {key:?} is corrupt")));
        }
        let record = Record { key, value: bytes.slice(16..), revision: u64::from_be_bytes(field(bytes, 0)) };
        Ok(Self { record, expires: u64::from_be_bytes(field(bytes, 8)) })
    }
}

/// The key of the expiry index: time, then key.
pub(super) fn expiry_key(expires: u64, key: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + key.len());
    out.put_u64(expires);
    out.put_slice(key);
    out.freeze()
}

/// The two parts of a key of the expiry index.
pub(super) fn split_expiry_key(bytes: &Bytes) -> Result<(u64, Bytes), Error> {
    Ok((decode_u64(bytes)?, bytes.slice(8..)))
}

pub(super) fn encode_u64(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The number that `bytes` start with.
pub(super) fn decode_u64(bytes: &[u8]) -> Result<u64, Error> {
    if bytes.len() < 8 {
        return Err(Error::Damaged("an index entry is corrupt".into()));
    }
    Ok(u64::from_be_bytes(field(bytes, 0)))
}

/// What the writer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The current revision.
    pub(super) revision: Revision,
    /// Log entries ever written.
    pub(super) entries: u64,
    /// Log bytes ever written.
    pub(super) bytes: u64,
    /// What log entries ever kept: their own bytes, and those of the entries that they replaced.
    pub(super) kept: u64,
    /// Bytes of the current records of the ephemeral lane.
    pub(super) ephemeral: u64,
    /// Bytes of the current records of the durable lane. It is stored beside the other numbers ([`Head::encode_durable`]), which versions
    /// wrote alone that did not know it.
    pub(super) durable: u64,
}

impl Head {
    /// Bytes of all current records.
    pub(super) fn current(self) -> u64 {
        self.durable.saturating_add(self.ephemeral)
    }

    pub(super) fn encode(self) -> Bytes {
        numbers(&[self.revision, self.entries, self.bytes, self.kept, self.ephemeral])
    }

    /// All but the bytes of the durable lane.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let [revision, entries, bytes, kept, ephemeral] = parse(bytes)?;
        Ok(Self { revision, entries, bytes, kept, ephemeral, durable: 0 })
    }

    /// The bytes of the durable lane, with the revision at which it has them.
    pub(super) fn encode_durable(self) -> Bytes {
        numbers(&[self.revision, self.durable])
    }

    /// The bytes of the durable lane at this revision; none where another version has written since, which does not count them.
    pub(super) fn decode_durable(self, bytes: &[u8]) -> Option<u64> {
        let [revision, durable] = parse(bytes).ok()?;
        (revision == self.revision).then_some(durable)
    }
}

/// What compaction counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The oldest revision from which a watch can start; every entry up to it has left history.
    pub(super) compacted: Revision,
    /// Entries that left history.
    pub(super) entries: u64,
    /// What the entries that left history kept.
    pub(super) kept: u64,
    /// Bytes that were deleted from the log.
    pub(super) deleted: u64,
}

impl Tail {
    pub(super) fn encode(self) -> Bytes {
        numbers(&[self.compacted, self.entries, self.kept, self.deleted])
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let [compacted, entries, kept, deleted] = parse(bytes)?;
        Ok(Self { compacted, entries, kept, deleted })
    }
}

fn numbers(numbers: &[u64]) -> Bytes {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn parse<const N: usize>(bytes: &[u8]) -> Result<[u64; N], Error> {
    if bytes.len() != N * 8 {
        return Err(Error::Damaged("the store's counters are corrupt".into()));
    }
    Ok(std::array::from_fn(|at| u64::from_be_bytes(field(bytes, at * 8))))
}

/// `N` bytes from `at`; the caller has checked the length.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|offset| bytes[at + offset])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(key: &'static str, value: Option<&'static str>, previous: Revision) {
        let value = value.map(|value| Bytes::from_static(value.as_bytes()));
        let entry = Entry { revision: 7, previous, key: Bytes::from_static(key.as_bytes()), value };
        let bytes = entry.encode();
        assert_eq!(bytes.len() as u64, entry.encoded_len());
        assert_eq!(Entry::decode(7, &bytes), Ok(entry.clone()));
        for cut in 0..ENTRY_HEAD + key.len() {
            assert!(Entry::decode(7, &bytes.slice(..cut)).is_err(), "a cut at {cut} is noticed");
        }
        if let Some(record) = entry.into_record() {
            let stored = Stored { record, expires: previous };
            assert_eq!(Stored::decode(stored.record.key.clone(), &stored.encode()), Ok(stored));
        }
    }

    #[test]
    fn records_survive_the_round_trip() {
        check("/registry/pods/a/b", Some("value"), 3);
        check("k", Some(""), 0);
        check("", None, u64::MAX);
        check("k", None, 1);
    }

    #[test]
    fn counters_survive_the_round_trip() {
        let head = Head { revision: 1, entries: 2, bytes: u64::MAX, kept: 3, ephemeral: 4, durable: 5 };
        assert_eq!(Head::decode(&head.encode()), Ok(Head { durable: 0, ..head }));
        assert_eq!(head.decode_durable(&head.encode_durable()), Some(5));
        assert_eq!(Head { revision: 2, ..head }.decode_durable(&head.encode_durable()), None, "it was of another revision");
        assert_eq!(head.decode_durable(&head.encode()), None);
        let tail = Tail { compacted: 1, entries: 2, kept: 3, deleted: 4 };
        assert_eq!(Tail::decode(&tail.encode()), Ok(tail));
        assert!(Head::decode(&tail.encode()).is_err());
    }

    #[test]
    fn expiry_keys_sort_by_time_first() {
        assert!(expiry_key(1, b"z") < expiry_key(256, b"a"));
        assert_eq!(split_expiry_key(&expiry_key(5, b"key")), Ok((5, Bytes::from_static(b"key"))));
        assert!(split_expiry_key(&Bytes::from_static(b"short")).is_err());
    }
}

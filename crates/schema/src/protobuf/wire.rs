//! The protobuf wire format: varints, tags, lengths.

use super::Error;

pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
const START_GROUP: u8 = 3;
const END_GROUP: u8 = 4;
const FIXED32: u8 = 5;

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_tag(out: &mut Vec<u8>, number: u32, wire: u8) {
    put_varint(out, u64::from(number) << 3 | u64::from(wire));
}

pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes a length-delimited message whose length is known only after `body` wrote it.
pub(super) fn put_nested<E>(out: &mut Vec<u8>, number: u32, body: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    put_tag(out, number, BYTES);
    let start = out.len();
    out.push(0);
    body(out)?;
    let mut length = out.len() - start - 1;
    if length < 0x80 {
        out[start] = length as u8;
        return Ok(());
    }
    let mut prefix = [0; 10];
    let mut count = 0;
    while length >= 0x80 {
        prefix[count] = length as u8 | 0x80;
        length >>= 7;
        count += 1;
    }
    prefix[count] = length as u8;
    out.splice(start..=start, prefix[..=count].iter().copied());
    Ok(())
}

/// The value of one field on the wire.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    /// A 32-bit value or a group: no field of the API has one.
    Skipped(u8),
}

impl Raw<'_> {
    pub(super) fn wire(&self) -> u8 {
        match self {
            Self::Varint(_) => VARINT,
            Self::Fixed64(_) => FIXED64,
            Self::Bytes(_) => BYTES,
            Self::Skipped(wire) => *wire,
        }
    }
}

/// Reads a message field by field.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next field number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Raw<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, wire) = self.tag()?;
        let raw = match wire {
            VARINT => Raw::Varint(self.varint()?),
            FIXED64 => Raw::Fixed64(u64::from_le_bytes(self.array()?)),
            BYTES => Raw::Bytes(self.bytes()?),
            _ => {
                self.skip(number, wire)?;
                Raw::Skipped(wire)
            }
        };
        Ok(Some((number, raw)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Error::Truncated)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Varint)
    }

    fn tag(&mut self) -> Result<(u32, u8), Error> {
        let tag = self.varint()?;
        match u32::try_from(tag >> 3) {
            Ok(number) if number != 0 => Ok((number, (tag & 7) as u8)),
            _ => Err(Error::Tag(tag)),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.try_into().map_err(|_| Error::Truncated)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Error> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| Error::Truncated)?)
    }

    /// Skips a 32-bit value, or a group up to its end.
    fn skip(&mut self, number: u32, wire: u8) -> Result<(), Error> {
        if wire == FIXED32 {
            return self.take(4).map(drop);
        }
        if wire != START_GROUP {
            return Err(Error::Tag(u64::from(number) << 3 | u64::from(wire)));
        }
        let mut open = 1;
        while open > 0 {
            let (number, wire) = self.tag()?;
            match wire {
                VARINT => drop(self.varint()?),
                FIXED64 => drop(self.take(8)?),
                BYTES => drop(self.bytes()?),
                FIXED32 => drop(self.take(4)?),
                START_GROUP => open += 1,
                END_GROUP => open -= 1,
                _ => return Err(Error::Tag(u64::from(number) << 3 | u64::from(wire))),
            }
        }
        Ok(())
    }
}

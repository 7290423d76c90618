//! The numbers of a tar header, read as Go's archive/tar reads them: images are made by many programs, and most are tried only with
//! that one.

use std::io;

use nix::sys::time::TimeSpec;
use tar::{EntryType, Header};

/// A number in octal digits, padded with blanks or NULs on either side and perhaps nothing else, or in base 256.
fn number(field: &[u8]) -> io::Result<i64> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) {
        return base_256(field).ok_or_else(|| invalid(field));
    }
    let is_padding = |byte: &u8| matches!(*byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !is_padding(byte)) else { return Ok(0) };
    let digits = &field[start..];
    let digits = &digits[..digits.iter().position(is_padding).unwrap_or(digits.len())];
    let text = std::str::from_utf8(digits).map_err(|_| invalid(field))?;
    u64::from_str_radix(text, 8).ok().and_then(|value| i64::try_from(value).ok()).ok_or_else(|| invalid(field))
}

/// Two's complement, most significant byte first; the highest bit says that it is this form, and the next one is the sign.
fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { i128::from(field[0]) - 256 } else { i128::from(field[0] & 0x7f) };
    let value = field[1..].iter().try_fold(first, |value, byte| value.checked_mul(256)?.checked_add(i128::from(*byte)))?;
    i64::try_from(value).ok()
}

fn invalid(field: &[u8]) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a number in a tar header: {}", field.escape_ascii()))
}

/// What an entry is. Archives of before 1988 mark a directory by the end of its name only.
pub(super) fn kind(header: &Header, path: &[u8]) -> EntryType {
    match header.as_old().linkflag {
        [0] if path.ends_with(b"/") => EntryType::Directory,
        _ => header.entry_type(),
    }
}

/// Permissions with setuid, setgid and sticky bit.
pub(super) fn mode(header: &Header) -> io::Result<u32> {
    Ok((number(&header.as_old().mode)? & 0o7777) as u32)
}

/// Owner and group.
pub(super) fn owner(header: &Header) -> io::Result<(u32, u32)> {
    let id = |field: &[u8]| u32::try_from(number(field)?).map_err(|_| invalid(field));
    Ok((id(&header.as_old().uid)?, id(&header.as_old().gid)?))
}

/// Time of the last change, in whole seconds.
pub(super) fn mtime(header: &Header) -> io::Result<TimeSpec> {
    Ok(TimeSpec::new(number(&header.as_old().mtime)?, 0))
}

/// Time of a PAX record: seconds with a fraction, since 1970 or before; none when it is no time.
pub(super) fn pax_time(value: &[u8]) -> Option<TimeSpec> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (seconds.starts_with('-'), nanoseconds) {
        (true, 1..) => TimeSpec::new(whole.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => TimeSpec::new(whole, nanoseconds),
    })
}

/// Major and minor number of a device; nothing else has one.
pub(super) fn device(header: &Header) -> io::Result<(u64, u64)> {
    let Some(header) = header.as_ustar() else { return Ok((0, 0)) };
    let part = |field: &[u8]| u64::try_from(number(field)?).map_err(|_| invalid(field));
    Ok((part(&header.dev_major)?, part(&header.dev_minor)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_are_read_leniently() {
        let check = |field: &[u8], expected: Option<i64>| assert_eq!(number(field).ok(), expected, "{}", field.escape_ascii());
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"\0\x00644 \0\0", Some(0o644));
        check(b"644\0junk", Some(0o644));
        check(b"        ", Some(0));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"", Some(0));
        check(b"12x\0", None);
        check(b"-1\0", None);
        check(b"\x80\0\0\0\0\x20\0\0", Some(0x20_0000));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2));
        check(b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None);
    }

    #[test]
    fn times_of_pax_records_have_fractions() {
        let check = |text: &str, expected: Option<(i64, i64)>| {
            let time = pax_time(text.as_bytes()).map(|time| (time.tv_sec(), time.tv_nsec()));
            assert_eq!(time, expected, "{text}");
        };
        check("1350244992", Some((1_350_244_992, 0)));
        check("1350244992.02396", Some((1_350_244_992, 23_960_000)));
        check("1.1234567891", Some((1, 123_456_789)));
        check("-1.25", Some((-2, 750_000_000)));
        check("-0.5", Some((-1, 500_000_000)));
        check("x", None);
        check("1.2.3", None);
    }
}

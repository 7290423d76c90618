//! The distinguished encoding rules (X.690), as far as certificates are written here.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Error;

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const PRINTABLE_STRING: u8 = 0x13;
pub(super) const SET: u8 = 0x31;
/// AlgorithmIdentifier of ecdsa-with-SHA256, 1.2.840.10045.4.3.2.
pub(super) const ECDSA_WITH_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const TRUE: &[u8] = &[0x01, 0x01, 0xff];

/// An extension of a certificate with the identifier `object`.
pub(super) fn extension(object: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { TRUE } else { &[] };
    tlv(SEQUENCE, &[&tlv(OBJECT, &[object]), critical, &tlv(OCTET_STRING, &[value])])
}

/// A time as certificates have it: with two digits of the year until 2049.
pub(super) fn time(second: i64) -> Result<Vec<u8>, Error> {
    let time = Timestamp::from_second(second).map_err(|error| Error::Parse(format!("a time: {error}")))?;
    let time = time.to_zoned(TimeZone::UTC);
    let (tag, format) = if time.year() < 2050 { (0x17, "%y%m%d%H%M%SZ") } else { (0x18, "%Y%m%d%H%M%SZ") };
    Ok(tlv(tag, &[time.strftime(format).to_string().as_bytes()]))
}

/// Tag, length, value of the distinguished encoding rules.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[(length.leading_zeros() / 8) as usize..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// A certificate (DER) as a PEM block.
pub fn certificate_pem(der: Vec<u8>) -> String {
    pem_block("CERTIFICATE", der)
}

/// A PEM block with lines as Unix ends them.
pub(super) fn pem_block(name: &str, der: Vec<u8>) -> String {
    pem::encode_config(&pem::Pem::new(name, der), pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
}

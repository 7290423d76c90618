//! Parsing of quantities.

use super::{Format, NANO, Quantity};

/// Why text is not a quantity. The texts are upstream's where upstream has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not a number with a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// An unknown suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// More than about 1.7e29.
    #[error("quantity is too large: the largest supported amount is about 1.7e29")]
    TooLarge,
}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    /// Digits before the point without leading zeros.
    whole: &'a str,
    /// Digits after the point.
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Format);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = digits(unsigned);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Format);
    }
    Ok(Parts { negative: text.starts_with('-'), whole: whole.trim_start_matches('0'), fraction, suffix })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Base 2 or 10, exponent and format of a suffix.
fn interpret(suffix: &str) -> Option<(u32, i32, Format)> {
    let decimal = |exponent| Some((10, exponent, Format::DecimalSi));
    let binary = |exponent| Some((2, exponent, Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((10, i32::try_from(exponent).ok()?, Format::DecimalExponent))
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Quantity, ParseError> {
    let parts = split(text)?;
    let (base, exponent, mut format) = interpret(parts.suffix).ok_or(ParseError::Suffix)?;
    let mut nanos = match base {
        10 => decimal_nanos(&parts, exponent)?,
        _ => binary_nanos(&parts, exponent as u32)?,
    };
    if format == Format::BinarySi && nanos < NANO && nanos > 0 {
        format = Format::DecimalSi;
    }
    if parts.negative {
        nanos = -nanos;
    }
    Ok(Quantity { nanos, format })
}

/// All digits as one number.
fn mantissa(parts: &Parts<'_>) -> Result<i128, ParseError> {
    let digits = parts.whole.bytes().chain(parts.fraction.trim_end_matches('0').bytes());
    digits.map(|b| i128::from(b - b'0')).try_fold(0i128, |n, d| n.checked_mul(10)?.checked_add(d)).ok_or(ParseError::TooLarge)
}

fn decimal_nanos(parts: &Parts<'_>, exponent: i32) -> Result<i128, ParseError> {
    let mantissa = mantissa(parts)?;
    let places = parts.fraction.trim_end_matches('0').len() as i64;
    let shift = i64::from(exponent) + 9 - places;
    if mantissa == 0 {
        return Ok(0);
    }
    let power = u32::try_from(shift.unsigned_abs()).ok().and_then(|s| 10i128.checked_pow(s));
    match (shift >= 0, power) {
        (true, power) => power.and_then(|p| mantissa.checked_mul(p)).ok_or(ParseError::TooLarge),
        // Whatever is there counts for at least one nanounit.
        (false, None) => Ok(1),
        (false, Some(power)) => Ok(mantissa / power + i128::from(mantissa % power != 0)),
    }
}

fn binary_nanos(parts: &Parts<'_>, exponent: u32) -> Result<i128, ParseError> {
    /// Upstream caps binary quantities at the largest `i64`.
    const MAX: i128 = i64::MAX as i128 * NANO;
    let places = parts.fraction.trim_end_matches('0').len() as u32;
    let capped = |n: Option<i128>| n.map_or(MAX, |n| n.min(MAX));
    let product = mantissa(parts)?.checked_mul(1 << exponent);
    if places <= 9 {
        return Ok(capped(product.and_then(|p| p.checked_mul(10i128.pow(9 - places)))));
    }
    let power = 10i128.checked_pow(places - 9).ok_or(ParseError::TooLarge)?;
    let product = product.ok_or(ParseError::TooLarge)?;
    Ok(capped(Some(product / power + i128::from(product % power != 0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_texts() {
        let check = |input: &str, expected: Result<&str, ParseError>| {
            assert_eq!(parse(input).map(|q| q.to_string()), expected.map(str::to_owned), "{input}");
        };
        for same in ["0", "1", "100m", "1Ki", "1025", "3Mi", "12e3", "5E", "-1", "250u"] {
            check(same, Ok(same));
        }
        check("0.1", Ok("100m"));
        check("0.5Gi", Ok("512Mi"));
        check("1.5Gi", Ok("1536Mi"));
        check("1024Ki", Ok("1Mi"));
        check("512Ki", Ok("512Ki"));
        check("0.5Ki", Ok("512"));
        check("1000", Ok("1k"));
        check("1000m", Ok("1"));
        check("1234000", Ok("1234k"));
        check("0.0000000001", Ok("1n"));
        check("-0.0000000001", Ok("-1n"));
        check("00", Ok("0"));
        check("0Ki", Ok("0"));
        check("1.", Ok("1"));
        check("1.123", Ok("1123m"));
        check("1e3", Ok("1e3"));
        check("1000e3", Ok("1e6"));
        check("100e-3", Ok("100e-3"));
        check("0.001Ki", Ok("1024m"));
        check("9223372036854775807Ki", Ok("9223372036854775807"));
        check("", Err(ParseError::Format));
        check("1 ", Err(ParseError::Format));
        check("x", Err(ParseError::Format));
        check("1.1.1", Err(ParseError::Format));
        check("1mm", Err(ParseError::Suffix));
        check("1i", Err(ParseError::Suffix));
        check("1K", Err(ParseError::Suffix));
        check("1e", Err(ParseError::Suffix));
        // As upstream: digits may be missing altogether.
        check(".", Ok("0"));
        check("m", Ok("0"));
        check("1e40", Err(ParseError::TooLarge));
    }
}

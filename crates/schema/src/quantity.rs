//! Quantities (`100m`, `1.5Gi`, `12e6`): checking and the canonical form in which the API writes them.
//!
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>. Like upstream, a text that is
//! canonical enough is kept as it is (`1.500` stays), all others are rewritten.

use std::borrow::Cow;

/// Why a text is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// How the suffix is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `m`, `k`, `M`...: a power of ten.
    Decimal,
    /// `Ki`, `Mi`...: a power of two.
    Binary,
    /// `e3`.
    Exponent,
}

/// A quantity taken apart, nothing evaluated.
struct Parts<'a> {
    negative: bool,
    /// Digits before the point without leading zeros, `0` if none.
    num: &'a str,
    /// Digits after the point.
    denom: &'a str,
    suffix: &'a str,
}

/// Digits and the power of ten that they are multiplied by.
struct Decimal {
    digits: Vec<u8>,
    exponent: i64,
}

/// The largest magnitude of a quantity with a binary suffix.
const MAX: u128 = i64::MAX as u128;
/// Finer values are rounded up, away from zero: the API has no smaller unit than nano.
const NANO: i64 = -9;
const DECIMAL_SUFFIXES: [(&str, i64); 9] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15)];
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The canonical form of a quantity.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let text = text.trim();
    if text == "0" {
        return Ok(Cow::Borrowed(text));
    }
    let parts = split(text)?;
    let (format, exponent) = interpret(parts.suffix)?;
    let digits = (parts.num.len() + parts.denom.len()) as i64;
    // Upstream's fast path for what fits an integer keeps texts that need no change.
    let kept = match format {
        Format::Binary if parts.denom.is_empty() => {
            15 - digits - exponent * 3 / 10 > 0 && parts.num.parse::<i64>().is_ok_and(|value| value & 7 != 0)
        }
        Format::Binary => false,
        _ => {
            let scale = exponent - parts.denom.len() as i64;
            let tail = parts.num.bytes().chain(parts.denom.bytes()).rev().take(3);
            let zeros = parts.num == "0" || (digits >= 3 && tail.into_iter().all(|digit| digit == b'0'));
            digits <= 18 && scale >= NANO && scale % 3 == 0 && !zeros
        }
    };
    if kept {
        return Ok(Cow::Borrowed(text));
    }
    if parts.denom.is_empty() && parts.num == "0" && text.contains('.') && !text.contains(|c: char| c.is_ascii_digit()) {
        return if digits <= 18 { Ok(Cow::Borrowed("0")) } else { Err(QuantityError::Numeric) };
    }
    let magnitude = match format {
        Format::Binary => binary(&parts, exponent as u32),
        _ => decimal_of(&parts, exponent).write(format),
    };
    Ok(Cow::Owned(if parts.negative && magnitude != "0" { format!("-{magnitude}") } else { magnitude }))
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches('0');
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (num, rest) = rest.split_at(digits(rest));
    let (denom, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let tail = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if !tail.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, num: if num.is_empty() { "0" } else { num }, denom, suffix })
}

fn interpret(suffix: &str) -> Result<(Format, i64), QuantityError> {
    if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(known, _)| *known == suffix) {
        return Ok((Format::Decimal, *exponent));
    }
    if suffix == "E" {
        return Ok((Format::Decimal, 18));
    }
    if let Some(power) = BINARY_SUFFIXES.iter().position(|known| *known == suffix) {
        return Ok((Format::Binary, power as i64 * 10));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).and_then(|digits| digits.parse::<i32>().ok());
    exponent.map(|exponent| (Format::Exponent, i64::from(exponent))).ok_or(QuantityError::Suffix)
}

fn decimal_of(parts: &Parts<'_>, exponent: i64) -> Decimal {
    let digits = [parts.num, parts.denom].concat().trim_start_matches('0').as_bytes().to_vec();
    let mut value = Decimal { digits, exponent: exponent - parts.denom.len() as i64 };
    value.round_up();
    value
}

impl Decimal {
    fn of(value: u128, exponent: i64) -> Self {
        let digits = if value == 0 { Vec::new() } else { value.to_string().into_bytes() };
        Self { digits, exponent }
    }

    /// Drops what is finer than a nano, rounding away from zero.
    fn round_up(&mut self) {
        let drop = NANO - self.exponent;
        if drop <= 0 || self.digits.is_empty() {
            return;
        }
        let keep = (self.digits.len() as i64 - drop).max(0) as usize;
        let inexact = self.digits[keep..].iter().any(|digit| *digit != b'0');
        self.digits.truncate(keep);
        self.exponent = NANO;
        if inexact {
            self.increment();
        }
    }

    fn increment(&mut self) {
        for digit in self.digits.iter_mut().rev() {
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
        self.digits.insert(0, b'1');
    }

    /// The digits with the largest exponent that is a multiple of three and has a suffix.
    fn write(mut self, format: Format) -> String {
        if self.digits.is_empty() {
            return "0".to_owned();
        }
        while self.digits.last() == Some(&b'0') {
            self.digits.pop();
            self.exponent += 1;
        }
        let limit = if format == Format::Exponent { i64::MAX } else { 18 };
        let target = (self.exponent - self.exponent.rem_euclid(3)).min(limit);
        self.digits.resize(self.digits.len() + (self.exponent - target) as usize, b'0');
        let mut out = String::from_utf8(self.digits).unwrap_or_default();
        match (format, target) {
            (Format::Exponent, 0) => {}
            (Format::Exponent, _) => out.push_str(&format!("e{target}")),
            (_, 18) => out.push('E'),
            _ => out.push_str(DECIMAL_SUFFIXES.iter().find(|(_, exponent)| *exponent == target).map_or("", |(suffix, _)| suffix)),
        }
        out
    }
}

/// Writes a number with a binary suffix of `1 << shift`. A fraction, or less than 1024, is written decimally.
fn binary(parts: &Parts<'_>, shift: u32) -> String {
    let num: u128 = parts.num.parse().unwrap_or(u128::MAX);
    if num > MAX >> shift {
        return capped();
    }
    // Eighteen places are plenty: the rest only decides whether to round up.
    let places = parts.denom.len().min(18);
    let (denom, rest) = parts.denom.split_at(places);
    let ten = 10u128.pow(places as u32);
    let scaled = ((num * ten) + denom.parse::<u128>().unwrap_or(0)) << shift;
    let sticky = rest.bytes().any(|digit| digit != b'0');
    let mut value = Decimal::of(scaled + u128::from(sticky), -(places as i64));
    value.round_up();
    if sticky || !scaled.is_multiple_of(ten) || scaled / ten < 1024 {
        return value.write(Format::Decimal);
    }
    let (mut whole, mut power) = (scaled / ten, 0);
    if whole > MAX {
        return capped();
    }
    while whole % 1024 == 0 && power < 6 {
        whole /= 1024;
        power += 1;
    }
    format!("{whole}{}", BINARY_SUFFIXES[power])
}

fn capped() -> String {
    MAX.to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn check(text: &str, expected: Result<&str, QuantityError>) {
        assert_eq!(canonical(text).as_deref(), expected.as_ref().copied(), "{text}");
    }

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            ("1000k", "1M"),
            ("1500", "1500"),
            ("128Mi", "128Mi"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1.1Ki", "1126400m"),
            ("0Ki", "0"),
            ("512Ki", "512Ki"),
            ("8Ei", "9223372036854775807"),
            ("1e3", "1e3"),
            ("1000e0", "1e3"),
            ("12e2", "1200"),
            ("1E", "1E"),
            ("1000E", "1000E"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("-1000m", "-1"),
            ("+5", "+5"),
            ("00", "0"),
            ("007000", "7k"),
            ("1.G", "1.G"),
            ("0.0001m", "100n"),
            ("1234567890123456789012345", "1234567890123456789012345"),
            ("999999999999999999999999999999k", "999999999999999999999999999999k"),
            ("0.0000000001", "1n"),
            (" 5 ", "5"),
            ("-", "0"),
            ("100e-3", "100e-3"),
            ("1000e-3", "1"),
            ("-1.5Gi", "-1536Mi"),
            ("1e2147483647", "10e2147483646"),
        ] {
            check(text, Ok(expected));
        }
    }

    #[test]
    fn refused() {
        for (text, error) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1KB", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1K", QuantityError::Suffix),
            ("1mm", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
            ("1e99999999999", QuantityError::Suffix),
        ] {
            check(text, Err(error));
        }
    }

    proptest::proptest! {
        #[test]
        fn canonical_is_a_fixed_point(text in "[+-]?[0-9]{0,25}(\\.[0-9]{0,25})?(|[numkMGTPE]|[KMGTPE]i|e-?[0-9]{1,3})") {
            if let Ok(once) = canonical(&text) {
                let twice = canonical(&once).unwrap().into_owned();
                proptest::prop_assert_eq!(twice, once.into_owned());
            }
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = canonical(&text);
        }
    }
}

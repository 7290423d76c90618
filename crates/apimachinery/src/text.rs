//! Go's ways of writing texts and numbers, which API messages carry.

use std::fmt::{self, Write as _};

use serde_json::Value;

/// The words of Go's `strconv.ParseBool`; none is neither true nor false.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Quotes as Go's `%q` does.
pub fn quote(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        push_escaped(&mut out, c);
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if (c as u32) < 0x20 || c as u32 == 0x7f => drop(write!(out, "\\x{:02x}", c as u32)),
        c if is_print(c) => out.push(c),
        c if (c as u32) < 0x10000 => drop(write!(out, "\\u{:04x}", c as u32)),
        c => drop(write!(out, "\\U{:08x}", c as u32)),
    }
}

/// Whether a letter is one of Go's `strconv.IsPrint`: neither a control nor a format character, nobody's and no space but the usual one. Rust
/// escapes the same ones behind another letter, and first in a text also marks that belong to a letter before them.
fn is_print(c: char) -> bool {
    c.is_ascii() || ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

/// A number as Go's `%g` writes it: with as few digits as tell it apart, with an exponent from 1e+06 on, and below 0.0001.
pub fn general(value: impl fmt::LowerExp + fmt::Display) -> String {
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// JSON as Go's encoder writes it: a whole number has no fraction.
pub fn json(value: &Value) -> String {
    fn plain(value: &mut Value) {
        match value {
            Value::Number(number) => {
                let whole = number.as_f64().filter(|value| number.is_f64() && value.fract() == 0.0 && value.abs() < 1e15);
                if let Some(whole) = whole {
                    *value = (whole as i64).into();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(plain),
            Value::Object(map) => map.values_mut().for_each(plain),
            _ => {}
        }
    }
    let mut value = value.clone();
    plain(&mut value);
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go's documentation of `strconv.ParseBool`: "It accepts 1, t, T, TRUE, true, True, 0, f, F, FALSE, false, False."
    #[test]
    fn words_for_true_and_false() {
        assert_eq!(["1", "t", "T", "TRUE", "true", "True"].map(parse_bool), [Some(true); 6]);
        assert_eq!(["0", "f", "F", "FALSE", "false", "False"].map(parse_bool), [Some(false); 6]);
        assert_eq!(["", "yes", "tRUE", "on", "01"].map(parse_bool), [None; 5]);
    }

    #[test]
    fn numbers_like_go() {
        let check = |value: f64, expected: &str| assert_eq!(general(value), expected);
        check(4.0, "4");
        check(0.5, "0.5");
        check(-2.25, "-2.25");
        check(100_000.0, "100000");
        check(1_000_000.0, "1e+06");
        check(123_456_789.0, "1.23456789e+08");
        check(0.0001, "0.0001");
        check(0.000_01, "1e-05");
        check(1e100, "1e+100");
    }

    #[test]
    fn quotes_like_go() {
        let check = |input: &str, expected: &str| assert_eq!(quote(input), expected);
        check("plain", "\"plain\"");
        check("a\"b\\c", "\"a\\\"b\\\\c\"");
        check("\0\n\u{85}", "\"\\x00\\n\\u0085\"");
        check("grün", "\"grün\"");
        check("\x07\x08\x0c\x0b\x1b\x7f", r#""\a\b\f\v\x1b\x7f""#);
        // Spaces, marks of formats, what is nobody's; but no mark of a letter.
        check("a\u{a0}\u{200b}\u{feff}\u{2028}", r#""a\u00a0\u200b\ufeff\u2028""#);
        check("\u{e0001}\u{10ffff}\u{e000}", r#""\U000e0001\U0010ffff\ue000""#);
        check("u\u{308}\u{fffd}\u{1f680}\u{1f469}\u{200d}", "\"u\u{308}\u{fffd}\u{1f680}\u{1f469}\\u200d\"");
    }
}

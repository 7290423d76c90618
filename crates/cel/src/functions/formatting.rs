//! `'%s is %d'.format([a, b])` (cel-go, `ext/formatting.go`). Numbers are written as in English texts.

use super::{list, other, show, text};
use crate::error::Error;
use crate::value::{List, Map, Value};

/// How long a text may become.
const MAX_TEXT: usize = 4 << 20;
/// The most digits behind the point that are written.
const MAX_DIGITS: usize = 1_000;
/// Digits behind the point, where nothing else is said.
const DIGITS: usize = 6;

/// What stands for a value in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    Text,
    Decimal,
    Fixed(usize),
    Scientific(usize),
    Binary,
    Hexadecimal { upper: bool },
    Octal,
}

/// A part of a text.
pub(crate) enum Piece<'a> {
    Text(&'a str),
    /// What stands for the value at this position.
    Clause(Clause, usize),
}

impl Clause {
    /// Whether values of a type can be written so.
    pub(crate) fn takes(self, kind: &str) -> bool {
        match self {
            Self::Text => matches!(
                kind,
                "list"
                    | "map"
                    | "int"
                    | "uint"
                    | "double"
                    | "bool"
                    | "string"
                    | "google.protobuf.Timestamp"
                    | "bytes"
                    | "google.protobuf.Duration"
                    | "type"
                    | "null_type"
            ),
            Self::Decimal | Self::Octal => matches!(kind, "int" | "uint"),
            Self::Fixed(_) | Self::Scientific(_) => matches!(kind, "double" | "string"),
            Self::Binary => matches!(kind, "int" | "uint" | "bool"),
            Self::Hexadecimal { .. } => matches!(kind, "int" | "uint" | "string" | "bytes"),
        }
    }

    /// Why a value of a type cannot be written so.
    pub(crate) fn refusal(self, kind: &str) -> String {
        let words = match self {
            Self::Text => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
            }
            Self::Decimal => "decimal clause can only be used on integers",
            Self::Octal => "octal clause can only be used on integers",
            Self::Fixed(_) => "fixed-point clause can only be used on doubles",
            Self::Scientific(_) => "scientific clause can only be used on doubles",
            Self::Binary => "only integers and bools can be formatted as binary",
            Self::Hexadecimal { .. } => "only integers, byte buffers, and strings can be formatted as hex",
        };
        format!("{words}, was given {kind}")
    }
}

/// The parts of a text for so many values; the last one says what is wrong, if anything is.
pub(crate) fn pieces(pattern: &str, values: usize) -> impl Iterator<Item = Result<Piece<'_>, String>> {
    let (mut rest, mut index, mut failed) = (pattern, 0, false);
    std::iter::from_fn(move || {
        if rest.is_empty() || failed {
            return None;
        }
        let Some(after) = rest.strip_prefix('%') else {
            let (text, after) = rest.split_at(rest.find('%').unwrap_or(rest.len()));
            rest = after;
            return Some(Ok(Piece::Text(text)));
        };
        if let Some(after) = after.strip_prefix('%') {
            let text = &rest[..1];
            rest = after;
            return Some(Ok(Piece::Text(text)));
        }
        let found = if index >= values { Err(format!("index {index} out of range")) } else { clause(after) };
        Some(match found {
            Ok((clause, after)) => {
                rest = after;
                index += 1;
                Ok(Piece::Clause(clause, index - 1))
            }
            Err(why) => {
                failed = true;
                Err(why)
            }
        })
    })
}

/// The clause that a text begins with, behind its sign.
fn clause(text: &str) -> Result<(Clause, &str), String> {
    if text.is_empty() {
        return Err("unexpected end of string".to_owned());
    }
    let wrong = |why: &str| Err(format!("could not parse formatting clause: {why}"));
    let (mut digits, mut rest) = (DIGITS, text);
    if let Some(after) = text.strip_prefix('.') {
        let Some(end) = after.find(|c: char| !c.is_ascii_digit()) else {
            return wrong("error while parsing precision: could not find end of precision specifier");
        };
        digits = match after[..end].parse::<usize>() {
            Ok(digits) if digits <= MAX_DIGITS => digits,
            Ok(digits) => {
                let why =
                    format!("error while parsing precision: precision {digits} exceeds maximum allowed precision {MAX_DIGITS}");
                return wrong(&why);
            }
            Err(_) => {
                let number = &after[..end];
                let what = if number.is_empty() { "invalid syntax" } else { "value out of range" };
                let why = format!(
                    "error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing {number:?}: {what}"
                );
                return wrong(&why);
            }
        };
        rest = &after[end..];
    }
    let mut chars = rest.chars();
    let clause = match chars.next() {
        Some('s') => Clause::Text,
        Some('d') => Clause::Decimal,
        Some('f') => Clause::Fixed(digits),
        Some('e') => Clause::Scientific(digits),
        Some('b') => Clause::Binary,
        Some('x') => Clause::Hexadecimal { upper: false },
        Some('X') => Clause::Hexadecimal { upper: true },
        Some('o') => Clause::Octal,
        // Upstream reads bytes.
        Some(_) => return wrong(&format!("unrecognized formatting clause \"{}\"", char::from(rest.as_bytes()[0]))),
        None => return wrong("unexpected end of string"),
    };
    Ok((clause, chars.as_str()))
}

/// The text with its values.
pub(super) fn format<'a>(a: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (pattern, values) = (text(&a[0])?, list(&a[1])?);
    let mut out = String::new();
    for piece in pieces(pattern, values.len()) {
        match piece.map_err(Error::Other)? {
            Piece::Text(text) => out.push_str(text),
            Piece::Clause(clause, index) => {
                match values.get(index).map_or(Err(Unwritten::Kind), |value| written(clause, value)) {
                    Ok(text) => out.push_str(&text),
                    Err(Unwritten::Long) => return Err(Error::Budget),
                    Err(Unwritten::Kind) => {
                        let kind = values.get(index).map_or("null_type", |value| value.kind().0);
                        return other(format!("error during formatting: {}", clause.refusal(kind)));
                    }
                }
            }
        }
        if out.len() > MAX_TEXT {
            return Err(Error::Budget);
        }
    }
    Ok(Value::text(out))
}

/// Why a value is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unwritten {
    /// The clause does not take it.
    Kind,
    /// The text would be too long: the same part may be in a list many times.
    Long,
}

/// A value as a clause writes it.
fn written(clause: Clause, value: &Value<'_>) -> Result<String, Unwritten> {
    match (clause, value) {
        (Clause::Text, Value::List(_) | Value::Map(_)) => {
            let mut left = MAX_TEXT;
            literal(value, &mut left)
        }
        (clause, value) => plain(clause, value).ok_or(Unwritten::Kind),
    }
}

/// A value without parts as a clause writes it; none where it does not take it.
fn plain(clause: Clause, value: &Value<'_>) -> Option<String> {
    Some(match (clause, value) {
        (Clause::Text, value) if clause.takes(value.kind().0) => show(value),
        (Clause::Decimal, Value::Int(_) | Value::Uint(_)) => show(value),
        (Clause::Fixed(digits), value) => fixed(number(value)?, digits),
        (Clause::Scientific(digits), value) => scientific(number(value)?, digits),
        (Clause::Binary, Value::Int(value)) => signed(*value, format!("{:b}", value.unsigned_abs())),
        (Clause::Binary, Value::Uint(value)) => format!("{value:b}"),
        (Clause::Binary, Value::Bool(value)) => u8::from(*value).to_string(),
        (Clause::Octal, Value::Int(value)) => signed(*value, format!("{:o}", value.unsigned_abs())),
        (Clause::Octal, Value::Uint(value)) => format!("{value:o}"),
        (Clause::Hexadecimal { upper }, value) => {
            let text = match value {
                Value::Int(value) => signed(*value, format!("{:x}", value.unsigned_abs())),
                Value::Uint(value) => format!("{value:x}"),
                Value::Text(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
                Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                _ => return None,
            };
            if upper { text.to_ascii_uppercase() } else { text }
        }
        _ => return None,
    })
}

fn signed(value: i64, digits: String) -> String {
    if value < 0 { format!("-{digits}") } else { digits }
}

/// A number, or a text that stands for one.
fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(value) => Some(*value),
        Value::Text(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// What is no number in words.
fn unwritten(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("\u{221e}"),
        f64::NEG_INFINITY => Some("-\u{221e}"),
        _ => None,
    }
}

fn fixed(value: f64, digits: usize) -> String {
    if let Some(words) = unwritten(value) {
        return words.to_owned();
    }
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_once('.').map_or((plain.as_str(), None), |(whole, fraction)| (whole, Some(fraction)));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut out = sign.to_owned();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// `1.052033 x 10` with its exponent above the line.
fn scientific(value: f64, digits: usize) -> String {
    const ABOVE: [char; 10] =
        ['\u{2070}', '\u{b9}', '\u{b2}', '\u{b3}', '\u{2074}', '\u{2075}', '\u{2076}', '\u{2077}', '\u{2078}', '\u{2079}'];
    if let Some(words) = unwritten(value) {
        return words.to_owned();
    }
    let plain = format!("{value:.digits$e}");
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { "\u{207b}" } else { "" };
    let above = format!("{:02}", exponent.abs());
    let above: String = above.chars().filter_map(|digit| ABOVE.get(digit.to_digit(10)? as usize)).collect();
    format!("{mantissa}\u{202f}\u{d7}\u{202f}10{sign}{above}")
}

fn list_literal(items: &List<'_>, left: &mut usize) -> Result<String, Unwritten> {
    let items: Vec<String> = items.iter().map(|item| literal(&item, left)).collect::<Result<_, _>>()?;
    Ok(format!("[{}]", items.join(", ")))
}

fn map_literal(map: &Map<'_>, left: &mut usize) -> Result<String, Unwritten> {
    let mut entries = Vec::new();
    for key in map.keys() {
        if !matches!(key, Value::Text(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_)) {
            return Err(Unwritten::Kind);
        }
        let value = map.get(&key).ok_or(Unwritten::Kind)?;
        entries.push((literal(&key, left)?, literal(&value, left)?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", entries.join(", ")))
}

/// A value inside of another one: as an expression would write it.
fn literal(value: &Value<'_>, left: &mut usize) -> Result<String, Unwritten> {
    let quote = apimachinery::text::quote;
    let text = match value {
        Value::Text(text) => quote(text),
        Value::Bytes(_) => format!("b{}", quote(&show(value))),
        Value::Time(_) => format!("timestamp({})", quote(&show(value))),
        Value::Duration(_) => format!("duration({})", quote(&show(value))),
        Value::Double(number) if !number.is_finite() => quote(&show(value)),
        Value::Double(number) => format!("{number:.6}"),
        Value::List(items) => {
            *left = left.checked_sub(2).ok_or(Unwritten::Long)?;
            return list_literal(items, left);
        }
        Value::Map(map) => {
            *left = left.checked_sub(2).ok_or(Unwritten::Long)?;
            return map_literal(map, left);
        }
        Value::Int(_) | Value::Uint(_) | Value::Bool(_) | Value::Null | Value::Type(_) => show(value),
        _ => return Err(Unwritten::Kind),
    };
    *left = left.checked_sub(text.len()).ok_or(Unwritten::Long)?;
    Ok(text)
}

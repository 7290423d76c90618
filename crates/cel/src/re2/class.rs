//! Classes of characters, in brackets.

use super::error::{Error, Why};
use super::escape::{EVERYTHING, NOTHING, character, set};

/// The classes that have names in brackets. All are of ASCII.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit",
];
/// Characters next to the halves of surrogate pairs, which are in no text.
const SURROGATES: std::ops::RangeInclusive<u32> = 0xd800..=0xdfff;

/// Writes the class that the text begins with. The rest.
pub(super) fn class<'s>(source: &'s str, out: &mut String) -> Result<&'s str, Error> {
    let mut rest = &source[1..];
    let negated = rest.starts_with('^');
    if negated {
        rest = &rest[1..];
    }
    let missing = || Error::new(Why::MissingBracket, source);
    let (mut members, mut first) = (String::new(), true);
    loop {
        let c = rest.chars().next().ok_or_else(missing)?;
        if c == ']' && !first {
            break;
        }
        first = false;
        rest = match named(rest)? {
            Some((name, after)) => {
                members.push_str(name);
                after
            }
            None => member(source, rest, &mut members)?,
        };
    }
    match (members.is_empty(), negated) {
        (true, false) => out.push_str(NOTHING),
        (true, true) => out.push_str(EVERYTHING),
        (false, _) => {
            out.push_str(if negated { "[^" } else { "[" });
            out.push_str(&members);
            out.push(']');
        }
    }
    Ok(&rest[1..])
}

/// A class by name, such as `[:alpha:]`, if there is one.
fn named(source: &str) -> Result<Option<(&str, &str)>, Error> {
    let Some((name, rest)) = source.strip_prefix("[:").and_then(|inner| inner.split_once(":]")) else { return Ok(None) };
    let whole = &source[..source.len() - rest.len()];
    match NAMED.contains(&name.strip_prefix('^').unwrap_or(name)) {
        true => Ok(Some((whole, rest))),
        false => Err(Error::new(Why::CharacterRange, whole)),
    }
}

/// A character, a range or a class by letter.
fn member<'s>(class: &'s str, source: &'s str, members: &mut String) -> Result<&'s str, Error> {
    if source.starts_with('\\')
        && let Some((set, rest)) = set(source)?
    {
        members.push_str(&set);
        return Ok(rest);
    }
    let (low, rest) = one(class, source)?;
    let (high, rest) = match rest.strip_prefix('-') {
        Some(after) if !after.is_empty() && !after.starts_with(']') => one(class, after)?,
        _ => (low, rest),
    };
    if high < low {
        return Err(Error::new(Why::CharacterRange, &source[..source.len() - rest.len()]));
    }
    let low = if SURROGATES.contains(&low) { SURROGATES.end() + 1 } else { low };
    let high = if SURROGATES.contains(&high) { SURROGATES.start() - 1 } else { high };
    if low <= high {
        members.push_str(&format!("\\x{{{low:x}}}-\\x{{{high:x}}}"));
    }
    Ok(rest)
}

fn one<'s>(class: &'s str, source: &'s str) -> Result<(u32, &'s str), Error> {
    match source.chars().next() {
        None => Err(Error::new(Why::MissingBracket, class)),
        Some('\\') => character(source),
        Some(c) => Ok((u32::from(c), &source[c.len_utf8()..])),
    }
}

//! What stands behind a backslash.

use regex::Regex;

use super::error::{Error, Why};

/// Matches nothing, and everything.
pub(super) const NOTHING: &str = "[^\\s\\S]";
pub(super) const EVERYTHING: &str = "[\\s\\S]";

/// Writes a character that means itself.
pub(super) fn literal(c: char, out: &mut String) {
    let mut text = [0; 4];
    out.push_str(&regex::escape(c.encode_utf8(&mut text)));
}

/// An escape outside of classes, from its backslash on. The rest.
pub(super) fn outside<'s>(source: &'s str, out: &mut String) -> Result<&'s str, Error> {
    if let Some((set, rest)) = set(source)? {
        out.push_str(&set);
        return Ok(rest);
    }
    let (code, rest) = character(source)?;
    match char::from_u32(code) {
        Some(c) => literal(c, out),
        // Half of a surrogate pair is in no text.
        None => out.push_str(NOTHING),
    }
    Ok(rest)
}

/// A class by name, if there is one, from its backslash on: `\d`, `\pL`, `\P{Greek}`. As the engine writes it, in brackets or alone, and the
/// rest.
pub(super) fn set(source: &str) -> Result<Option<(String, &str)>, Error> {
    let after = &source[1..];
    let Some(c) = after.chars().next() else { return Ok(None) };
    let rest = &after[c.len_utf8()..];
    let ascii = match c.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => "\\t\\n\\f\\r ",
        'p' => return unicode(source, c == 'P', rest).map(Some),
        _ => return Ok(None),
    };
    let negated = if c.is_ascii_uppercase() { "^" } else { "" };
    Ok(Some((format!("[{negated}{ascii}]"), rest)))
}

/// A category or script of Unicode, behind `\p` or `\P`.
fn unicode<'s>(source: &'s str, negated: bool, after: &'s str) -> Result<(String, &'s str), Error> {
    let refused = |rest: &str| Error::new(Why::CharacterRange, &source[..source.len() - rest.len()]);
    let (name, rest) = match after.strip_prefix('{') {
        Some(inner) => inner.split_once('}').ok_or_else(|| refused(""))?,
        None => after.split_at(after.chars().next().map_or(0, char::len_utf8)),
    };
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (!negated, name),
        None => (negated, name),
    };
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_- ".contains(&byte));
    let known = |written: &String| Regex::new(&format!("\\p{{{written}}}")).is_ok();
    // Of properties there are these alone; the engine knows more.
    let candidates = match name {
        "Any" | "ASCII" | "Assigned" => vec![name.to_owned()],
        _ => vec![format!("gc={name}"), format!("sc={name}")],
    };
    let found = candidates.into_iter().filter(|_| is_name).find(known).ok_or_else(|| refused(rest))?;
    Ok((format!("\\{}{{{found}}}", if negated { 'P' } else { 'p' }), rest))
}

/// An escaped character, from its backslash on: its code point, and the rest.
pub(super) fn character(source: &str) -> Result<(u32, &str), Error> {
    let after = &source[1..];
    let Some(c) = after.chars().next() else { return Err(Error::new(Why::TrailingBackslash, "")) };
    let rest = &after[c.len_utf8()..];
    let refused = |rest: &str| Error::new(Why::Escape, &source[..source.len() - rest.len()]);
    let plain = |code: u32| Ok((code, rest));
    match c {
        // One digit alone would be a reference to a group.
        '1'..='7' if !rest.starts_with(|next: char| next.is_digit(8)) => Err(refused(rest)),
        '0'..='7' => {
            let digits = after.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
            let code = u32::from_str_radix(&after[..digits], 8).map_err(|_| refused(rest))?;
            Ok((code, &after[digits..]))
        }
        'x' => hexadecimal(rest).map_err(refused),
        'a' => plain(7),
        'f' => plain(0xc),
        'n' => plain(0xa),
        'r' => plain(0xd),
        't' => plain(9),
        'v' => plain(0xb),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => plain(u32::from(c)),
        _ => Err(refused(rest)),
    }
}

/// Digits behind `\x`: two, or any number in braces. What is left behind what is wrong, if it is.
fn hexadecimal(after: &str) -> Result<(u32, &str), &str> {
    let braced = after.strip_prefix('{');
    let (mut code, mut digits, mut rest) = (0, 0, braced.unwrap_or(after));
    while let Some(c) = rest.chars().next() {
        let next = &rest[c.len_utf8()..];
        match c.to_digit(16) {
            Some(digit) if braced.is_none() || code * 16 + digit <= u32::from(char::MAX) => {
                (code, digits) = (code * 16 + digit, digits + 1)
            }
            None if c == '}' && braced.is_some() && digits > 0 => return Ok((code, next)),
            None if braced.is_none() && digits == 0 => {
                return Err(next.chars().next().map_or(next, |second| &next[second.len_utf8()..]));
            }
            _ => return Err(next),
        }
        if braced.is_none() && digits == 2 {
            return Ok((code, next));
        }
        rest = next;
    }
    Err(rest)
}

//! Objects without their managed fields: nobody who reads from a cache asks for them, and they are often the larger half of an object.

use std::borrow::Cow;

use codec::Decode;
use memchr::memmem;

const KEY: &[u8] = br#""managedFields":["#;

/// Decodes an object from its JSON, without managed fields.
pub(crate) fn decode<K: Decode>(object: &[u8]) -> Result<K, serde_json::Error> {
    K::from_json(&text(object))
}

/// The JSON of an object without its managed fields.
pub(crate) fn text(object: &[u8]) -> Cow<'_, [u8]> {
    // Quotes within strings are escaped, so that what looks like this is the key.
    let Some(start) = memmem::find(object, KEY) else { return Cow::Borrowed(object) };
    let Some(end) = list_end(object, start + KEY.len()) else { return Cow::Borrowed(object) };
    let (before, behind) = (&object[..start], &object[end..]);
    let parts = match (before.strip_suffix(b","), behind.strip_prefix(b",")) {
        (Some(before), _) => [before, behind],
        (None, Some(behind)) => [before, behind],
        (None, None) => [before, behind],
    };
    Cow::Owned(parts.concat())
}

/// The place behind the bracket that closes a list whose items begin at `at`.
fn list_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b'"' => at = string_end(text, at)?,
            _ => {}
        }
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The place behind the quote that closes a string that begins at `at`.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_fields_are_left_out() {
        let check = |object: &str, expected: &str| assert_eq!(String::from_utf8_lossy(&text(object.as_bytes())), expected);
        check(
            r#"{"metadata":{"a":1,"managedFields":[{"f:x":{"k:{\"]\":1}":[2]}}],"name":"n"}}"#,
            r#"{"metadata":{"a":1,"name":"n"}}"#,
        );
        check(r#"{"metadata":{"managedFields":[],"name":"n"}}"#, r#"{"metadata":{"name":"n"}}"#);
        check(r#"{"metadata":{"a":1,"managedFields":[1]}}"#, r#"{"metadata":{"a":1}}"#);
        check(r#"{"metadata":{"managedFields":[{}]}}"#, r#"{"metadata":{}}"#);
        check(r#"{"metadata":{"a":"\"managedFields\":[1]"}}"#, r#"{"metadata":{"a":"\"managedFields\":[1]"}}"#);
        check(r#"{"metadata":{"managedFields":[{"#, r#"{"metadata":{"managedFields":[{"#);
    }
}

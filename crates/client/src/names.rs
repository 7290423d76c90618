//! Names in paths. Many are chosen by strangers: those of owners, of accounts in annotations, of what a volume or a reference is about.

use std::borrow::Cow;

use kube::core::Status;
use kube::{Error, Result};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What a segment of a path has none of.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');

/// A name as it stands in the path of an object.
///
/// # Errors
/// It leads elsewhere: objects are not called so, and client-go refuses the same (`IsValidPathSegmentName`). It is told as the API's refusal (400).
pub fn segment(name: &str) -> Result<Cow<'_, str>> {
    let why = match name {
        "" => "may not be empty".to_owned(),
        "." | ".." => format!("may not be '{name}'"),
        name => match name.chars().find(|letter| ['/', '%'].contains(letter)) {
            Some(letter) => format!("may not contain '{letter}'"),
            None => return Ok(utf8_percent_encode(name, ENCODED).into()),
        },
    };
    let status = Status::failure(&format!("invalid resource name {name:?}: {why}"), "BadRequest").with_code(400);
    Err(Error::Api(Box::new(status)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_stay_where_they_are() {
        let check = |name: &str, expected: Result<&str, &str>| {
            let found = segment(name).map(Cow::into_owned).map_err(|error| crate::why(&error));
            assert_eq!(found, expected.map(str::to_owned).map_err(str::to_owned));
        };
        check("web", Ok("web"));
        check("system:node-proxier", Ok("system:node-proxier"));
        // Roles may be called so.
        check("who may? #1", Ok("who%20may%3F%20%231"));
        check("\u{0}\u{fc}", Ok("%00%C3%BC"));
        check("a/token", Err("invalid resource name \"a/token\": may not contain '/'"));
        check("%2e%2e", Err("invalid resource name \"%2e%2e\": may not contain '%'"));
        check("..", Err("invalid resource name \"..\": may not be '..'"));
        check("", Err("invalid resource name \"\": may not be empty"));
    }
}

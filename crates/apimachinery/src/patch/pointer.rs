//! Places in a document that paths of a JSON patch name (RFC 6901), as upstream's library reads them: what stands before the first
//! slash is ignored, the whole document is no place, and indices may be negative.

use serde_json::{Map, Value};
use std::borrow::Cow;

/// Where a path leads: a member or an element that need not exist, of something that does.
pub(super) enum Place<'d, 'p> {
    Member(&'d mut Map<String, Value>, Cow<'p, str>),
    Element(&'d mut Vec<Value>, Cow<'p, str>),
}

/// How many levels below the top a path leads.
pub(super) fn levels(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

/// The last token of a path.
pub(super) fn last(path: &str) -> Cow<'_, str> {
    unescape(path.rsplit('/').next().unwrap_or_default())
}

/// A token without its escapes.
fn unescape(token: &str) -> Cow<'_, str> {
    if token.contains('~') { Cow::Owned(token.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(token) }
}

/// The index that a token means in a list of this length; negative ones count from the end.
fn index(token: &str, length: usize) -> Option<usize> {
    let index: i64 = token.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { index + length } else { index };
    (0..length).contains(&index).then(|| usize::try_from(index).ok()).flatten()
}

/// The place that a path names; none when what should hold it is not there.
pub(super) fn place<'d, 'p>(root: &'d mut Value, path: &'p str) -> Option<Place<'d, 'p>> {
    let (parents, last) = path.rsplit_once('/')?;
    let mut at = root;
    for token in parents.split('/').skip(1) {
        at = child(at, &unescape(token))?;
    }
    let last = unescape(last);
    match at {
        Value::Object(map) => Some(Place::Member(map, last)),
        Value::Array(list) => Some(Place::Element(list, last)),
        _ => None,
    }
}

fn child<'d>(value: &'d mut Value, token: &str) -> Option<&'d mut Value> {
    match value {
        Value::Object(map) => map.get_mut(token),
        Value::Array(list) => index(token, list.len()).and_then(|index| list.get_mut(index)),
        _ => None,
    }
}

impl<'d> Place<'d, '_> {
    /// Whether it is a member of an object.
    pub(super) fn is_member(&self) -> bool {
        matches!(self, Self::Member(..))
    }

    /// What stands there.
    pub(super) fn existing(self) -> Option<&'d mut Value> {
        match self {
            Self::Member(map, key) => map.get_mut(key.as_ref()),
            Self::Element(list, token) => index(&token, list.len()).and_then(|index| list.get_mut(index)),
        }
    }

    /// Puts a value there; before what stands there in a list, where `-` is the end. Returns how many elements made room.
    pub(super) fn add(self, value: Value) -> Option<usize> {
        match self {
            Self::Member(map, key) => {
                map.insert(key.into_owned(), value);
                Some(0)
            }
            Self::Element(list, token) => {
                // One more than the list has, for the new one may stand at the end.
                let at = if token == "-" { list.len() } else { index(&token, list.len() + 1)? };
                let moved = list.len() - at;
                list.insert(at, value);
                Some(moved)
            }
        }
    }

    /// Takes away what stands there. Returns it, and how many elements closed the gap.
    pub(super) fn remove(self) -> Option<(Value, usize)> {
        match self {
            Self::Member(map, key) => map.remove(key.as_ref()).map(|removed| (removed, 0)),
            Self::Element(list, token) => {
                let at = index(&token, list.len())?;
                Some((list.remove(at), list.len() - at))
            }
        }
    }
}

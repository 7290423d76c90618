//! How large an object may be, and how deep.
//!
//! Whatever is stored is read again by all who watch: without a limit, one object that is changed again and again would take the room that
//! the changes of all kinds share, and one that nests deeper than a parser goes could be read by nobody, nor any list that it is in.

use apimachinery::{Reason, Status, meta};
use base::budgets::heavy;
use bytes::Bytes;
use schema::Schema;
use serde_json::Value;
use store::Expect;

use crate::entry::Index;
use crate::form::Form;
use crate::target::{How, Target};
use crate::{ObjectSchema, Served};

/// Most bytes of an object as upstream stores it: custom resources as JSON, built-in kinds as protobuf (etcd's
/// `DefaultMaxRequestBytes`).
pub(crate) const MAX_STORED: usize = 3 << 19;
/// Most bytes of an object as it is stored here, which is JSON, however short it is as protobuf: as many as a request may have.
pub(crate) const MAX_JSON: usize = 3 << 20;

/// How deep the JSON of an object may nest. Parsers here go 127 levels deep (upstream's 10,000), of which lists, tables, watch events, reviews and
/// records of the audit take some. The record of who has set what is four levels deeper than what was set.
const MAX_DEPTH: usize = 120;

/// Why an object is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Large,
    Deep,
}

impl Fault {
    /// Of an object of a kind that is stored as these bytes.
    fn of(schema: &ObjectSchema, stored: &[u8]) -> Option<Self> {
        if is_too_large(schema, stored) { Some(Self::Large) } else { is_too_deep(stored).then_some(Self::Deep) }
    }

    /// Of what upstream says of a larger object, what etcd says is handed through.
    fn status(self) -> Status {
        match self {
            Self::Large => Status::new(500, Reason::from(""), "etcdserver: request is too large"),
            Self::Deep => Status::bad_request(format!("the object nests deeper than {MAX_DEPTH} levels")),
        }
    }

    /// Whether it is less than before, and no other fault is new.
    fn is_less(self, stored: &[u8], before: &[u8]) -> bool {
        let is_no_deeper = !is_too_deep(stored) || depth(stored) <= depth(before);
        is_no_deeper && (self == Self::Deep || stored.len() < before.len())
    }
}

/// Whether JSON nests deeper than it may. Most objects do not have as many lists and objects in all.
fn is_too_deep(json: &[u8]) -> bool {
    memchr::memchr2_iter(b'{', b'[', json).nth(MAX_DEPTH).is_some() && depth(json) > MAX_DEPTH
}

/// How deep lists and objects nest in JSON.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether these bytes are too many for an object of a kind.
fn is_too_large(schema: &ObjectSchema, stored: &[u8]) -> bool {
    if stored.len() <= MAX_STORED {
        return false;
    }
    let Some(ty) = schema.type_id().filter(|_| stored.len() <= MAX_JSON) else { return true };
    let object: Value = serde_json::from_slice(stored).unwrap_or_default();
    schema::protobuf::encode(Schema::builtin(), ty, &object).map_or(true, |encoded| encoded.len() > MAX_STORED)
}

/// Refuses an object that is too large or too deep to be written as `stored`. The record of who has set what may be the most of it, and goes if that
/// helps, unless it is what the client came for (upstream: `isTooLargeError`); the bytes to store.
///
/// # Errors
/// The object is too large or too deep. One that was stored before there was a limit may become smaller, and may be deleted.
pub(crate) async fn check(
    target: Target<'_>,
    (index, form): (&Index, Option<&Form>),
    stored: Bytes,
    expect: Expect,
) -> Result<Bytes, Status> {
    let res = target.res;
    let schema = form.map_or(&res.schema, |form| &form.schema);
    let Some(fault) = heavy::work(stored.len(), || Fault::of(schema, &stored)).await else { return Ok(stored) };
    if matches!(target.how, How::Delete(_)) {
        return Ok(stored);
    }
    if !matches!(target.how, How::Apply)
        && let Some(shorter) = heavy::work(stored.len(), || without_managers(res, &stored, form)).await
        && heavy::work(shorter.len(), || Fault::of(schema, &shorter)).await.is_none()
    {
        return Ok(shorter);
    }
    let before = res.storage.cache.get(index.path()).filter(|entry| expect == Expect::At(entry.revision));
    if before.is_some_and(|before| fault.is_less(&stored, &before.json)) { Ok(stored) } else { Err(fault.status()) }
}

/// The bytes to store of an object without its managed fields, if it has any.
fn without_managers(res: &Served, stored: &[u8], form: Option<&Form>) -> Option<Bytes> {
    let mut object = serde_json::from_slice(stored).ok()?;
    meta::remove(&mut object, "managedFields")?;
    res.encode(&object, form).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn depth_is_counted_outside_of_texts() {
        let check = |json: &str, expected: usize| assert_eq!(depth(json.as_bytes()), expected, "{json}");
        check("1", 0);
        check(r#"{"a":[],"b":[{"c":{}}]}"#, 4);
        check(r#"{"a":"[[[\"[[","b":"\\","c":[]}"#, 2);
    }

    /// etcd measures the request, whose value is protobuf for all kinds but custom resources.
    #[test]
    fn objects_are_measured_as_upstream_stores_them() {
        let config_map = ObjectSchema::Builtin(Schema::builtin().kind("", "v1", "ConfigMap").unwrap());
        let check = |text: String, expected: bool| {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": text}});
            let stored = object.to_string();
            assert_eq!(is_too_large(&config_map, stored.as_bytes()), expected, "{} bytes", stored.len());
        };
        check("x".repeat(1 << 20), false);
        check("x".repeat(MAX_STORED - 200), false);
        check("x".repeat(MAX_STORED), true);
        // Escaped in JSON, and as it is in protobuf.
        check("\n".repeat(1 << 20), false);
        check("\n".repeat(MAX_STORED), true);
        check("\u{1}".repeat(1 << 19), true);
    }
}

//! How large an object may be.
//!
//! Whatever is stored is read again by all who watch: without a limit, one object that is changed again and again would take the room that
//! the changes of all kinds share.

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

/// What upstream answers who writes a larger object: what etcd says is handed through.
fn too_large() -> Status {
    Status::new(500, Reason::from(""), "etcdserver: request is too large")
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

/// Refuses an object that is too large to be written as `stored`. The record of who has set what may be the most of it, and goes if that helps, unless it
/// is what the client came for (upstream: `isTooLargeError`); the bytes to store.
///
/// # Errors
/// The object is too large. One that was stored before there was a limit may become smaller, and may be deleted.
pub(crate) async fn check(
    target: Target<'_>,
    (index, form): (&Index, Option<&Form>),
    stored: Bytes,
    expect: Expect,
) -> Result<Bytes, Status> {
    let res = target.res;
    if stored.len() <= MAX_STORED {
        return Ok(stored);
    }
    let schema = form.map_or(&res.schema, |form| &form.schema);
    if !heavy::work(stored.len(), || is_too_large(schema, &stored)).await || matches!(target.how, How::Delete(_)) {
        return Ok(stored);
    }
    if !matches!(target.how, How::Apply)
        && let Some(shorter) = heavy::work(stored.len(), || without_managers(res, &stored, form)).await
        && !heavy::work(shorter.len(), || is_too_large(schema, &shorter)).await
    {
        return Ok(shorter);
    }
    let before = res.storage.cache.get(index.path()).filter(|entry| expect == Expect::At(entry.revision));
    if before.is_some_and(|before| stored.len() < before.json.len()) { Ok(stored) } else { Err(too_large()) }
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

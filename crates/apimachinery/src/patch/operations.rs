//! JSON patch (RFC 6902) as upstream's library reads it.
//!
//! Operations change one copy of the object in place. Each costs what its own path and value cost: what would cost more (elements of
//! long lists that make room, nesting that has to be measured again, copies) is counted, and refused beyond a limit.

use super::failure::{At, JsonPatchError};
use super::pointer::{self, Place};
use crate::status::Status;
use serde_json::Value;

/// A patch of more operations is refused.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;
/// Bytes of JSON that all copy operations of a patch may add: small patches must not make huge objects.
pub const MAX_COPIED_BYTES: usize = 3 << 20;

/// Levels of nesting that operations may make: what is deeper could be stored but not read again.
const MAX_DEPTH: usize = 120;
/// Levels of nesting that a document may have in between. Walking and dropping this many needs little of a thread's stack.
const MAX_INTERIM_DEPTH: usize = 4 * MAX_DEPTH;
/// Elements that may be moved or looked at beside those that operations name: some tenths of a second.
const MAX_WORK: usize = 32 << 20;

/// Reads the body of a JSON patch.
///
/// # Errors
/// 400 when it is not a JSON list of objects, 413 when it has too many operations.
pub fn parse_operations(body: &[u8]) -> Result<Value, Status> {
    let operations = super::parse(body)?;
    check_operations(&operations)?;
    Ok(operations)
}

/// The members of an operation.
const MEMBERS: &[&str] = &["op", "path", "from", "value"];

/// As [`parse_operations`]; the second value tells of unknown and duplicate members of operations (`json patch unknown field "[0].foo"`).
///
/// # Errors
/// As [`parse_operations`], and 400 where the members of an operation have other types, in the words of upstream's strict decoder.
pub fn strict_operations(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let (operations, duplicates) = schema::parse_strict(body).map_err(|error| super::unreadable(body, &error))?;
    let list = operations.as_array().ok_or_else(|| super::wrong_type(&operations, "[]handlers.jsonPatchOp"))?;
    let mut unknown = false;
    for operation in list.iter().filter(|operation| !operation.is_null()) {
        let members = operation.as_object().ok_or_else(|| super::wrong_type(operation, "handlers.jsonPatchOp"))?;
        unknown |= members.keys().any(|key| !MEMBERS.contains(&key.as_str()));
        for key in ["op", "path", "from"] {
            let Some(other) = members.get(key).filter(|value| !value.is_string() && !value.is_null()) else { continue };
            let kind = super::kind_of(other);
            let text = format!("json: cannot unmarshal {kind} into Go struct field jsonPatchOp.{key} of type string");
            return Err(Status::bad_request(format!("error decoding patch: {text}")));
        }
    }
    check_operations(&operations)?;
    let told = match unknown || !duplicates.is_empty() {
        true => schema::problems(body, schema::Shape::Objects(MEMBERS)).unwrap_or_default(),
        false => Vec::new(),
    };
    Ok((operations, told.into_iter().map(|problem| format!("json patch {problem}")).collect()))
}

fn check_operations(operations: &Value) -> Result<&[Value], Status> {
    let list = operations.as_array().ok_or_else(|| super::wrong_type(operations, "jsonpatch.Patch"))?;
    if let Some(other) = list.iter().find(|operation| !operation.is_object() && !operation.is_null()) {
        return Err(super::wrong_type(other, "jsonpatch.Operation"));
    }
    if list.len() > MAX_JSON_PATCH_OPERATIONS {
        let count = list.len();
        let text = format!("The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {count}");
        return Err(Status::too_large(text));
    }
    Ok(list)
}

/// Applies a JSON patch of a client, who is not told why one does not fit.
///
/// # Errors
/// 400 when the patch is not a list of objects, 413 beyond the limits, 422 when an operation fails.
pub fn json(original: &Value, operations: &Value) -> Result<Value, Status> {
    apply_json(original, operations).map_err(Status::from)
}

/// Applies a JSON patch. As upstream, a missing member passes a test for null, can be replaced and is copied as null, a missing value
/// is null, negative indices count from the end, and only tests and replacements may name the whole document.
///
/// # Errors
/// The patch is not a list of objects, goes beyond the limits, or has an operation that fails.
pub fn apply_json(original: &Value, operations: &Value) -> Result<Value, JsonPatchError> {
    run(original, operations).map(|document| document.root)
}

fn run(original: &Value, operations: &Value) -> Result<Document, JsonPatchError> {
    let operations = check_operations(operations).map_err(JsonPatchError::Malformed)?;
    let mut document = Document { root: original.clone(), depth: depth(original, &mut 0), copied: 0, work: 0 };
    for operation in operations {
        document.apply(operation)?;
    }
    match depth(&document.root, &mut 0) <= MAX_DEPTH {
        true => Ok(document),
        false => Err(too_deep()),
    }
}

fn too_deep() -> JsonPatchError {
    JsonPatchError::DoesNotApply(format!("the patched object nests deeper than {MAX_DEPTH} levels"))
}

/// The object while operations change it.
struct Document {
    root: Value,
    /// No fewer levels of nesting than there are.
    depth: usize,
    copied: usize,
    work: usize,
}

fn depth(value: &Value, work: &mut usize) -> usize {
    *work += 1;
    match value {
        Value::Array(items) => 1 + items.iter().map(|item| depth(item, work)).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(|item| depth(item, work)).max().unwrap_or(0),
        _ => 0,
    }
}

/// A field of an operation that has to be there.
fn text<'v>(operation: &'v Value, key: &str) -> Result<&'v str, JsonPatchError> {
    let found = operation.get(key).and_then(Value::as_str);
    found.ok_or_else(|| {
        let op = operation.get("op").and_then(Value::as_str).unwrap_or_default();
        JsonPatchError::DoesNotApply(format!("{op} operation failed to decode {key}: missing value"))
    })
}

impl Document {
    fn apply(&mut self, operation: &Value) -> Result<(), JsonPatchError> {
        let value = || operation.get("value").unwrap_or(&Value::Null);
        let (op, path) = (text(operation, "op")?, text(operation, "path")?);
        match op {
            "add" => {
                let below = depth(value(), &mut 0);
                self.add(At { op: "add", path }, value().clone(), below)
            }
            "remove" => self.remove(At { op: "remove", path }).map(drop),
            "replace" => {
                let below = depth(value(), &mut 0);
                self.replace(At { op: "replace", path }, value().clone())?;
                self.grown(path, below)
            }
            "move" => {
                let from = text(operation, "from")?;
                let below = self.below(from);
                let moved = self.remove(At { op: "move", path: from })?;
                self.add(At { op: "move", path }, moved, below)
            }
            "copy" => {
                let from = text(operation, "from")?;
                let below = self.below(from);
                let copy = self.read(At { op: "copy", path: from })?;
                self.count_copy(&copy)?;
                self.add(At { op: "copy", path }, copy, below)
            }
            "test" => self.test(At { op: "test", path }, value()),
            other => Err(JsonPatchError::DoesNotApply(format!("Unexpected kind: {other}"))),
        }
    }

    fn place<'d, 'p>(&'d mut self, at: At<'p>) -> Result<Place<'d, 'p>, JsonPatchError> {
        pointer::place(&mut self.root, at.path).ok_or_else(|| at.nowhere())
    }

    /// What is copied: a member that is missing is null.
    fn read(&mut self, at: At<'_>) -> Result<Value, JsonPatchError> {
        let place = pointer::place(&mut self.root, at.path).ok_or_else(|| at.no_source())?;
        let optional = place.is_member();
        match place.existing() {
            Some(value) => Ok(value.clone()),
            None if optional => Ok(Value::Null),
            None => Err(at.nothing(false)),
        }
    }

    /// Sets a member, be it there or not, or an element that is there, or the whole document.
    fn replace(&mut self, at: At<'_>, value: Value) -> Result<(), JsonPatchError> {
        if at.path.is_empty() {
            if !value.is_object() && !value.is_array() {
                return Err(JsonPatchError::DoesNotApply("replace operation value must be object or array".to_owned()));
            }
            self.root = value;
            return Ok(());
        }
        match self.place(at)? {
            Place::Member(map, key) => drop(map.insert(key.into_owned(), value)),
            element => *element.existing().ok_or_else(|| at.nothing(false))? = value,
        }
        Ok(())
    }

    fn add(&mut self, at: At<'_>, value: Value, below: usize) -> Result<(), JsonPatchError> {
        let moved = self.place(at)?.add(value).ok_or_else(|| at.nothing(false))?;
        self.spend(moved)?;
        self.grown(at.path, below)
    }

    fn remove(&mut self, at: At<'_>) -> Result<Value, JsonPatchError> {
        let missing = if at.op == "move" { at.no_source() } else { at.nowhere() };
        let place = pointer::place(&mut self.root, at.path).ok_or(missing)?;
        let is_member = place.is_member();
        let (removed, moved) = place.remove().ok_or_else(|| at.nothing(is_member))?;
        self.spend(moved)?;
        Ok(removed)
    }

    fn test(&mut self, at: At<'_>, value: &Value) -> Result<(), JsonPatchError> {
        let failed = || JsonPatchError::TestFailed(at.path.to_owned());
        if at.path.is_empty() {
            return if self.root == *value { Ok(()) } else { Err(failed()) };
        }
        let place = self.place(at)?;
        let optional = place.is_member();
        match place.existing() {
            Some(found) if found == value => Ok(()),
            None if optional && value.is_null() => Ok(()),
            None if !optional => Err(at.nothing(false)),
            _ => Err(failed()),
        }
    }

    fn count_copy(&mut self, copy: &Value) -> Result<(), JsonPatchError> {
        self.copied += copy.to_string().len();
        if self.copied <= MAX_COPIED_BYTES {
            return Ok(());
        }
        let text = format!(
            "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MAX_COPIED_BYTES}",
            self.copied
        );
        Err(JsonPatchError::TooLarge(text))
    }

    /// No fewer levels than there are below a path.
    fn below(&self, path: &str) -> usize {
        self.depth.saturating_sub(pointer::levels(path))
    }

    /// Something with `below` levels now stands at a path. A bound that gets too high is replaced by what is true.
    fn grown(&mut self, path: &str, below: usize) -> Result<(), JsonPatchError> {
        self.depth = self.depth.max(pointer::levels(path) + below);
        if self.depth > MAX_INTERIM_DEPTH {
            let mut work = 0;
            self.depth = depth(&self.root, &mut work);
            self.spend(work)?;
        }
        if self.depth > MAX_INTERIM_DEPTH { Err(too_deep()) } else { Ok(()) }
    }

    fn spend(&mut self, work: usize) -> Result<(), JsonPatchError> {
        self.work += work;
        if self.work <= MAX_WORK {
            return Ok(());
        }
        Err(JsonPatchError::TooLarge(format!("The JSON patch moves more than {MAX_WORK} elements of lists")))
    }
}

#[cfg(test)]
mod tests;

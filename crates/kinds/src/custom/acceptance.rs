//! Which names of a definition are accepted, and what its status says (upstream: `controller/status`, `controller/establish`,
//! `controller/finalizer` and `controller/apiapproval`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::AcceptedNames;
use crate::apiextensions::approval_condition;
use crate::rules::check_bundle;
use crate::util::{child_object, text};

const NAMES: &str = "/status/acceptedNames";

/// Whether the kinds of a definition are served. A definition stays established when it wants other names later, which it does not get.
pub fn is_established(definition: &Value) -> bool {
    has_condition(definition, "Established", "True")
}

/// Whether a definition has all the names that it wants.
pub fn has_its_names(definition: &Value) -> bool {
    has_condition(definition, "NamesAccepted", "True")
}

/// Whether a definition waits for its objects to go.
pub fn is_kept(definition: &Value) -> bool {
    apimachinery::meta::has_finalizer(definition, crate::apiextensions::CLEANUP)
}

/// The definition's conditions.
pub fn conditions(definition: &Value) -> &[Value] {
    definition.pointer("/status/conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn has_condition(definition: &Value, kind: &str, status: &str) -> bool {
    conditions(definition).iter().any(|condition| condition["type"] == kind && condition["status"] == status)
}

/// Sets a condition. Its time changes when its status does.
fn set_condition(definition: &mut Value, kind: &str, status: &str, (reason, message): (&str, &str), now: &str) {
    let list = &mut child_object(definition, "status")["conditions"];
    if !list.is_array() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    let new = json!({"type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message});
    match list.iter_mut().find(|condition| condition["type"] == kind) {
        None => list.push(new),
        Some(old) => {
            let since = old["lastTransitionTime"].clone();
            let same = old["status"] == status;
            *old = new;
            if same && !since.is_null() {
                old["lastTransitionTime"] = since;
            }
        }
    }
}

/// The definition with the names that it gets, beside those that others have, and the conditions that follow.
pub fn accept(definition: &Value, names: &AcceptedNames, now: &str) -> Value {
    let mut out = definition.clone();
    let wanted = definition.pointer("/spec/names").cloned().unwrap_or_default();
    let mut accepted = definition.pointer(NAMES).filter(|names| names.is_object()).cloned().unwrap_or_else(|| json!({}));
    let mut refused = None;
    let fields = [
        ("plural", "PluralConflict", false),
        ("singular", "SingularConflict", false),
        ("shortNames", "ShortNamesConflict", false),
        ("kind", "KindConflict", true),
        ("listKind", "ListKindConflict", true),
    ];
    for (field, reason, is_kind) in fields {
        let taken = |name: &str| names.is_taken(definition, is_kind, name);
        match conflict(&wanted[field], &accepted[field], taken) {
            Some(message) => refused = Some((reason, message)),
            None => copy(&mut accepted, &wanted, field),
        }
    }
    copy(&mut accepted, &wanted, "categories");
    child_object(&mut out, "status")["acceptedNames"] = accepted;
    match &refused {
        Some((reason, message)) => set_condition(&mut out, "NamesAccepted", "False", (reason, message), now),
        None => set_condition(&mut out, "NamesAccepted", "True", ("NoConflicts", "no conflicts found"), now),
    }
    if !is_established(definition) {
        let (status, why) = match refused {
            Some(_) => ("False", ("NotAccepted", "not all names are accepted")),
            None if !has_readable_bundle(definition) => {
                ("False", ("InvalidCABundle", "The conversion webhook CABundle is invalid"))
            }
            None => ("True", ("InitialNamesAccepted", "the initial names have been accepted")),
        };
        set_condition(&mut out, "Established", status, why, now);
    }
    if let Some((status, reason, message)) = approval_condition(definition) {
        set_condition(&mut out, "KubernetesAPIApprovalPolicyConformant", status, (reason, &message), now);
    }
    out
}

/// Whether the authorities of the webhook that converts can be read: with others no object could be converted.
fn has_readable_bundle(definition: &Value) -> bool {
    let bundle = text(definition, "/spec/conversion/webhook/clientConfig/caBundle");
    STANDARD.decode(bundle).is_ok_and(|bytes| check_bundle(&bytes).is_ok())
}

/// Why a name, or one of several, is not to be had.
fn conflict(wanted: &Value, accepted: &Value, taken: impl Fn(&str) -> bool) -> Option<String> {
    let list = |value: &Value| -> Vec<String> {
        match value {
            Value::String(text) => vec![text.clone()],
            Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    };
    let own = list(accepted);
    let found: Vec<String> = list(wanted)
        .into_iter()
        .filter(|name| !own.contains(name) && taken(name))
        .map(|name| format!("{name:?} is already in use"))
        .collect();
    match found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => drop(to.as_object_mut().and_then(|map| map.remove(field))),
    }
}

/// Says that the objects of a definition go, before it does.
pub fn set_terminating(definition: &mut Value, now: &str) {
    let why = ("InstanceDeletionInProgress", "CustomResource deletion is in progress");
    set_condition(definition, "Terminating", "True", why, now);
}

/// Lets a definition go whose objects are gone, or never were.
pub fn finish(definition: &mut Value, now: &str) {
    let why = match is_established(definition) {
        true => ("InstanceDeletionCompleted", "removed all instances"),
        false => ("NeverEstablished", "resource was never established"),
    };
    set_condition(definition, "Terminating", "False", why, now);
    apimachinery::meta::remove_finalizer(definition, crate::apiextensions::CLEANUP);
}

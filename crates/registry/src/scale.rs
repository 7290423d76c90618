//! A Scale (`autoscaling/v1`) as a view of an object's replicas.

use apimachinery::labels::Selector;
use apimachinery::{Status, meta};
use kinds::ScalePaths;
use serde_json::{Value, json};

/// A number of replicas that nobody asks for: it stands for one that the object does not say (upstream: `invalidSpecReplicas`).
pub(crate) const UNSAID: i64 = i32::MIN as i64;

/// The name of the field that a pointer leads to, as it is written in definitions.
fn field(pointer: &str) -> String {
    pointer.replace('/', ".").replace("~1", "/").replace("~0", "~")
}

/// The Scale of an object, for who asks for it. Defaults give a number to all kinds but custom resources.
///
/// # Errors
/// The object does not say how many replicas it wants.
pub(crate) fn show(object: &Value, paths: &ScalePaths) -> Result<Value, Status> {
    if object.pointer(&paths.replicas).is_none_or(Value::is_null) {
        return Err(Status::internal(format!("the spec replicas field {:?} does not exist", field(&paths.replicas))));
    }
    read(object, paths)
}

/// The Scale of an object, for who changes it.
pub(crate) fn offer(object: &Value, paths: &ScalePaths) -> Result<Value, Status> {
    let mut scale = read(object, paths)?;
    if object.pointer(&paths.replicas).is_none_or(Value::is_null) {
        scale["spec"]["replicas"] = UNSAID.into();
    }
    Ok(scale)
}

/// Refuses a Scale that says nothing of an object that says nothing either.
pub(crate) fn check_said(scale: &Value, paths: &ScalePaths) -> Result<(), Status> {
    match scale.pointer("/spec/replicas").and_then(Value::as_i64) {
        Some(UNSAID) => Err(Status::bad_request(format!("the spec replicas field {:?} cannot be empty", field(&paths.replicas)))),
        _ => Ok(()),
    }
}

/// The Scale of an object.
pub(crate) fn read(object: &Value, paths: &ScalePaths) -> Result<Value, Status> {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let selector = match paths.selector.as_deref().and_then(|pointer| object.pointer(pointer)) {
        // Custom resources write it as text, which is told as it is.
        Some(Value::String(text)) => text.clone(),
        Some(value) => selector(value)?.to_string(),
        None => String::new(),
    };
    let metadata = meta::metadata(object).into_iter().flatten();
    let keep = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<_, _> =
        metadata.filter(|(key, _)| keep.contains(&key.as_str())).map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {}, "status": {"replicas": number(&paths.status_replicas)},
    });
    // Zero is left out, as Go's omitempty does.
    if number(&paths.replicas) != 0 {
        scale["spec"]["replicas"] = number(&paths.replicas).into();
    }
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    Ok(scale)
}

/// Puts the number of a Scale into the object.
pub(crate) fn write(object: &mut Value, paths: &ScalePaths, scale: &Value) {
    let replicas = scale.pointer("/spec/replicas").cloned().unwrap_or_else(|| 0.into());
    set(object, &paths.replicas, replicas);
}

/// A label selector, or the plain map of labels that ReplicationControllers have.
fn selector(value: &Value) -> Result<Selector, Status> {
    let labels: Option<Vec<_>> =
        value.as_object().and_then(|map| map.iter().map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect());
    match labels {
        Some(labels) if !labels.is_empty() => Ok(Selector::from_set(labels)),
        _ => Selector::from_value(value).map_err(Status::internal),
    }
}

/// Sets a value, and makes the objects that it stands in.
pub(crate) fn set(object: &mut Value, pointer: &str, value: Value) {
    let mut at = object;
    for name in pointer.split('/').skip(1) {
        let Some(map) = at.as_object_mut() else { return };
        at = map.entry(name.replace("~1", "/").replace("~0", "~")).or_insert_with(|| json!({}));
    }
    *at = value;
}

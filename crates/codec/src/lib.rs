//! Typed objects from JSON and to JSON, compiled once.
//!
//! Decoders and encoders of the API's types are generic code, which the compiler makes anew in every crate that calls them, and once more for
//! each source: text, a tree that is kept, a tree that is given away. A Pod's decoder with all that is within a pod is hundreds of kilobytes;
//! a program that decoded wherever it liked was half copies. So nobody calls serde for a type of the API: [`Decode`] and [`Encode`] are
//! implemented here for each one by functions that are not generic, over one source of text and one tree. Types of the program's own that
//! are read where the API's are get them by [`decode!`] and [`encode!`] in their own crate.

mod types;

use serde_json::{Error, Value};

#[doc(hidden)]
pub use serde::Deserialize;
#[doc(hidden)]
pub use serde_json;

/// A type with a decoder that every crate shares.
pub trait Decode: Sized {
    /// Decodes text.
    ///
    /// # Errors
    /// When it is no JSON, or none of the type.
    fn from_json(json: &[u8]) -> Result<Self, Error>;

    /// Decodes a tree.
    ///
    /// # Errors
    /// When it is none of the type.
    fn from_tree(tree: &Value) -> Result<Self, Error>;
}

/// A type with an encoder that every crate shares.
pub trait Encode {
    /// Encodes to text.
    ///
    /// # Errors
    /// When something in it has no form in JSON.
    fn to_json(&self) -> Result<Vec<u8>, Error>;

    /// Encodes to a tree, by way of the text: only where the tree is not asked for often.
    ///
    /// # Errors
    /// When something in it has no form in JSON.
    fn to_tree(&self) -> Result<Value, Error> {
        serde_json::from_slice(&self.to_json()?)
    }
}

/// Decodes text, as `serde_json::from_slice` does.
///
/// # Errors
/// When it is no JSON, or none of the type.
pub fn from_slice<T: Decode>(json: &[u8]) -> Result<T, Error> {
    T::from_json(json)
}

/// Decodes a tree, as `serde_json::from_value` does.
///
/// # Errors
/// When it is none of the type.
pub fn from_value<T: Decode>(tree: Value) -> Result<T, Error> {
    T::from_tree(&tree)
}

/// Go's zero time, which it writes as null.
const ZERO: &str = "0001-01-01T00:00:00Z";
/// The same in seconds since the beginning of the epoch.
pub const ZERO_TIME: i64 = -62_135_596_800;

/// Fields that are times and are always there, which the generated types hold to be so: Go writes null where their writer has left them out, and
/// reads null, or nothing, as the zero time.
const TIMES: [&str; 2] = [TRANSITION, "lastObservedTime"];
const TRANSITION: &str = "lastTransitionTime";
/// A map of times by name, of a PodDisruptionBudget.
const DISRUPTED: &str = "disruptedPods";

/// What could not be decoded because it lacks a time, with Go's zero time in the place of that; the error where it is another one.
///
/// # Errors
/// The error that there was.
#[doc(hidden)]
#[cold]
#[inline(never)]
pub fn with_zero_times(error: Error, tree: impl FnOnce() -> Result<Value, Error>) -> Result<Value, Error> {
    let text = error.to_string();
    if !["invalid type: null", "missing field `lastTransitionTime`"].iter().any(|begin| text.starts_with(begin)) {
        return Err(error);
    }
    let mut tree = tree()?;
    if fill(&mut tree) { Ok(tree) } else { Err(error) }
}

/// Fills in the times; whether one was missing.
fn fill(tree: &mut Value) -> bool {
    let fields = match tree {
        Value::Object(fields) => fields,
        Value::Array(items) => return items.iter_mut().fold(false, |filled, item| fill(item) | filled),
        _ => return false,
    };
    let mut filled = false;
    for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(condition) = condition.as_object_mut() {
            condition.entry(TRANSITION).or_insert(Value::Null);
        }
    }
    for (name, value) in fields {
        if value.is_null() && TIMES.contains(&name.as_str()) {
            *value = ZERO.into();
            filled = true;
        }
        let times = value.as_object_mut().filter(|_| name == DISRUPTED);
        for time in times.into_iter().flat_map(serde_json::Map::values_mut).filter(|time| time.is_null()) {
            *time = ZERO.into();
            filled = true;
        }
        filled |= fill(value);
    }
    filled
}

/// Implements [`Decode`] for types that serde decodes. What is inlined into a caller is compiled there again: hence `inline(never)`.
#[macro_export]
macro_rules! decode {
    ($($type:ty),+ $(,)?) => { $(
        impl $crate::Decode for $type {
            #[inline(never)]
            fn from_json(json: &[u8]) -> Result<Self, $crate::serde_json::Error> {
                $crate::serde_json::from_slice(json).or_else(|error| {
                    let tree = $crate::with_zero_times(error, || $crate::serde_json::from_slice(json))?;
                    <Self as $crate::Deserialize>::deserialize(&tree)
                })
            }

            #[inline(never)]
            fn from_tree(tree: &$crate::serde_json::Value) -> Result<Self, $crate::serde_json::Error> {
                <Self as $crate::Deserialize>::deserialize(tree).or_else(|error| {
                    let tree = $crate::with_zero_times(error, || Ok(tree.clone()))?;
                    <Self as $crate::Deserialize>::deserialize(&tree)
                })
            }
        }
    )+ };
}

/// Implements [`Encode`] for types that serde encodes.
#[macro_export]
macro_rules! encode {
    ($($type:ty),+ $(,)?) => { $(
        impl $crate::Encode for $type {
            #[inline(never)]
            fn to_json(&self) -> Result<Vec<u8>, $crate::serde_json::Error> {
                $crate::serde_json::to_vec(self)
            }
        }
    )+ };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn text_and_tree_are_the_same_object() {
        let check = |tree: Value| {
            let pod = Pod::from_tree(&tree).unwrap();
            assert_eq!(pod, from_slice(tree.to_string().as_bytes()).unwrap());
            assert_eq!(pod, from_value(tree).unwrap());
            assert_eq!(pod, Pod::from_json(&pod.to_json().unwrap()).unwrap());
            assert_eq!(pod, Pod::from_tree(&pod.to_tree().unwrap()).unwrap());
        };
        check(json!({"metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
        check(json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running", "unknown": [1]}}));
    }

    /// Upstream's ValidateServiceStatusUpdate lets conditions without a time pass, and Go reads them.
    #[test]
    fn a_time_that_is_null_is_the_zero_time() {
        use k8s_openapi::api::core::v1::Service;
        let tree = json!({"spec": {"clusterIP": "10.0.0.1"}, "status": {"conditions": [
            {"type": "W", "status": "True", "reason": "r", "message": "m"},
            {"type": "X", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": null},
            {"type": "Y", "status": "True", "reason": "r", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        for service in [Service::from_tree(&tree).unwrap(), Service::from_json(tree.to_string().as_bytes()).unwrap()] {
            let conditions = service.status.unwrap().conditions.unwrap();
            let times: Vec<String> = conditions.iter().map(|condition| condition.last_transition_time.0.to_string()).collect();
            assert_eq!(times, [ZERO, ZERO, "2026-01-01T00:00:00Z"]);
            assert_eq!(conditions[0].last_transition_time.0.as_second(), ZERO_TIME);
        }
        let budget = json!({"status": {"disruptedPods": {"a": null}, "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0}});
        let budget = k8s_openapi::api::policy::v1::PodDisruptionBudget::from_tree(&budget).unwrap();
        assert_eq!(budget.status.unwrap().disrupted_pods.unwrap()["a"].0.as_second(), ZERO_TIME);
        assert!(Service::from_tree(&json!({"status": {"conditions": [null]}})).is_err());
        assert!(Service::from_tree(&json!({"status": {"conditions": [{"type": 1, "lastTransitionTime": null}]}})).is_err());
    }

    #[test]
    fn what_is_no_object_of_the_type_is_refused() {
        let check = |text: &str| {
            assert!(Pod::from_json(text.as_bytes()).is_err(), "{text}");
            assert!(
                serde_json::from_str(text).is_ok_and(|tree| Pod::from_tree(&tree).is_err()) || !text.starts_with('{'),
                "{text}"
            );
        };
        check(r#"{"kind":"Node"}"#);
        check(r#"{"spec":[1]}"#);
        check(r#"{"metadata":{"name":1}}"#);
        check("]");
    }
}

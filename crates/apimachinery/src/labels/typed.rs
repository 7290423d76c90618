//! `metav1.LabelSelector`, typed and as JSON.

use super::{Operator, Requirement, Selector};
use crate::field::{Error, Errors, Path};
use crate::names;
use crate::text::quote;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

/// Why a LabelSelector is not a selector; the texts are upstream's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SelectorError {
    #[error("{} is not a valid label selector operator", quote(.0))]
    Operator(String),
    #[error("{0}")]
    Requirement(Errors),
}

fn expression(key: &str, operator: &str, values: Vec<String>) -> Result<Requirement, SelectorError> {
    let operator = match operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(SelectorError::Operator(other.to_owned())),
    };
    Requirement::new(key, operator, values).map_err(SelectorError::Requirement)
}

fn equals(key: &str, value: &str) -> Result<Requirement, SelectorError> {
    Requirement::new(key, Operator::Equals, vec![value.to_owned()]).map_err(SelectorError::Requirement)
}

impl Selector {
    /// From the API type. `None` selects nothing, an empty selector everything.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(equals(key, value)?);
        }
        for e in selector.match_expressions.iter().flatten() {
            requirements.push(expression(&e.key, &e.operator, e.values.clone().unwrap_or_default())?);
        }
        Ok(Self::new(requirements))
    }

    /// From a LabelSelector in JSON. Null selects nothing, an empty selector everything.
    pub fn from_value(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(equals(key, value.as_str().unwrap_or_default())?);
        }
        for e in expressions(selector) {
            let values = values(e).map(str::to_owned).collect();
            requirements.push(expression(text(e, "key"), text(e, "operator"), values)?);
        }
        Ok(Self::new(requirements))
    }
}

fn expressions(selector: &Value) -> &[Value] {
    selector.get("matchExpressions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn values(expression: &Value) -> impl Iterator<Item = &str> {
    expression.get("values").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Validates a LabelSelector.
pub fn validate_label_selector(selector: &LabelSelector, path: &Path, errors: &mut Errors) {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| (key.as_str(), value.as_str()));
    crate::meta::validate_label_pairs(labels, &path.child("matchLabels"), errors);
    for (i, e) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(i);
        let values = e.values.as_deref().unwrap_or_default();
        match e.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                errors.push(Error::required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Error::forbidden(&path.child("values"), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(Error::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        errors.invalid_each(&path.child("key"), &e.key, names::qualified_name(&e.key));
        for (j, value) in values.iter().enumerate() {
            errors.invalid_each(&path.child("values").index(j), value, names::label_value(value));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn converts() {
        let check = |value: Value, expected: Result<&str, &str>| {
            let typed: Option<LabelSelector> = serde_json::from_value(value.clone()).unwrap();
            for got in [Selector::from_value(&value), Selector::from_label_selector(typed.as_ref())] {
                assert_eq!(got.map(|s| s.to_string()).map_err(|e| e.to_string()), expected.map(Into::into).map_err(Into::into));
            }
        };
        check(json!({}), Ok(""));
        check(json!({"matchLabels": {"a": "b"}}), Ok("a=b"));
        check(
            json!({"matchLabels": {"b": "c"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]}),
            Ok("a in (x,y),b=c"),
        );
        check(json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}), Ok("!a"));
        check(
            json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}),
            Err("\"Near\" is not a valid label selector operator"),
        );
        assert!(Selector::from_value(&Value::Null).unwrap().is_nothing());
        assert!(Selector::from_value(&json!({})).unwrap().is_everything());
    }

    #[test]
    fn validates() {
        let check = |value: Value, expected: &str| {
            let mut errors = Errors::new();
            let selector: LabelSelector = serde_json::from_value(value).unwrap();
            validate_label_selector(&selector, &Path::new("selector"), &mut errors);
            assert_eq!(errors.to_string(), expected);
        };
        check(json!({"matchLabels": {"a": "b"}}), "");
        check(
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            "selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        );
        check(
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x"]}]}),
            "selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        );
        check(
            json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}),
            "selector.matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator",
        );
    }
}

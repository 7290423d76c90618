//! LimitRange: bounds and defaults for what pods, containers and claims of a namespace ask for.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use apimachinery::field::{Error, Errors, Path};
use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::Value;

use crate::columns::Column;
use crate::def::KindDef;
use crate::rules;
use crate::rules::resources::{amount, container_resource_name, may_overcommit, resource_name};
use crate::typed::Kind;
use crate::util::{child_object, each, set_default};

type Amounts = BTreeMap<String, ApiQuantity>;

const STANDARD: &[&str] = &["Pod", "Container", "PersistentVolumeClaim"];

impl Kind for LimitRange {
    // Upstream's `limitrangeStrategy` is the only one that makes a name up.
    const DEF: KindDef =
        KindDef::new("", "v1", "LimitRange", "limitranges", "limitrange").short(&["limits"]).create_on_update().named_by_uid();

    fn apply_defaults(object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            each(spec, "limits").filter(|limit| limit["type"] == "Container").for_each(default_container);
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let path = Path::new("spec").child("limits");
        let mut seen = HashSet::new();
        for (index, limit) in self.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
            let path = path.index(index);
            validate_type(&limit.type_, &path.child("type"), errors);
            if !seen.insert(limit.type_.as_str()) {
                errors.push(Error::duplicate(&path.child("type"), limit.type_.as_str()));
            }
            validate_item(limit, &path, errors);
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[Column::NAME, Column::CREATED] }
    }
}

/// The default limit is at most the maximum, and the default request at most the limit and at least the minimum, whatever is said.
fn default_container(limit: &mut Value) {
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        for (name, quantity) in limit.get(from).and_then(Value::as_object).cloned().unwrap_or_default() {
            set_default(child_object(limit, to), &name, quantity);
        }
    }
}

fn validate_type(name: &str, path: &Path, errors: &mut Errors) {
    let before = errors.len();
    rules::qualified_name(path, name, errors);
    if errors.len() == before && !name.contains('/') && !STANDARD.contains(&name) {
        errors.push(Error::invalid(path, name, "must be a standard limit type or fully qualified"));
    }
}

fn validate_item(limit: &LimitRangeItem, path: &Path, errors: &mut Errors) {
    let none = Amounts::new();
    let of = |amounts: &'_ Option<Amounts>| amounts.clone().unwrap_or_default();
    let pod = limit.type_ == "Pod";
    let mut names = BTreeSet::new();
    let mut check = |field: &str, amounts: &Option<Amounts>, errors: &mut Errors| {
        for name in amounts.iter().flatten().map(|(name, _)| name) {
            let path = path.child(field).key(name);
            if pod || limit.type_ == "Container" {
                container_resource_name(&path, name, errors);
            } else {
                resource_name(&path, name, errors);
            }
            names.insert(name.clone());
        }
    };
    check("max", &limit.max, errors);
    check("min", &limit.min, errors);
    for (field, amounts) in [("default", &limit.default), ("defaultRequest", &limit.default_request)] {
        if !pod {
            check(field, amounts, errors);
        } else if !amounts.as_ref().unwrap_or(&none).is_empty() {
            errors.push(Error::forbidden(&path.child(field), "may not be specified when `type` is 'Pod'"));
        }
    }
    let storage = [&limit.min, &limit.max].iter().any(|amounts| of(amounts).contains_key("storage"));
    if limit.type_ == "PersistentVolumeClaim" && !storage {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(Error::required(&path.child("limits"), detail));
    }
    check("maxLimitRequestRatio", &limit.max_limit_request_ratio, errors);
    for name in &names {
        Bounds::new(limit, name).validate(name, path, errors);
    }
}

/// What a limit says of one resource.
struct Bounds<'a> {
    min: Option<&'a ApiQuantity>,
    max: Option<&'a ApiQuantity>,
    limit: Option<&'a ApiQuantity>,
    request: Option<&'a ApiQuantity>,
    ratio: Option<&'a ApiQuantity>,
}

/// Two amounts that are there, where the first is the greater one.
fn above<'a>(low: Option<&'a ApiQuantity>, high: Option<&'a ApiQuantity>) -> Option<(&'a str, &'a str)> {
    let (low, high) = (low?, high?);
    (amount(low) > amount(high)).then_some((low.0.as_str(), high.0.as_str()))
}

impl<'a> Bounds<'a> {
    fn new(item: &'a LimitRangeItem, name: &str) -> Self {
        let of = |amounts: &'a Option<Amounts>| amounts.as_ref().and_then(|amounts| amounts.get(name));
        // Pods have no defaults; those that stand there are refused already.
        let default = |amounts: &'a Option<Amounts>| of(amounts).filter(|_| item.type_ != "Pod");
        Self {
            min: of(&item.min),
            max: of(&item.max),
            limit: default(&item.default),
            request: default(&item.default_request),
            ratio: of(&item.max_limit_request_ratio),
        }
    }

    fn validate(&self, name: &str, path: &Path, errors: &mut Errors) {
        let mut refuse = |field: &str, value: &str, detail: String| {
            errors.push(Error::invalid(&path.child(field).key(name), value, detail));
        };
        if let Some((min, max)) = above(self.min, self.max) {
            refuse("min", min, format!("min value {min} is greater than max value {max}"));
        }
        if let Some((min, request)) = above(self.min, self.request) {
            refuse("defaultRequest", request, format!("min value {min} is greater than default request value {request}"));
        }
        if let Some((request, max)) = above(self.request, self.max) {
            refuse("defaultRequest", request, format!("default request value {request} is greater than max value {max}"));
        }
        if let Some((request, limit)) = above(self.request, self.limit) {
            let detail = format!("default request value {request} is greater than default limit value {limit}");
            refuse("defaultRequest", request, detail);
        }
        if let Some((min, limit)) = above(self.min, self.limit) {
            refuse("default", min, format!("min value {min} is greater than default value {limit}"));
        }
        if let Some((limit, max)) = above(self.limit, self.max) {
            refuse("default", max, format!("default value {limit} is greater than max value {max}"));
        }
        self.validate_ratio(&mut refuse);
        match (self.limit, self.request) {
            (Some(limit), Some(request)) if !may_overcommit(name) && amount(limit) != amount(request) => {
                let detail = format!("default value {} must equal to defaultRequest value {} in {name}", limit.0, request.0);
                refuse("defaultRequest", &request.0, detail);
            }
            _ => {}
        }
    }

    fn validate_ratio(&self, refuse: &mut impl FnMut(&str, &str, String)) {
        let Some(ratio) = self.ratio else { return };
        if amount(ratio) < Quantity::from_units(1, apimachinery::quantity::Format::DecimalSi) {
            refuse("maxLimitRequestRatio", &ratio.0, format!("ratio {} is less than 1", ratio.0));
        }
        let (Some(min), Some(max)) = (self.min, self.max) else { return };
        let most = amount(max).as_f64() / amount(min).as_f64();
        if amount(ratio).as_f64() > most {
            refuse("maxLimitRequestRatio", &ratio.0, format!("ratio {} is greater than max/min = {most:.6}", ratio.0));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn range(limits: Value) -> Value {
        let mut object = json!({"spec": {"limits": limits}});
        LimitRange::apply_defaults(&mut object);
        object
    }

    #[track_caller]
    fn check(limit: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        serde_json::from_value::<LimitRange>(range(json!([limit]))).unwrap().validate(&mut errors);
        let expected: Vec<_> = expected.iter().map(|text| format!("spec.limits[0].{text}")).collect();
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{limit}");
    }

    #[test]
    fn defaults_follow_the_bounds() {
        let limit = range(json!([{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1", "memory": "1Mi"}}]));
        let limit = &limit["spec"]["limits"][0];
        assert_eq!((&limit["default"], &limit["defaultRequest"]), (&json!({"cpu": "2"}), &json!({"cpu": "2", "memory": "1Mi"})));
        let pod = range(json!([{"type": "Pod", "max": {"cpu": "2"}}]));
        assert_eq!(pod["spec"]["limits"][0], json!({"type": "Pod", "max": {"cpu": "2"}}));
    }

    #[test]
    fn types_and_names() {
        check(json!({"type": "thirdparty.com/foo", "max": {"memory": "1Gi"}}), &[]);
        check(json!({"type": "Thing"}), &["type: Invalid value: \"Thing\": must be a standard limit type or fully qualified"]);
        check(
            json!({"type": "Container", "max": {"pods": "1"}}),
            &[
                "max[pods]: Invalid value: \"pods\": must be a standard resource for containers",
                "default[pods]: Invalid value: \"pods\": must be a standard resource for containers",
                "defaultRequest[pods]: Invalid value: \"pods\": must be a standard resource for containers",
            ],
        );
        check(
            json!({"type": "Pod", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}}),
            &[
                "default: Forbidden: may not be specified when `type` is 'Pod'",
                "defaultRequest: Forbidden: may not be specified when `type` is 'Pod'",
            ],
        );
        check(
            json!({"type": "PersistentVolumeClaim", "max": {"cpu": "1"}}),
            &["limits: Required value: either minimum or maximum storage value is required, but neither was provided"],
        );
        let mut errors = Errors::new();
        let twice = range(json!([{"type": "Pod"}, {"type": "Pod"}]));
        serde_json::from_value::<LimitRange>(twice).unwrap().validate(&mut errors);
        assert_eq!(errors.to_string(), "spec.limits[1].type: Duplicate value: \"Pod\"");
    }

    #[test]
    fn bounds() {
        check(
            json!({"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}}),
            &["min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"],
        );
        check(
            json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m"}, "default": {"cpu": "2"}, "defaultRequest": {"cpu": "10m"}}),
            &[
                "defaultRequest[cpu]: Invalid value: \"10m\": min value 100m is greater than default request value 10m",
                "default[cpu]: Invalid value: \"1\": default value 2 is greater than max value 1",
            ],
        );
        check(
            json!({"type": "Container", "default": {"memory": "1Mi"}, "defaultRequest": {"memory": "2Mi"}}),
            &[
                "defaultRequest[memory]: Invalid value: \"2Mi\": default request value 2Mi is greater than default limit value 1Mi",
            ],
        );
        check(
            json!({"type": "Container", "default": {"example.com/gpu": "2"}, "defaultRequest": {"example.com/gpu": "1"}}),
            &[
                "defaultRequest[example.com/gpu]: Invalid value: \"1\": default value 2 must equal to defaultRequest value 1 in example.com/gpu",
            ],
        );
        check(
            json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "800m"}}),
            &["maxLimitRequestRatio[cpu]: Invalid value: \"800m\": ratio 800m is less than 1"],
        );
        check(
            json!({"type": "Pod", "max": {"memory": "2Gi"}, "min": {"memory": "512Mi"}, "maxLimitRequestRatio": {"memory": "10"}}),
            &["maxLimitRequestRatio[memory]: Invalid value: \"10\": ratio 10 is greater than max/min = 4.000000"],
        );
    }
}

//! PodTolerationRestriction, where it is enabled: pods get the tolerations of their namespace, and may have those only that its list allows.
//! Annotations of the namespace say both, also by being empty; the configuration says what counts where there are none.

use apimachinery::field::{Errors, Path};
use apimachinery::{Status, meta};
use async_trait::async_trait;
use codec::Decode as _;
use k8s_openapi::api::core::v1::PodSpec;
use pods::qos::Qos;
use registry::{Admission, Operation, Request};
use serde_json::{Value, json};

use super::{POD_TOLERATION_RESTRICTION, failed, is, list_mut, namespace_of, text};

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const WHITELIST: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";
const VERSION: &str = "podtolerationrestriction.admission.k8s.io/v1alpha1";

/// What counts in namespaces that say nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Configuration {
    defaults: Vec<Value>,
    whitelist: Vec<Value>,
}

impl Configuration {
    pub(super) fn parse(value: &Value) -> Result<Self, String> {
        if value["apiVersion"] != VERSION || value["kind"] != "Configuration" {
            return Err(format!("it is not a Configuration of {VERSION}"));
        }
        Ok(Self { defaults: list(&value["default"], "default")?, whitelist: list(&value["whitelist"], "whitelist")? })
    }
}

/// A list of valid tolerations.
fn list(value: &Value, field: &'static str) -> Result<Vec<Value>, String> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let spec = PodSpec::from_tree(&json!({"containers": [], "tolerations": value})).map_err(|why| format!("{field}: {why}"))?;
    let mut errors = Errors::new();
    kinds::validate_tolerations(spec.tolerations.as_deref().unwrap_or_default(), &Path::new(field), &mut errors);
    match errors.is_empty() {
        true => Ok(value.as_array().cloned().unwrap_or_default()),
        false => Err(errors.to_string()),
    }
}

pub(super) struct PodTolerationRestriction(pub(super) Configuration);

#[async_trait]
impl Admission for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        POD_TOLERATION_RESTRICTION
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "pods") && a.subresource.is_empty() && matches!(a.operation, Operation::Create | Operation::Update)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let namespace = namespace_of(a).await?;
        let mut more = match a.operation {
            Operation::Create => said(&namespace, DEFAULTS)?.unwrap_or_else(|| self.0.defaults.clone()),
            _ => Vec::new(),
        };
        if a.object().is_some_and(|pod| Qos::of_object(pod) != Qos::BestEffort) {
            more.push(json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}));
        }
        let Some(pod) = a.object_mut().filter(|_| !more.is_empty()) else { return self.check(a, &namespace) };
        if let Some(own) = pod.get_mut("spec").and_then(|spec| list_mut(spec, "tolerations")) {
            own.append(&mut more);
            *own = merged(own);
        }
        self.check(a, &namespace)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        self.check(a, &namespace_of(a).await?)
    }
}

impl PodTolerationRestriction {
    fn check(&self, a: &Request<'_>, namespace: &Value) -> Result<(), Status> {
        let own = a.object().and_then(|pod| pod.pointer("/spec/tolerations")).and_then(Value::as_array);
        let Some(own) = own.filter(|own| !own.is_empty()) else { return Ok(()) };
        let (whitelist, whose) = match said(namespace, WHITELIST)? {
            Some(whitelist) => (whitelist, "namespace"),
            None => (self.0.whitelist.clone(), "cluster"),
        };
        if permits(&whitelist, own) {
            return Ok(());
        }
        let what = "pod tolerations (possibly merged with namespace default tolerations)";
        Err(failed(format!("{what} conflict with its {whose} whitelist")))
    }
}

/// What an annotation of the namespace says; nothing is said where it is missing.
fn said(namespace: &Value, annotation: &str) -> Result<Option<Vec<Value>>, Status> {
    match meta::annotation(namespace, annotation) {
        None => Ok(None),
        Some("") => Ok(Some(Vec::new())),
        Some(text) => {
            let value: Value = serde_json::from_str(text).map_err(failed)?;
            PodSpec::from_tree(&json!({"containers": [], "tolerations": value})).map_err(failed)?;
            Ok(Some(value.as_array().cloned().unwrap_or_default()))
        }
    }
}

/// Whether each of them is covered by one that is allowed; an empty list allows all.
fn permits(whitelist: &[Value], own: &[Value]) -> bool {
    whitelist.is_empty() || own.iter().all(|one| whitelist.iter().any(|allowed| covers(allowed, one)))
}

/// Without those that another one covers; of two that say the same, the first stays.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (index, one) in all.iter().enumerate() {
        let is_wider = |later: &Value| covers(later, one) && !covers(one, later);
        if !merged.iter().any(|before| covers(before, one)) && !all[index + 1..].iter().any(is_wider) {
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether a toleration tolerates whatever the other one does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    let operator = |one| match text(one, "/operator") {
        "" => "Equal",
        operator => operator,
    };
    let seconds = |one: &Value| one["tolerationSeconds"].as_i64();
    let same = |field: &str| text(wide, field) == text(narrow, field);
    let (key, effect) = (text(wide, "/key"), text(wide, "/effect"));
    let operator_of_wide = operator(wide);
    if !(same("/key") || key.is_empty() && operator_of_wide == "Exists") || !same("/effect") && !effect.is_empty() {
        return false;
    }
    if let (Some(most), "NoExecute") = (seconds(wide), effect)
        && seconds(narrow).is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    operator_of_wide == "Exists" || operator_of_wide == operator(narrow) && same("/value")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `KEY[=VALUE][:EFFECT[:SECONDS]]`; a key of `*` stands for all.
    fn toleration(text: &str) -> Value {
        let mut parts = text.split(':');
        let (key, value) = parts
            .next()
            .unwrap_or_default()
            .split_once('=')
            .map_or((text.split(':').next(), None), |(key, value)| (Some(key), Some(value)));
        let mut toleration = json!({"operator": if value.is_some() { "Equal" } else { "Exists" }});
        if let Some(key) = key.filter(|key| *key != "*") {
            toleration["key"] = key.into();
        }
        let seconds = |text: &str| text.parse::<i64>().ok();
        for (field, value) in [
            ("value", value.map(Value::from)),
            ("effect", parts.next().map(Value::from)),
            ("tolerationSeconds", parts.next().and_then(seconds).map(Value::from)),
        ] {
            if let Some(value) = value {
                toleration[field] = value;
            }
        }
        toleration
    }

    fn all(texts: &[&str]) -> Vec<Value> {
        texts.iter().map(|text| toleration(text)).collect()
    }

    /// Upstream's table of supersets (pkg/util/tolerations, TestIsSuperset).
    #[test]
    fn what_covers_what() {
        let every = [
            "*",
            "*:NoSchedule",
            "*:NoExecute",
            "foo",
            "foo=bar",
            "foo:NoSchedule",
            "foo=bar:NoSchedule",
            "foo=baz:NoSchedule",
            "faz:NoSchedule",
            "foo:NoExecute",
            "foo=bar:NoExecute",
            "foo:NoExecute:10",
            "foo:NoExecute:0",
            "foo=bar:NoExecute:10",
        ];
        let check = |wide: &str, expected: &[&str]| {
            let found: Vec<&str> = every.into_iter().filter(|narrow| covers(&toleration(wide), &toleration(narrow))).collect();
            assert_eq!(found, expected, "{wide}");
        };
        check("*", &every);
        check("*:NoSchedule", &["*:NoSchedule", "foo:NoSchedule", "foo=bar:NoSchedule", "foo=baz:NoSchedule", "faz:NoSchedule"]);
        let foo = |text: &&&str| text.starts_with("foo");
        check("foo", &every.iter().filter(foo).copied().collect::<Vec<_>>());
        check("foo=bar", &["foo=bar", "foo=bar:NoSchedule", "foo=bar:NoExecute", "foo=bar:NoExecute:10"]);
        check(
            "foo:NoExecute",
            &["foo:NoExecute", "foo=bar:NoExecute", "foo:NoExecute:10", "foo:NoExecute:0", "foo=bar:NoExecute:10"],
        );
        check("foo:NoExecute:10", &["foo:NoExecute:10", "foo:NoExecute:0", "foo=bar:NoExecute:10"]);
        check("foo:NoExecute:0", &["foo:NoExecute:0"]);
        check("foo=bar:NoExecute:10", &["foo=bar:NoExecute:10"]);
        // Without an operator it is Equal.
        assert!(covers(&json!({"key": "foo", "value": "bar"}), &toleration("foo=bar")));
        assert!(covers(&toleration("foo=bar"), &json!({"key": "foo", "value": "bar"})));
    }

    /// Upstream's table (TestMergeTolerations).
    #[test]
    fn merging() {
        let check = |both: &[&str], expected: &[&str]| assert_eq!(merged(&all(both)), all(expected), "{both:?}");
        check(&[], &[]);
        check(&["foo:NoSchedule", "foo:NoExecute:10"], &["foo:NoSchedule", "foo:NoExecute:10"]);
        check(&["foo=bar", "foo=bar"], &["foo=bar"]);
        check(&["foo=bar", "foo=baz"], &["foo=bar", "foo=baz"]);
        check(&["foo=bar", "foo=baz", "foo"], &["foo"]);
        check(&["*", "foo", "faz:NoSchedule"], &["*"]);
        check(&["foo:NoExecute:10", "foo:NoExecute"], &["foo:NoExecute"]);
    }

    /// Upstream's table (TestVerifyAgainstWhitelist).
    #[test]
    fn what_is_allowed() {
        let check = |own: &[&str], whitelist: &[&str], expected: bool| {
            assert_eq!(permits(&all(whitelist), &all(own)), expected, "{own:?} {whitelist:?}");
        };
        check(&["foo"], &[], true);
        check(&[], &["foo"], true);
        check(&["foo:NoSchedule", "foo=bar"], &["foo"], true);
        check(&["foo"], &["foo=bar"], false);
        check(&["foo", "faz:NoSchedule"], &["foo"], false);
    }

    #[test]
    fn configurations() {
        let check = |lists: Value, expected: Result<[usize; 2], &str>| {
            let mut value = json!({"apiVersion": VERSION, "kind": "Configuration"});
            value.as_object_mut().into_iter().for_each(|map| map.extend(lists.as_object().cloned().unwrap_or_default()));
            let found = Configuration::parse(&value).map(|found| [found.defaults.len(), found.whitelist.len()]);
            assert_eq!(found, expected.map_err(str::to_owned), "{value}");
        };
        check(json!({}), Ok([0, 0]));
        check(json!({"default": all(&["foo"]), "whitelist": all(&["foo", "faz=1"])}), Ok([1, 2]));
        check(json!({"kind": "Other"}), Err("it is not a Configuration of podtolerationrestriction.admission.k8s.io/v1alpha1"));
        assert!(
            Configuration::parse(&json!({"apiVersion": VERSION, "kind": "Configuration", "default": [{"operator": "Equal"}]}))
                .is_err()
        );
        assert!(Configuration::parse(&json!({"apiVersion": VERSION, "kind": "Configuration", "default": [{"key": 1}]})).is_err());
    }

    /// An annotation that is empty says that there are none (release note of v1.9).
    #[test]
    fn annotations() {
        let check = |annotation: Value, expected: Result<Option<usize>, u16>| {
            let namespace = json!({"metadata": {"annotations": annotation}});
            assert_eq!(
                said(&namespace, DEFAULTS).map(|found| found.map(|list| list.len())).map_err(|status| status.code),
                expected
            );
        };
        check(Value::Null, Ok(None));
        check(json!({DEFAULTS: ""}), Ok(Some(0)));
        check(json!({DEFAULTS: "[]"}), Ok(Some(0)));
        check(json!({DEFAULTS: r#"[{"key": "foo"}]"#}), Ok(Some(1)));
        check(json!({DEFAULTS: "{"}), Err(500));
        check(json!({DEFAULTS: r#"[{"key": 1}]"#}), Err(500));
    }
}

//! PodTolerationRestriction, where it is enabled: pods get the tolerations of their namespace, and may have those only that its list allows.
//! Annotations of the namespace say both, also by being empty; the configuration says what counts where there are none.

use std::collections::{HashMap, HashSet};

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
    let allowed = Cover::of(whitelist);
    whitelist.is_empty() || own.iter().all(|one| allowed.covers(one))
}

/// Without those that another one covers; of two that say the same, the first stays.
pub(super) fn merged(all: &[Value]) -> Vec<Value> {
    let cover = Cover::of(all);
    let (mut seen, mut merged) = (HashSet::new(), Vec::new());
    for one in all {
        let (class, reach) = (Class::of(one), Reach::of(one));
        let is_widest =
            cover.0.get(&class) == Some(&reach) && class.wider().all(|wider| wider == class || !cover.has(&wider, reach));
        if is_widest && seen.insert(class) {
            merged.push(one.clone());
        }
    }
    merged
}

/// Tolerations that differ in nothing but how long they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Class<'a> {
    key: &'a str,
    effect: &'a str,
    /// Operator and value; none is any value.
    value: Option<(&'a str, &'a str)>,
}

impl<'a> Class<'a> {
    fn of(toleration: &'a Value) -> Self {
        let value = match text(toleration, "/operator") {
            "Exists" => None,
            "" => Some("Equal"),
            operator => Some(operator),
        };
        let value = value.map(|operator| (operator, text(toleration, "/value")));
        Self { key: text(toleration, "/key"), effect: text(toleration, "/effect"), value }
    }

    /// Those that tolerate whatever these do: these, of any value, of any effect, and of any key and value.
    fn wider(self) -> impl Iterator<Item = Self> {
        let of_effect = move |effect| {
            let any = Self { effect, value: None, ..self };
            [Self { effect, ..self }, any, Self { key: "", ..any }]
        };
        [self.effect, ""].into_iter().flat_map(of_effect)
    }
}

/// How long a pod stays: the number of seconds counts for one effect only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Seconds(i64),
    Always,
}

impl Reach {
    fn of(toleration: &Value) -> Self {
        let seconds = toleration["tolerationSeconds"].as_i64().filter(|_| text(toleration, "/effect") == "NoExecute");
        seconds.map_or(Self::Always, Self::Seconds)
    }
}

/// What tolerations tolerate together. A pod may have more of them than can be compared each with each.
struct Cover<'a>(HashMap<Class<'a>, Reach>);

impl<'a> Cover<'a> {
    fn of(tolerations: &'a [Value]) -> Self {
        let mut cover = HashMap::new();
        for one in tolerations {
            let known = cover.entry(Class::of(one)).or_insert(Reach::Seconds(i64::MIN));
            *known = Reach::of(one).max(*known);
        }
        Self(cover)
    }

    fn has(&self, class: &Class<'_>, reach: Reach) -> bool {
        self.0.get(class).is_some_and(|known| *known >= reach)
    }

    /// Whether one of them tolerates whatever this one does.
    fn covers(&self, one: &Value) -> bool {
        Class::of(one).wider().any(|class| self.has(&class, Reach::of(one)))
    }
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

    fn covers(wide: &Value, narrow: &Value) -> bool {
        Cover::of(std::slice::from_ref(wide)).covers(narrow)
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
        check(&["foo:NoExecute", "foo:NoExecute:10"], &["foo:NoExecute"]);
        check(&["foo:NoExecute:10", "foo:NoExecute:20", "foo:NoExecute:20"], &["foo:NoExecute:20"]);
        check(&["foo", "foo=bar:NoExecute:10", "*:NoExecute"], &["foo", "*:NoExecute"]);
        check(&["foo=bar:NoExecute", "*:NoExecute:5"], &["foo=bar:NoExecute", "*:NoExecute:5"]);
    }

    /// As many as a request has room for.
    #[test]
    fn many_take_no_longer_than_they_are_many() {
        let one = |number| json!({"key": "k", "operator": "Equal", "value": format!("v{number}"), "effect": "NoSchedule"});
        let many: Vec<Value> = (0..25_000).map(one).collect();
        let begin = std::time::Instant::now();
        assert_eq!(merged(&many).len(), many.len());
        assert!(permits(&many, &many));
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "each was compared with each: {:?}", begin.elapsed());
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

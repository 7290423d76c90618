//! Priority: from a class's name to its number (KEP-564).

use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::current::{Current, Item};
use super::{creates_pod, forbidden, is, text};

const GROUP: &str = "scheduling.k8s.io";
const MIRROR: &str = "kubernetes.io/config.mirror";
const NODE_CRITICAL: i64 = 2_000_001_000;
/// The cluster's own classes, without which its own pods could not be made again (upstream: `registry/scheduling/priorityclass/storage`).
const OWN: [&str; 2] = ["system-node-critical", "system-cluster-critical"];

pub(super) struct Priority {
    classes: Current<Class>,
}

/// What a PriorityClass says.
struct Class {
    value: i64,
    policy: String,
    is_default: bool,
}

impl Priority {
    pub(super) fn new() -> Self {
        let make = |_: &str, class: &Value| Class {
            value: class["value"].as_i64().unwrap_or(0),
            policy: text(class, "/preemptionPolicy").to_owned(),
            is_default: class["globalDefault"] == true,
        };
        Self { classes: Current::of(GROUP, "priorityclasses", make) }
    }
}

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, "", "pods") && a.subresource.is_empty() && matches!(a.operation, Operation::Create | Operation::Update)
            || is(a, GROUP, "priorityclasses")
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if is(a, "", "pods") && a.operation == Operation::Update {
            keep(a);
            return Ok(());
        }
        if !creates_pod(a) {
            return Ok(());
        }
        let Some(pod) = a.object() else { return Ok(()) };
        let mut name = text(pod, "/spec/priorityClassName").to_owned();
        if name.is_empty() && meta::annotation(pod, MIRROR).is_some() && pod.pointer("/spec/priority").is_none() {
            name = "system-node-critical".into();
        }
        let classes = self.classes.get(a.registry);
        let class = match name.as_str() {
            "" => default_class(&classes),
            name => Some(
                classes
                    .iter()
                    .find(|class| class.name == name)
                    .ok_or_else(|| forbidden(a, format!("no PriorityClass with name {name} was found")))?,
            ),
        };
        let number = class.map_or(0, |class| class.value.value);
        let policy = class.map_or("", |class| class.value.policy.as_str());
        if let Some(given) = pod.pointer("/spec/priority").and_then(Value::as_i64).filter(|given| *given != number) {
            return Err(forbidden(
                a,
                format!(
                    "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {number} from the given PriorityClass name"
                ),
            ));
        }
        let Some(spec) = a.object_mut().and_then(|pod| pod.get_mut("spec")) else { return Ok(()) };
        if let Some(class) = class {
            spec["priorityClassName"] = class.name.as_str().into();
        }
        spec["priority"] = number.into();
        if spec.get("preemptionPolicy").is_none_or(Value::is_null) {
            spec["preemptionPolicy"] = if policy.is_empty() { "PreemptLowerPriority".into() } else { policy.into() };
        }
        Ok(())
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        if a.operation == Operation::Delete && is(a, GROUP, "priorityclasses") && OWN.contains(&a.name) {
            return Err(forbidden(a, "this is a system priority class and cannot be deleted"));
        }
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        let Some(class) = a.object().filter(|_| writes && is(a, GROUP, "priorityclasses")) else { return Ok(()) };
        let name = meta::name(class);
        if class["value"].as_i64().is_some_and(|value| value > NODE_CRITICAL) {
            return Err(forbidden(a, format!("the value must not be larger than {NODE_CRITICAL}")));
        }
        if class["globalDefault"] != true {
            return Ok(());
        }
        match default_class(&self.classes.get(a.registry)).map(|class| class.name.as_str()) {
            Some(other) if other != name => {
                Err(forbidden(a, format!("PriorityClass {other} is already marked as default. Only one default can exist")))
            }
            _ => Ok(()),
        }
    }
}

/// The global default; the lowest, should there be several.
fn default_class(classes: &[Item<Class>]) -> Option<&Item<Class>> {
    classes.iter().filter(|class| class.value.is_default).min_by_key(|class| class.value.value)
}

/// An update that leaves the priority out keeps it.
fn keep(a: &mut Request<'_>) {
    let Some(old) = a.old.and_then(|old| old.get("spec")) else { return };
    let Some(spec) = a.object_mut().and_then(|pod| pod.get_mut("spec")) else { return };
    for key in ["priority", "preemptionPolicy"] {
        if let (true, Some(value)) = (spec.get(key).is_none_or(Value::is_null), old.get(key)) {
            spec[key] = value.clone();
        }
    }
}

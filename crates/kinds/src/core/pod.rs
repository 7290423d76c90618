//! Pod, the kind that everything else is about.

mod app_armor;
mod columns;
mod defaults;
pub(crate) mod diff;
mod label_keys;
mod resize;
mod status;
mod update;
mod validate;
mod warnings;

use apimachinery::field::Errors;
use k8s_openapi::api::core::v1::Pod;
use pods::qos::Qos;
use pods::state::is_last_phase;
use serde_json::{Value, json};

pub(crate) use defaults::default_template;
pub(crate) use warnings::{new_label, of_name, of_template, renamed_label};

pub use validate::tolerations;
pub(crate) use validate::{
    PROTOCOLS, TAINT_EFFECTS, host_path, node_selector, validate_overhead, validate_template, validate_template_metadata,
    validate_template_pod,
};

use crate::columns::Column;
use crate::def::KindDef;
use crate::sub::{Action, Connect, Sub};
use crate::typed::Kind;
use crate::util::{keep_all_but_part, set_default, text};
use crate::verb::VerbSet;

impl Kind for Pod {
    const DEF: KindDef = KindDef::new("", "v1", "Pod", "pods", "pod")
        .short(&["po"])
        .in_all()
        .generation()
        .returns_deleted()
        .status_reads(status::READS)
        .subresources(&[
            Sub::connect("attach", Some(("", "v1", "PodAttachOptions")), Connect::Attach),
            Sub::action("binding", ("", "v1", "Binding"), Action::Bind),
            Sub::part("ephemeralcontainers", VerbSet::PART, |pod, old| {
                keep_all_but_part(pod, old, "spec", "ephemeralContainers");
            }),
            Sub::action("eviction", ("policy", "v1", "Eviction"), Action::Evict).accepting(&["policy/v1beta1"]),
            Sub::connect("exec", Some(("", "v1", "PodExecOptions")), Connect::Exec),
            Sub::connect("log", None, Connect::Log),
            Sub::connect("portforward", Some(("", "v1", "PodPortForwardOptions")), Connect::PortForward),
            Sub::connect("proxy", Some(("", "v1", "PodProxyOptions")), Connect::Proxy),
            Sub::part("resize", VerbSet::PART, resize::confine),
            Sub::STATUS,
        ]);
    const SELECTABLE: &'static [&'static str] = &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ];

    fn field(object: &Value, name: &'static str) -> String {
        match name {
            "spec.hostNetwork" => object.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or(false).to_string(),
            "status.podIPs" => text(object, "/status/podIP").to_owned(),
            _ => name
                .split('.')
                .try_fold(object, |place, name| place.get(name))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
        }
    }

    fn apply_defaults(object: &mut Value) {
        defaults::default_pod(object);
    }

    fn prepare_create(object: &mut Value) {
        let class = Qos::of_object(object).name();
        object["status"] = json!({"phase": "Pending", "qosClass": class});
        if object.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
            object["status"]["conditions"] = json!([gated()]);
        }
        app_armor::from_annotations(object);
        label_keys::merge(object);
    }

    fn prepare_update(object: &mut Value, old: &Value) {
        let Some(ephemeral) = old.pointer("/spec/ephemeralContainers").cloned() else { return };
        if let Some(spec) = object.get_mut("spec") {
            spec["ephemeralContainers"] = ephemeral;
        }
    }

    /// The class of service is set once, by the server; a writer that does not know it leaves it as it is, and so what was observed.
    fn prepare_status(object: &mut Value, old: &Value) {
        if let Some(class) = old.pointer("/status/qosClass") {
            set_default(&mut object["status"], "qosClass", class.clone());
        }
        status::keep_generations(object, old);
    }

    /// What the spec says unless the options say otherwise, none when nothing runs (Pod Lifecycle, "Termination of Pods").
    fn grace_seconds(object: &Value, asked: Option<i64>) -> i64 {
        let nothing_runs = text(object, "/spec/nodeName").is_empty() || is_last_phase(text(object, "/status/phase"));
        if nothing_runs {
            return 0;
        }
        let spec = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
        let grace = asked.unwrap_or(spec);
        // A negative period has always meant the shortest one.
        if grace < 0 { 1 } else { grace }
    }

    fn validate(&self, errors: &mut Errors) {
        validate::validate_pod(self, errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        validate::validate_new_pod(self, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        update::validate(self, old, errors);
    }

    fn validate_sub(&self, sub: &str, old: &Self, errors: &mut Errors) {
        match sub {
            "status" => status::validate(self, old, errors),
            "ephemeralcontainers" => {
                validate::validate_pod(self, errors);
                update::ephemeral_containers(self, old, errors);
            }
            "resize" => resize::validate(self, old, errors),
            _ => {}
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<_> = warnings::of_name(self.metadata.name.as_deref(), "the Pod's hostname").into_iter().collect();
        warnings.extend(self.spec.iter().flat_map(|spec| warnings::of_pod(spec, self.metadata.annotations.as_ref())));
        warnings
    }

    fn warnings_on_sub(&self, sub: &str) -> Vec<String> {
        if sub == "status" { status::warnings(self) } else { Vec::new() }
    }

    fn columns() -> &'static [Column<Self>] {
        columns::COLUMNS
    }

    fn row_conditions(object: &Value) -> Vec<Value> {
        columns::conditions(text(object, "/status/phase"))
    }
}

/// The condition of a pod that nobody schedules before its gates are gone (KEP-3521), as the server of upstream notes it.
fn gated() -> Value {
    json!({
        "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null, "lastTransitionTime": null,
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(spec: Value, expected: &str) {
        let mut pod = json!({"spec": spec});
        Pod::apply_defaults(&mut pod);
        Pod::prepare_create(&mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": expected}), "{pod}");
    }

    #[test]
    fn a_gated_pod_says_so() {
        let reason = |spec: Value| {
            let mut pod = json!({"spec": spec});
            Pod::prepare_create(&mut pod);
            pod.pointer("/status/conditions/0/reason").and_then(Value::as_str).map(str::to_owned)
        };
        assert_eq!(reason(json!({"schedulingGates": [{"name": "example.com/quota"}]})).as_deref(), Some("SchedulingGated"));
        assert_eq!(reason(json!({"schedulingGates": []})), None);
        assert_eq!(reason(json!({})), None);
    }

    /// Upstream's TestPodStatusUpdate cases of `preserveOldObservedGeneration`.
    #[test]
    fn what_was_observed_stays() {
        let check = |old: Value, new: Value, expected: Value| {
            let mut object = json!({"status": new});
            Pod::prepare_status(&mut object, &json!({"status": old}));
            assert_eq!(object["status"], expected);
        };
        let condition = |ty: &str, generation: Option<i64>| match generation {
            Some(generation) => json!({"type": ty, "observedGeneration": generation}),
            None => json!({"type": ty}),
        };
        check(json!({"observedGeneration": 3}), json!({}), json!({"observedGeneration": 3}));
        check(json!({"observedGeneration": 3}), json!({"observedGeneration": 0}), json!({"observedGeneration": 3}));
        check(json!({"observedGeneration": 3}), json!({"observedGeneration": 4}), json!({"observedGeneration": 4}));
        check(json!({}), json!({}), json!({}));
        let old = [condition("Ready", Some(1)), condition("Ready", Some(2)), condition("PodScheduled", Some(1))];
        let new =
            [condition("PodScheduled", None), condition("Ready", Some(5)), condition("Ready", None), condition("Other", None)];
        let expected = [
            condition("PodScheduled", Some(1)),
            condition("Ready", Some(5)),
            condition("Ready", Some(2)),
            condition("Other", None),
        ];
        check(json!({"conditions": old}), json!({"conditions": new}), json!({"conditions": expected}));
    }

    /// The class of a stored pod is that by which its kubelet treats it, as both ask the same rule.
    #[test]
    fn the_class_is_by_the_pods_own_resources_where_it_has_them() {
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let plain = json!([{"name": "c"}]);
        check(json!({"containers": plain}), "BestEffort");
        check(json!({"containers": [{"name": "c", "resources": limits}]}), "Guaranteed");
        check(json!({"containers": [{"name": "c", "resources": limits}, {"name": "d"}]}), "Burstable");
        check(json!({"containers": plain, "resources": limits}), "Guaranteed");
        check(json!({"containers": plain, "resources": {"requests": {"cpu": "1"}}}), "Burstable");
        check(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "0.0"}}}]}), "BestEffort");
    }
}

//! What may change in a pod once it exists.

use std::collections::{BTreeMap, HashMap, HashSet};

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{
    Affinity, Container, NodeAffinity, NodeSelectorTerm, Pod, PodSchedulingGate, PodSpec, Toleration,
};
use serde_json::{Value, json};

use super::diff;
use super::validate::{self, annotations as annotation};
use crate::rules::{self, list};

const FIELDS: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A running pod keeps its spec, but for images, deadlines and tolerations; a gated one may still narrow down its nodes.
pub(super) fn validate(pod: &Pod, old: &Pod, errors: &mut Errors) {
    annotations(pod, old, errors);
    let (Some(new), Some(old)) = (&pod.spec, &old.spec) else { return };
    let path = Path::new("spec");
    for (field, new, old) in [
        ("containers", &new.containers[..], &old.containers[..]),
        ("initContainers", list(&new.init_containers), list(&old.init_containers)),
    ] {
        if !containers(new, old, &path.child(field), errors) {
            return;
        }
    }
    if !deadline(new, old, &path.child("activeDeadlineSeconds"), errors) {
        return;
    }
    only_added_tolerations(list(&new.tolerations), list(&old.tolerations), &path.child("tolerations"), errors);
    only_removed_gates(list(&new.scheduling_gates), list(&old.scheduling_gates), &path.child("schedulingGates"), errors);
    if new == old {
        return;
    }
    let mut same = mutable_parts_of(old, new);
    if !list(&old.scheduling_gates).is_empty() {
        gated(&mut same, old, &path, errors);
    }
    if same != *old {
        let difference = diff::show(&json!(old), &json!(same));
        let detail = format!("pod updates may not change fields other than {FIELDS}\n{difference}");
        errors.push(Error::forbidden(&path, detail));
    }
}

/// `new` with everything that may change set back to how it was.
fn mutable_parts_of(old: &PodSpec, new: &PodSpec) -> PodSpec {
    let mut same = new.clone();
    let images = |new: &mut [Container], old: &[Container]| {
        for (new, old) in new.iter_mut().zip(old) {
            new.image.clone_from(&old.image);
        }
    };
    images(&mut same.containers, &old.containers);
    images(same.init_containers.as_deref_mut().unwrap_or_default(), list(&old.init_containers));
    same.active_deadline_seconds = old.active_deadline_seconds;
    same.scheduling_gates.clone_from(&old.scheduling_gates);
    same.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) && new.termination_grace_period_seconds == Some(1)
    {
        same.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    same
}

/// Says false where the lists differ so much that nothing else is worth saying.
fn containers(new: &[Container], old: &[Container], path: &Path, errors: &mut Errors) -> bool {
    if new.len() != old.len() {
        errors.push(Error::forbidden(path, "pod updates may not add or remove containers"));
        return false;
    }
    for (index, container) in new.iter().enumerate() {
        let path = path.index(index);
        rules::required(&path.child("image"), rules::text(&container.image), errors);
        validate::image_is_trimmed(container, &path, errors);
    }
    true
}

/// From none to some, and from some to less.
fn deadline(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(Error::invalid(path, new, names::range_error(0, i32::MAX.into())));
            return false;
        }
        (Some(new), Some(old)) if old < new => {
            errors.push(Error::invalid(path, new, "must be less than or equal to previous value"));
            return false;
        }
        (None, Some(_)) => {
            errors.push(Error::invalid(path, Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
    true
}

fn only_added_tolerations(new: &[Toleration], old: &[Toleration], path: &Path, errors: &mut Errors) {
    fn key(one: &Toleration) -> [&Option<String>; 4] {
        [&one.key, &one.operator, &one.value, &one.effect]
    }
    let kept: HashSet<_> = new.iter().map(key).collect();
    if !old.iter().all(|old| kept.contains(&key(old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return errors.push(Error::forbidden(path, detail));
    }
    validate::tolerations(new, path, errors);
}

fn only_removed_gates(new: &[PodSchedulingGate], old: &[PodSchedulingGate], path: &Path, errors: &mut Errors) {
    let old: HashSet<&str> = old.iter().map(|gate| gate.name.as_str()).collect();
    for (index, gate) in new.iter().enumerate().filter(|(_, gate)| !old.contains(gate.name.as_str())) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
        errors.push(Error::forbidden(&path.index(index).child("name"), detail));
    }
}

/// Directives for the scheduler of a pod that it may not place yet (KEP-3838): they may only get narrower.
fn gated(same: &mut PodSpec, old: &PodSpec, path: &Path, errors: &mut Errors) {
    if same.node_selector != old.node_selector {
        let none = BTreeMap::new();
        let new = same.node_selector.as_ref().unwrap_or(&none);
        if old.node_selector.iter().flatten().any(|(key, value)| new.get(key) != Some(value)) {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.push(Error::invalid(&path.child("nodeSelector"), json!(new), detail));
        }
        same.node_selector.clone_from(&old.node_selector);
    }
    let node_affinity = |spec: &PodSpec| spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
    let (new, was) = (node_affinity(same), node_affinity(old));
    if new == was {
        return;
    }
    narrower(new.as_ref(), was.as_ref(), &path.child("affinity.nodeAffinity"), errors);
    match (&mut same.affinity, &old.affinity) {
        (Some(affinity), None) if affinity.pod_affinity.is_none() && affinity.pod_anti_affinity.is_none() => same.affinity = None,
        (Some(affinity), _) => affinity.node_affinity = was,
        (None, _) => same.affinity = Some(Affinity { node_affinity: was, ..Affinity::default() }),
    }
}

fn narrower(new: Option<&NodeAffinity>, old: Option<&NodeAffinity>, path: &Path, errors: &mut Errors) {
    let terms = |affinity: Option<&NodeAffinity>| {
        let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.clone());
        required.map(|selector| selector.node_selector_terms).unwrap_or_default()
    };
    let (new, old) = (terms(new), terms(old));
    let path = path.child("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    if !old.is_empty() && old.len() != new.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.push(Error::invalid(&path, json!(new), detail));
    }
    for (index, (new, _)) in new.iter().zip(&old).enumerate().filter(|(_, (new, old))| !only_additions(new, old)) {
        let detail = "only additions are allowed (no mutations or deletions)";
        errors.push(Error::invalid(&path.index(index), json!(new), detail));
    }
}

fn only_additions(new: &NodeSelectorTerm, old: &NodeSelectorTerm) -> bool {
    let lists = |term: &NodeSelectorTerm| (list(&term.match_expressions).to_vec(), list(&term.match_fields).to_vec());
    let ((new_labels, new_fields), (old_labels, old_fields)) = (lists(new), lists(old));
    let nothing = old_labels.is_empty() && old_fields.is_empty();
    !(nothing && new_labels.len() + new_fields.len() > 0)
        && new_labels.starts_with(&old_labels)
        && new_fields.starts_with(&old_fields)
}

/// Annotations that say what a pod is.
pub(super) fn annotations(pod: &Pod, old: &Pod, errors: &mut Errors) {
    let path = Path::new("metadata.annotations");
    let fixed = |key: &str| match key {
        annotation::MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(annotation::APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    let (new, old) = (pod.metadata.annotations.as_ref(), old.metadata.annotations.as_ref());
    for (key, value) in old.into_iter().flatten() {
        if let Some(what) = fixed(key).filter(|_| new.and_then(|new| new.get(key)) != Some(value)) {
            errors.push(Error::forbidden(&path.key(key), format!("may not remove or update {what}")));
        }
    }
    for key in new.into_iter().flatten().map(|(key, _)| key) {
        if let Some(what) = fixed(key).filter(|_| !old.is_some_and(|old| old.contains_key(key))) {
            errors.push(Error::forbidden(&path.key(key), format!("may not add {what}")));
        }
    }
}

/// Ephemeral containers are added, never changed or taken away.
pub(super) fn ephemeral_containers(pod: &Pod, old: &Pod, errors: &mut Errors) {
    annotations(pod, old, errors);
    if old.metadata.annotations.as_ref().is_some_and(|old| old.contains_key(annotation::MIRROR)) {
        *errors = Errors::from(vec![Error::forbidden(&Path::root(), "static pods do not support ephemeral containers")]);
        return;
    }
    let of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.clone()).unwrap_or_default();
    let (new, path) = (of(pod), Path::new("spec.ephemeralContainers"));
    let by_name: HashMap<_, _> = new.iter().map(|new| (new.name.as_str(), new)).collect();
    for old in of(old) {
        let name = &old.name;
        match by_name.get(name.as_str()).copied() {
            None => {
                let detail = format!("existing ephemeral containers \"{name}\" may not be removed\n");
                errors.push(Error::forbidden(&path, detail));
            }
            Some(new) if *new != old => {
                let difference = diff::show(&json!(old), &json!(new));
                let detail = format!("existing ephemeral containers \"{name}\" may not be changed\n{difference}");
                errors.push(Error::forbidden(&path, detail));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pod(snippet: Value) -> Pod {
        let base =
            json!({"spec": {"containers": [{"name": "c", "image": "x:1"}], "tolerations": [{"key": "a", "operator": "Exists"}]}});
        serde_json::from_value(apimachinery::patch::merge(&base, &snippet).unwrap()).unwrap()
    }

    /// From one pod to another: these errors, or their beginnings.
    fn check(from: Value, to: Value, expected: &[&str]) {
        let mut errors = Errors::new();
        validate(&pod(to.clone()), &pod(from), &mut errors);
        let got: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            got.len() == expected.len() && got.iter().zip(expected).all(|(got, part)| got.starts_with(part)),
            "{to}: {got:?}"
        );
    }

    fn spec(spec: Value) -> Value {
        json!({"spec": spec})
    }

    #[test]
    fn what_may_change() {
        check(json!({}), spec(json!({"containers": [{"name": "c", "image": "x:2"}]})), &[]);
        check(json!({}), spec(json!({"activeDeadlineSeconds": 5})), &[]);
        check(
            json!({}),
            spec(json!({"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]})),
            &[],
        );
        check(spec(json!({"terminationGracePeriodSeconds": -1})), spec(json!({"terminationGracePeriodSeconds": 1})), &[]);
        check(spec(json!({"schedulingGates": [{"name": "a"}]})), json!({}), &[]);
    }

    #[test]
    fn what_may_not() {
        check(
            json!({}),
            spec(json!({"containers": [{"name": "c", "image": ""}]})),
            &["spec.containers[0].image: Required value"],
        );
        check(
            json!({}),
            spec(json!({"containers": []})),
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        );
        check(
            spec(json!({"activeDeadlineSeconds": 5})),
            spec(json!({"activeDeadlineSeconds": 6})),
            &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"],
        );
        check(
            spec(json!({"activeDeadlineSeconds": 5})),
            json!({}),
            &["spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"],
        );
        check(
            json!({}),
            spec(json!({"tolerations": []})),
            &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
        );
        check(
            json!({}),
            spec(json!({"schedulingGates": [{"name": "a"}]})),
            &["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a'"],
        );
        let changed = format!("spec: Forbidden: pod updates may not change fields other than {FIELDS}\n  {{\n");
        check(
            json!({}),
            spec(json!({"hostname": "h"})),
            &[&format!("{changed}+ \thostname: \"h\",\n  \t... // 2 identical fields\n  }}\n")],
        );
        check(json!({}), spec(json!({"terminationGracePeriodSeconds": 1})), &[&changed]);
    }

    #[test]
    fn gated_pods_get_narrower() {
        let gated = |more: Value| {
            let mut whole = json!({"schedulingGates": [{"name": "a"}], "nodeSelector": {"a": "b"}});
            whole.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec(whole)
        };
        let term = |keys: &[&str]| {
            let all: Vec<_> = keys.iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": all}]}}}})
        };
        check(gated(json!({})), gated(json!({"nodeSelector": {"a": "b", "c": "d"}})), &[]);
        check(
            gated(json!({})),
            gated(json!({"nodeSelector": {}})),
            &[
                "spec.nodeSelector: Invalid value: {}: only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            ],
        );
        check(gated(json!({})), gated(term(&["x"])), &[]);
        check(gated(term(&["x"])), gated(term(&["x", "y"])), &[]);
        let at = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        check(gated(term(&["x"])), gated(term(&["y"])), &[&format!("{at}[0]: Invalid value: {{")]);
        check(gated(term(&["x"])), gated(json!({})), &[&format!("{at}: Invalid value: []: no additions/deletions")]);
    }

    #[test]
    fn annotations_that_say_what_a_pod_is() {
        let mirror = |value: &str| json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": value}}});
        let at = "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not";
        check(mirror("a"), mirror("a"), &[]);
        check(mirror("a"), mirror("b"), &[&format!("{at} remove or update mirror pod annotation")]);
        check(json!({}), mirror("b"), &[&format!("{at} add mirror pod annotation")]);
    }

    #[test]
    fn ephemeral_containers_stay() {
        let of = |containers: Value| pod(spec(json!({"ephemeralContainers": containers})));
        let check = |new: Value, expected: &str| {
            let mut errors = Errors::new();
            ephemeral_containers(&of(new), &of(json!([{"name": "e", "image": "x"}])), &mut errors);
            assert_eq!(errors.to_string(), expected);
        };
        check(json!([{"name": "e", "image": "x"}, {"name": "f", "image": "y"}]), "");
        check(json!([]), "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n");
        check(
            json!([{"name": "e", "image": "y"}]),
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n  {\n- \timage: \"x\",\n+ \timage: \"y\",\n  \t... // 1 identical fields\n  }\n",
        );
    }
}

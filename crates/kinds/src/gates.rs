//! Fields whose feature gates are off in v1.36: they are dropped from new objects, and kept in those that have them already, as
//! upstream's strategies do (KEP-1693). What a gated field means is implemented nowhere here. Fields in lists are dropped by their kind.

use serde_json::Value;

use crate::def::KindDef;
use crate::util::remove;

/// Where a field stands.
enum Place {
    /// In specifications of pods, also in templates.
    PodSpecs,
    /// In the object at this pointer in objects of a kind.
    Of(&'static str, &'static str),
}

/// Each gated field with its place.
const GATED: &[(Place, &str)] = &[
    // GenericWorkload (KEP-4671).
    (Place::PodSpecs, "schedulingGroup"),
    // DRANodeAllocatableResources (KEP-5517).
    (Place::Of("Pod", "/status"), "nodeAllocatableResourceClaimStatuses"),
    // MaxUnavailableStatefulSet (KEP-961).
    (Place::Of("StatefulSet", "/spec/updateStrategy/rollingUpdate"), "maxUnavailable"),
    // VolumeLimitScaling (KEP-5030).
    (Place::Of("CSIDriver", "/spec"), "preventPodSchedulingIfMissing"),
    // CoordinatedLeaderElection (KEP-4355).
    (Place::Of("Lease", "/spec"), "strategy"),
    (Place::Of("Lease", "/spec"), "preferredHolder"),
];

/// Kinds that have specifications of pods, and where.
const POD_SPECS: &[(&str, &str)] = &[
    ("Pod", "/spec"),
    ("PodTemplate", "/template/spec"),
    ("CronJob", "/spec/jobTemplate/spec/template/spec"),
    ("DaemonSet", "/spec/template/spec"),
    ("Deployment", "/spec/template/spec"),
    ("Job", "/spec/template/spec"),
    ("ReplicaSet", "/spec/template/spec"),
    ("ReplicationController", "/spec/template/spec"),
    ("StatefulSet", "/spec/template/spec"),
];

/// Where a kind has gated fields.
fn fields(def: &KindDef) -> impl Iterator<Item = (&'static str, &'static str)> {
    let kind = def.kind.clone();
    GATED.iter().filter_map(move |(place, field)| {
        let pointer = match place {
            Place::PodSpecs => POD_SPECS.iter().find(|(one, _)| *one == kind).map(|(_, pointer)| *pointer),
            Place::Of(one, pointer) => (*one == kind).then_some(*pointer),
        };
        pointer.map(|pointer| (pointer, *field))
    })
}

/// Drops the gated fields that `old` has not; without `old` all of them.
pub(crate) fn drop_disabled(def: &KindDef, object: &mut Value, old: Option<&Value>) {
    for (pointer, field) in fields(def) {
        let is_used = old.and_then(|old| old.pointer(pointer)).is_some_and(|place| place.get(field).is_some());
        if let Some(place) = object.pointer_mut(pointer).filter(|_| !is_used) {
            remove(place, field);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use apimachinery::field::Errors;
    use schema::{Schema, Type, TypeId};
    use serde_json::json;

    use super::*;
    use crate::KINDS;

    fn object(pointer: &str, field: &str) -> Value {
        pointer.split('/').skip(1).collect::<Vec<_>>().iter().rfold(json!({field: "x"}), |inner, name| json!({*name: inner}))
    }

    /// KEP-1693 and API conventions, "Feature gates": a field of a gate that is off is dropped, unless the stored object has it.
    #[test]
    fn gated_fields_come_into_no_object() {
        let mut seen = 0;
        for strategy in KINDS {
            for (pointer, field) in fields(strategy.def()) {
                let with = || object(pointer, field);
                let has = |object: &Value| object.pointer(pointer).and_then(|place| place.get(field)).is_some();
                let status = pointer == "/status";
                let prepare = |mut new: Value, old: &Value| {
                    match status {
                        true => strategy.prepare_status(&mut new, old),
                        false => strategy.prepare_update(&mut new, old),
                    }
                    has(&new)
                };
                let mut new = with();
                strategy.prepare_create(&mut new);
                let found = (has(&new), prepare(with(), &json!({"spec": {}})), prepare(with(), &with()));
                assert_eq!(found, (false, false, true), "{} {pointer}/{field}", strategy.def().kind);
                seen += 1;
            }
        }
        assert_eq!(seen, GATED.len() - 1 + POD_SPECS.len());
    }

    fn at<'s>(schema: &'s Schema, id: TypeId, pointer: &str) -> Option<&'s schema::TypeDef> {
        let place = pointer.split('/').skip(1).try_fold(id, |id, name| match &schema.get(id).field(name)?.ty {
            Type::Struct(inner) => Some(*inner),
            _ => None,
        });
        place.map(|id| schema.get(id))
    }

    #[test]
    fn gated_fields_are_fields() {
        let schema = Schema::builtin();
        for strategy in KINDS {
            let (group, version, kind) = strategy.def().own_kind();
            for (pointer, field) in fields(strategy.def()) {
                let place = at(schema, schema.kind(group, version, kind).unwrap(), pointer).unwrap();
                assert!(place.field(field).is_some(), "{kind} {pointer}/{field}");
            }
        }
    }

    /// A rule that is younger than objects may be, in each kind with a specification of pods: what broke it before can be changed otherwise, and lose
    /// its finalizers.
    #[test]
    fn younger_rules_leave_old_objects_alone() {
        let signals = |errors: Errors| errors.iter().filter(|error| error.to_string().contains("stopSignal: ")).count();
        let mut seen = 0;
        for strategy in KINDS {
            for (_, pointer) in POD_SPECS.iter().filter(|(kind, _)| *kind == strategy.def().kind) {
                let object = |lifecycle: Value, label: &str| {
                    let spec = json!({"containers": [{"name": "c", "image": "i", "lifecycle": lifecycle}]});
                    let mut object =
                        pointer.split('/').skip(1).collect::<Vec<_>>().iter().rfold(spec, |inner, name| json!({*name: inner}));
                    object["metadata"] = json!({"name": "x", "namespace": "n", "labels": {"l": label}});
                    strategy.apply_defaults(&mut object);
                    object
                };
                let (old, new) = (object(json!({"stopSignal": "SIGFOO"}), "a"), object(json!({"stopSignal": "SIGFOO"}), "b"));
                let without = object(json!({}), "a");
                let created = signals(strategy.validate(&new, &mut Vec::new()));
                let updated = [
                    signals(strategy.validate_update(&new, &old, &mut Vec::new())),
                    // Templates that nobody may change say so besides.
                    signals(strategy.validate_update(&new, &without, &mut Vec::new())).min(1),
                ];
                assert_eq!(updated, [0, created], "{}", strategy.def().kind);
                // Sub-resources that look at the whole object.
                let subs = strategy.def().subresources.iter().map(|sub| sub.name);
                let of_subs: usize = subs.map(|sub| signals(strategy.validate_sub(sub, &new, &old, &mut Vec::new()))).sum();
                assert_eq!(of_subs, 0, "{}", strategy.def().kind);
                seen += created;
            }
        }
        assert_eq!(seen, POD_SPECS.len());
    }

    /// Pointers to specifications of pods below a type.
    fn pod_specs(schema: &Schema, id: TypeId, path: &str, depth: usize) -> Vec<String> {
        if schema.get(id).name.ends_with(".core.v1.PodSpec") {
            return vec![path.to_owned()];
        }
        let fields = schema.get(id).fields.iter().filter(|_| depth > 0);
        let below = fields.filter_map(|field| match &field.ty {
            Type::Struct(inner) => Some(pod_specs(schema, *inner, &format!("{path}/{}", field.name), depth - 1)),
            _ => None,
        });
        below.flatten().collect()
    }

    #[test]
    fn every_template_is_known() {
        let schema = Schema::builtin();
        for strategy in KINDS {
            let (group, version, kind) = strategy.def().own_kind();
            let Some(id) = schema.kind(group, version, kind) else { continue };
            let known: Vec<&str> = POD_SPECS.iter().filter(|(one, _)| *one == kind).map(|(_, pointer)| *pointer).collect();
            assert_eq!(pod_specs(schema, id, "", 6), known, "{kind}");
        }
    }
}

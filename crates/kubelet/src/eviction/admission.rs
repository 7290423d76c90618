//! Which pods are not let in while something is short. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Taint;

use super::message;
use super::signal::Condition;
use crate::pod::state::EVICTED;
use crate::resources::{Qos, qos};
use crate::spec::Model;

/// Lets the pod in, or gives the reason and message of its status. Critical pods come in always; others only while nothing but memory is
/// short, and of those the ones that asked for no resources only if they tolerate it.
pub fn admit(pod: &Model, conditions: &BTreeSet<Condition>) -> Result<(), (String, String)> {
    if conditions.is_empty() || pods::state::is_critical(&pod.pod) {
        return Ok(());
    }
    let only_memory = conditions.iter().all(|condition| *condition == Condition::Memory);
    if only_memory && (qos(pod) != Qos::BestEffort || tolerates(pod)) {
        return Ok(());
    }
    Err((EVICTED.to_owned(), message::of_conditions(conditions)))
}

fn tolerates(pod: &Model) -> bool {
    let key = "node.kubernetes.io/memory-pressure".to_owned();
    let taint = Taint { key, value: None, effect: "NoSchedule".to_owned(), time_added: None };
    pod.spec().tolerations.iter().flatten().any(|toleration| pods::tolerations::tolerates(toleration, &taint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(conditions: &[Condition], spec: Value, refused: Option<&str>) {
        let admitted = admit(&model(spec), &conditions.iter().copied().collect());
        assert_eq!(admitted.err(), refused.map(|message| ("Evicted".to_owned(), message.to_owned())));
    }

    #[test]
    fn under_memory_pressure_only_best_effort_pods_are_refused() {
        let memory = "The node had condition: [MemoryPressure]. ";
        let plain = || json!({"containers": [{"name": "a"}]});
        let asking = || json!({"containers": [{"name": "a", "resources": {"requests": {"memory": "1Mi"}}}]});
        check(&[], plain(), None);
        check(&[Condition::Memory], plain(), Some(memory));
        check(&[Condition::Memory], asking(), None);
        let mut tolerant = plain();
        tolerant["tolerations"] =
            json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]);
        check(&[Condition::Memory], tolerant.clone(), None);
        check(&[Condition::Disk], tolerant, Some("The node had condition: [DiskPressure]. "));
        check(&[Condition::Memory, Condition::Pid], asking(), Some("The node had condition: [MemoryPressure PIDPressure]. "));
    }

    #[test]
    fn critical_pods_come_in() {
        check(&[Condition::Disk], json!({"priority": 2_000_000_000, "containers": []}), None);
        check(
            &[Condition::Disk],
            json!({"priority": 1_999_999_999, "containers": []}),
            Some("The node had condition: [DiskPressure]. "),
        );
    }
}

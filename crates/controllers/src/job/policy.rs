//! What a failed pod means by the pod failure policy (KEP-3329), and when succeeded indexes are enough (KEP-3998). Pure.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
    SuccessPolicy,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

use super::indexes::Indexes;
use crate::meta;

/// What a failed pod does to its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The failure counts, as without a policy.
    Count,
    /// It does not count.
    Ignore,
    /// Its index has failed.
    FailIndex,
    /// The job has failed, for this reason.
    FailJob(String),
}

impl Verdict {
    pub(super) fn counts(&self) -> bool {
        *self != Verdict::Ignore
    }
}

/// What the first rule that fits says about a failed pod.
pub(super) fn verdict(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    rules.iter().enumerate().find_map(|(number, rule)| apply(rule, number, pod)).unwrap_or(Verdict::Count)
}

/// None when the rule does not fit the pod.
fn apply(rule: &PodFailurePolicyRule, number: usize, pod: &Pod) -> Option<Verdict> {
    let status = pod.status.as_ref()?;
    let (namespace, name) = (meta::namespace(pod), meta::name(pod));
    let why = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
        (Some(codes), _) => {
            let (container, code) = by_exit_code(status, codes)?;
            format!("Container {container} for pod {namespace}/{name} failed with exit code {code}")
        }
        (None, Some(patterns)) => {
            let condition = by_condition(status, patterns)?;
            format!("Pod {namespace}/{name} has condition {}", condition.type_)
        }
        (None, None) => return None,
    };
    match rule.action.as_str() {
        "Ignore" => Some(Verdict::Ignore),
        "Count" => Some(Verdict::Count),
        "FailIndex" => Some(Verdict::FailIndex),
        "FailJob" => Some(Verdict::FailJob(format!("{why} matching FailJob rule at index {number}"))),
        _ => None,
    }
}

/// The first container whose exit code fits, and that code.
fn by_exit_code<'a>(status: &'a PodStatus, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a str, i32)> {
    let fits = |container: &'a ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = wanted.container_name.as_ref().is_none_or(|name| *name == container.name);
        let listed = wanted.values.contains(&code);
        let matches = match wanted.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (named && code != 0 && matches).then_some((container.name.as_str(), code))
    };
    let containers = status.container_statuses.iter().flatten();
    containers.chain(status.init_container_statuses.iter().flatten()).find_map(fits)
}

fn by_condition<'a>(status: &'a PodStatus, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a PodCondition> {
    let fits = |condition: &&PodCondition, pattern: &PodFailurePolicyOnPodConditionsPattern| {
        condition.type_ == pattern.type_ && condition.status == pattern.status.as_deref().unwrap_or("True")
    };
    status.conditions.iter().flatten().find(|condition| patterns.iter().any(|pattern| fits(condition, pattern)))
}

/// The number of the rule that is met by the succeeded indexes.
pub(super) fn success(policy: &SuccessPolicy, completions: i32, succeeded: &Indexes) -> Option<usize> {
    if succeeded.is_empty() {
        return None;
    }
    policy.rules.iter().position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(wanted), count) => {
            let wanted = Indexes::parse(wanted, completions);
            let common = wanted.common(succeeded);
            !wanted.is_empty() && (common == wanted.count() || count.is_some_and(|count| common >= count))
        }
        (None, Some(count)) => succeeded.count() >= count,
        (None, None) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(rules: Value, status: Value, expected: Verdict) {
        let policy: PodFailurePolicy = object(json!({"rules": rules}));
        let pod: Pod = object(json!({"metadata": {"namespace": "a", "name": "p"}, "status": status}));
        assert_eq!(verdict(Some(&policy), &pod), expected);
    }

    fn exited(name: &str, code: i32) -> Value {
        json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code}}})
    }

    #[test]
    fn exit_codes() {
        let rule = |operator: &str, values: &[i32], action: &str, container: Option<&str>| {
            let codes = json!({"operator": operator, "values": values, "containerName": container});
            json!([{"action": action, "onExitCodes": codes}])
        };
        let failed = json!({"containerStatuses": [exited("c", 42)], "initContainerStatuses": [exited("i", 5)]});
        let why = "Container c for pod a/p failed with exit code 42 matching FailJob rule at index 0";
        check(rule("In", &[42], "FailJob", None), failed.clone(), Verdict::FailJob(why.into()));
        check(rule("In", &[5], "Ignore", None), failed.clone(), Verdict::Ignore);
        check(rule("In", &[5], "Ignore", Some("c")), failed.clone(), Verdict::Count);
        check(rule("NotIn", &[5], "FailIndex", Some("c")), failed.clone(), Verdict::FailIndex);
        check(rule("NotIn", &[42], "Ignore", Some("c")), failed, Verdict::Count);
        let well = json!({"containerStatuses": [exited("c", 0)]});
        check(rule("NotIn", &[42], "Ignore", None), well, Verdict::Count);
    }

    #[test]
    fn conditions_and_order() {
        let disrupted =
            json!({"conditions": [{"type": "DisruptionTarget", "status": "True"}], "containerStatuses": [exited("c", 1)]});
        let on = |action: &str, status: &str| json!({"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": status}]});
        let code = json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [1]}});
        check(json!([on("Ignore", "True"), code]), disrupted.clone(), Verdict::Ignore);
        check(json!([code, on("Ignore", "True")]), disrupted.clone(), Verdict::Count);
        check(json!([on("Ignore", "False")]), disrupted.clone(), Verdict::Count);
        let why = "Pod a/p has condition DisruptionTarget matching FailJob rule at index 1";
        check(json!([on("Ignore", "False"), on("FailJob", "True")]), disrupted, Verdict::FailJob(why.into()));
        check(json!([on("Ignore", "True")]), json!({}), Verdict::Count);
    }

    #[test]
    fn success_policies() {
        let check = |rules: Value, succeeded: &str, expected: Option<usize>| {
            let policy: SuccessPolicy = object(json!({"rules": rules}));
            assert_eq!(success(&policy, 10, &Indexes::parse(succeeded, 10)), expected, "{rules} {succeeded}");
        };
        check(json!([{"succeededIndexes": "0-9"}]), "0-8", None);
        check(json!([{"succeededIndexes": "0-9"}]), "0-9", Some(0));
        check(json!([{"succeededIndexes": "0,2"}]), "0-2", Some(0));
        check(json!([{"succeededCount": 3}, {"succeededIndexes": "1"}]), "1", Some(1));
        check(json!([{"succeededIndexes": "0-5", "succeededCount": 2}]), "3,5,9", Some(0));
        check(json!([{"succeededIndexes": "0-5", "succeededCount": 2}]), "3,9", None);
        check(json!([{"succeededCount": 0}]), "", None);
    }
}

//! Eviction of pods, as far as their disruption budgets allow it (KEP-85; API page "API-initiated Eviction").

use apimachinery::labels::Selector;
use apimachinery::status::Cause;
use apimachinery::{GroupResource, Reason, Status, meta, time};
use serde_json::{Value, json};
use store::Expect;

use crate::pipeline::Unwritten;
use crate::target::{How, Target};
use crate::verbs::{Admit, CONFLICT_ATTEMPTS};
use crate::{Context, DeleteOptions, ListOptions, Operation, Registry, Served};

/// Most pods of one budget that are on their way and not seen gone yet.
const MAX_DISRUPTED: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What an eviction comes to.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// The pod does not count: it is deleted in the state in which that was seen.
    DeleteUnchanged,
    /// The budget pays for it; its next state.
    Spend(Value),
}

impl Registry {
    /// Deletes a pod with the options that the eviction carries, if its budget allows that.
    pub(super) async fn evict(&self, target: Target<'_>, eviction: &Value) -> Result<Value, Status> {
        if meta::name(eviction) != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        let eviction = self.mutate(target, Operation::Create, Some(eviction.clone()), None).await?;
        let (eviction, _holds) = self.admit(target, Operation::Create, eviction, None).await?;
        let (options, dry_run) = delete_options(&eviction.unwrap_or_default());
        let cx = Context { dry_run: dry_run || target.cx.dry_run, ..target.cx.clone() };
        let target = Target { cx: &cx, ..target };
        let pod = match self.evict_uncounted(target, &options).await? {
            Some(pod) => pod,
            None => return Ok(done()),
        };
        let budgets = self.builtin("policy", "poddisruptionbudgets")?;
        let unchanged = match self.budgets_of(&budgets, target.namespace, &pod).await?.as_slice() {
            [] => None,
            [budget] => self.charge(target, &budgets, budget, &pod).await?,
            _ => {
                let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
                return Err(Status::new(500, Reason::from(""), text));
            }
        };
        let Some(budget) = unchanged else { return self.delete_evicted(target, options).await };
        let free = options.resource_version.is_none();
        let seen = DeleteOptions { resource_version: Some(meta::resource_version(&pod).to_owned()), ..options };
        match self.delete_evicted(target, seen).await {
            Err(status) if free && status.is(Reason::Conflict) => Err(in_process(&budget)),
            result => result,
        }
    }

    /// Pods that have not started or have ended count for no budget and are deleted; any other is handed back.
    async fn evict_uncounted(&self, target: Target<'_>, options: &DeleteOptions) -> Result<Option<Value>, Status> {
        let pinned = options.resource_version.is_some();
        for _ in 0..CONFLICT_ATTEMPTS {
            let entry = self.get(target.res, target.namespace, target.name, None).await?;
            let pod = entry.value();
            let Some(ended) = uncounted(&pod) else { return Ok(Some(pod)) };
            let mut options = options.clone();
            if !ended && !pinned {
                // A pod that starts meanwhile counts.
                options.resource_version = Some(entry.revision.to_string());
            }
            match self.delete_evicted(target, options).await {
                Err(status) if status.is(Reason::Conflict) && !pinned => {}
                result => return result.map(|_| None),
            }
        }
        Err(target.modified())
    }

    async fn delete_evicted(&self, target: Target<'_>, mut options: DeleteOptions) -> Result<Value, Status> {
        let marked = if target.cx.dry_run { None } else { self.mark_evicted(target, &options).await? };
        if let (Some(wanted), Some(marked)) = (&mut options.resource_version, marked) {
            *wanted = marked.to_string();
        }
        // Who forbids deletions does not forbid evictions, which are asked about as such.
        let target = Target { sub: "", how: How::Delete(&options), ..target };
        self.delete_target(target, &options, Admit::Already).await?;
        Ok(done())
    }

    /// Shows in the pod that it is evicted (KEP-3329); the revision that it then has. Nothing happens to a pod that the options
    /// do not mean, which the deletion refuses.
    async fn mark_evicted(&self, target: Target<'_>, options: &DeleteOptions) -> Result<Option<u64>, Status> {
        let target = Target { sub: "status", how: How::Delete(options), ..target };
        for _ in 0..CONFLICT_ATTEMPTS {
            let current = target.res.storage.cache.get(&target.path()).ok_or_else(|| target.not_found())?;
            let pod = target.res.own_value(&current);
            let other = options.uid.as_deref().is_some_and(|uid| uid != meta::uid(&pod));
            let changed = options.resource_version.as_ref().is_some_and(|version| *version != current.revision.to_string());
            if other || changed {
                return Ok(None);
            }
            match self.put(target, &evicted(&pod, &time::now()), None, Expect::At(current.revision), &[]).await {
                Ok(entry) => return Ok(Some(entry.revision)),
                Err(Unwritten::Store(store::Error::Conflict(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(target.modified())
    }

    /// The budgets that select the pod: an empty selector selects every pod of the namespace, none at all selects none (policy/v1).
    async fn budgets_of(&self, budgets: &Served, namespace: &str, pod: &Value) -> Result<Vec<Value>, Status> {
        let list = self.list(budgets, Some(namespace), &ListOptions::default()).await?;
        // Each budget is decoded once, however many pods are evicted.
        let selector = |budget: Value| Selector::from_value(budget.pointer("/spec/selector").unwrap_or(&Value::Null)).ok();
        let selects = |selector: &Option<Selector>| selector.as_ref().is_some_and(|selector| selector.matches_object(pod));
        let selecting = list.entries.iter().filter(|entry| selects(&entry.derived(selector)));
        Ok(selecting.map(|entry| entry.value()).collect())
    }

    /// Takes the pod from its budget. Names the budget where the pod does not count as long as it stays as it is.
    async fn charge(&self, target: Target<'_>, budgets: &Served, budget: &Value, pod: &Value) -> Result<Option<String>, Status> {
        let name = meta::name(budget).to_owned();
        // The pod cannot go before this is written.
        let options = DeleteOptions::default();
        let on = Target { res: budgets, sub: "status", name: &name, how: How::Delete(&options), ..target };
        for _ in 0..CONFLICT_ATTEMPTS {
            let current = budgets.storage.cache.get(&on.path()).ok_or_else(|| on.not_found())?;
            let next = match decide(pod, &current.value(), &time::now())? {
                Verdict::DeleteUnchanged => return Ok(Some(name)),
                Verdict::Spend(next) => next,
            };
            if target.cx.dry_run {
                return Ok(None);
            }
            match self.put(on, &next, None, Expect::At(current.revision), &[]).await {
                Ok(_) => return Ok(None),
                Err(Unwritten::Store(store::Error::Conflict(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Status::timeout(format!("couldn't update PodDisruptionBudget {name:?} due to conflicts"), 10))
    }
}

fn done() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

/// The options within an eviction, and whether they say that nothing is to be written.
fn delete_options(eviction: &Value) -> (DeleteOptions, bool) {
    let options = &eviction["deleteOptions"];
    let text = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let dry_run = options["dryRun"].as_array().is_some_and(|list| !list.is_empty());
    let options = DeleteOptions {
        grace_seconds: options["gracePeriodSeconds"].as_i64(),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        propagation: text("/propagationPolicy"),
        orphan_dependents: options["orphanDependents"].as_bool(),
    };
    (options, dry_run)
}

/// Whether the pod counts for no budget and, if so, whether it has ended for certain.
fn uncounted(pod: &Value) -> Option<bool> {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    match phase {
        "Succeeded" | "Failed" => Some(true),
        _ if meta::is_deleting(pod) => Some(true),
        "Pending" => Some(false),
        _ => None,
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// What the budget says of the eviction of the pod.
fn decide(pod: &Value, budget: &Value, now: &str) -> Result<Verdict, Status> {
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let (healthy, desired, allowed) = (count("currentHealthy"), count("desiredHealthy"), count("disruptionsAllowed"));
    let always = budget.pointer("/spec/unhealthyPodEvictionPolicy").is_some_and(|policy| policy == "AlwaysAllow");
    // A pod that is not ready is none of those that the budget keeps (KEP-3017).
    if !is_ready(pod) && (always || (healthy >= desired && desired > 0)) {
        return Ok(Verdict::DeleteUnchanged);
    }
    let name = meta::name(budget);
    if count("observedGeneration") < meta::generation(budget) {
        return Err(in_process(name));
    }
    let forbidden = |why: &str| Err(Status::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), name, why));
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if budget.pointer("/status/disruptedPods").and_then(Value::as_object).is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(refuse(0, unmet(budget, name, healthy, desired)));
    }
    Ok(Verdict::Spend(spent(budget, meta::name(pod), allowed - 1, now)))
}

/// Why no disruption is allowed: too few healthy pods, or a budget whose size nobody knows.
fn unmet(budget: &Value, name: &str, healthy: i64, desired: i64) -> String {
    let conditions = budget.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let failed = |condition: &&Value| {
        condition["type"] == "DisruptionAllowed" && condition["status"] == "False" && condition["reason"] == "SyncFailed"
    };
    let message = conditions.into_iter().find(failed).and_then(|condition| condition["message"].as_str()).unwrap_or_default();
    if message.is_empty() {
        return format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
    }
    format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}")
}

/// The budget after one more disruption. The controller takes the pod out of the list when it sees it gone.
fn spent(budget: &Value, pod: &str, allowed: i64, now: &str) -> Value {
    let mut next = budget.clone();
    let status = &mut next["status"];
    status["disruptionsAllowed"] = allowed.into();
    if !status["disruptedPods"].is_object() {
        status["disruptedPods"] = json!({});
    }
    status["disruptedPods"][pod] = now.into();
    if allowed == 0 {
        let observed = status["observedGeneration"].clone();
        let mut condition = json!({"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "lastTransitionTime": now});
        if !observed.is_null() {
            condition["observedGeneration"] = observed;
        }
        set_condition(status, condition);
    }
    next
}

/// The pod with the condition that says that it is evicted.
fn evicted(pod: &Value, now: &str) -> Value {
    let mut next = pod.clone();
    let mut condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastTransitionTime": now});
    if meta::generation(pod) > 0 {
        condition["observedGeneration"] = meta::generation(pod).into();
    }
    set_condition(&mut next["status"], condition);
    next
}

/// Puts a condition in the place of the one of its type. The time stays where the status does.
fn set_condition(status: &mut Value, mut condition: Value) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = status["conditions"].as_array_mut() else { return };
    match list.iter_mut().find(|old| old["type"] == condition["type"]) {
        Some(old) => {
            if old["status"] == condition["status"] {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => list.push(condition),
    }
}

/// 429: the budget is not up to date.
fn in_process(budget: &str) -> Status {
    refuse(10, format!("The disruption budget {budget} is still being processed by the server."))
}

fn refuse(seconds: i32, message: String) -> Status {
    let mut status = Status::too_many_requests(REFUSED, seconds);
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ready: bool) -> Value {
        let status = if ready { "True" } else { "False" };
        json!({"metadata": {"name": "web-1"}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}})
    }

    fn budget(policy: Value, status: Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 2}, "spec": {"unhealthyPodEvictionPolicy": policy}, "status": status})
    }

    /// Code, seconds and cause of a refusal.
    #[track_caller]
    fn refused(pod: &Value, budget: &Value, code: u16, seconds: i32, cause: &str) {
        let status = decide(pod, budget, "now").expect_err("it is refused");
        let details = status.details.clone().unwrap_or_default();
        let found = details.causes.first().map(|cause| cause.message.clone()).unwrap_or_default();
        assert_eq!((status.code, details.retry_after_seconds, found.as_str()), (code, seconds, cause), "{status}");
    }

    #[test]
    fn phases_that_count_for_no_budget() {
        let check = |pod: Value, expected: Option<bool>| assert_eq!(uncounted(&pod), expected, "{pod}");
        check(json!({"status": {"phase": "Running"}}), None);
        check(json!({"status": {"phase": "Pending"}}), Some(false));
        check(json!({"status": {"phase": "Failed"}}), Some(true));
        check(json!({"status": {"phase": "Succeeded"}}), Some(true));
        check(json!({"metadata": {"deletionTimestamp": "t"}, "status": {"phase": "Running"}}), Some(true));
    }

    #[test]
    fn an_evicted_pod_says_so() {
        let mut pod = pod(true);
        pod["metadata"]["generation"] = json!(3);
        let next = evicted(&pod, "now");
        let expected = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": "now", "observedGeneration": 3});
        assert_eq!(next["status"]["conditions"][1], expected);
        assert_eq!(evicted(&next, "later"), next);
    }

    #[test]
    fn budgets_that_refuse() {
        let busy = "The disruption budget web is still being processed by the server.";
        refused(&pod(true), &budget(Value::Null, json!({"observedGeneration": 1, "disruptionsAllowed": 1})), 429, 10, busy);
        let short = json!({"observedGeneration": 2, "disruptionsAllowed": 0, "currentHealthy": 2, "desiredHealthy": 2});
        let needs = "The disruption budget web needs 2 healthy pods and has 2 currently";
        refused(&pod(true), &budget(Value::Null, short), 429, 0, needs);
        let failed = json!({"observedGeneration": 2, "conditions": [
            {"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale"}]});
        let unknown = "The disruption budget web does not allow evicting pods currently because it failed sync: no scale";
        refused(&pod(true), &budget(Value::Null, failed), 429, 0, unknown);
        refused(&pod(true), &budget(Value::Null, json!({"observedGeneration": 2, "disruptionsAllowed": -1})), 403, 0, "");
    }

    #[test]
    fn unhealthy_pods() {
        let check = |policy: Value, healthy: i32, expected: bool| {
            let status = json!({"observedGeneration": 2, "currentHealthy": healthy, "desiredHealthy": 2});
            let free = decide(&pod(false), &budget(policy, status), "now") == Ok(Verdict::DeleteUnchanged);
            assert_eq!(free, expected);
        };
        check(Value::Null, 2, true);
        check(json!("IfHealthyBudget"), 2, true);
        check(json!("IfHealthyBudget"), 1, false);
        check(json!("AlwaysAllow"), 1, true);
    }

    #[test]
    fn an_eviction_is_paid_for() {
        let check = |allowed: i32, conditions: Value| {
            let status = json!({"observedGeneration": 2, "disruptionsAllowed": allowed});
            let Ok(Verdict::Spend(next)) = decide(&pod(true), &budget(Value::Null, status), "now") else {
                panic!("it is paid for")
            };
            assert_eq!(next["status"]["disruptionsAllowed"], allowed - 1);
            assert_eq!(next["status"]["disruptedPods"], json!({"web-1": "now"}));
            assert_eq!(next["status"]["conditions"], conditions);
        };
        check(2, Value::Null);
        check(
            1,
            json!([{"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "lastTransitionTime": "now", "observedGeneration": 2}]),
        );
    }
}

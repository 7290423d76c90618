//! Jobs, services and disruption budgets.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Cluster, is_ready, name, number};

/// Each that may run has finished, with exact counts.
pub(super) fn jobs(cluster: &Cluster<'_>) {
    for job in cluster.of("batch/jobs") {
        let has = |kind: &str| {
            let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
        };
        let idle = job["spec"]["suspend"] == true || number(&job, "/spec/parallelism") == 0;
        cluster.expect(idle || has("Complete") || has("Failed"), || format!("{} is not over: {}", name(&job), job["status"]));
        cluster.expect(!(has("Complete") && has("Failed")), || format!("{} is both complete and failed", name(&job)));
        let early = job["status"]["conditions"].as_array().into_iter().flatten().any(|one| one["reason"] == "SuccessPolicy");
        let indexes = count_indexes(&job["status"]["completedIndexes"]);
        if job["spec"]["completionMode"] == "Indexed" {
            let succeeded = number(&job, "/status/succeeded");
            cluster.expect(indexes == succeeded, || format!("{} counts {succeeded} and names {indexes} indexes", name(&job)));
        }
        if has("Complete") && !early {
            let (wanted, done) = (number(&job, "/spec/completions"), number(&job, "/status/succeeded"));
            cluster.expect(wanted == done, || format!("{} wants {wanted} completions and counts {done}", name(&job)));
        }
        let pods = cluster.owned("core/pods", job["metadata"]["uid"].as_str().unwrap_or_default());
        let active = pods.iter().filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))).count();
        let over = idle || has("Complete") || has("Failed");
        cluster.expect(!over || active == 0, || format!("{} is over or idle and has {active} pods", name(&job)));
        let counted = number(&job, "/status/active");
        cluster.expect(counted == active as i64, || format!("{} counts {counted} active pods and has {active}", name(&job)));
        let uncounted = &job["status"]["uncountedTerminatedPods"];
        let left = ["succeeded", "failed"].iter().any(|key| uncounted[key].as_array().is_some_and(|all| !all.is_empty()));
        cluster.expect(!left, || format!("{} has not counted {uncounted}", name(&job)));
    }
    for pod in cluster.of("core/pods") {
        let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let held =
            pod["metadata"]["finalizers"].as_array().into_iter().flatten().any(|f| f == "batch.kubernetes.io/job-tracking");
        cluster.expect(!(over && held), || format!("{} is over and not counted", name(&pod)));
    }
}

/// How many indexes a text such as `0-2,5` names.
fn count_indexes(text: &Value) -> i64 {
    let of_part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.parse::<i64>(), last.parse::<i64>()) {
            (Ok(first), Ok(last)) => last - first + 1,
            _ => 0,
        }
    };
    text.as_str().unwrap_or_default().split(',').map(of_part).sum()
}

/// Each names its active jobs, and keeps no more of the others than it may.
pub(super) fn cron_jobs(cluster: &Cluster<'_>) {
    for cron in cluster.of("batch/cronjobs") {
        let uid = cron["metadata"]["uid"].as_str().unwrap_or_default();
        let jobs = cluster.owned("batch/jobs", uid);
        let has = |job: &Value, kind: &str| {
            let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
            conditions.into_iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
        };
        for (kind, limit, otherwise) in [("Complete", "successfulJobsHistoryLimit", 3), ("Failed", "failedJobsHistoryLimit", 1)] {
            let (kept, most) = (jobs.iter().filter(|job| has(job, kind)).count() as i64, cron["spec"][limit].as_i64());
            let most = most.unwrap_or(otherwise);
            cluster.expect(kept <= most, || format!("{} keeps {kept} jobs that are {kind} and may keep {most}", name(&cron)));
        }
        let active: BTreeSet<&str> = jobs
            .iter()
            .filter(|job| !has(job, "Complete") && !has(job, "Failed"))
            .filter_map(|job| job["metadata"]["uid"].as_str())
            .collect();
        let told = cron["status"]["active"].as_array().into_iter().flatten();
        let told: BTreeSet<&str> = told.filter_map(|job| job["uid"].as_str()).collect();
        cluster.expect(told == active, || format!("{} names {told:?} as active; {active:?} are", name(&cron)));
    }
}

fn selected(pod: &Value, namespace: &Value, selector: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    let mut pairs = selector.as_object().into_iter().flatten();
    pod["metadata"]["namespace"] == *namespace && pairs.all(|(key, value)| labels[key] == *value)
}

/// The slices of each name the ready pods, each once.
pub(super) fn services(cluster: &Cluster<'_>) {
    let slices = cluster.of("discovery.k8s.io/endpointslices");
    let pods = cluster.of("core/pods");
    for service in cluster.of("core/services").iter().filter(|service| service["spec"]["selector"].is_object()) {
        let (namespace, selector) = (&service["metadata"]["namespace"], &service["spec"]["selector"]);
        let wanted = pods.iter().filter(|pod| selected(pod, namespace, selector) && is_ready(pod));
        let wanted: BTreeSet<&str> = wanted.filter_map(|pod| pod["metadata"]["uid"].as_str()).collect();
        let own = slices.iter().filter(|slice| {
            let meta = &slice["metadata"];
            meta["namespace"] == *namespace && meta["labels"]["kubernetes.io/service-name"] == service["metadata"]["name"]
        });
        let endpoints = own.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let told: Vec<&str> = ready.filter_map(|endpoint| endpoint["targetRef"]["uid"].as_str()).collect();
        let once: BTreeSet<&str> = told.iter().copied().collect();
        cluster.expect(once.len() == told.len() && once == wanted, || {
            format!("{} has {} ready pods and names {} of which {} once", name(service), wanted.len(), told.len(), once.len())
        });
    }
}

/// Each counts its healthy pods.
pub(super) fn budgets(cluster: &Cluster<'_>) {
    let pods = cluster.of("core/pods");
    for budget in cluster.of("policy/poddisruptionbudgets") {
        // One that selects pods of something without a scale, such as a DaemonSet, cannot be counted, and says so.
        let conditions = budget["status"]["conditions"].as_array().into_iter().flatten();
        if conditions.into_iter().any(|condition| condition["reason"] == "SyncFailed") {
            continue;
        }
        let (namespace, selector) = (&budget["metadata"]["namespace"], &budget["spec"]["selector"]["matchLabels"]);
        let healthy = pods.iter().filter(|pod| selected(pod, namespace, selector) && is_ready(pod)).count() as i64;
        let said = number(&budget, "/status/currentHealthy");
        cluster.expect(said == healthy, || format!("{} counts {said} healthy pods of {healthy}", name(&budget)));
        let (said, is) = (number(&budget, "/status/observedGeneration"), number(&budget, "/metadata/generation"));
        cluster.expect(said == is, || format!("{} has observed generation {said} of {is}", name(&budget)));
    }
}

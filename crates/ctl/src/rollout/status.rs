//! How far a rollout is, by what the workload's status says.

use serde_json::Value;

/// Where a rollout stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) text: String,
    pub(super) done: bool,
}

/// Why nothing can be said, or nothing will happen any more.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Stuck {
    #[error("deployment {0:?} exceeded its progress deadline")]
    Deadline(String),
    #[error("rollout status is only available for {0} strategy type")]
    Strategy(&'static str),
    #[error("no status viewer has been implemented for {0}")]
    Kind(String),
}

type Answer = Result<Progress, Stuck>;

/// Reads it of a workload.
///
/// # Errors
/// The kind has no rollouts, or this one does not go on.
pub(super) fn of(object: &Value) -> Answer {
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => deployment(object),
        "DaemonSet" => daemon_set(object),
        "StatefulSet" => stateful_set(object),
        kind => Err(Stuck::Kind(kind.to_owned())),
    }
}

fn waits(text: String) -> Answer {
    Ok(Progress { text, done: false })
}

fn done(text: String) -> Answer {
    Ok(Progress { text, done: true })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn is_observed(object: &Value) -> bool {
    object["metadata"]["generation"].as_i64().unwrap_or(0) <= count(object, "observedGeneration")
}

fn count(object: &Value, field: &str) -> i64 {
    object["status"][field].as_i64().unwrap_or(0)
}

fn deployment(object: &Value) -> Answer {
    let name = name(object);
    if !is_observed(object) {
        return waits("Waiting for deployment spec update to be observed...".to_owned());
    }
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let progressing = conditions.into_iter().find(|condition| condition["type"] == "Progressing");
    if progressing.is_some_and(|condition| condition["reason"] == "ProgressDeadlineExceeded") {
        return Err(Stuck::Deadline(name.to_owned()));
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (all, updated, available) =
        (count(object, "replicas"), count(object, "updatedReplicas"), count(object, "availableReplicas"));
    let head = format!("Waiting for deployment {name:?} rollout to finish:");
    if updated < wanted {
        return waits(format!("{head} {updated} out of {wanted} new replicas have been updated..."));
    }
    if all > updated {
        return waits(format!("{head} {} old replicas are pending termination...", all - updated));
    }
    if available < updated {
        return waits(format!("{head} {available} of {updated} updated replicas are available..."));
    }
    done(format!("deployment {name:?} successfully rolled out"))
}

fn daemon_set(object: &Value) -> Answer {
    let name = name(object);
    if object["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return Err(Stuck::Strategy("RollingUpdate"));
    }
    if !is_observed(object) {
        return waits("Waiting for daemon set spec update to be observed...".to_owned());
    }
    let wanted = count(object, "desiredNumberScheduled");
    let (updated, available) = (count(object, "updatedNumberScheduled"), count(object, "numberAvailable"));
    let head = format!("Waiting for daemon set {name:?} rollout to finish:");
    if updated < wanted {
        return waits(format!("{head} {updated} out of {wanted} new pods have been updated..."));
    }
    if available < wanted {
        return waits(format!("{head} {available} of {wanted} updated pods are available..."));
    }
    done(format!("daemon set {name:?} successfully rolled out"))
}

fn stateful_set(object: &Value) -> Answer {
    let strategy = &object["spec"]["updateStrategy"];
    if strategy["type"] == "OnDelete" {
        return Err(Stuck::Strategy("RollingUpdate"));
    }
    if count(object, "observedGeneration") == 0 || !is_observed(object) {
        return waits("Waiting for statefulset spec update to be observed...".to_owned());
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (count(object, "readyReplicas"), count(object, "updatedReplicas"));
    if ready < wanted {
        return waits(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    let revision = |field: &str| object["status"][field].as_str().unwrap_or_default();
    let partition = strategy["rollingUpdate"]["partition"].as_i64().unwrap_or(0);
    if partition > 0 {
        if updated < wanted - partition {
            let wanted = wanted - partition;
            return waits(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {wanted} new pods have been updated..."
            ));
        }
        return done(format!("partitioned roll out complete: {updated} new pods have been updated..."));
    }
    let (current, update) = (revision("currentRevision"), revision("updateRevision"));
    if update != current {
        return waits(format!("waiting for statefulset rolling update to complete {updated} pods at revision {update}..."));
    }
    done(format!("statefulset rolling update complete {} pods at revision {current}...", count(object, "currentReplicas")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn deployments() {
        let check = |spec: Value, status: Value, expected: &str| {
            let object =
                json!({"kind": "Deployment", "metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status});
            let told = of(&object).map_or_else(|error| format!("! {error}"), |progress| progress.text);
            assert_eq!(told, expected);
        };
        let three = || json!({"replicas": 3});
        let at = |status: Value| {
            let mut status = status;
            status["observedGeneration"] = 2.into();
            status
        };
        check(three(), json!({"observedGeneration": 1}), "Waiting for deployment spec update to be observed...");
        check(
            three(),
            at(json!({"updatedReplicas": 1})),
            "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
        );
        check(
            three(),
            at(json!({"updatedReplicas": 3, "replicas": 4})),
            "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
        );
        check(
            three(),
            at(json!({"updatedReplicas": 3, "replicas": 3, "availableReplicas": 2})),
            "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
        );
        check(
            three(),
            at(json!({"updatedReplicas": 3, "replicas": 3, "availableReplicas": 3})),
            "deployment \"web\" successfully rolled out",
        );
        let late = json!({"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]});
        check(three(), at(late), "! deployment \"web\" exceeded its progress deadline");
    }

    #[test]
    fn sets() {
        let check = |object: Value, expected: (&str, bool)| {
            let progress = of(&object);
            assert_eq!(progress.as_ref().map(|progress| (progress.text.as_str(), progress.done)), Ok(expected));
        };
        let daemon = |updated: i32, available: i32| {
            json!({"kind": "DaemonSet", "metadata": {"name": "d"}, "spec": {},
                "status": {"desiredNumberScheduled": 2, "updatedNumberScheduled": updated, "numberAvailable": available}})
        };
        check(daemon(1, 2), ("Waiting for daemon set \"d\" rollout to finish: 1 out of 2 new pods have been updated...", false));
        check(daemon(2, 1), ("Waiting for daemon set \"d\" rollout to finish: 1 of 2 updated pods are available...", false));
        check(daemon(2, 2), ("daemon set \"d\" successfully rolled out", true));
        let stateful = |partition: i32, ready: i32, updated: i32, update: &str| {
            json!({"kind": "StatefulSet", "metadata": {"name": "s", "generation": 1},
                "spec": {"replicas": 2, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}},
                "status": {"observedGeneration": 1, "readyReplicas": ready, "updatedReplicas": updated, "currentReplicas": 2,
                    "currentRevision": "s-1", "updateRevision": update}})
        };
        check(stateful(0, 1, 0, "s-1"), ("Waiting for 1 pods to be ready...", false));
        check(
            stateful(1, 2, 0, "s-2"),
            ("Waiting for partitioned roll out to finish: 0 out of 1 new pods have been updated...", false),
        );
        check(stateful(1, 2, 1, "s-2"), ("partitioned roll out complete: 1 new pods have been updated...", true));
        check(stateful(0, 2, 1, "s-2"), ("waiting for statefulset rolling update to complete 1 pods at revision s-2...", false));
        check(stateful(0, 2, 2, "s-1"), ("statefulset rolling update complete 2 pods at revision s-1...", true));
        assert_eq!(of(&json!({"kind": "Job"})), Err(Stuck::Kind("Job".to_owned())));
    }
}

//! Earlier revisions of a workload: a deployment's are its replica sets, those of other sets are ControllerRevisions.

use serde_json::{Value, json};

/// Says which revision a replica set is.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Why there was a change, as whoever made it has noted.
const CAUSE: &str = "kubernetes.io/change-cause";
/// The label by which a deployment tells its replica sets apart: not of the template that was asked for.
const HASH: &str = "pod-template-hash";

/// An earlier state of a workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Revision {
    pub(super) number: i64,
    pub(super) cause: String,
    /// The replica set or ControllerRevision.
    object: Value,
}

/// There is no such revision.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Missing {
    #[error("unable to find specified revision {0} in history")]
    Number(i64),
    #[error("no rollout history found")]
    Previous,
}

/// The revisions of a workload among all objects that may be some, oldest first.
pub(super) fn of(workload: &Value, candidates: &[Value]) -> Vec<Revision> {
    let uid = &workload["metadata"]["uid"];
    let owned = |object: &&Value| {
        let owners = object["metadata"]["ownerReferences"].as_array();
        owners.into_iter().flatten().any(|owner| owner["controller"] == true && owner["uid"] == *uid)
    };
    let revision = |object: &Value| {
        let annotations = &object["metadata"]["annotations"];
        let number = object["revision"].as_i64().or_else(|| annotations[REVISION].as_str()?.parse().ok())?;
        let cause = annotations[CAUSE].as_str().unwrap_or("<none>").to_owned();
        Some(Revision { number, cause, object: object.clone() })
    };
    let mut revisions: Vec<_> = candidates.iter().filter(owned).filter_map(revision).collect();
    revisions.sort_by_key(|revision| revision.number);
    revisions
}

/// The revision to go back to: by its number, or, for 0, the last but one.
///
/// # Errors
/// There is none.
pub(super) fn choose(revisions: &[Revision], number: i64) -> Result<&Revision, Missing> {
    if number == 0 {
        return revisions.iter().rev().nth(1).ok_or(Missing::Previous);
    }
    revisions.iter().find(|revision| revision.number == number).ok_or(Missing::Number(number))
}

/// The patch that leads back, with its type; none where the workload is as it was then.
pub(super) fn step(workload: &Value, revision: &Revision) -> Option<(&'static str, Value)> {
    if revision.object.get("data").is_some() {
        // The revision is a patch itself, which replaces the template.
        let patch = revision.object["data"].clone();
        let mut same = patch["spec"]["template"].clone();
        if let Some(map) = same.as_object_mut() {
            map.remove("$patch");
        }
        return (same != workload["spec"]["template"]).then_some(("application/strategic-merge-patch+json", patch));
    }
    let mut template = revision.object["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    let same = template == workload["spec"]["template"];
    (!same).then(|| ("application/json-patch+json", json!([{"op": "replace", "path": "/spec/template", "value": template}])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn workload() -> Value {
        json!({"metadata": {"uid": "u"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"n": 2}}}})
    }

    fn replica_set(owner: &str, revision: &str, n: i32) -> Value {
        json!({
            "metadata": {"annotations": {REVISION: revision}, "ownerReferences": [{"controller": true, "uid": owner}]},
            "spec": {"template": {"metadata": {"labels": {"a": "b", HASH: revision}}, "spec": {"n": n}}},
        })
    }

    #[test]
    fn revisions_of_deployments() {
        let all = [replica_set("u", "3", 2), replica_set("other", "9", 0), replica_set("u", "1", 1)];
        let revisions = of(&workload(), &all);
        assert_eq!(revisions.iter().map(|revision| revision.number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(choose(&revisions, 0).unwrap().number, 1);
        assert_eq!(choose(&revisions, 2), Err(Missing::Number(2)));
        assert_eq!(choose(&revisions[..1], 0), Err(Missing::Previous));
        let (_, patch) = step(&workload(), &revisions[0]).unwrap();
        assert_eq!(patch[0]["value"], json!({"metadata": {"labels": {"a": "b"}}, "spec": {"n": 1}}));
        assert_eq!(step(&workload(), &revisions[1]), None);
    }

    #[test]
    fn revisions_of_sets() {
        let revision = |number: i64, n: i32| {
            let template = json!({"$patch": "replace", "metadata": {"labels": {"a": "b"}}, "spec": {"n": n}});
            json!({"metadata": {"ownerReferences": [{"controller": true, "uid": "u"}]}, "revision": number, "data": {"spec": {"template": template}}})
        };
        let revisions = of(&workload(), &[revision(2, 2), revision(1, 1)]);
        let (kind, patch) = step(&workload(), choose(&revisions, 0).unwrap()).unwrap();
        assert_eq!((kind, &patch["spec"]["template"]["spec"]["n"]), ("application/strategic-merge-patch+json", &json!(1)));
        assert_eq!(step(&workload(), choose(&revisions, 2).unwrap()), None);
    }
}

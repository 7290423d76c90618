//! The pods that a job makes. Pure.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::member::{FAILURES, IGNORED_FAILURES, INDEX, TRACKING, Terms};
use crate::{meta, write};

const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The longest start of a generated name: five characters follow.
const MAX_PREFIX: usize = 58;

/// What is particular to one pod of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct New {
    /// Its completion index, in an indexed job.
    pub(super) index: Option<i32>,
    /// Failures of the index before it, counted and not, where each index has its limit.
    pub(super) failures: Option<(i32, i32)>,
}

/// The pod without what is particular to one.
pub(super) fn common(job: &Job, terms: &Terms<'_>) -> Pod {
    let mut pod = write::pod_of(job, &terms.spec.template);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    if let Some(spec) = pod.spec.as_mut().filter(|_| terms.indexes.is_some()) {
        let init = spec.init_containers.iter_mut().flatten();
        init.chain(&mut spec.containers).for_each(name_index);
    }
    pod
}

/// One pod, from what all have in common.
pub(super) fn pod(job: &Job, common: &Pod, new: &New) -> Pod {
    let mut pod = common.clone();
    let Some(index) = new.index else { return pod };
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some((counted, ignored)) = new.failures {
        annotations.insert(FAILURES.to_owned(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    pod.metadata.generate_name = Some(prefix(meta::name(job), index));
    if let Some(spec) = pod.spec.as_mut() {
        spec.hostname = Some(format!("{}-{index}", meta::name(job)));
    }
    pod
}

fn prefix(name: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let room = name.floor_char_boundary(MAX_PREFIX - end.len());
    format!("{}{end}", &name[..room])
}

/// Tells the container its index, unless it has a variable of that name.
fn name_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..Default::default() };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..Default::default() }),
        ..Default::default()
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::object;
    use serde_json::json;

    /// Conformance: [sig-apps] Job should create pods for an Indexed job with completion indexes and specified hostname [Conformance]
    #[test]
    fn pods_know_their_index() {
        let job: Job = object(json!({
            "metadata": {"namespace": "a", "name": "work", "uid": "u"},
            "spec": {"completionMode": "Indexed", "completions": 3, "backoffLimitPerIndex": 1, "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i", "env": [{"name": INDEX_VARIABLE, "value": "own"}]}]}}},
        }));
        let pod = pod(&job, &common(&job, &Terms::of(&job).unwrap()), &New { index: Some(2), failures: Some((1, 3)) });
        let meta = &pod.metadata;
        assert_eq!(
            (meta.generate_name.as_deref(), meta.finalizers.as_deref()),
            (Some("work-2-"), Some(&[TRACKING.to_owned()][..]))
        );
        assert_eq!(meta.labels, Some([("app".to_owned(), "x".to_owned()), (INDEX.to_owned(), "2".to_owned())].into()));
        let annotations = [(INDEX, "2"), (FAILURES, "1"), (IGNORED_FAILURES, "3")];
        assert_eq!(meta.annotations, Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into()));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("work-2"));
        let path = spec.containers[0].env.as_ref().unwrap()[0].value_from.as_ref().unwrap().field_ref.as_ref().unwrap();
        assert_eq!(path.field_path, "metadata.labels['batch.kubernetes.io/job-completion-index']");
        assert_eq!(spec.init_containers.unwrap()[0].env.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn long_names_leave_room() {
        let check = |length: usize, index: i32, expected: usize| {
            let prefix = prefix(&"n".repeat(length), index);
            assert_eq!(prefix.len(), expected);
            assert!(prefix.ends_with(&format!("n-{index}-")));
        };
        check(10, 7, 13);
        check(63, 7, 58);
        check(63, 1234, 58);
    }
}

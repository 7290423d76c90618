//! Writes that several controllers make: pods from templates, creations in growing batches, deletions of just the object that was seen.

use std::future::Future;

use client::Api;
use client::Object;
use client::kube;
use client::kube::api::{DeleteParams, Preconditions};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::adopt::Owned;
use crate::meta;

/// Makes `items` in batches of one, two, four...: when every creation fails, few are tried. The batch in which one fails is the
/// last. Gives the results of all that were tried.
pub(crate) async fn in_batches<T, K, E, F>(items: impl IntoIterator<Item = T>, make: impl Fn(T) -> F) -> Vec<Result<K, E>>
where
    F: Future<Output = Result<K, E>>,
{
    let mut items = items.into_iter();
    let (mut results, mut size) = (Vec::new(), 1);
    loop {
        let batch: Vec<F> = items.by_ref().take(size).map(&make).collect();
        let done = join_all(batch).await;
        let ends = done.is_empty() || done.iter().any(Result::is_err);
        results.extend(done);
        if ends {
            return results;
        }
        size *= 2;
    }
}

/// Deletes `object`, and no other that has its name by now. False when it was gone already.
pub(crate) async fn delete<K: Object>(api: &Api<K>, object: &K) -> kube::Result<bool> {
    let uid = object.meta().uid.clone();
    let params = DeleteParams::default().preconditions(Preconditions { uid, resource_version: None });
    match api.delete(meta::name(object), &params).await {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a creation failed because its namespace is being deleted.
pub(crate) fn namespace_ends(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// A pod as `template` says, controlled by `owner` and named after it.
pub(crate) fn pod_of<O: Owned>(owner: &O, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", meta::name(owner))),
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![meta::controller_ref(owner)]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn few_are_tried_when_all_fail() {
        async fn check(number: usize, fails: impl Fn(usize) -> bool, expected: &[usize]) {
            let tried = RefCell::new(Vec::new());
            let make = |item: usize| {
                tried.borrow_mut().push(item);
                let failed = fails(item);
                async move { if failed { Err(()) } else { Ok(item) } }
            };
            let results = in_batches(0..number, make).await;
            assert_eq!(*tried.borrow(), expected);
            assert_eq!(results.len(), expected.len());
        }
        check(0, |_| false, &[]).await;
        check(5, |_| false, &[0, 1, 2, 3, 4]).await;
        check(50, |_| true, &[0]).await;
        check(50, |item| item == 1, &[0, 1, 2]).await;
    }
}

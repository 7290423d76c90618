//! Sizes of sets of pods: the scale sub-resource of any kind that has one, custom resources too.

use std::collections::HashMap;

use client::Client;
use client::kube::api::PostParams;
use client::kube::core::{ApiResource, DynamicObject};
use client::kube::{self, Api};
use client::segment;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use parking_lot::Mutex;

/// Why the size is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    #[error("no matches for kind \"{kind}\" in group \"{group}\"")]
    NoKind { kind: String, group: String },
    #[error("{}", client::why(.0))]
    Api(#[from] kube::Error),
}

/// The resources of kinds that have a size, as discovery has told them.
#[derive(Default)]
pub(crate) struct Resources(Mutex<HashMap<(String, String), ApiResource>>);

impl Resources {
    /// The size, and where it stands.
    pub(crate) async fn scale(
        &self,
        client: &Client,
        namespace: &str,
        target: &CrossVersionObjectReference,
    ) -> Result<(Api<DynamicObject>, Scale), ScaleError> {
        let resource = self.resource(client, target).await?;
        let api = Api::namespaced_with(client.clone(), namespace, &resource);
        match api.get_scale(&segment(&target.name)?).await {
            Ok(scale) => Ok((api, scale)),
            Err(error) => {
                // The kind may be another by now.
                self.0.lock().remove(&key(target));
                Err(error.into())
            }
        }
    }

    /// The resource of a kind.
    pub(crate) async fn resource(
        &self,
        client: &Client,
        target: &CrossVersionObjectReference,
    ) -> Result<ApiResource, ScaleError> {
        if let Some(known) = self.0.lock().get(&key(target)) {
            return Ok(known.clone());
        }
        let version = version(target);
        let (group, bare) = version.split_once('/').unwrap_or(("", version));
        let list = match group.is_empty() {
            true => client.list_core_api_resources(version).await,
            false => client.list_api_group_resources(version).await,
        };
        let resources = match list {
            Ok(list) => list.resources,
            Err(kube::Error::Api(status)) if status.is_not_found() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let is_target = |one: &APIResource| one.kind == target.kind && !one.name.contains('/');
        let found = resources.into_iter().find(is_target);
        let found = found.ok_or_else(|| ScaleError::NoKind { kind: target.kind.clone(), group: group.to_owned() })?;
        let resource = ApiResource {
            group: group.to_owned(),
            version: bare.to_owned(),
            api_version: version.to_owned(),
            kind: found.kind,
            plural: found.name,
        };
        self.0.lock().insert(key(target), resource.clone());
        Ok(resource)
    }
}

/// How often a size is set that somebody else writes to: upstream's DefaultRetry.
const ATTEMPTS: usize = 5;

/// Where a size is read and written.
trait Sizes: Sync {
    fn read(&self, name: &str) -> impl Future<Output = kube::Result<Scale>> + Send;
    fn write(&self, name: &str, scale: &Scale) -> impl Future<Output = kube::Result<Scale>> + Send;
}

impl Sizes for Api<DynamicObject> {
    async fn read(&self, name: &str) -> kube::Result<Scale> {
        self.get_scale(name).await
    }

    async fn write(&self, name: &str, scale: &Scale) -> kube::Result<Scale> {
        self.replace_scale(name, &PostParams::default(), scale).await
    }
}

/// Sets the size. What was written to since it was read is read again, as long as its size is the one that `scale` says: for another one, nobody
/// has decided anything.
pub(crate) async fn resize(api: &Api<DynamicObject>, scale: Scale, replicas: i32) -> kube::Result<Scale> {
    set(api, scale, replicas).await
}

async fn set<S: Sizes>(there: &S, mut scale: Scale, replicas: i32) -> kube::Result<Scale> {
    let name = scale.metadata.name.clone().unwrap_or_default();
    let size = |scale: &Scale| scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    let (before, mut attempts) = (size(&scale), 0);
    loop {
        attempts += 1;
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        let conflict = match there.write(&name, &scale).await {
            Err(kube::Error::Api(status)) if status.is_conflict() && attempts < ATTEMPTS => status,
            done => return done,
        };
        scale = there.read(&name).await?;
        if size(&scale) != before {
            return Err(kube::Error::Api(conflict));
        }
    }
}

fn version(target: &CrossVersionObjectReference) -> &str {
    target.api_version.as_deref().filter(|version| !version.is_empty()).unwrap_or("v1")
}

fn key(target: &CrossVersionObjectReference) -> (String, String) {
    (version(target).to_owned(), target.kind.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use client::kube::core::Status;
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    /// A size that somebody else writes to before each of the first `conflicts` writes.
    struct Contended {
        now: Mutex<Scale>,
        conflicts: Mutex<usize>,
    }

    impl Sizes for Contended {
        async fn read(&self, _: &str) -> kube::Result<Scale> {
            Ok(self.now.lock().clone())
        }

        async fn write(&self, _: &str, scale: &Scale) -> kube::Result<Scale> {
            let mut conflicts = self.conflicts.lock();
            if *conflicts > 0 {
                *conflicts -= 1;
                return Err(kube::Error::Api(Status::failure("modified", "Conflict").with_code(409).boxed()));
            }
            self.now.lock().clone_from(scale);
            Ok(scale.clone())
        }
    }

    /// kubernetes#132007: a conflict is no failure where one of the next attempts succeeds.
    #[tokio::test]
    async fn what_was_written_to_is_read_again() {
        let scale = |replicas: i32| object::<Scale>(json!({"metadata": {"name": "d"}, "spec": {"replicas": replicas}}));
        let check = async |conflicts: usize, now: i32, expected: Option<i32>| {
            let there = Contended { now: Mutex::new(scale(now)), conflicts: Mutex::new(conflicts) };
            let done = set(&there, scale(2), 5).await;
            assert_eq!(done.ok().and_then(|scale| scale.spec?.replicas), expected, "{conflicts} {now}");
            assert_eq!(there.now.lock().spec.as_ref().unwrap().replicas, expected.or(Some(now)));
        };
        check(0, 2, Some(5)).await;
        check(4, 2, Some(5)).await;
        check(5, 2, None).await;
        // Somebody has set another size, perhaps none: "scaling is disabled since the replica count of the target is zero".
        check(1, 0, None).await;
    }
}

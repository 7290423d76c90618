//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, as `kubectl rollout history` and `undo` find them.

use std::cmp::Ordering;
use std::sync::Arc;

use client::Api;
use client::kube;
use client::kube::api::PostParams;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::adopt::Owned;
use crate::controller::{Cx, Error};
use crate::hash::{name_with_hash, template_hash};
use crate::{meta, write};

/// The label of pods that says which revision they have.
pub(crate) const HASH: &str = "controller-revision-hash";

/// A name has room for a dash and a hash behind this much of the owner's.
const PREFIX: usize = 223;

/// The patch that brings an owner back to `template`. kubectl compares its bytes with those that upstream's types give.
pub(crate) fn patch(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    for list in ["initContainers", "containers"] {
        let containers = template.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container.get("resources").is_none()) {
            container["resources"] = json!({});
        }
    }
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    template_of(data(revision))
}

fn template_of(patch: &Value) -> Option<PodTemplateSpec> {
    let mut template = patch.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    codec::from_value(template).ok()
}

fn data(revision: &ControllerRevision) -> &Value {
    revision.data.as_ref().map_or(&Value::Null, |data| &data.0)
}

/// Whether a revision keeps `patch`, or what means the same: another release, or another cluster that the revision was restored from, may have
/// written it in another way, and no pod is to be replaced for that (upstream: StatefulSetSemanticRevisionComparison).
pub(crate) fn keeps(revision: &ControllerRevision, patch: &Value) -> bool {
    let kept = data(revision);
    kept == patch || meaning(kept).is_some_and(|kept| meaning(patch) == Some(kept))
}

/// The template of a patch without what says nothing: null, empty lists, and what of [`NOTHING`] is empty.
fn meaning(patch: &Value) -> Option<Value> {
    let mut template = json!(template_of(patch)?);
    prune(&mut template);
    Some(template)
}

/// Fields that say nothing when they are empty. Of others (`emptyDir`, `labelSelector`) it matters whether they are there.
const NOTHING: [&str; 9] =
    ["metadata", "labels", "annotations", "nodeSelector", "matchLabels", "resources", "requests", "limits", "securityContext"];

fn prune(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(prune),
        Value::Object(all) => all.retain(|key, value| {
            prune(value);
            match value {
                Value::Null => false,
                Value::Array(list) => !list.is_empty(),
                Value::Object(fields) => !fields.is_empty() || !NOTHING.contains(&key.as_str()),
                _ => true,
            }
        }),
        _ => {}
    }
}

/// From the oldest to the newest.
pub(crate) fn by_age(a: &Arc<ControllerRevision>, b: &Arc<ControllerRevision>) -> Ordering {
    let created = |revision: &ControllerRevision| revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let order = a.revision.cmp(&b.revision).then_with(|| created(a).cmp(&created(b)));
    order.then_with(|| meta::name(a.as_ref()).cmp(meta::name(b.as_ref())))
}

/// What makes the revision of the present template the newest.
#[derive(Debug, PartialEq)]
pub(crate) enum Choice {
    /// It is.
    Keep(Arc<ControllerRevision>),
    /// It is there and gets this number: a rollback.
    Raise(Arc<ControllerRevision>, i64),
    /// It has to be made, with this number.
    Create(i64),
}

/// Chooses among `revisions`, which are ordered by age.
pub(crate) fn choose(revisions: &[Arc<ControllerRevision>], patch: &Value) -> Choice {
    let next = revisions.last().map_or(1, |last| last.revision + 1);
    let newest = revisions.iter().rposition(|revision| keeps(revision, patch));
    match newest.and_then(|index| Some((index, revisions.get(index)?))) {
        Some((index, revision)) if index + 1 == revisions.len() => Choice::Keep(revision.clone()),
        Some((_, revision)) => Choice::Raise(revision.clone(), next),
        None => Choice::Create(next),
    }
}

/// An owner of revisions.
pub(crate) struct Keeper<'a, O> {
    pub(crate) owner: &'a O,
    pub(crate) template: &'a PodTemplateSpec,
    /// The label of a revision that holds its hash.
    pub(crate) label: &'static str,
    /// How many names were taken so far.
    pub(crate) collisions: i32,
}

/// The revision of the present template.
pub(crate) struct Current {
    pub(crate) revision: Arc<ControllerRevision>,
    pub(crate) collisions: i32,
}

impl<O: Owned> Keeper<'_, O> {
    /// Makes the present template the newest of `revisions`, which are ordered by age.
    pub(crate) async fn current(&self, cx: &Cx, revisions: &[Arc<ControllerRevision>]) -> Result<Current, Error> {
        let api: Api<ControllerRevision> = Api::namespaced(cx.client.clone(), meta::namespace(self.owner));
        let patch = patch(self.template);
        let revision = match choose(revisions, &patch) {
            Choice::Keep(revision) => revision,
            Choice::Raise(revision, number) => {
                let next = ControllerRevision { revision: number, ..revision.as_ref().clone() };
                Arc::new(api.replace(meta::name(revision.as_ref()), &PostParams::default(), &next).await?)
            }
            Choice::Create(number) => return self.create(&api, patch, number).await,
        };
        Ok(Current { revision, collisions: self.collisions })
    }

    /// Creates a revision under the first name that no other template has.
    async fn create(&self, api: &Api<ControllerRevision>, patch: Value, number: i64) -> Result<Current, Error> {
        let mut collisions = self.collisions;
        loop {
            let revision = self.revision(patch.clone(), number, collisions);
            match api.create(&PostParams::default(), &revision).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    let there = api.get(meta::name(&revision)).await?;
                    if keeps(&there, &patch) || self.was_changed(&there) {
                        return Ok(Current { revision: Arc::new(there), collisions });
                    }
                }
                // It is what was asked for, as upstream has it, also when admission has changed it: else one would be made after the other.
                made => return Ok(Current { revision: Arc::new(made?), collisions }),
            }
            collisions += 1;
        }
    }

    /// Whether a revision under the name of the present template is the owner's and keeps a template that does not have its hash: admission has
    /// changed it, and another one would be changed, too.
    fn was_changed(&self, revision: &ControllerRevision) -> bool {
        let is_own = meta::controller_of(revision).is_some_and(|owner| owner.uid == meta::uid(self.owner));
        let hash = revision.metadata.labels.as_ref().and_then(|labels| labels.get(self.label));
        let (Some(hash), true) = (hash, is_own) else { return false };
        let Some(kept) = template(revision) else { return true };
        let mut bare = kept.clone();
        if let Some(spec) = &mut bare.spec {
            let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
            let empty = |one: &&mut Container| one.resources.as_ref() == Some(&ResourceRequirements::default());
            containers.filter(empty).for_each(|one| one.resources = None);
        }
        // A template is kept with resources of all containers, which it need not have had.
        let has_it = |collisions| [&kept, &bare].iter().any(|one| template_hash(one, collisions) == *hash);
        !(0..=self.collisions.max(0)).any(has_it)
    }

    fn revision(&self, patch: Value, number: i64, collisions: i32) -> ControllerRevision {
        let hash = template_hash(self.template, collisions);
        let name = meta::name(self.owner);
        let mut labels = self.template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.insert(self.label.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name_with_hash(name, PREFIX, &hash)),
                namespace: self.owner.meta().namespace.clone(),
                labels: Some(labels),
                annotations: self.owner.meta().annotations.clone(),
                owner_references: Some(vec![meta::controller_ref(self.owner)]),
                ..Default::default()
            },
            data: Some(RawExtension(patch)),
            revision: number,
        }
    }
}

/// Deletes a revision that nobody will go back to.
pub(crate) async fn forget(cx: &Cx, revision: &ControllerRevision) -> Result<(), Error> {
    let api: Api<ControllerRevision> = Api::namespaced(cx.client.clone(), meta::namespace(revision));
    write::delete(&api, revision).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::object;
    use k8s_openapi::api::apps::v1::StatefulSet;

    fn pod_template(image: &str) -> PodTemplateSpec {
        object(json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}))
    }

    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        let name = format!("{image}{number}");
        Arc::new(object(json!({"metadata": {"name": name}, "revision": number, "data": patch(&pod_template(image))})))
    }

    #[test]
    fn a_revision_gives_its_template_back() {
        let kept = patch(&pod_template("a"));
        assert_eq!(
            kept,
            json!({"spec": {"template": {"$patch": "replace", "metadata": {"labels": {"app": "web"}},
                   "spec": {"containers": [{"name": "c", "image": "a", "resources": {}}]}}}})
        );
        let back = template(&revision("a", 1)).unwrap();
        assert_eq!(back.spec.unwrap().containers[0].image.as_deref(), Some("a"));
    }

    /// kubernetes#134773: the revisions of an earlier release have `creationTimestamp: null`.
    #[test]
    fn what_means_the_same_is_the_same() {
        let check = |kept: Value, expected: bool| {
            let kept = json!({"spec": {"template": kept}});
            let revision = object(json!({"metadata": {"name": "r"}, "revision": 1, "data": kept}));
            assert_eq!(keeps(&revision, &patch(&pod_template("a"))), expected, "{kept}");
        };
        let template = |meta: Value, container: Value, volumes: Value| json!({"$patch": "replace", "metadata": meta, "spec": {"containers": [container], "volumes": volumes}});
        let (labels, plain) = (json!({"labels": {"app": "web"}}), json!({"name": "c", "image": "a", "resources": {}}));
        check(template(labels.clone(), plain.clone(), json!([])), true);
        let with_time = json!({"creationTimestamp": null, "labels": {"app": "web"}, "annotations": {}});
        check(template(with_time, plain.clone(), json!(null)), true);
        check(template(labels.clone(), json!({"name": "c", "image": "a"}), json!([])), true);
        check(template(labels.clone(), json!({"name": "c", "image": "b"}), json!([])), false);
        check(template(json!({}), plain.clone(), json!([])), false);
        check(template(labels, plain, json!([{"name": "v", "emptyDir": {}}])), false);
        check(json!(null), false);
    }

    /// A webhook that changes revisions must not lead to more and more of them; another template of the same hash is another revision.
    #[tokio::test]
    async fn what_admission_has_changed_is_the_revision_all_the_same() {
        let world = crate::testing::World::new();
        let (api, owner): (Api<ControllerRevision>, StatefulSet) = (
            Api::namespaced(world.fake.client(), "a"),
            object(json!({"metadata": {"namespace": "a", "name": "set", "uid": "set"}})),
        );
        let (template, other) = (pod_template("a"), pod_template("b"));
        let keeper = Keeper { owner: &owner, template: &template, label: HASH, collisions: 0 };
        let made = keeper.create(&api, patch(&template), 1).await.unwrap();
        let mut changed = made.revision.as_ref().clone();
        changed.data = Some(RawExtension(patch(&pod_template("changed"))));
        let mut changed = api.replace(meta::name(&changed), &PostParams::default(), &changed).await.unwrap();
        let again = keeper.create(&api, patch(&template), 2).await.unwrap();
        assert_eq!((meta::name(again.revision.as_ref()), again.collisions), (meta::name(&changed), 0));
        // Of another template, with its hash as if it were the same.
        let twin = patch(&other);
        changed.data = Some(RawExtension(twin));
        changed.metadata.labels.get_or_insert_default().insert(HASH.to_owned(), template_hash(&other, 0));
        api.replace(meta::name(&changed), &PostParams::default(), &changed).await.unwrap();
        assert_eq!(keeper.create(&api, patch(&template), 2).await.unwrap().collisions, 1);
    }

    #[test]
    fn the_present_template_becomes_the_newest() {
        let check = |there: &[(&str, i64)], image: &str, expected: Choice| {
            let mut revisions: Vec<_> = there.iter().map(|(image, number)| revision(image, *number)).collect();
            revisions.sort_by(by_age);
            assert_eq!(choose(&revisions, &patch(&pod_template(image))), expected, "{there:?} {image}");
        };
        check(&[], "a", Choice::Create(1));
        check(&[("a", 1)], "a", Choice::Keep(revision("a", 1)));
        check(&[("a", 1)], "b", Choice::Create(2));
        check(&[("b", 4), ("a", 2)], "a", Choice::Raise(revision("a", 2), 5));
        check(&[("a", 1), ("a", 3), ("b", 2)], "a", Choice::Keep(revision("a", 3)));
    }
}

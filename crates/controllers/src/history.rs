//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, as `kubectl rollout history` and `undo` find them.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use client::kube;
use client::kube::api::PostParams;
use client::{Api, Facts, Informer, Key};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::adopt::Owned;
use crate::controller::{Cx, Error};
use crate::hash::{name_with_hash, template_hash};
use crate::{meta, write};

/// The label of pods that says which revision they have.
pub(crate) const HASH: &str = "controller-revision-hash";

/// A name has room for a dash and a hash behind this much of the owner's.
const PREFIX: usize = 223;

/// The patch that brings an owner back to `template`. kubectl compares its bytes with those that upstream's types give.
fn patch(template: &PodTemplateSpec) -> Value {
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

/// The template that pods should have, as revisions keep it.
pub(crate) struct Wanted<'a> {
    patch: Value,
    meaning: OnceLock<Meaning>,
    cache: &'a Informer<ControllerRevision>,
}

impl<'a> Wanted<'a> {
    /// `cache` has most of the revisions that this is compared with.
    pub(crate) fn new(template: &PodTemplateSpec, cache: &'a Informer<ControllerRevision>) -> Self {
        Self { patch: patch(template), meaning: OnceLock::new(), cache }
    }

    /// Whether a revision keeps the template, or what means the same: another release, or another cluster that the revision was restored from,
    /// may have written it in another way, and no pod is to be replaced for that (upstream: StatefulSetSemanticRevisionComparison).
    pub(crate) fn is_kept_by(&self, revision: &ControllerRevision) -> bool {
        let means_it = || {
            let wanted = self.meaning.get_or_init(|| Meaning::of_patch(&self.patch));
            wanted.0.is_some() && *self.meaning_of(revision) == *wanted
        };
        data(revision) == &self.patch || means_it()
    }

    /// What a revision means. It is kept in the cache: at each look at a workload its old revisions are compared with what is wanted.
    fn meaning_of(&self, revision: &ControllerRevision) -> Arc<Meaning> {
        let version = revision.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let cached = self.cache.entry(&Key::of(revision)).filter(|entry| Some(entry.version()) == version);
        cached.and_then(|entry| entry.facts()).unwrap_or_else(|| Arc::new(Meaning::of(revision)))
    }
}

/// A digest of the template of a patch without what says nothing: null, empty lists, and what of [`NOTHING`] is empty. None of what is no template.
#[derive(Debug, PartialEq, Eq)]
struct Meaning(Option<[u8; 32]>);

impl Meaning {
    fn of_patch(patch: &Value) -> Self {
        Self(template_of(patch).map(|template| {
            let mut template = json!(template);
            prune(&mut template);
            Sha256::digest(template.to_string()).into()
        }))
    }
}

impl Facts<ControllerRevision> for Meaning {
    fn of(revision: &ControllerRevision) -> Self {
        Self::of_patch(data(revision))
    }
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
fn choose(revisions: &[Arc<ControllerRevision>], wanted: &Wanted<'_>) -> Choice {
    // Anybody may write a revision of any number, so there may be none behind it.
    let next = revisions.last().map_or(1, |last| last.revision.saturating_add(1));
    let newest = revisions.iter().rposition(|revision| wanted.is_kept_by(revision));
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
    /// The same as revisions keep it.
    pub(crate) wanted: Wanted<'a>,
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
        let revision = match choose(revisions, &self.wanted) {
            Choice::Keep(revision) => revision,
            Choice::Raise(revision, number) => {
                let next = ControllerRevision { revision: number, ..revision.as_ref().clone() };
                Arc::new(api.replace(meta::name(revision.as_ref()), &PostParams::default(), &next).await?)
            }
            Choice::Create(number) => return self.create(&api, number).await,
        };
        Ok(Current { revision, collisions: self.collisions })
    }

    /// Creates a revision under the first name that no other template has.
    async fn create(&self, api: &Api<ControllerRevision>, number: i64) -> Result<Current, Error> {
        let mut collisions = self.collisions;
        loop {
            let revision = self.revision(number, collisions);
            match api.create(&PostParams::default(), &revision).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    let there = api.get(meta::name(&revision)).await?;
                    if self.wanted.is_kept_by(&there) || self.was_changed(&there) {
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

    fn revision(&self, number: i64, collisions: i32) -> ControllerRevision {
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
            data: Some(RawExtension(self.wanted.patch.clone())),
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
    fn there_may_be_no_number_behind_the_last_one() {
        let (cache, template) = (Informer::default(), pod_template("b"));
        let wanted = Wanted::new(&template, &cache);
        assert_eq!(choose(&[revision("a", 1)], &wanted), Choice::Create(2));
        assert_eq!(choose(&[revision("a", i64::MAX)], &wanted), Choice::Create(i64::MAX));
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
            let cache = Informer::default();
            assert_eq!(Wanted::new(&pod_template("a"), &cache).is_kept_by(&revision), expected, "{kept}");
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

    /// What a revision means is worked out once of each version that the cache has, and of others when it is asked.
    #[tokio::test]
    async fn the_cache_keeps_what_revisions_mean() {
        let world = crate::testing::World::new();
        let old = |image: &str| {
            let metadata = json!({"namespace": "a", "name": "r"});
            object::<ControllerRevision>(json!({"metadata": metadata, "revision": 1, "data": patch(&pod_template(image))}))
        };
        world.fake.put(&old("old"));
        let cache: Informer<ControllerRevision> = world.options().informers.of();
        cache.synced().await;
        let template = pod_template("a");
        let wanted = Wanted::new(&template, &cache);
        let seen = cache.list().remove(0);
        assert!(!wanted.is_kept_by(&seen));
        assert!(Arc::ptr_eq(&wanted.meaning_of(&seen), &Wanted::new(&template, &cache).meaning_of(&seen)));
        let mut other = seen.as_ref().clone();
        other.data = Some(RawExtension(patch(&template)));
        other.metadata.resource_version = Some("4711".to_owned());
        assert_eq!(*wanted.meaning_of(&other), Meaning::of_patch(&patch(&template)));
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
        let cache = Informer::default();
        let wanted = Wanted::new(&template, &cache);
        let keeper = Keeper { owner: &owner, template: &template, wanted, label: HASH, collisions: 0 };
        let made = keeper.create(&api, 1).await.unwrap();
        let mut changed = made.revision.as_ref().clone();
        changed.data = Some(RawExtension(patch(&pod_template("changed"))));
        let mut changed = api.replace(meta::name(&changed), &PostParams::default(), &changed).await.unwrap();
        let again = keeper.create(&api, 2).await.unwrap();
        assert_eq!((meta::name(again.revision.as_ref()), again.collisions), (meta::name(&changed), 0));
        // Of another template, with its hash as if it were the same.
        let twin = patch(&other);
        changed.data = Some(RawExtension(twin));
        changed.metadata.labels.get_or_insert_default().insert(HASH.to_owned(), template_hash(&other, 0));
        api.replace(meta::name(&changed), &PostParams::default(), &changed).await.unwrap();
        assert_eq!(keeper.create(&api, 2).await.unwrap().collisions, 1);
    }

    #[test]
    fn the_present_template_becomes_the_newest() {
        let check = |there: &[(&str, i64)], image: &str, expected: Choice| {
            let mut revisions: Vec<_> = there.iter().map(|(image, number)| revision(image, *number)).collect();
            revisions.sort_by(by_age);
            let cache = Informer::default();
            assert_eq!(choose(&revisions, &Wanted::new(&pod_template(image), &cache)), expected, "{there:?} {image}");
        };
        check(&[], "a", Choice::Create(1));
        check(&[("a", 1)], "a", Choice::Keep(revision("a", 1)));
        check(&[("a", 1)], "b", Choice::Create(2));
        check(&[("b", 4), ("a", 2)], "a", Choice::Raise(revision("a", 2), 5));
        check(&[("a", 1), ("a", 3), ("b", 2)], "a", Choice::Keep(revision("a", 3)));
    }
}

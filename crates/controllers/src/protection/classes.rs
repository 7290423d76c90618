//! A VolumeAttributesClass stays as long as a volume has it, or a claim has it, wants it or is getting it (KEP-3751).
//!
//! The caches alone say who uses it, as upstream: a claim that comes in the same moment may find its class gone, and waits for it then.

use ::pods::volumes::attributes_classes;
use client::Api;
use client::{Index, Informer, Informers, Key, Values};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use super::settle;
use crate::controller::{Action, Controller, Cx, Error, Source};

const FINALIZER: &str = "kubernetes.io/vac-protection";

pub(crate) struct ClassProtection {
    classes: Informer<VolumeAttributesClass>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    claims_by_class: Index<PersistentVolumeClaim>,
    volumes_by_class: Index<PersistentVolume>,
}

impl ClassProtection {
    pub(crate) fn new(informers: &Informers) -> Self {
        let (claims, volumes) = (informers.of(), informers.of());
        let claims_by_class = claims.index("attributes-class", |claim, values| add(values, attributes_classes(claim)));
        let volumes_by_class = volumes.index("attributes-class", |volume, values| add(values, of_volume(volume)));
        Self { classes: informers.of(), claims_by_class, volumes_by_class, claims, volumes }
    }
}

fn add<'a>(values: &mut Values, names: impl Iterator<Item = &'a str>) {
    names.for_each(|name| values.add(name));
}

fn of_volume(volume: &PersistentVolume) -> impl Iterator<Item = &str> {
    let name = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    name.into_iter().filter(|name| !name.is_empty())
}

/// Looks at the classes again that an object named before: they may be free now.
fn freed<K: client::Object>(informer: &Informer<K>, names: fn(&K) -> Vec<String>) -> Source {
    Source::mapped(informer, move |change, queue| {
        let before = change.old.as_deref().map(names).unwrap_or_default();
        before.into_iter().for_each(|name| queue.add(Key::cluster(name)));
    })
}

impl Controller for ClassProtection {
    const NAME: &'static str = "volumeattributesclass-protection";
    const ACCOUNT: &'static str = "volumeattributesclass-protection-controller";

    fn sources(&self) -> Vec<Source> {
        let of_claims = freed(&self.claims, |claim| attributes_classes(claim).map(str::to_owned).collect());
        let of_volumes = freed(&self.volumes, |volume| of_volume(volume).map(str::to_owned).collect());
        vec![Source::own(&self.classes), of_claims, of_volumes]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(class) = self.classes.by_key(key) else { return Ok(Action::Done) };
        let used = !self.volumes_by_class.get(&key.name).is_empty() || !self.claims_by_class.get(&key.name).is_empty();
        settle(&Api::all(cx.client.clone()), class.as_ref(), FINALIZER, used).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use client::kube::api::{DeleteParams, PostParams};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{World, object};

    #[test]
    fn claims_name_classes() {
        let check = |spec: Value, status: Value, expected: &[&str]| {
            let claim: PersistentVolumeClaim = object(json!({"metadata": {"name": "c"}, "spec": spec, "status": status}));
            assert_eq!(attributes_classes(&claim).collect::<Vec<_>>(), expected);
        };
        check(json!({}), json!({}), &[]);
        check(json!({"volumeAttributesClassName": ""}), json!({"currentVolumeAttributesClassName": ""}), &[]);
        check(json!({"volumeAttributesClassName": "a"}), json!({}), &["a"]);
        let changing = json!({"currentVolumeAttributesClassName": "b",
            "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "c"}});
        check(json!({"volumeAttributesClassName": "a"}), changing, &["a", "b", "c"]);
    }

    /// KEP-3751: a class "in use" by a claim or a volume "should be protected" by the finalizer; upstream's end-to-end test is [sig-storage]
    /// VolumeAttributesClass should be protected by vac-protection finalizer.
    #[tokio::test]
    async fn a_class_stays_while_it_is_used() {
        let world = World::new();
        let class: VolumeAttributesClass = object(json!({"metadata": {"name": "gold"}, "driverName": "d.example"}));
        let volume: PersistentVolume = object(json!({"metadata": {"name": "v"}, "spec": {"volumeAttributesClassName": "gold"}}));
        let claim: PersistentVolumeClaim =
            object(json!({"metadata": {"name": "c", "namespace": "a"}, "spec": {"volumeAttributesClassName": "gold"}}));
        world.fake.put(&class);
        world.fake.put(&volume);
        world.fake.put(&claim);
        world.start(&["volumeattributesclass-protection"]);
        let protected = |all: &[VolumeAttributesClass]| all.iter().all(|class| class.metadata.finalizers.is_some());
        world.fake.until::<VolumeAttributesClass>(protected).await;
        let classes: Api<VolumeAttributesClass> = Api::all(world.fake.client());
        classes.delete("gold", &DeleteParams::default()).await.unwrap();

        // The claim takes another class, and the volume still has this one.
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.fake.client(), "a");
        let mut other = claims.get("c").await.unwrap();
        other.spec.as_mut().unwrap().volume_attributes_class_name = Some("silver".to_owned());
        claims.replace("c", &PostParams::default(), &other).await.unwrap();
        assert!(classes.get("gold").await.unwrap().metadata.deletion_timestamp.is_some());
        let volumes: Api<PersistentVolume> = Api::all(world.fake.client());
        volumes.delete("v", &DeleteParams::default()).await.unwrap();
        world.fake.until::<VolumeAttributesClass>(<[VolumeAttributesClass]>::is_empty).await;
    }
}

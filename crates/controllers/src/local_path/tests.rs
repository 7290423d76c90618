#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::testing::{World, object};

fn claim(annotations: Value, spec: Value) -> PersistentVolumeClaim {
    let mut whole =
        json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    object(json!({"metadata": {"namespace": "a", "name": "data", "uid": "u", "annotations": annotations}, "spec": whole}))
}

#[test]
fn what_cannot_be_made_is_refused() {
    let of = |spec: Value| check(&claim(json!({}), spec));
    assert_eq!(of(json!({})), Ok(()));
    assert_eq!(of(json!({"accessModes": ["ReadWriteOncePod"]})), Ok(()));
    assert_eq!(of(json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]})), Err(Refusal::Modes));
    assert_eq!(of(json!({"volumeMode": "Block"})), Err(Refusal::Block));
    assert_eq!(of(json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "x"}})), Err(Refusal::Source));
}

#[test]
fn only_directories_of_its_own_are_touched() {
    let place = LocalVolumes { node: "n".into(), root: "/data/volumes".into() };
    let check = |annotations: Value, path: &str, expected: Option<&str>| {
        let volume = object(json!({"metadata": {"name": "v", "annotations": annotations}, "spec": {"local": {"path": path}}}));
        assert_eq!(directory(&place, &volume), expected.map(PathBuf::from), "{path}");
    };
    let ours = || json!({PROVISIONED_BY: PROVISIONER});
    check(ours(), "/data/volumes/v", Some("/data/volumes/v"));
    check(ours(), "/data/volumes/w", None);
    check(ours(), "/data/volumes/../v", None);
    check(ours(), "/etc", None);
    check(json!({PROVISIONED_BY: "other"}), "/data/volumes/v", None);
}

#[tokio::test]
async fn makes_and_removes_directories() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().canonicalize().unwrap().join("volumes");
    let world = World::new();
    let mut options = world.options();
    options.local_volumes = Some(LocalVolumes { node: "n".into(), root: root.clone() });
    world.fake.put::<StorageClass>(&object(
        json!({"metadata": {"name": "local"}, "provisioner": PROVISIONER, "reclaimPolicy": "Delete"}),
    ));
    let asked = |node: &str| json!({PROVISIONERS[0]: PROVISIONER, SELECTED_NODE: node});
    world.fake.put(&claim(asked("n"), json!({})));
    let mut other = claim(asked("m"), json!({}));
    (other.metadata.name, other.metadata.uid) = (Some("other".into()), Some("o".into()));
    world.fake.put(&other);
    world.start_with(&options, &["local-path-provisioner", "persistentvolume-binder"]);
    let bound = |volumes: &[PersistentVolume]| {
        volumes.iter().any(|one| one.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound")))
    };
    world.fake.until::<PersistentVolume>(bound).await;
    let volumes = world.fake.all::<PersistentVolume>();
    assert_eq!(volumes.iter().map(meta::name).collect::<Vec<_>>(), ["pvc-u"]);
    assert!(volumes::is_reachable(&volumes[0], "n", &Some([(HOSTNAME.to_owned(), "n".to_owned())].into())));
    let directory = root.join("pvc-u");
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o777);
    fs::write(directory.join("file"), "data").unwrap();

    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.fake.client(), "a");
    claims.delete("data", &Default::default()).await.unwrap();
    world.fake.until::<PersistentVolume>(|volumes| volumes.is_empty()).await;
    assert!(!directory.exists() && root.exists());
}

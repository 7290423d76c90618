//! What is asked of a driver for a volume of a pod. Pure.

use std::collections::HashMap;

use csi::messages::{AccessMode, AccessType, BlockVolume, Mode, MountVolume, VolumeCapability};
use k8s_openapi::api::core::v1::{PersistentVolume, SecretReference, Volume};

use super::policy::Policy;
use crate::spec::Model;

/// A map of the interface.
pub type Context = HashMap<String, String>;

/// A Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName {
    /// Where it is.
    pub namespace: String,
    /// How it is called.
    pub name: String,
}

/// A volume that a driver serves, as its PersistentVolume or the pod describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The driver's name.
    pub driver: String,
    /// How the driver calls the volume.
    pub handle: String,
    /// The name of its PersistentVolume, or of the pod's volume.
    pub name: String,
    /// It comes and goes with the pod.
    pub ephemeral: bool,
    /// It is a device.
    pub block: bool,
    /// The type of its file system.
    pub fs_type: String,
    /// How it is mounted.
    pub options: Vec<String>,
    /// By whom it is used.
    pub modes: Vec<String>,
    /// It is only read.
    pub read_only: bool,
    /// What the driver has noted.
    pub attributes: Context,
    /// For staging.
    pub stage_secret: Option<SecretName>,
    /// For publishing.
    pub publish_secret: Option<SecretName>,
    /// For growing.
    pub expand_secret: Option<SecretName>,
}

fn secret(reference: Option<&SecretReference>) -> Option<SecretName> {
    let reference = reference?;
    Some(SecretName { namespace: reference.namespace.clone().unwrap_or_default(), name: reference.name.clone()? })
}

impl Source {
    /// Of a PersistentVolume that a driver serves. `to_read` says that the pod only reads.
    pub fn of_volume(volume: &PersistentVolume, to_read: bool) -> Option<Self> {
        let spec = volume.spec.as_ref()?;
        let source = spec.csi.as_ref()?;
        Some(Self {
            driver: source.driver.clone(),
            handle: source.volume_handle.clone(),
            name: volume.metadata.name.clone().unwrap_or_default(),
            ephemeral: false,
            block: spec.volume_mode.as_deref() == Some("Block"),
            fs_type: source.fs_type.clone().unwrap_or_default(),
            options: spec.mount_options.clone().unwrap_or_default(),
            modes: spec.access_modes.clone().unwrap_or_default(),
            read_only: source.read_only == Some(true) || to_read,
            attributes: source.volume_attributes.clone().unwrap_or_default().into_iter().collect(),
            stage_secret: secret(source.node_stage_secret_ref.as_ref()),
            publish_secret: secret(source.node_publish_secret_ref.as_ref()),
            expand_secret: secret(source.node_expand_secret_ref.as_ref()),
        })
    }

    /// Of a volume that the pod itself describes.
    pub fn of_pod(model: &Model, volume: &Volume) -> Option<Self> {
        let source = volume.csi.as_ref()?;
        let of_namespace = |name: String| SecretName { namespace: model.namespace().to_owned(), name };
        Some(Self {
            driver: source.driver.clone(),
            handle: format!("csi-{}", pods::csi::digest(&format!("{}{}", model.uid(), volume.name))),
            name: volume.name.clone(),
            ephemeral: true,
            block: false,
            fs_type: source.fs_type.clone().unwrap_or_default(),
            options: Vec::new(),
            modes: vec!["ReadWriteOnce".to_owned()],
            read_only: source.read_only == Some(true),
            attributes: source.volume_attributes.clone().unwrap_or_default().into_iter().collect(),
            stage_secret: None,
            publish_secret: source.node_publish_secret_ref.as_ref().map(|reference| of_namespace(reference.name.clone())),
            expand_secret: None,
        })
    }

    /// How it is used. A driver with `several_writers` tells apart how many pods of a node write; one that gives volumes to a group by itself is
    /// told the `group`.
    pub fn capability(&self, several_writers: bool, group: Option<u32>) -> VolumeCapability {
        let access_type = match self.block {
            true => AccessType::Block(BlockVolume {}),
            false => AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.options.clone(),
                volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
            }),
        };
        let mode = self.mode(several_writers) as i32;
        VolumeCapability { access_type: Some(access_type), access_mode: Some(AccessMode { mode }) }
    }

    fn mode(&self, several_writers: bool) -> Mode {
        match self.modes.first().map(String::as_str) {
            Some("ReadOnlyMany") => Mode::MultiNodeReaderOnly,
            Some("ReadWriteMany") => Mode::MultiNodeMultiWriter,
            Some("ReadWriteOncePod") if several_writers => Mode::SingleNodeSingleWriter,
            _ if several_writers => Mode::SingleNodeMultiWriter,
            _ => Mode::SingleNodeWriter,
        }
    }

    /// What the driver has noted, and what it asks to know of the pod.
    pub fn context(&self, model: &Model, policy: &Policy) -> Context {
        let mut context = self.attributes.clone();
        if policy.pod_info {
            let account = model.spec().service_account_name.clone().unwrap_or_default();
            let facts = [
                ("pod.name", model.name()),
                ("pod.namespace", model.namespace()),
                ("pod.uid", model.uid()),
                ("serviceAccount.name", account.as_str()),
                ("ephemeral", if self.ephemeral { "true" } else { "false" }),
            ];
            context.extend(facts.map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value.to_owned())));
        }
        context
    }

    /// Why the driver does not serve such a volume.
    pub fn refused_by(&self, policy: &Policy) -> Result<(), String> {
        let (mode, offered) = match self.ephemeral {
            true => ("Ephemeral", policy.ephemeral),
            false => ("Persistent", policy.persistent),
        };
        if offered {
            return Ok(());
        }
        Err(format!("volume mode {mode:?} not supported by driver {}: its CSIDriver object does not say so", self.driver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::{Value, json};

    fn volume(spec: Value) -> PersistentVolume {
        let mut whole = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": ["ReadWriteOnce"]}});
        whole["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn persistent_volumes() {
        let source = Source::of_volume(
            &volume(json!({"mountOptions": ["noatime"], "csi": {"driver": "d", "volumeHandle": "h", "fsType": "ext4",
                "volumeAttributes": {"a": "b"}, "nodeStageSecretRef": {"name": "s", "namespace": "n"}}})),
            true,
        );
        let source = source.unwrap();
        assert_eq!((source.driver.as_str(), source.handle.as_str(), source.name.as_str()), ("d", "h", "pv"));
        assert_eq!((source.ephemeral, source.block, source.read_only), (false, false, true));
        assert_eq!(source.stage_secret, Some(SecretName { namespace: "n".to_owned(), name: "s".to_owned() }));
        assert_eq!(source.publish_secret, None);
        let Some(AccessType::Mount(mount)) = source.capability(false, Some(7)).access_type else { panic!("not a mount") };
        assert_eq!((mount.fs_type.as_str(), mount.volume_mount_group.as_str()), ("ext4", "7"));
        assert_eq!(mount.mount_flags, ["noatime"]);
        assert_eq!(Source::of_volume(&volume(json!({"local": {"path": "/d"}})), false), None);
    }

    /// CSI specification, VolumeCapability.AccessMode.
    #[test]
    fn access_modes() {
        let check = |modes: Value, several: bool, expected: Mode| {
            let volume = volume(json!({"accessModes": modes, "csi": {"driver": "d", "volumeHandle": "h"}}));
            let capability = Source::of_volume(&volume, false).unwrap().capability(several, None);
            assert_eq!(capability.access_mode.unwrap().mode, expected as i32, "{modes} {several}");
        };
        check(json!(["ReadWriteOnce"]), false, Mode::SingleNodeWriter);
        check(json!(["ReadWriteOnce"]), true, Mode::SingleNodeMultiWriter);
        check(json!(["ReadWriteOncePod"]), true, Mode::SingleNodeSingleWriter);
        check(json!(["ReadWriteOncePod"]), false, Mode::SingleNodeWriter);
        check(json!(["ReadOnlyMany"]), true, Mode::MultiNodeReaderOnly);
        check(json!(["ReadWriteMany", "ReadWriteOnce"]), true, Mode::MultiNodeMultiWriter);
        check(json!([]), false, Mode::SingleNodeWriter);
    }

    #[test]
    fn volumes_of_pods() {
        let pod = model(json!({"serviceAccountName": "sa", "containers": [], "volumes": [
            {"name": "v", "csi": {"driver": "d", "readOnly": true, "volumeAttributes": {"a": "b"}, "nodePublishSecretRef": {"name": "s"}}}]}));
        let source = Source::of_pod(&pod, &pod.spec().volumes.as_ref().unwrap()[0]).unwrap();
        assert_eq!(source.handle, format!("csi-{}", pods::csi::digest("uv")));
        assert!(source.ephemeral && source.read_only);
        assert_eq!(source.publish_secret, Some(SecretName { namespace: pod.namespace().to_owned(), name: "s".to_owned() }));
        let quiet = source.context(&pod, &Policy::of(None));
        assert_eq!(quiet, HashMap::from([("a".to_owned(), "b".to_owned())]));
        let told = source.context(&pod, &Policy { pod_info: true, ..Policy::of(None) });
        let fact = |key: &str| told.get(&format!("csi.storage.k8s.io/{key}")).map(String::as_str);
        assert_eq!((fact("pod.name"), fact("pod.uid")), (Some("p"), Some("u")));
        assert_eq!((fact("serviceAccount.name"), fact("ephemeral")), (Some("sa"), Some("true")));
        assert!(source.refused_by(&Policy::of(None)).unwrap_err().contains("\"Ephemeral\" not supported by driver d"));
        assert_eq!(source.refused_by(&Policy { ephemeral: true, ..Policy::of(None) }), Ok(()));
    }
}

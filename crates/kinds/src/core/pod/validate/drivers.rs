//! Volume sources of storage systems, of pods.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{ISCSIVolumeSource, PersistentVolumeClaimTemplate, StorageOSVolumeSource, Volume};

use crate::core::validate_claim_spec;
use crate::core::volume_source::{
    self as source, aws_disk, azure_disk, fibre_channel, first, flex, flocker, gce_disk, git_repo, needs, nfs, photon_disk,
    portworx, quobyte, vsphere_disk,
};
use crate::rules::{self, OneOf, text};

pub(super) fn validate(volume: &Volume, one: &mut OneOf<'_>, errors: &mut Errors) {
    one.field("gitRepo", &volume.git_repo, errors, git_repo);
    one.field("nfs", &volume.nfs, errors, nfs);
    one.field("iscsi", &volume.iscsi, errors, |source, path, errors| iscsi(source, &volume.name, path, errors));
    one.field("fc", &volume.fc, errors, fibre_channel);
    one.field("flexVolume", &volume.flex_volume, errors, |v, path, errors| flex(&v.driver, v.options.as_ref(), path, errors));
    one.field("azureDisk", &volume.azure_disk, errors, azure_disk);
    one.field("quobyte", &volume.quobyte, errors, quobyte);
    one.field("flocker", &volume.flocker, errors, flocker);
    one.field("storageos", &volume.storageos, errors, storage_os);
    one.field("gcePersistentDisk", &volume.gce_persistent_disk, errors, gce_disk);
    one.field("awsElasticBlockStore", &volume.aws_elastic_block_store, errors, aws_disk);
    one.field("glusterfs", &volume.glusterfs, errors, |v, path, errors| {
        needs(path, &[("endpoints", &v.endpoints), ("path", &v.path)], errors);
    });
    one.field("rbd", &volume.rbd, errors, |v, path, errors| {
        needs(path, &[("monitors", first(&v.monitors)), ("image", &v.image)], errors);
    });
    one.field("cinder", &volume.cinder, errors, |v, path, errors| {
        needs(path, &[("volumeID", &v.volume_id)], errors);
        if v.secret_ref.as_ref().is_some_and(|secret| secret.name.is_empty()) {
            errors.push(Error::required(&path.child("secretRef.name"), ""));
        }
    });
    one.field("cephfs", &volume.cephfs, errors, |v, path, errors| needs(path, &[("monitors", first(&v.monitors))], errors));
    one.field("azureFile", &volume.azure_file, errors, |v, path, errors| {
        needs(path, &[("secretName", &v.secret_name), ("shareName", &v.share_name)], errors);
    });
    one.field("vsphereVolume", &volume.vsphere_volume, errors, vsphere_disk);
    one.field("photonPersistentDisk", &volume.photon_persistent_disk, errors, photon_disk);
    one.field("portworxVolume", &volume.portworx_volume, errors, portworx);
    one.field("scaleIO", &volume.scale_io, errors, |v, path, errors| {
        needs(path, &[("gateway", &v.gateway), ("system", &v.system), ("volumeName", text(&v.volume_name))], errors);
    });
}

fn iscsi(volume: &ISCSIVolumeSource, name: &str, path: &Path, errors: &mut Errors) {
    let common = source::Iscsi {
        portal: &volume.target_portal,
        iqn: &volume.iqn,
        lun: volume.lun,
        initiator: volume.initiator_name.as_deref(),
        authenticates: volume.chap_auth_discovery == Some(true) || volume.chap_auth_session == Some(true),
        has_secret: volume.secret_ref.is_some(),
    };
    source::iscsi(&common, name, path, errors, |errors| {
        // Upstream reports it on the volume's name.
        let volume_path = Path::new(path.as_str().trim_end_matches(".iscsi"));
        errors.push(Error::invalid(&volume_path.child("name"), name, source::ISCSI_TOO_LONG));
    });
}

fn storage_os(source: &StorageOSVolumeSource, path: &Path, errors: &mut Errors) {
    match text(&source.volume_name) {
        "" => errors.push(Error::required(&path.child("volumeName"), "")),
        name => rules::dns_label(&path.child("volumeName"), name, errors),
    }
    if !text(&source.volume_namespace).is_empty() {
        rules::dns_label(&path.child("volumeNamespace"), text(&source.volume_namespace), errors);
    }
    if source.secret_ref.as_ref().is_some_and(|secret| secret.name.is_empty()) {
        errors.push(Error::required(&path.child("secretRef.name"), ""));
    }
}

/// The claim of an ephemeral volume.
pub(super) fn validate_claim_template(template: &PersistentVolumeClaimTemplate, path: &Path, errors: &mut Errors) {
    rules::template_metadata(&path.child("metadata"), template.metadata.as_ref(), errors);
    validate_claim_spec(&template.spec, &path.child("spec"), errors);
}

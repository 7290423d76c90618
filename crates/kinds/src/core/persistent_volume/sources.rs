//! Where a volume's data are: one source each. Secrets of these have namespaces, as volumes have none.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::core::v1::{
    AzureFilePersistentVolumeSource, CSIPersistentVolumeSource, GlusterfsPersistentVolumeSource, ISCSIPersistentVolumeSource,
    LocalVolumeSource, PersistentVolumeSpec, SecretReference, StorageOSPersistentVolumeSource,
};

use crate::core::pod::host_path;
use crate::core::volume_source::{
    self as source, aws_disk, azure_disk, fibre_channel, first, flex, flocker, gce_disk, needs, nfs, photon_disk, portworx,
    quobyte, vsphere_disk,
};
use crate::rules::{self, OneOf, text};

pub(super) fn validate(spec: &PersistentVolumeSpec, name: &str, path: &Path, errors: &mut Errors) {
    let mut one = OneOf::new(path, "may not specify more than 1 volume type");
    one.field("hostPath", &spec.host_path, errors, host_path);
    one.field("gcePersistentDisk", &spec.gce_persistent_disk, errors, |v, _, errors| {
        // Upstream calls it by this name.
        gce_disk(v, &path.child("persistentDisk"), errors);
    });
    one.field("awsElasticBlockStore", &spec.aws_elastic_block_store, errors, aws_disk);
    one.field("glusterfs", &spec.glusterfs, errors, glusterfs);
    one.field("flocker", &spec.flocker, errors, flocker);
    one.field("nfs", &spec.nfs, errors, nfs);
    one.field("rbd", &spec.rbd, errors, |v, path, errors| {
        needs(path, &[("monitors", first(&v.monitors)), ("image", &v.image)], errors);
    });
    one.field("quobyte", &spec.quobyte, errors, quobyte);
    one.field("cephfs", &spec.cephfs, errors, |v, path, errors| needs(path, &[("monitors", first(&v.monitors))], errors));
    one.field("iscsi", &spec.iscsi, errors, |v, path, errors| iscsi(v, name, path, errors));
    one.field("cinder", &spec.cinder, errors, |v, path, errors| {
        needs(path, &[("volumeID", &v.volume_id)], errors);
        if let Some(secret) = &v.secret_ref {
            needs(&path.child("secretRef"), &[("name", text(&secret.name)), ("namespace", text(&secret.namespace))], errors);
        }
    });
    one.field("fc", &spec.fc, errors, fibre_channel);
    one.field("flexVolume", &spec.flex_volume, errors, |v, path, errors| flex(&v.driver, v.options.as_ref(), path, errors));
    one.field("azureFile", &spec.azure_file, errors, azure_file);
    one.field("vsphereVolume", &spec.vsphere_volume, errors, vsphere_disk);
    one.field("photonPersistentDisk", &spec.photon_persistent_disk, errors, photon_disk);
    one.field("portworxVolume", &spec.portworx_volume, errors, portworx);
    one.field("azureDisk", &spec.azure_disk, errors, azure_disk);
    one.field("scaleIO", &spec.scale_io, errors, |v, path, errors| {
        needs(path, &[("gateway", &v.gateway), ("system", &v.system), ("volumeName", text(&v.volume_name))], errors);
    });
    one.field("local", &spec.local, errors, |v, at, errors| {
        local(v, at, errors);
        if spec.node_affinity.is_none() {
            errors.push(Error::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    });
    one.field("storageos", &spec.storageos, errors, storage_os);
    one.field("csi", &spec.csi, errors, csi);
    one.finish("must specify a volume type", errors);
}

fn glusterfs(volume: &GlusterfsPersistentVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("endpoints", &volume.endpoints), ("path", &volume.path)], errors);
    let at = path.child("endpointsNamespace");
    match volume.endpoints_namespace.as_deref() {
        Some("") => {
            let detail = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(Error::invalid(&at, "", detail));
        }
        Some(namespace) => rules::dns_label(&at, namespace, errors),
        None => {}
    }
}

fn iscsi(volume: &ISCSIPersistentVolumeSource, name: &str, path: &Path, errors: &mut Errors) {
    let common = source::Iscsi {
        portal: &volume.target_portal,
        iqn: &volume.iqn,
        lun: volume.lun,
        initiator: volume.initiator_name.as_deref(),
        authenticates: volume.chap_auth_discovery == Some(true) || volume.chap_auth_session == Some(true),
        has_secret: volume.secret_ref.is_some(),
    };
    source::iscsi(&common, name, path, errors, |errors| {
        errors.push(Error::invalid(&path.child("targetportal"), volume.target_portal.as_str(), source::ISCSI_TOO_LONG));
    });
    if let Some(secret) = &volume.secret_ref {
        needs(&path.child("secretRef"), &[("name", text(&secret.name))], errors);
    }
}

fn azure_file(volume: &AzureFilePersistentVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("secretName", &volume.secret_name), ("shareName", &volume.share_name)], errors);
    if volume.secret_namespace.as_deref() == Some("") {
        errors.push(Error::required(&path.child("secretNamespace"), ""));
    }
}

fn local(volume: &LocalVolumeSource, path: &Path, errors: &mut Errors) {
    let path = path.child("path");
    rules::required(&path, &volume.path, errors);
    rules::no_backsteps(&path, &volume.path, errors);
}

fn storage_os(volume: &StorageOSPersistentVolumeSource, path: &Path, errors: &mut Errors) {
    match text(&volume.volume_name) {
        "" => errors.push(Error::required(&path.child("volumeName"), "")),
        name => rules::dns_label(&path.child("volumeName"), name, errors),
    }
    if !text(&volume.volume_namespace).is_empty() {
        rules::dns_label(&path.child("volumeNamespace"), text(&volume.volume_namespace), errors);
    }
    if let Some(secret) = &volume.secret_ref {
        needs(&path.child("secretRef"), &[("name", text(&secret.name)), ("namespace", text(&secret.namespace))], errors);
    }
}

fn csi(volume: &CSIPersistentVolumeSource, path: &Path, errors: &mut Errors) {
    rules::driver_name(&path.child("driver"), &volume.driver, errors);
    needs(path, &[("volumeHandle", &volume.volume_handle)], errors);
    let secrets = [
        ("controllerPublishSecretRef", &volume.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &volume.controller_expand_secret_ref),
        ("nodePublishSecretRef", &volume.node_publish_secret_ref),
        ("nodeExpandSecretRef", &volume.node_expand_secret_ref),
    ];
    for (field, secret) in secrets {
        if let Some(secret) = secret {
            secret_reference(secret, &path.child(field), errors);
        }
    }
}

fn secret_reference(secret: &SecretReference, path: &Path, errors: &mut Errors) {
    match text(&secret.name) {
        "" => errors.push(Error::required(&path.child("name"), "")),
        name => rules::dns_subdomain(&path.child("name"), name, errors),
    }
    match text(&secret.namespace) {
        "" => errors.push(Error::required(&path.child("namespace"), "")),
        namespace => rules::dns_label(&path.child("namespace"), namespace, errors),
    }
}

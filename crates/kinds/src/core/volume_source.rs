//! Volume sources of storage systems, of pods and of persistent volumes. Nodes of this cluster do not mount most of them; what is
//! stored is as well-formed as anywhere.

use std::collections::BTreeMap;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, FCVolumeSource, FlockerVolumeSource, GCEPersistentDiskVolumeSource,
    GitRepoVolumeSource, NFSVolumeSource, PhotonPersistentDiskVolumeSource, PortworxVolumeSource, QuobyteVolumeSource,
    VsphereVirtualDiskVolumeSource,
};
use serde_json::Value;

use crate::rules::{self, list, text};
use crate::util::{set_default, set_zero};

/// What is said of a volume whose name and portal are too long together.
pub(crate) const ISCSI_TOO_LONG: &str =
    "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// Fields of all sources that are not there and have a default.
pub(crate) fn apply_defaults(volume: &mut Value) {
    const DRIVERS: &[(&str, &str, &str)] = &[
        ("iscsi", "iscsiInterface", "default"),
        ("rbd", "pool", "rbd"),
        ("rbd", "user", "admin"),
        ("rbd", "keyring", "/etc/ceph/keyring"),
        ("azureDisk", "cachingMode", "ReadWrite"),
        ("azureDisk", "kind", "Shared"),
        ("azureDisk", "fsType", "ext4"),
        ("scaleIO", "storageMode", "ThinProvisioned"),
        ("scaleIO", "fsType", "xfs"),
    ];
    for (driver, field, value) in DRIVERS {
        if let Some(source) = volume.get_mut(driver) {
            set_zero(source, field, *value);
        }
    }
    if let Some(disk) = volume.get_mut("azureDisk") {
        set_default(disk, "readOnly", false);
    }
    if let Some(path) = volume.get_mut("hostPath") {
        set_default(path, "type", "");
    }
}

pub(crate) fn needs(path: &Path, fields: &[(&str, &str)], errors: &mut Errors) {
    for (field, value) in fields {
        rules::required(&path.child(field), value, errors);
    }
}

pub(crate) fn first(list: &[String]) -> &str {
    list.first().map_or("", |_| "some")
}

pub(crate) fn aws_disk(disk: &AWSElasticBlockStoreVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("volumeID", &disk.volume_id)], errors);
    partition(path, disk.partition, errors);
}

pub(crate) fn gce_disk(disk: &GCEPersistentDiskVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("pdName", &disk.pd_name)], errors);
    partition(path, disk.partition, errors);
}

pub(crate) fn vsphere_disk(disk: &VsphereVirtualDiskVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("volumePath", &disk.volume_path)], errors);
}

pub(crate) fn photon_disk(disk: &PhotonPersistentDiskVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("pdID", &disk.pd_id)], errors);
}

pub(crate) fn portworx(volume: &PortworxVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("volumeID", &volume.volume_id)], errors);
}

fn partition(path: &Path, partition: Option<i32>, errors: &mut Errors) {
    if let Some(number) = partition.filter(|number| !(0..=255).contains(number)) {
        errors.push(Error::invalid(&path.child("partition"), number, names::range_error(1, 255)));
    }
}

pub(crate) fn git_repo(source: &GitRepoVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("repository", &source.repository)], errors);
    rules::descending_path(&path.child("directory"), text(&source.directory), errors);
}

pub(crate) fn nfs(source: &NFSVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("server", &source.server), ("path", &source.path)], errors);
    if !source.path.starts_with('/') {
        errors.push(Error::invalid(&path.child("path"), source.path.as_str(), "must be an absolute path"));
    }
}

/// What is common to iSCSI volumes of pods and of the cluster.
pub(crate) struct Iscsi<'a> {
    pub(crate) portal: &'a str,
    pub(crate) iqn: &'a str,
    pub(crate) lun: i32,
    pub(crate) initiator: Option<&'a str>,
    /// CHAP is asked for.
    pub(crate) authenticates: bool,
    pub(crate) has_secret: bool,
}

/// `too_long` is called when the initiator is named and the volume's name and its portal are too long together.
pub(crate) fn iscsi(source: &Iscsi<'_>, volume: &str, path: &Path, errors: &mut Errors, too_long: impl FnOnce(&mut Errors)) {
    needs(path, &[("targetPortal", source.portal), ("iqn", source.iqn)], errors);
    if !source.iqn.is_empty() {
        iscsi_name(&path.child("iqn"), source.iqn, errors);
    }
    rules::in_range(&path.child("lun"), Some(source.lun.into()), 0, 255, errors);
    if source.authenticates && !source.has_secret {
        errors.push(Error::required(&path.child("secretRef"), ""));
    }
    let Some(initiator) = source.initiator else { return };
    iscsi_name(&path.child("initiatorname"), initiator, errors);
    if volume.len() + 1 + source.portal.len() > 64 {
        too_long(errors);
    }
}

fn iscsi_name(path: &Path, name: &str, errors: &mut Errors) {
    let hex = |prefix: &str, count: usize| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.len() == count + 1 && rest.bytes().skip(1).all(|b| b.is_ascii_alphanumeric()))
    };
    let fits = match name.get(..3) {
        Some("iqn") => is_iqn(name),
        Some("eui") => hex("eui", 16),
        Some("naa") => hex("naa", 32),
        _ => {
            return errors.push(Error::invalid(path, name, "must be valid format starting with iqn, eui, or naa"));
        }
    };
    if !fits {
        errors.push(Error::invalid(path, name, "must be valid format"));
    }
}

/// `iqn.YYYY-MM.` an authority, and `:` with a name.
fn is_iqn(name: &str) -> bool {
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else { return false };
    let date = date.as_bytes();
    let digits = date.iter().enumerate().all(|(i, b)| if i == 4 { *b == b'-' } else { b.is_ascii_digit() });
    let Some((authority, unique)) = rest.split_once(':') else { return false };
    date.len() == 7
        && digits
        && !authority.is_empty()
        && authority.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && !unique.is_empty()
        && !unique.contains(|c: char| ",;*&$|".contains(c) || c.is_whitespace())
}

pub(crate) fn fibre_channel(source: &FCVolumeSource, path: &Path, errors: &mut Errors) {
    let (names, ids) = (list(&source.target_wwns), list(&source.wwids));
    let at = path.child("targetWWNs");
    if names.is_empty() && ids.is_empty() {
        errors.push(Error::required(&at, "must specify either targetWWNs or wwids, but not both"));
    }
    if !names.is_empty() && !ids.is_empty() {
        errors.push(Error::invalid(&at, names.to_vec(), "targetWWNs and wwids can not be specified simultaneously"));
    }
    if !names.is_empty() {
        match source.lun {
            None => errors.push(Error::required(&path.child("lun"), "lun is required if targetWWNs is specified")),
            Some(lun) => rules::in_range(&path.child("lun"), Some(lun.into()), 0, 255, errors),
        }
    }
}

/// A driver that is a program on the nodes; its options are its own.
pub(crate) fn flex(driver: &str, options: Option<&BTreeMap<String, String>>, path: &Path, errors: &mut Errors) {
    needs(path, &[("driver", driver)], errors);
    for key in options.into_iter().flatten().map(|(key, _)| key) {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(&path.child("options").key(key), key.as_str(), detail));
        }
    }
}

pub(crate) fn azure_disk(source: &AzureDiskVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("diskName", &source.disk_name), ("diskURI", &source.disk_uri)], errors);
    let caching = source.caching_mode.as_deref();
    rules::supported(&path.child("cachingMode"), caching, &["None", "ReadOnly", "ReadWrite"], errors);
    let kind = source.kind.as_deref();
    rules::supported(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"], errors);
    let uri = source.disk_uri.as_str();
    let form = match kind {
        Some("Managed") if !uri.starts_with("/subscriptions/") => {
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
        }
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
        }
        _ => return,
    };
    errors.push(Error::not_supported(&path.child("diskURI"), uri, &[form]));
}

pub(crate) fn quobyte(source: &QuobyteVolumeSource, path: &Path, errors: &mut Errors) {
    let detail = "must be a host:port pair or multiple pairs separated by commas";
    if source.registry.is_empty() {
        errors.push(Error::required(&path.child("registry"), detail));
    } else if text(&source.tenant).len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(Error::required(&path.child("tenant"), detail));
    } else {
        for _ in source.registry.split(',').filter(|pair| pair.matches(':').count() != 1 && !pair.contains("]:")) {
            errors.push(Error::invalid(&path.child("registry"), source.registry.as_str(), detail));
        }
    }
    needs(path, &[("volume", &source.volume)], errors);
}

pub(crate) fn flocker(source: &FlockerVolumeSource, path: &Path, errors: &mut Errors) {
    let (name, uuid) = (text(&source.dataset_name), text(&source.dataset_uuid));
    match (name.is_empty(), uuid.is_empty()) {
        (true, true) => errors.push(Error::required(path, "one of datasetName and datasetUUID is required")),
        (false, false) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(Error::invalid(path, "resource", detail));
        }
        _ => {}
    }
    if name.contains('/') {
        errors.push(Error::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

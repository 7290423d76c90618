//! Volume sources of storage systems. Nodes of this cluster do not mount them; what is stored is as well-formed as anywhere.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use apimachinery::names;
use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, FCVolumeSource, FlexVolumeSource, FlockerVolumeSource, GitRepoVolumeSource, ISCSIVolumeSource,
    NFSVolumeSource, PersistentVolumeClaimSpec, PersistentVolumeClaimTemplate, QuobyteVolumeSource, StorageOSVolumeSource,
    Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::rules::resources::{amount, resource_amount};
use crate::rules::{self, NOT_POSITIVE, OneOf, list, text};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

pub(super) fn validate(volume: &Volume, one: &mut OneOf<'_>, errors: &mut Errors) {
    one.field("gitRepo", &volume.git_repo, errors, git_repo);
    one.field("nfs", &volume.nfs, errors, nfs);
    one.field("iscsi", &volume.iscsi, errors, |source, path, errors| iscsi(source, &volume.name, path, errors));
    one.field("fc", &volume.fc, errors, fibre_channel);
    one.field("flexVolume", &volume.flex_volume, errors, flex);
    one.field("azureDisk", &volume.azure_disk, errors, azure_disk);
    one.field("quobyte", &volume.quobyte, errors, quobyte);
    one.field("flocker", &volume.flocker, errors, flocker);
    one.field("storageos", &volume.storageos, errors, storage_os);
    one.field("gcePersistentDisk", &volume.gce_persistent_disk, errors, |v, path, errors| {
        needs(path, &[("pdName", &v.pd_name)], errors);
        partition(path, v.partition, errors);
    });
    one.field("awsElasticBlockStore", &volume.aws_elastic_block_store, errors, |v, path, errors| {
        needs(path, &[("volumeID", &v.volume_id)], errors);
        partition(path, v.partition, errors);
    });
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
    one.field("vsphereVolume", &volume.vsphere_volume, errors, |v, path, errors| {
        needs(path, &[("volumePath", &v.volume_path)], errors);
    });
    one.field("photonPersistentDisk", &volume.photon_persistent_disk, errors, |v, path, errors| {
        needs(path, &[("pdID", &v.pd_id)], errors);
    });
    one.field("portworxVolume", &volume.portworx_volume, errors, |v, path, errors| {
        needs(path, &[("volumeID", &v.volume_id)], errors);
    });
    one.field("scaleIO", &volume.scale_io, errors, |v, path, errors| {
        needs(path, &[("gateway", &v.gateway), ("system", &v.system), ("volumeName", text(&v.volume_name))], errors);
    });
}

fn needs(path: &Path, fields: &[(&str, &str)], errors: &mut Errors) {
    for (field, value) in fields {
        rules::required(&path.child(field), value, errors);
    }
}

fn first(list: &[String]) -> &str {
    list.first().map_or("", |_| "some")
}

fn partition(path: &Path, partition: Option<i32>, errors: &mut Errors) {
    if let Some(number) = partition.filter(|number| !(0..=255).contains(number)) {
        errors.push(Error::invalid(&path.child("partition"), number, names::range_error(1, 255)));
    }
}

fn git_repo(source: &GitRepoVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("repository", &source.repository)], errors);
    rules::descending_path(&path.child("directory"), text(&source.directory), errors);
}

fn nfs(source: &NFSVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("server", &source.server), ("path", &source.path)], errors);
    if !source.path.starts_with('/') {
        errors.push(Error::invalid(&path.child("path"), source.path.as_str(), "must be an absolute path"));
    }
}

fn iscsi(source: &ISCSIVolumeSource, volume: &str, path: &Path, errors: &mut Errors) {
    needs(path, &[("targetPortal", &source.target_portal), ("iqn", &source.iqn)], errors);
    if !source.iqn.is_empty() {
        iscsi_name(&path.child("iqn"), &source.iqn, errors);
    }
    rules::in_range(&path.child("lun"), Some(source.lun.into()), 0, 255, errors);
    if (source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true)) && source.secret_ref.is_none() {
        errors.push(Error::required(&path.child("secretRef"), ""));
    }
    let Some(initiator) = &source.initiator_name else { return };
    iscsi_name(&path.child("initiatorname"), initiator, errors);
    if volume.len() + 1 + source.target_portal.len() > 64 {
        let detail =
            "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        // Upstream reports it on the volume's name.
        let volume_path = Path::new(path.as_str().trim_end_matches(".iscsi"));
        errors.push(Error::invalid(&volume_path.child("name"), volume, detail));
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

fn fibre_channel(source: &FCVolumeSource, path: &Path, errors: &mut Errors) {
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

fn flex(source: &FlexVolumeSource, path: &Path, errors: &mut Errors) {
    needs(path, &[("driver", &source.driver)], errors);
    for key in source.options.iter().flatten().map(|(key, _)| key) {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(&path.child("options").key(key), key.as_str(), detail));
        }
    }
}

fn azure_disk(source: &AzureDiskVolumeSource, path: &Path, errors: &mut Errors) {
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

fn quobyte(source: &QuobyteVolumeSource, path: &Path, errors: &mut Errors) {
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

fn flocker(source: &FlockerVolumeSource, path: &Path, errors: &mut Errors) {
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
    if let Some(metadata) = &template.metadata {
        let at = path.child("metadata");
        rules::annotations(&at.child("annotations"), metadata.annotations.as_ref(), errors);
        rules::labels(&at.child("labels"), metadata.labels.as_ref(), errors);
        let rest = ObjectMeta { annotations: None, labels: None, ..metadata.clone() };
        for field in serde_json::to_value(rest).iter().filter_map(serde_json::Value::as_object).flat_map(|map| map.keys()) {
            errors.push(Error::forbidden(&at.child(field), "cannot be set"));
        }
    }
    validate_claim_spec(&template.spec, &path.child("spec"), errors);
}

fn validate_claim_spec(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut Errors) {
    let modes = list(&spec.access_modes);
    if modes.is_empty() {
        errors.push(Error::required(&path.child("accessModes"), "at least 1 access mode is required"));
    }
    for mode in modes {
        rules::supported(&path.child("accessModes"), Some(mode), ACCESS_MODES, errors);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(Error::forbidden(&path.child("accessModes"), detail));
    }
    if let Some(selector) = &spec.selector {
        validate_label_selector(selector, &path.child("selector"), errors);
    }
    let at = path.child("resources").key("storage");
    match spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()).and_then(|requests| requests.get("storage")) {
        None => errors.push(Error::required(&at, "")),
        Some(size) if amount(size).signum() <= 0 => errors.push(Error::invalid(&at, size.0.as_str(), NOT_POSITIVE)),
        Some(size) => resource_amount(&at, "storage", size, errors),
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        rules::dns_subdomain(&path.child("storageClassName"), class, errors);
    }
    rules::supported(&path.child("volumeMode"), spec.volume_mode.as_deref(), &["Block", "Filesystem"], errors);
}

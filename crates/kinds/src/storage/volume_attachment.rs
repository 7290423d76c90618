//! VolumeAttachment: a volume that is, or is to be, attached to a node.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentStatus, VolumeError};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::core::inline_volume;
use crate::def::KindDef;
use crate::rules::{self, text};
use crate::sub::Sub;
use crate::typed::Kind;

/// Keys and values of what an attacher returned, in bytes.
const MAX_METADATA: usize = 256 << 10;
const MAX_MESSAGE: usize = 1024;

impl Kind for VolumeAttachment {
    const DEF: KindDef = KindDef::of::<Self>("volumeattachment")
        .returns_deleted()
        .cluster()
        .versioned()
        .status_keeps_metadata()
        .subresources(&[Sub::STATUS]);

    /// Clients take an object without `attached` for none: upstream's always has it.
    fn prepare_create(object: &mut Value) {
        object["status"] = json!({"attached": false});
    }

    fn validate(&self, errors: &mut Errors) {
        let (spec, path) = (&self.spec, Path::new("spec"));
        rules::required(&path.child("attacher"), &spec.attacher, errors);
        source(&spec.source, &path.child("source"), errors);
        rules::dns_subdomain(&path.child("nodeName"), &spec.node_name, errors);
        validate_status(self.status.as_ref(), errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        rules::driver_name(&Path::new("spec.attacher"), &self.spec.attacher, errors);
        if let Some(volume) = &self.spec.source.persistent_volume_name {
            rules::dns_subdomain(&Path::new("spec.source.persistentVolumeName"), volume, errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        rules::immutable(&Path::new("spec"), &self.spec, &old.spec, errors);
    }

    fn validate_sub(&self, _sub: &str, _old: &Self, errors: &mut Errors) {
        validate_status(self.status.as_ref(), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Attacher", "The CSI driver that attaches.", |one, _| one.spec.attacher.as_str().into()),
                Column::new("PV", "Name of the persistent volume.", |one, _| {
                    text(&one.spec.source.persistent_volume_name).into()
                }),
                Column::new("Node", "The node that the volume is attached to.", |one, _| one.spec.node_name.as_str().into()),
                Column::boolean("Attached", "Whether it has been attached.", |one, _| {
                    one.status.as_ref().is_some_and(|status| status.attached).into()
                }),
            ]
        }
    }
}

fn source(source: &VolumeAttachmentSource, path: &Path, errors: &mut Errors) {
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (&source.inline_volume_spec, source.persistent_volume_name.as_deref()) {
        (None, None) => errors.push(Error::required(path, one)),
        (Some(_), Some(_)) => errors.push(Error::forbidden(path, one)),
        (None, Some("")) => {
            errors.push(Error::required(&path.child("persistentVolumeName"), "must specify non empty persistentVolumeName"));
        }
        (None, Some(_)) => {}
        (Some(volume), None) => inline_volume(volume, &path.child("inlineVolumeSpec"), errors),
    }
}

fn validate_status(status: Option<&VolumeAttachmentStatus>, errors: &mut Errors) {
    let (Some(status), path) = (status, Path::new("status")) else { return };
    if status.attachment_metadata.as_ref().is_some_and(|metadata| super::size(metadata) > MAX_METADATA) {
        errors.push(Error::too_long(&path.child("attachmentMetadata"), MAX_METADATA));
    }
    for (field, failure) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        if let Some(failure) = failure {
            volume_error(failure, &path.child(field), errors);
        }
    }
}

fn volume_error(failure: &VolumeError, path: &Path, errors: &mut Errors) {
    if text(&failure.message).len() > MAX_MESSAGE {
        // Upstream names the limit of the metadata here.
        errors.push(Error::too_long(&path.child("message"), MAX_METADATA));
    }
    if let Some(code) = failure.error_code.filter(|code| *code < 0) {
        errors.push(Error::invalid(&path.child("errorCode"), code, names::range_error(0, i32::MAX.into())));
    }
}

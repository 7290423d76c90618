//! ResourceClaimTemplate: claims that are made for pods.

use apimachinery::field::{Errors, Path};
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use serde_json::Value;

use super::claim;
use crate::def::KindDef;
use crate::rules;
use crate::typed::Kind;
use crate::util::child_object;

impl Kind for ResourceClaimTemplate {
    const DEF: KindDef = KindDef::of::<Self>("resourceclaimtemplate").returns_deleted();

    fn apply_defaults(object: &mut Value) {
        claim::apply_defaults(child_object(child_object(object, "spec"), "spec"));
    }

    fn validate_create(&self, errors: &mut Errors) {
        let path = Path::new("spec");
        rules::template_metadata(&path.child("metadata"), self.spec.metadata.as_ref(), errors);
        if let Some(devices) = &self.spec.spec.devices {
            claim::validate(devices, &path.child("spec.devices"), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        rules::immutable(&Path::new("spec"), &self.spec, &old.spec, errors);
    }
}

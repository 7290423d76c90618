//! DeviceClass: devices that serve the same purpose.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::resource::v1::DeviceClass;
use pods::resources::is_extended;

use super::claim::MAX_CONFIG;
use super::{configuration, each, selectors};
use crate::def::KindDef;
use crate::rules::list;
use crate::typed::Kind;

impl Kind for DeviceClass {
    const DEF: KindDef = KindDef::of::<Self>("deviceclass").returns_deleted().cluster().generation();

    fn validate(&self, errors: &mut Errors) {
        let (spec, path) = (&self.spec, Path::new("spec"));
        selectors(list(&spec.selectors), &path.child("selectors"), errors);
        each(list(&spec.config), MAX_CONFIG, &path.child("config"), errors, |config, path, errors| {
            configuration(config.opaque.as_ref(), path, errors);
        });
        if let Some(name) = spec.extended_resource_name.as_deref().filter(|name| !is_extended(name)) {
            let detail = "must be a valid extended resource name";
            errors.push(Error::invalid(&path.child("extendedResourceName"), name, detail));
        }
    }
}

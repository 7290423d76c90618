//! VolumeAttributesClass: properties of volumes that can change while they are used (KEP-3751).

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use crate::columns::{Column, class_name};
use crate::def::KindDef;
use crate::typed::Kind;

const DEFAULT: &[&str] = &["volumeattributesclass.alpha.kubernetes.io/is-default-class"];

impl Kind for VolumeAttributesClass {
    const DEF: KindDef = KindDef::of::<Self>("volumeattributesclass").returns_deleted().short(&["vac"]).cluster();

    fn validate(&self, errors: &mut Errors) {
        super::provisioner(&Path::new("driverName"), &self.driver_name, errors);
        let path = Path::new("parameters");
        super::parameters(&path, self.parameters.as_ref(), errors);
        if self.parameters.as_ref().is_none_or(|parameters| parameters.is_empty()) {
            errors.push(Error::required(&path, "must contain at least one key/value pair"));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        super::no_updates("driverName", &self.driver_name, &old.driver_name, errors);
        super::no_updates("parameters", &self.parameters, &old.parameters, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::named(|class, _| class_name(&class.metadata, DEFAULT)),
                Column::new("DriverName", "Name of the CSI driver.", |class, _| class.driver_name.as_str().into()),
                Column::AGE,
            ]
        }
    }
}

//! PodTemplate: a template for controllers outside of the cluster's own.

use apimachinery::field::{Errors, Path};
use k8s_openapi::api::core::v1::PodTemplate;
use serde_json::Value;

use crate::columns::Column;
use crate::core::pod;
use crate::def::KindDef;
use crate::typed::Kind;
use crate::util::{child_object, or_none};
use crate::workload::each_container;

impl Kind for PodTemplate {
    const DEF: KindDef = KindDef::new("", "v1", "PodTemplate", "podtemplates", "podtemplate").generation().returns_deleted();

    fn apply_defaults(object: &mut Value) {
        pod::default_template(child_object(object, "template"));
    }

    fn validate(&self, errors: &mut Errors) {
        pod::validate_template(self.template.as_ref().unwrap_or(&Default::default()), &Path::new("template"), errors);
    }

    fn warnings(&self) -> Vec<String> {
        self.template.as_ref().map(|template| pod::of_template(template, &Path::new("template"))).unwrap_or_default()
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::new("Containers", "Names of each container in the template.", |template, _| {
                    each_container(template.template.as_ref(), |c| c.name.clone())
                }),
                Column::new("Images", "Images referenced by each container in the template.", |template, _| {
                    each_container(template.template.as_ref(), |c| c.image.clone().unwrap_or_default())
                }),
                Column::new("Pod Labels", "The labels for the pod template.", |template, _| {
                    let labels = template.template.as_ref().and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
                    let pairs: Vec<_> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
                    or_none(pairs.join(","))
                }),
            ]
        }
    }
}

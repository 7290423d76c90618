//! IngressClass: who serves an Ingress.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::networking::v1::{IngressClass, IngressClassParametersReference};
use serde_json::Value;

use crate::columns::{Column, class_name};
use crate::def::KindDef;
use crate::rules::{self, text};
use crate::typed::Kind;
use crate::util::set_default;

const DEFAULT: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];

const MAX_CONTROLLER: usize = 250;

impl Kind for IngressClass {
    const DEF: KindDef = KindDef::of::<Self>("ingressclass").cluster().generation();

    fn apply_defaults(object: &mut Value) {
        if let Some(parameters) = object.pointer_mut("/spec/parameters") {
            set_default(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let spec = self.spec.clone().unwrap_or_default();
        let (controller, path) = (text(&spec.controller), Path::new("spec.controller"));
        if controller.len() > MAX_CONTROLLER {
            errors.push(Error::too_long(&path, MAX_CONTROLLER));
        }
        rules::domain_prefixed_path(&path, controller, errors);
        if let Some(parameters) = &spec.parameters {
            validate_parameters(parameters, &Path::new("spec.parameters"), errors);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let controller = |class: &Self| class.spec.as_ref().and_then(|spec| spec.controller.clone());
        rules::immutable(&Path::new("spec.controller"), &controller(self), &controller(old), errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::named(|class, _| class_name(&class.metadata, DEFAULT)),
                Column::new("Controller", "Controller that is responsible for handling this class", |class, _| {
                    class.spec.as_ref().map(|spec| text(&spec.controller)).unwrap_or_default().into()
                }),
                Column::new("Parameters", "A reference to a resource with additional parameters", |class, _| {
                    let parameters = class.spec.as_ref().and_then(|spec| spec.parameters.as_ref());
                    parameters.map_or("<none>".to_owned(), show).into()
                }),
                Column::AGE,
            ]
        }
    }
}

/// `IngressParameters.k8s.example.com/external`.
fn show(parameters: &IngressClassParametersReference) -> String {
    let (kind, name) = (&parameters.kind, &parameters.name);
    match &parameters.api_group {
        Some(group) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

fn validate_parameters(parameters: &IngressClassParametersReference, path: &Path, errors: &mut Errors) {
    if let Some(group) = &parameters.api_group {
        rules::dns_subdomain(&path.child("apiGroup"), group, errors);
    }
    super::reference(&path.child("kind"), &parameters.kind, errors);
    super::reference(&path.child("name"), &parameters.name, errors);
    let at = path.child("namespace");
    match (parameters.scope.as_deref(), &parameters.namespace) {
        (Some("Namespace"), None) => errors.push(Error::required(&at, "`parameters.scope` is set to 'Namespace'")),
        (Some("Namespace"), Some(namespace)) => rules::dns_label(&at, namespace, errors),
        (Some("Cluster"), Some(_)) => errors.push(Error::forbidden(&at, "`parameters.scope` is set to 'Cluster'")),
        (Some("Cluster"), None) => {}
        (Some(other), _) => errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespace"])),
        (None, _) => errors.push(Error::required(&path.child("scope"), "")),
    }
}

//! DefaultIngressClass: an Ingress that names no class gets the default one.

use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::{is, list, newest};

const GROUP: &str = "networking.k8s.io";
const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// The old way to name the class of an Ingress.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

pub(super) struct DefaultIngressClass;

#[async_trait]
impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is(a, GROUP, "ingresses") && a.subresource.is_empty() && a.operation == Operation::Create
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let has_class = |ingress: &Value| {
            meta::annotation(ingress, OLD_CLASS).is_some()
                || ingress.pointer("/spec/ingressClassName").is_some_and(|class| !class.is_null())
        };
        if a.object().is_none_or(has_class) {
            return Ok(());
        }
        let mut classes = list(a, GROUP, "ingressclasses").await;
        classes.retain(|class| meta::annotation(class, DEFAULT) == Some("true"));
        if let Some(class) = newest(&classes)
            && let Some(spec) = a.object_mut().and_then(|ingress| ingress.get_mut("spec"))
        {
            spec["ingressClassName"] = meta::name(class).into();
        }
        Ok(())
    }
}

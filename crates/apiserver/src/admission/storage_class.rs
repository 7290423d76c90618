//! DefaultStorageClass: a claim that names no class gets the default one. PersistentVolumeClaimResize: claims grow where their class allows it.

use apimachinery::quantity::Quantity;
use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::{find, forbidden, is, list, newest, text};

const GROUP: &str = "storage.k8s.io";
const DEFAULT: [&str; 2] = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// The old way to name the class of a claim.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn is_claim(a: &Request<'_>, operation: Operation) -> bool {
    is(a, "", "persistentvolumeclaims") && a.subresource.is_empty() && a.operation == operation
}

pub(super) struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is_claim(a, Operation::Create)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let has_class = |claim: &Value| {
            meta::annotation(claim, BETA_CLASS).is_some()
                || claim.pointer("/spec/storageClassName").is_some_and(|class| !class.is_null())
        };
        if a.object().is_none_or(has_class) {
            return Ok(());
        }
        let mut classes = list(a, GROUP, "storageclasses").await;
        classes.retain(|class| DEFAULT.iter().any(|key| meta::annotation(class, key) == Some("true")));
        if let Some(class) = newest(&classes)
            && let Some(spec) = a.object_mut().and_then(|claim| claim.get_mut("spec"))
        {
            spec["storageClassName"] = meta::name(class).into();
        }
        Ok(())
    }
}

pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        is_claim(a, Operation::Update)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (a.object(), a.old) else { return Ok(()) };
        if !grows(new, old) {
            return Ok(());
        }
        if text(old, "/status/phase") != "Bound" {
            return Err(forbidden(a, "Only bound persistent volume claims can be expanded"));
        }
        let class = meta::annotation(new, BETA_CLASS).unwrap_or_else(|| text(new, "/spec/storageClassName"));
        let class = if class.is_empty() { None } else { find(a, GROUP, "storageclasses", "", class).await };
        if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
            return Ok(());
        }
        let why =
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(forbidden(a, why))
    }
}

/// Whether more is asked for than before.
fn grows(new: &Value, old: &Value) -> bool {
    let size = |claim: &Value| claim.pointer("/spec/resources/requests/storage").and_then(|size| Quantity::from_value(size).ok());
    size(new) > size(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn growing() {
        let check = |new: &str, old: &str, expected: bool| {
            let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
            assert_eq!(grows(&claim(new), &claim(old)), expected, "{old} to {new}");
        };
        check("2Gi", "1Gi", true);
        check("1024Mi", "1Gi", false);
        check("1Gi", "2Gi", false);
    }
}

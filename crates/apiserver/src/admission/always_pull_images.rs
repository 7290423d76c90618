//! AlwaysPullImages, where it is enabled: every image is asked of its registry with the pod's own credentials, so that nobody uses a private
//! one because it is on the node already.

use apimachinery::Status;
use apimachinery::field::{Error, Errors, Path};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::{forbidden, is};

const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const ALWAYS: &str = "Always";

pub(super) struct AlwaysPullImages;

#[async_trait]
impl Admission for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        // Upstream leaves out ephemeral containers, which have images as well.
        is(a, "", "pods")
            && matches!(a.subresource, "" | "ephemeralcontainers")
            && matches!(a.operation, Operation::Create | Operation::Update)
            && a.object().is_some_and(|pod| brings_images(pod, a.old))
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if let Some(spec) = a.object_mut().and_then(|pod| pod.get_mut("spec")) {
            pull_always(spec);
        }
        Ok(())
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let errors = a.object().map(refused).unwrap_or_default();
        if errors.is_empty() { Ok(()) } else { Err(forbidden(a, errors)) }
    }
}

fn images(pod: &Value) -> impl Iterator<Item = &str> {
    let of_list = |list| pod["spec"][list].as_array().into_iter().flatten();
    LISTS.into_iter().flat_map(of_list).filter_map(|container| container["image"].as_str())
}

/// Whether a pod has an image that it had not before.
fn brings_images(pod: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| images(pod).any(|image| !images(old).any(|known| known == image)))
}

fn pull_always(spec: &mut Value) {
    for list in LISTS {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["imagePullPolicy"] = ALWAYS.into();
        }
    }
    for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(image) = volume.get_mut("image").filter(|image| image.is_object()) {
            image["pullPolicy"] = ALWAYS.into();
        }
    }
}

/// What another plugin has changed back.
fn refused(pod: &Value) -> Errors {
    let mut errors = Errors::new();
    for list in LISTS {
        let path = Path::new("spec").child(list);
        for (index, container) in pod["spec"][list].as_array().into_iter().flatten().enumerate() {
            let policy = container["imagePullPolicy"].as_str().unwrap_or_default();
            if policy != ALWAYS {
                errors.push(Error::not_supported(&path.index(index).child("imagePullPolicy"), policy, &[ALWAYS]));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(policy: &str) -> Value {
        json!({"spec": {
            "initContainers": [{"image": "a", "imagePullPolicy": policy}],
            "containers": [{"image": "b", "imagePullPolicy": policy}],
            "volumes": [{"name": "v", "image": {"reference": "c", "pullPolicy": policy}}, {"name": "w", "emptyDir": {}}],
        }})
    }

    #[test]
    fn all_images_are_pulled() {
        let mut changed = pod("Never");
        pull_always(&mut changed["spec"]);
        assert_eq!(changed, pod("Always"));
        assert_eq!(refused(&changed).to_string(), "");
        let why = refused(&json!({"spec": {"containers": [{"image": "b", "imagePullPolicy": "Never"}]}}));
        assert_eq!(
            why.to_string(),
            r#"spec.containers[0].imagePullPolicy: Unsupported value: "Never": supported values: "Always""#
        );
    }

    #[test]
    fn an_update_without_a_new_image_changes_nothing() {
        assert!(brings_images(&pod("Never"), None));
        assert!(!brings_images(&pod("Never"), Some(&pod("Never"))));
        assert!(brings_images(&json!({"spec": {"containers": [{"image": "x"}]}}), Some(&pod("Never"))));
    }
}

//! AppArmor profiles in the older form of annotations become fields (KEP-24, "Version Skew Strategy").

use pods::app_armor::{ANNOTATION, of_annotation};
use serde_json::{Value, json};

use super::validate::is_app_armor;
use crate::util::each;

/// Gives a new pod's containers the fields that its annotations mean, where they have none and the pod's own says something else. What is no
/// profile is left to validation.
pub(super) fn from_annotations(object: &mut Value) {
    if object.pointer("/spec/os/name").and_then(Value::as_str) == Some("windows") {
        return;
    }
    let Some(annotations) = object.pointer("/metadata/annotations").and_then(Value::as_object) else { return };
    let noted = annotations.iter().filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION)?, value.as_str()?)));
    let profiles = noted.filter_map(|(name, value)| Some((name, of_annotation(value).filter(is_app_armor)?)));
    let profiles: std::collections::BTreeMap<String, Value> =
        profiles.map(|(name, profile)| (name.to_owned(), json!(profile))).collect();
    if profiles.is_empty() {
        return;
    }
    let of_pod = object.pointer("/spec/securityContext/appArmorProfile").cloned();
    let Some(spec) = object.get_mut("spec") else { return };
    for field in ["initContainers", "containers"] {
        for container in each(spec, field) {
            let profile =
                container["name"].as_str().and_then(|name| profiles.get(name)).filter(|found| Some(*found) != of_pod.as_ref());
            let Some((profile, container)) = profile.zip(container.as_object_mut()) else { continue };
            let security = container.entry("securityContext").or_insert_with(|| json!({}));
            if security.is_null() {
                *security = json!({});
            }
            if security["appArmorProfile"].is_null() {
                security["appArmorProfile"] = profile.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(annotation: &str, of_pod: Value, own: Value, expected: Value) {
        let annotations = json!({format!("{ANNOTATION}c"): annotation, "other": "value"});
        let containers = json!([{"name": "c", "securityContext": own}, {"name": "d"}]);
        let spec = json!({"securityContext": of_pod, "initContainers": [{"name": "i"}], "containers": containers});
        let mut pod = json!({"metadata": {"annotations": annotations}, "spec": spec});
        from_annotations(&mut pod);
        assert_eq!(pod["spec"]["containers"], json!([{"name": "c", "securityContext": expected}, {"name": "d"}]));
        assert_eq!(pod["spec"]["initContainers"], json!([{"name": "i"}]));
    }

    #[test]
    fn annotations_become_fields() {
        let profile = |kind: &str| json!({"appArmorProfile": {"type": kind}});
        let local = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}});
        check("runtime/default", json!({}), json!({}), profile("RuntimeDefault"));
        check("localhost/p", json!(null), json!(null), local.clone());
        check("unconfined", profile("RuntimeDefault"), json!({}), profile("Unconfined"));
        check("localhost/p", profile("RuntimeDefault"), json!({"runAsUser": 1}), {
            let mut both = local.clone();
            both["runAsUser"] = json!(1);
            both
        });
        // Nothing new, nothing that is taken back, nothing that is none.
        check("runtime/default", profile("RuntimeDefault"), json!({}), json!({}));
        check("localhost/p", json!({}), profile("Unconfined"), profile("Unconfined"));
        for other in ["", "p", "localhost/", "localhost/ p", &format!("localhost/{}", "a".repeat(4096))] {
            check(other, json!({}), json!({}), json!({}));
        }
    }

    #[test]
    fn windows_has_none() {
        let annotations = json!({format!("{ANNOTATION}c"): "runtime/default"});
        let mut pod =
            json!({"metadata": {"annotations": annotations}, "spec": {"os": {"name": "windows"}, "containers": [{"name": "c"}]}});
        let before = pod.clone();
        from_annotations(&mut pod);
        assert_eq!(pod, before);
    }
}

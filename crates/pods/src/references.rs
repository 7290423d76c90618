//! The objects that a pod refers to by name: what its kubelet may read (Node authorizer) and watches.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVar, Pod, PodSpec, Volume};
use serde_json::Value;

/// Names of objects in the pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets, also those that drivers of volumes need.
    pub secrets: BTreeSet<String>,
    /// PersistentVolumeClaims, also those that are made for the pod.
    pub claims: BTreeSet<String>,
    /// ResourceClaims, as far as they have been made.
    pub resource_claims: BTreeSet<String>,
    /// Whether it refers to ClusterTrustBundles: those of a signer have no names until they are there.
    pub trust_bundles: bool,
    /// The ServiceAccount, empty when there is none.
    pub service_account: String,
}

impl References {
    /// Of a pod.
    pub fn of(pod: &Pod) -> Self {
        let mut found = Self::lasting(pod);
        for container in pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten()) {
            found.environment(container.env.as_deref(), container.env_from.as_deref());
        }
        found.named()
    }

    /// Of a pod without its ephemeral containers: these are the same for all its life.
    pub fn lasting(pod: &Pod) -> Self {
        let mut found = Self::default();
        if let Some(spec) = &pod.spec {
            found.spec(spec, pod.metadata.name.as_deref().unwrap_or_default());
        }
        found.resource_claims = crate::claims::names(pod).map(str::to_owned).collect();
        found.named()
    }

    /// Of the variables of one container.
    pub fn of_variables(container: &Container) -> Self {
        let mut found = Self::default();
        found.environment(container.env.as_deref(), container.env_from.as_deref());
        found.named()
    }

    fn named(mut self) -> Self {
        for names in [&mut self.config_maps, &mut self.secrets, &mut self.claims] {
            names.remove("");
        }
        self
    }

    /// Of a pod as it is stored; of one that is none, nothing.
    pub fn of_value(pod: Value) -> Self {
        codec::from_value(pod).map(|pod| Self::of(&pod)).unwrap_or_default()
    }

    /// Whether the pod refers to an object of the core group, or a ResourceClaim, by the plural of its kind.
    pub fn contains(&self, resource: &str, name: &str) -> bool {
        match resource {
            "configmaps" => self.config_maps.contains(name),
            "secrets" => self.secrets.contains(name),
            "resourceclaims" => self.resource_claims.contains(name),
            "persistentvolumeclaims" => self.claims.contains(name),
            "serviceaccounts" => !name.is_empty() && self.service_account == name,
            _ => false,
        }
    }

    fn spec(&mut self, spec: &PodSpec, pod: &str) {
        self.service_account = spec.service_account_name.clone().unwrap_or_default();
        self.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()));
        for container in crate::containers(spec) {
            self.environment(container.env.as_deref(), container.env_from.as_deref());
        }
        for volume in spec.volumes.iter().flatten() {
            self.volume(volume, pod);
            self.secrets.extend(driver_secret(volume));
        }
    }

    fn environment(&mut self, env: Option<&[EnvVar]>, from: Option<&[EnvFromSource]>) {
        for source in from.unwrap_or_default() {
            self.config_maps.extend(source.config_map_ref.as_ref().map(|source| source.name.clone()));
            self.secrets.extend(source.secret_ref.as_ref().map(|source| source.name.clone()));
        }
        for source in env.unwrap_or_default().iter().filter_map(|variable| variable.value_from.as_ref()) {
            self.config_maps.extend(source.config_map_key_ref.as_ref().map(|source| source.name.clone()));
            self.secrets.extend(source.secret_key_ref.as_ref().map(|source| source.name.clone()));
        }
    }

    fn volume(&mut self, volume: &Volume, pod: &str) {
        self.config_maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
        self.secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
        self.claims.extend(volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone()));
        self.claims.extend(volume.ephemeral.as_ref().map(|_| format!("{pod}-{}", volume.name)));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            self.config_maps.extend(source.config_map.as_ref().map(|source| source.name.clone()));
            self.secrets.extend(source.secret.as_ref().map(|source| source.name.clone()));
            self.trust_bundles |= source.cluster_trust_bundle.is_some();
        }
    }
}

/// The secret that the driver of a volume needs.
fn driver_secret(volume: &Volume) -> Option<String> {
    let azure = volume.azure_file.as_ref().map(|source| source.secret_name.clone());
    let local = None
        .or(volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()))
        .or(volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()))
        .or(volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()))
        .or(volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()))
        .or(volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()))
        .or(volume.scale_io.as_ref().map(|source| &source.secret_ref))
        .or(volume.storageos.as_ref().and_then(|source| source.secret_ref.as_ref()));
    local.map(|secret| secret.name.clone()).or(azure)
}

/// What kind of API object the specification of a pod refers to, if any: pods that a node brings refer to none.
pub fn of_api(spec: &Value) -> Option<&'static str> {
    if !spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        return Some("a service account");
    }
    // Any volume's secret, whatever the driver calls it, has "secret" in its key.
    let secret = |value: &Value| mentions(value, &|key| key.to_ascii_lowercase().contains("secret"));
    let config_map = |value: &Value| mentions(value, &|key| key.starts_with("configMap"));
    let containers = || ["containers", "initContainers", "ephemeralContainers"].iter().filter_map(|key| spec.get(*key));
    let sources = || containers().chain(spec.get("volumes"));
    let not_empty = |key: &str| spec.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    let volume = |key: &'static str| spec.get("volumes").is_some_and(|volumes| mentions(volumes, &|k| k == key));
    match () {
        () if not_empty("imagePullSecrets") || sources().any(secret) => Some("secrets"),
        () if sources().any(config_map) => Some("configmaps"),
        () if volume("clusterTrustBundle") => Some("clustertrustbundles"),
        () if volume("persistentVolumeClaim") || volume("ephemeral") => Some("persistentvolumeclaims"),
        () if volume("serviceAccountToken") || volume("podCertificate") => Some("a service account"),
        () if not_empty("resourceClaims") => Some("resourceclaims"),
        () => None,
    }
}

/// Whether a key that matches stands anywhere in the value.
fn mentions(value: &Value, matches: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| mentions(item, matches)),
        Value::Object(map) => map.iter().any(|(key, value)| !value.is_null() && (matches(key) || mentions(value, matches))),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_reference_is_found() {
        let env = |n: usize| {
            json!({"name": "c",
                "envFrom": [{"secretRef": {"name": format!("from{n}")}}, {"configMapRef": {"name": format!("map-from{n}")}}],
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": format!("key{n}"), "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": format!("map-key{n}"), "key": "k"}}}, {"name": "C"}]})
        };
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "sa",
            "imagePullSecrets": [{"name": "pull"}, {}],
            "containers": [env(1)], "initContainers": [env(2)], "ephemeralContainers": [env(3)],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s1"}}, {"name": "b", "configMap": {"name": "c1"}},
                {"name": "e", "ephemeral": {}}, {"name": "f", "persistentVolumeClaim": {"claimName": "claim"}},
                {"name": "g", "projected": {"sources": [{"secret": {"name": "s2"}}, {"configMap": {"name": "c2"}}]}},
                {"name": "h", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                {"name": "i", "azureFile": {"secretName": "azure", "shareName": "x"}},
                {"name": "j", "rbd": {"image": "i", "monitors": [], "secretRef": {"name": "rbd"}}},
                {"name": "k", "flexVolume": {"driver": "d", "secretRef": {"name": "flex"}}},
                {"name": "l", "emptyDir": {}},
            ],
        }});
        let found = References::of_value(pod);
        let sorted = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(sorted(&found.config_maps), "c1 c2 map-from1 map-from2 map-from3 map-key1 map-key2 map-key3");
        assert_eq!(sorted(&found.secrets), "azure csi flex from1 from2 from3 key1 key2 key3 pull rbd s1 s2");
        assert_eq!((sorted(&found.claims).as_str(), found.service_account.as_str()), ("claim p-e", "sa"));
        let check = |resource: &str, name: &str, expected: bool| {
            assert_eq!(found.contains(resource, name), expected, "{resource} {name}")
        };
        check("secrets", "pull", true);
        check("secrets", "c1", false);
        check("configmaps", "c1", true);
        check("persistentvolumeclaims", "p-e", true);
        check("serviceaccounts", "sa", true);
        check("serviceaccounts", "", false);
        check("pods", "p", false);
        assert_eq!(References::of_value(json!({"spec": 7})), References::default());
    }
}

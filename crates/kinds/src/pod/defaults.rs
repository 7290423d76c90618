//! What a pod gets where its author said nothing (pkg/apis/core/v1 defaults).

use serde_json::{Value, json};

use crate::util::{child_object, each, set_default, text};

/// Mode of files in configMap, secret, projected and downwardAPI volumes: 0644.
const FILE_MODE: u32 = 0o644;
/// Seconds of life of a projected ServiceAccount token.
const TOKEN_SECONDS: u32 = 3600;

/// Defaults of a whole pod.
pub(super) fn default_pod(object: &mut Value) {
    let spec = child_object(object, "spec");
    for key in ["initContainers", "containers"] {
        each(spec, key).for_each(default_requests);
    }
    set_default(spec, "enableServiceLinks", true);
    default_spec(spec);
}

/// Defaults of a pod template.
pub(crate) fn default_template(template: &mut Value) {
    if template.get("spec").is_some() {
        default_spec(&mut template["spec"]);
    }
}

fn default_spec(spec: &mut Value) {
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    default_account(spec);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, key).for_each(|container| default_container(container, host_network));
    }
    each(spec, "volumes").for_each(default_volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown.
fn default_account(spec: &mut Value) {
    let (name, old) = (text(spec, "/serviceAccountName").to_owned(), text(spec, "/serviceAccount").to_owned());
    match (name.is_empty(), old.is_empty()) {
        (true, false) => spec["serviceAccountName"] = old.into(),
        (false, _) => spec["serviceAccount"] = name.into(),
        (true, true) => {}
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    let policy = if is_latest(text(container, "/image")) { "Always" } else { "IfNotPresent" };
    set_default(container, "imagePullPolicy", policy);
    for port in each(container, "ports") {
        set_default(port, "protocol", "TCP");
        if host_network && port.get("hostPort").is_none() {
            port["hostPort"] = port["containerPort"].clone();
        }
    }
    for variable in each(container, "env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            set_default(field, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name) {
            default_probe(probe);
        }
    }
    for name in ["postStart", "preStop"] {
        if let Some(http) = container.pointer_mut(&format!("/lifecycle/{name}/httpGet")) {
            default_http(http);
        }
    }
}

fn default_probe(probe: &mut Value) {
    set_default(probe, "timeoutSeconds", 1);
    set_default(probe, "periodSeconds", 10);
    set_default(probe, "successThreshold", 1);
    set_default(probe, "failureThreshold", 3);
    if let Some(http) = probe.get_mut("httpGet") {
        default_http(http);
    }
    if let Some(grpc) = probe.get_mut("grpc") {
        set_default(grpc, "service", "");
    }
}

fn default_http(http: &mut Value) {
    set_default(http, "path", "/");
    set_default(http, "scheme", "HTTP");
}

/// A limit without a request is also the request.
fn default_requests(container: &mut Value) {
    let Some(limits) = container.pointer("/resources/limits").and_then(Value::as_object).cloned() else { return };
    let requests = child_object(child_object(container, "resources"), "requests");
    for (resource, limit) in limits {
        set_default(requests, &resource, limit);
    }
}

fn default_volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|fields| fields.len() == 1 && fields.contains_key("name")) {
        volume["emptyDir"] = json!({});
    }
    for kind in ["configMap", "secret", "projected", "downwardAPI"] {
        if let Some(source) = volume.get_mut(kind) {
            set_default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        set_default(path, "type", "");
    }
    if let Some(items) = volume.get_mut("downwardAPI") {
        each(items, "items").for_each(default_item);
    }
    let Some(projected) = volume.get_mut("projected") else { return };
    for source in each(projected, "sources") {
        if let Some(token) = source.get_mut("serviceAccountToken") {
            set_default(token, "expirationSeconds", TOKEN_SECONDS);
        }
        if let Some(items) = source.get_mut("downwardAPI") {
            each(items, "items").for_each(default_item);
        }
    }
}

fn default_item(item: &mut Value) {
    if let Some(field) = item.get_mut("fieldRef") {
        set_default(field, "apiVersion", "v1");
    }
}

/// Whether an image reference names the tag `latest`, by word or by silence.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_is_said_or_meant() {
        let check = |image: &str, expected: bool| assert_eq!(is_latest(image), expected, "{image}");
        check("nginx", true);
        check("nginx:latest", true);
        check("127.0.0.1:5000/nginx", true);
        check("127.0.0.1:5000/nginx:1.27", false);
        check("nginx@sha256:00", false);
    }

    #[test]
    fn limits_become_requests() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "x:1", "resources": {"limits": {"cpu": "1"}}}]}});
        default_pod(&mut pod);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1"}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
    }
}

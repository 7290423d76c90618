//! What a pod gets where its author said nothing (pkg/apis/core/v1 defaults).

use codec::Decode;
use k8s_openapi::api::core::v1::PodSpec;
use pods::resources::is_pod_level;
use serde_json::{Value, json};

use crate::core::volume_source;
use crate::rules::resources::may_overcommit;
use crate::util::{child_object, each, set_default, set_zero, text};

/// Mode of files in configMap, secret, projected and downwardAPI volumes: 0644.
const FILE_MODE: u32 = 0o644;
/// Seconds of life of a projected ServiceAccount token.
const TOKEN_SECONDS: u32 = 3600;

/// Defaults of a whole pod.
pub(super) fn default_pod(object: &mut Value) {
    let spec = child_object(object, "spec");
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for key in ["initContainers", "containers"] {
        for container in each(spec, key) {
            default_requests(container);
            each(container, "ports").filter(|_| host_network).for_each(default_host_port);
        }
    }
    if spec.get("resources").is_some() {
        default_pod_resources(spec);
    }
    set_default(spec, "enableServiceLinks", true);
    default_spec(spec);
    // Templates keep what their author wrote, and a warning says what becomes of it.
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
}

/// Defaults of a pod template.
pub(crate) fn default_template(template: &mut Value) {
    if template.get("spec").is_some() {
        default_spec(&mut template["spec"]);
    }
}

fn default_spec(spec: &mut Value) {
    set_zero(spec, "dnsPolicy", "ClusterFirst");
    set_zero(spec, "restartPolicy", "Always");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_zero(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    default_account(spec);
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, key).for_each(default_container);
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

/// In the host's network a port of the pod is one of the host. Templates keep what their author wrote.
fn default_host_port(port: &mut Value) {
    let container = port["containerPort"].clone();
    set_zero(port, "hostPort", container);
}

fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

fn default_container(container: &mut Value) {
    set_zero(container, "terminationMessagePath", "/dev/termination-log");
    set_zero(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    let policy = pull_policy(text(container, "/image"));
    set_zero(container, "imagePullPolicy", policy);
    for port in each(container, "ports") {
        set_zero(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            set_zero(field, "apiVersion", "v1");
        }
        if let Some(key) = variable.pointer_mut("/valueFrom/fileKeyRef") {
            set_default(key, "optional", false);
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
    set_zero(probe, "timeoutSeconds", 1);
    set_zero(probe, "periodSeconds", 10);
    set_zero(probe, "successThreshold", 1);
    set_zero(probe, "failureThreshold", 3);
    if let Some(http) = probe.get_mut("httpGet") {
        default_http(http);
    }
    if let Some(grpc) = probe.get_mut("grpc") {
        set_default(grpc, "service", "");
    }
}

fn default_http(http: &mut Value) {
    set_zero(http, "path", "/");
    set_zero(http, "scheme", "HTTP");
}

/// A limit without a request is also the request.
fn default_requests(object: &mut Value) {
    let Some(limits) = object.pointer("/resources/limits").and_then(Value::as_object).cloned() else { return };
    let requests = child_object(child_object(object, "resources"), "requests");
    for (resource, limit) in limits {
        set_default(requests, &resource, limit);
    }
}

/// The pod as a whole asks for at least what its containers ask for, and for its limit where they ask for nothing (KEP-2837). Huge
/// pages are not overcommitted: their limit comes of the containers' limits, and their request is that limit.
fn default_pod_resources(spec: &mut Value) {
    let Ok(typed) = PodSpec::from_tree(spec) else { return };
    let requests = pods::resources::together(&typed, pods::resources::requests);
    let limits = pods::resources::together(&typed, pods::resources::limits);
    let is_pages = |name: &str| is_pod_level(name) && !may_overcommit(name);
    let is_shared = |name: &str| is_pod_level(name) && may_overcommit(name);
    for (name, sum) in limits.into_iter().filter(|(name, _)| is_pages(name)) {
        set_default(child_object(&mut spec["resources"], "limits"), name, sum.to_string());
    }
    for (name, sum) in requests.into_iter().filter(|(name, _)| is_shared(name)) {
        set_default(child_object(&mut spec["resources"], "requests"), name, sum.to_string());
    }
    default_requests(spec);
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
    if let Some(items) = volume.get_mut("downwardAPI") {
        each(items, "items").for_each(default_item);
    }
    if let Some(image) = volume.get_mut("image") {
        let policy = pull_policy(text(image, "/reference"));
        set_zero(image, "pullPolicy", policy);
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        set_default(claim, "volumeMode", "Filesystem");
    }
    volume_source::apply_defaults(volume);
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
        set_zero(field, "apiVersion", "v1");
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

    fn defaulted(spec: Value) -> Value {
        let mut pod = json!({"spec": spec});
        default_pod(&mut pod);
        pod["spec"].take()
    }

    #[test]
    fn limits_become_requests() {
        let spec = defaulted(json!({"containers": [{"name": "a", "image": "x:1", "resources": {"limits": {"cpu": "1"}}}]}));
        assert_eq!(spec["containers"][0]["resources"]["requests"], json!({"cpu": "1"}));
        assert_eq!(spec["containers"][0]["imagePullPolicy"], "IfNotPresent");
        assert_eq!(spec["restartPolicy"], "Always");
        let spec = defaulted(json!({"resources": {"limits": {"cpu": "2", "memory": "1Mi"}}, "containers": [
            {"name": "a", "resources": {"requests": {"cpu": "300m"}}}, {"name": "b", "resources": {"requests": {"cpu": "300m"}}}]}));
        assert_eq!(spec["resources"]["requests"], json!({"cpu": "600m", "memory": "1Mi"}));
    }

    /// KEP-2837, as of upstream's `defaultHugePagePodLimits`: the pod's limit of huge pages is the sum of its containers', and what it
    /// asks for is its limit.
    #[test]
    fn huge_pages_of_containers_are_the_pods() {
        let check = |own: Value, of_each: Value, expected: Value| {
            let container = |name: &str| json!({"name": name, "resources": {"limits": of_each}});
            let spec = defaulted(json!({"resources": own, "containers": [container("a"), container("b")]}));
            assert_eq!(spec["resources"], expected);
        };
        let each = json!({"cpu": "1", "hugepages-2Mi": "4Mi"});
        let sum = json!({"limits": {"hugepages-2Mi": "8Mi"}, "requests": {"cpu": "2", "hugepages-2Mi": "8Mi"}});
        check(json!({"requests": {"cpu": "2"}}), each.clone(), sum);
        let own = json!({"limits": {"hugepages-2Mi": "16Mi"}});
        let kept = json!({"limits": {"hugepages-2Mi": "16Mi"}, "requests": {"cpu": "2", "hugepages-2Mi": "16Mi"}});
        check(own, each, kept);
        let none = json!({"limits": {"cpu": "4"}, "requests": {"cpu": "2"}});
        check(json!({"limits": {"cpu": "4"}}), json!({"cpu": "1", "nvidia.com/gpu": "1", "ephemeral-storage": "1Gi"}), none);
    }

    /// KEP-3721: `optional` of a `fileKeyRef` is false where nothing is said, in pods and templates, of containers of each list.
    #[test]
    fn keys_of_files_are_needed() {
        let env = json!([{"name": "A", "valueFrom": {"fileKeyRef": {"key": "a"}}}, {"name": "B", "valueFrom": {"fileKeyRef": {"key": "b", "optional": true}}}]);
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let spec: Value = lists.iter().map(|list| ((*list).to_owned(), json!([{"name": "a", "env": env}]))).collect();
        let mut template = json!({"spec": spec});
        default_template(&mut template);
        for (spec, list) in [defaulted(spec), template["spec"].take()].iter().flat_map(|spec| lists.map(|list| (spec, list))) {
            let optional = |index: usize| spec[list][0]["env"][index]["valueFrom"]["fileKeyRef"]["optional"].clone();
            assert_eq!((optional(0), optional(1)), (json!(false), json!(true)), "{list}");
        }
    }

    #[test]
    fn zero_values_are_not_set() {
        let spec =
            defaulted(json!({"dnsPolicy": "", "hostNetwork": true, "containers": [{"name": "a", "terminationMessagePath": "",
            "ports": [{"containerPort": 80, "hostPort": 0}], "livenessProbe": {"timeoutSeconds": 0, "httpGet": {"path": ""}}}]}));
        let container = &spec["containers"][0];
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
        assert_eq!(container["terminationMessagePath"], "/dev/termination-log");
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(container["livenessProbe"]["timeoutSeconds"], 1);
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/");
    }

    /// Upstream's e2e test "Pod TerminationGracePeriodSeconds is negative: pod with negative grace period".
    #[test]
    fn negative_grace_periods_of_pods_are_the_shortest() {
        let check = |asked: Value, of_pod: i64, of_template: i64| {
            let spec = || json!({"terminationGracePeriodSeconds": asked, "containers": []});
            assert_eq!(defaulted(spec())["terminationGracePeriodSeconds"], of_pod);
            let mut template = json!({"spec": spec()});
            default_template(&mut template);
            assert_eq!(template["spec"]["terminationGracePeriodSeconds"], of_template);
        };
        check(json!(-1), 1, -1);
        check(json!(i64::MIN), 1, i64::MIN);
        check(json!(0), 0, 0);
        check(Value::Null, 30, 30);
    }

    #[test]
    fn templates_keep_ports_of_the_host() {
        let mut template =
            json!({"spec": {"hostNetwork": true, "containers": [{"name": "a", "ports": [{"containerPort": 80}]}]}});
        default_template(&mut template);
        assert_eq!(template["spec"]["containers"][0]["ports"][0], json!({"containerPort": 80, "protocol": "TCP"}));
    }

    #[test]
    fn volumes() {
        let check = |volume: Value, expected: Value| assert_eq!(defaulted(json!({"volumes": [volume]}))["volumes"][0], expected);
        check(json!({"name": "a"}), json!({"name": "a", "emptyDir": {}}));
        check(json!({"image": {"reference": "x"}}), json!({"image": {"reference": "x", "pullPolicy": "Always"}}));
        check(json!({"scaleIO": {}}), json!({"scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"}}));
    }
}

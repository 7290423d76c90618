//! What is right and yet not what its author meant (upstream: `pkg/api/pod/warnings.go`).

mod paths;

use std::collections::{BTreeMap, HashMap, HashSet};

use apimachinery::field::Path;
use apimachinery::names;
use apimachinery::text::quote;
use k8s_openapi::api::core::v1::{
    Affinity, ContainerPort, EnvVar, NodeSelectorTerm, PodAffinityTerm, PodSpec, PodTemplateSpec, ResourceRequirements, Volume,
    WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::validate::annotations;
use crate::core::claim_spec_warnings;
use crate::rules::resources::amount;
use crate::rules::{list, text, warn_of_ip};

type Annotations = BTreeMap<String, String>;

/// Annotations that no longer do anything.
const ANNOTATIONS: &[(&str, &str)] = &[
    ("scheduler.alpha.kubernetes.io/critical-pod", "non-functional in v1.16+; use the \"priorityClassName\" field instead"),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
/// Labels of nodes that have new names: the old one, the version since which there is a new one, and that.
const LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// What to say of a label of nodes that has a new name.
pub(crate) fn renamed_label(key: &str) -> Option<String> {
    let (_, since, new) = LABELS.iter().find(|(old, _, _)| *old == key)?;
    Some(format!("deprecated since {since}; use \"{new}\" instead"))
}

/// The new name of a label of nodes.
pub(crate) fn new_label(key: &str) -> Option<&'static str> {
    LABELS.iter().find(|(old, _, _)| *old == key).map(|(_, _, new)| *new)
}

/// A name that makes host names, and is no DNS label. `of` says whose.
pub(crate) fn of_name(name: Option<&str>, of: &str) -> Option<String> {
    let messages = names::dns1123_label(name.filter(|name| !name.is_empty())?);
    let text = "which can result in surprising behavior; a DNS label is recommended";
    (!messages.is_empty()).then(|| format!("metadata.name: this is used in {of}, {text}: [{}]", messages.join(" ")))
}

/// Of a pod.
pub(super) fn of_pod(spec: &PodSpec, notes: Option<&Annotations>) -> Vec<String> {
    of(spec, notes, &Path::root(), false)
}

/// Of a template at `path`.
pub(crate) fn of_template(template: &PodTemplateSpec, path: &Path) -> Vec<String> {
    let notes = template.metadata.as_ref().and_then(|metadata| metadata.annotations.as_ref());
    template.spec.as_ref().map(|spec| of(spec, notes, path, true)).unwrap_or_default()
}

fn of(spec: &PodSpec, notes: Option<&Annotations>, path: &Path, template: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    let at = path.child("spec");
    node_labels(spec, &at, &mut warnings);
    for (key, message) in ANNOTATIONS.iter().filter(|(key, _)| notes.is_some_and(|notes| notes.contains_key(*key))) {
        warnings.push(format!("{}: {message}", path.child("metadata.annotations").key(key)));
    }
    for (index, volume) in list(&spec.volumes).iter().enumerate() {
        let at = at.child("volumes").index(index);
        old_volumes(volume, &at, &mut warnings);
        if let Some(template) = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.as_ref()) {
            warnings.extend(claim_spec_warnings(&template.spec, &at.child("ephemeral.volumeClaimTemplate.spec")));
        }
    }
    list(&spec.volumes).iter().for_each(|volume| paths::warn(volume, &mut warnings));
    addresses(spec, &at, &mut warnings);
    repeated(list(&spec.host_aliases).iter().map(|alias| alias.ip.as_str()), "ip", &at.child("hostAliases"), &mut warnings);
    let secrets = || list(&spec.image_pull_secrets).iter().map(|secret| secret.name.as_str());
    repeated(secrets(), "name", &at.child("imagePullSecrets"), &mut warnings);
    for (index, _) in secrets().enumerate().filter(|(_, name)| name.is_empty()) {
        warnings.push(format!("{}: invalid empty name \"\"", at.child("imagePullSecrets").index(index).child("name")));
    }
    fractions(spec.overhead.as_ref(), &at.child("overhead"), &mut warnings);
    if let Some(notes) = notes.filter(|notes| !notes.is_empty()) {
        profiles(spec, notes, &path.child("metadata.annotations"), template, &mut warnings);
    }
    containers(spec, &at, &mut warnings);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let path = at.child("terminationGracePeriodSeconds");
        warnings.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    if let Some(affinity) = &spec.affinity {
        pod_selectors(affinity, &at.child("affinity"), &mut warnings);
    }
    warnings
}

fn addresses(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let servers = spec.dns_config.as_ref().map(|config| list(&config.nameservers)).unwrap_or_default();
    for (index, server) in servers.iter().enumerate() {
        warn_of_ip(&path.child("dnsConfig.nameservers").index(index), server, warnings);
    }
    for (index, alias) in list(&spec.host_aliases).iter().enumerate() {
        warn_of_ip(&path.child("hostAliases").index(index).child("ip"), &alias.ip, warnings);
    }
}

/// Terms about other pods that select none.
fn pod_selectors(affinity: &Affinity, path: &Path, warnings: &mut Vec<String>) {
    let mut check = |required: &[PodAffinityTerm], preferred: &[WeightedPodAffinityTerm], path: Path| {
        let at = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        let required = required.iter().enumerate().map(|(index, term)| (at.index(index), term));
        let at = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        let preferred = preferred.iter().enumerate();
        let preferred = preferred.map(|(index, term)| (at.index(index).child("podAffinityTerm"), &term.pod_affinity_term));
        for (path, _) in required.chain(preferred).filter(|(_, term)| term.label_selector.is_none()) {
            warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    };
    if let Some(one) = &affinity.pod_affinity {
        let required = list(&one.required_during_scheduling_ignored_during_execution);
        let preferred = list(&one.preferred_during_scheduling_ignored_during_execution);
        check(required, preferred, path.child("podAffinity"));
    }
    if let Some(one) = &affinity.pod_anti_affinity {
        let required = list(&one.required_during_scheduling_ignored_during_execution);
        let preferred = list(&one.preferred_during_scheduling_ignored_during_execution);
        check(required, preferred, path.child("podAntiAffinity"));
    }
}

fn node_labels(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        warnings.extend(renamed_label(key).map(|message| format!("{}: {message}", path.child("nodeSelector").key(key))));
    }
    // Values that no label has are errors where the term is required.
    let mut term = |term: &NodeSelectorTerm, is_required: bool, path: Path| {
        for (index, expression) in list(&term.match_expressions).iter().enumerate() {
            let (path, key) = (path.child("matchExpressions").index(index), expression.key.as_str());
            warnings.extend(renamed_label(key).map(|message| format!("{}: {key} is {message}", path.child("key"))));
            for (index, value) in list(&expression.values).iter().enumerate().filter(|_| !is_required) {
                let path = path.child("values").index(index);
                warnings.extend(names::label_value(value).iter().map(|message| format!("{path}: {value} is invalid, {message}")));
            }
        }
    };
    if let Some(affinity) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        let path = path.child("affinity.nodeAffinity");
        let required = affinity.required_during_scheduling_ignored_during_execution.iter();
        for (index, one) in required.flat_map(|selector| &selector.node_selector_terms).enumerate() {
            term(one, true, path.child("requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms").index(index));
        }
        for (index, one) in list(&affinity.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
            let path = path.child("preferredDuringSchedulingIgnoredDuringExecution").index(index);
            term(&one.preference, false, path.child("preference"));
        }
    }
    for (index, constraint) in list(&spec.topology_spread_constraints).iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(index);
        let key = &constraint.topology_key;
        warnings.extend(renamed_label(key).map(|message| format!("{}: {key} is {message}", path.child("topologyKey"))));
        if constraint.label_selector.is_none() {
            warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    }
}

const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

fn old_volumes(volume: &Volume, path: &Path, warnings: &mut Vec<String>) {
    let kinds = [
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some(), "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("storageOS", volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", volume.cephfs.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", volume.rbd.is_some(), "deprecated in v1.28, non-functional in v1.31+"),
    ];
    let used = kinds.into_iter().filter(|(_, used, _)| *used);
    warnings.extend(used.map(|(kind, _, message)| format!("{}: {message}", path.child(kind))));
}

fn repeated<'a>(values: impl Iterator<Item = &'a str>, field: &str, path: &Path, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, value) in values.enumerate() {
        if !seen.insert(value) {
            warnings.push(format!("{}: duplicate {field} {value:?}", path.index(index).child(field)));
        }
    }
}

/// Bytes are whole.
fn fractions(amounts: Option<&BTreeMap<String, Quantity>>, path: &Path, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let Some(quantity) = amounts.and_then(|amounts| amounts.get(name)) else { continue };
        if amount(quantity).as_milli() % 1000 != 0 {
            let path = path.key(name);
            warnings.push(format!("{path}: fractional byte value {:?} is invalid, must be an integer", quantity.0));
        }
    }
}

/// Profiles that are annotations and no fields.
fn profiles(spec: &PodSpec, notes: &Annotations, path: &Path, template: bool, warnings: &mut Vec<String>) {
    let pod = spec.security_context.as_ref();
    let old = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    if pod.is_none_or(|pod| pod.seccomp_profile.is_none()) && notes.contains_key(annotations::SECCOMP_POD) {
        warnings.push(format!("{}: {old}", path.key(annotations::SECCOMP_POD)));
    }
    for (name, security) in super::validate::each_security(spec) {
        let seccomp = format!("{}{name}", annotations::SECCOMP_CONTAINER);
        if security.is_none_or(|own| own.seccomp_profile.is_none()) && notes.contains_key(&seccomp) {
            warnings.push(format!("{}: {old}", path.key(&seccomp)));
        }
        let armor = format!("{}{name}", annotations::APP_ARMOR);
        let field =
            pod.is_some_and(|pod| pod.app_armor_profile.is_some()) || security.is_some_and(|own| own.app_armor_profile.is_some());
        if template && !field && notes.contains_key(&armor) {
            warnings.push(format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", path.key(&armor)));
        }
    }
}

fn containers(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let mut taken: HashMap<(i32, &str), Vec<(Path, &ContainerPort)>> = HashMap::new();
    let mut named: HashMap<&str, Path> = HashMap::new();
    for (field, containers) in [("initContainers", list(&spec.init_containers)), ("containers", &spec.containers[..])] {
        for (index, container) in containers.iter().enumerate() {
            let path = path.child(field).index(index);
            if let Some(ResourceRequirements { limits, requests, .. }) = &container.resources {
                fractions(limits.as_ref(), &path.child("resources.limits"), warnings);
                fractions(requests.as_ref(), &path.child("resources.requests"), warnings);
            }
            hidden_variables(list(&container.env), &path.child("env"), warnings);
            for (index, port) in list(&container.ports).iter().enumerate() {
                let path = path.child("ports").index(index);
                port_itself(port, &path, &mut named, warnings);
                let others = taken.entry((port.container_port, text(&port.protocol))).or_default();
                others.iter().for_each(|(other, there)| overlap(port, &path, there, other, warnings));
                if others.len() < MAX_SAME_PORTS {
                    others.push((path, port));
                }
            }
        }
    }
}

/// Ports of one number with which further ones are compared: each may be worth a warning, of which a hundred are shown.
const MAX_SAME_PORTS: usize = 16;

/// What is odd about a port whatever others there are, and a name that another one has.
fn port_itself<'p>(port: &'p ContainerPort, path: &Path, named: &mut HashMap<&'p str, Path>, warnings: &mut Vec<String>) {
    let (name, ip) = (text(&port.name), text(&port.host_ip));
    if !ip.is_empty() && port.host_port.unwrap_or(0) == 0 {
        let (number, protocol) = (port.container_port, text(&port.protocol));
        let shown = format!("{{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}");
        warnings.push(format!("{path}: hostIP set without hostPort: {shown}"));
    }
    if name.is_empty() {
        return;
    }
    match named.get(name) {
        Some(other) => {
            let what = format!("duplicate port name {} with {other}", quote(name));
            warnings.push(format!("{path}: {what}, services and probes that select ports by name will use {other}"));
        }
        None => drop(named.insert(name, path.clone())),
    }
}

/// Each port is said once. One without a port of the host is there already when one with it is.
fn overlap(port: &ContainerPort, path: &Path, there: &ContainerPort, other: &Path, warnings: &mut Vec<String>) {
    let host = |port: &ContainerPort| port.host_port.unwrap_or(0);
    let (ip, other_ip) = (text(&port.host_ip), text(&there.host_ip));
    let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    if ip == other_ip && host(port) == host(there) {
        warnings.push(format!("{path}: duplicate port definition with {other}"));
    } else if host(port) == 0 || host(there) == 0 {
        warnings.push(format!("{path}: overlapping port definition with {other}"));
    } else if host(port) == host(there) && (any(ip) || any(other_ip)) {
        warnings.push(format!("{path}: dangerously ambiguous port definition with {other}"));
    }
}

/// A variable that is set again without its first value.
fn hidden_variables(variables: &[EnvVar], path: &Path, warnings: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for (index, variable) in variables.iter().enumerate() {
        let (name, value) = (variable.name.as_str(), text(&variable.value));
        if seen.insert(name) {
            continue;
        }
        let itself = format!("$({name})");
        if variable.value_from.is_some() || value == itself || !value.contains(&itself) {
            let path = path.index(index);
            warnings.push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, expected: &[&str]) {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(of_pod(&spec, None), expected);
    }

    #[test]
    fn ports_and_variables() {
        let ports = |ports: Value| json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}]}, {"name": "b", "ports": ports}]});
        check(ports(json!([{"containerPort": 81}])), &[]);
        check(
            ports(json!([{"containerPort": 80}])),
            &["spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]"],
        );
        check(
            ports(json!([{"containerPort": 80, "hostPort": 8080}])),
            &["spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[0]"],
        );
        check(
            json!({"containers": [{"name": "a", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}]}]}),
            &["spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply"],
        );
    }

    #[test]
    fn ports_of_hosts_and_names() {
        check(
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP", "hostIP": "10.0.0.1"}]}]}),
            &[
                "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:UDP HostIP:10.0.0.1}",
            ],
        );
        let port = |number: i32, name: &str| json!([{"containerPort": number, "name": name}]);
        let other = "spec.initContainers[0].ports[0]";
        let text = format!(
            "spec.containers[0].ports[0]: duplicate port name \"web\" with {other}, services and probes that select ports by name will use {other}"
        );
        check(
            json!({"initContainers": [{"name": "i", "restartPolicy": "Always", "ports": port(80, "web")}],
                "containers": [{"name": "a", "ports": port(81, "web")}, {"name": "b", "ports": port(82, "metrics")}]}),
            &[&text],
        );
    }

    #[test]
    fn selectors_and_values() {
        let (required, preferred) =
            ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
        let (none, some) = (json!({"topologyKey": "z"}), json!({"topologyKey": "z", "labelSelector": {}}));
        let terms = json!({required: [some, none], preferred: [{"weight": 1, "podAffinityTerm": none}]});
        let at = |field: &str, rest: &str| {
            format!("spec.affinity.{field}.{rest}.labelSelector: a null labelSelector results in matching no pod")
        };
        let mut expected = Vec::new();
        for field in ["podAffinity", "podAntiAffinity"] {
            expected.push(at(field, &format!("{required}[1]")));
            expected.push(at(field, &format!("{preferred}[0].podAffinityTerm")));
        }
        check(
            json!({"affinity": {"podAffinity": terms, "podAntiAffinity": terms}, "containers": []}),
            &expected.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        let odd = json!({"matchExpressions": [{"key": "foo", "operator": "In", "values": ["ok", "-1"]}]});
        let node = json!({required: {"nodeSelectorTerms": [odd]}, preferred: [{"weight": 1, "preference": odd}]});
        let path = format!("spec.affinity.nodeAffinity.{preferred}[0].preference.matchExpressions[0].values[1]");
        let why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        check(json!({"affinity": {"nodeAffinity": node}, "containers": []}), &[&format!("{path}: -1 is invalid, {why}")]);
    }

    #[test]
    fn volumes_addresses_and_time() {
        check(
            json!({"terminationGracePeriodSeconds": -1, "containers": [], "dnsConfig": {"nameservers": ["::1", "0:0::1"]},
                "hostAliases": [{"ip": "FD00::1"}], "volumes": [
                    {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "200m"}}}}}},
                    {"name": "p", "projected": {"sources": [{}]}}]}),
            &[
                "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value \"200m\" is invalid, must be an integer",
                "volume \"p\" (Projected) has no sources provided",
                "spec.dnsConfig.nameservers[1]: IPv6 address \"0:0::1\" should be in RFC 5952 canonical format (\"::1\")",
                "spec.hostAliases[0].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ],
        );
    }

    #[test]
    fn names_that_are_no_labels() {
        assert_eq!(of_name(Some("web-1"), "the Pod's hostname"), None);
        assert_eq!(of_name(None, "the Pod's hostname"), None);
        let text = "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]";
        assert_eq!(of_name(Some("web.1"), "the Pod's hostname").as_deref(), Some(text));
    }

    #[test]
    fn what_is_old() {
        check(
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}, "volumes": [{"name": "g", "gitRepo": {"repository": "x"}}],
                "containers": [{"name": "a", "resources": {"limits": {"memory": "1500m"}}}]}),
            &[
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
            ],
        );
        check(
            json!({"hostAliases": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}], "topologySpreadConstraints": [{"topologyKey": "zone"}], "containers": []}),
            &[
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                "spec.hostAliases[1].ip: duplicate ip \"1.2.3.4\"",
            ],
        );
        let template: PodTemplateSpec = serde_json::from_value(json!({
            "metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined", "container.apparmor.security.beta.kubernetes.io/a": ""}},
            "spec": {"containers": [{"name": "a"}]},
        }))
        .unwrap();
        assert_eq!(
            of_template(&template, &Path::new("spec.template")),
            [
                "spec.template.metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
                "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
            ]
        );
    }
}

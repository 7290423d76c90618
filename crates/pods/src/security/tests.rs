//! Fixtures of the published tables (Kubernetes documentation, "Pod Security Standards"): for each control what it allows, what it
//! forbids, and in which versions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::checks::CHECKS;
use super::{Level, Policy, Rule, Subject, Version, details, reasons};

const LATEST: Version = Version::Latest;

/// What a level says of a pod; `fields` are laid over a pod that keeps to the level restricted.
fn check(level: Level, version: Version, fields: Value, expected: &str) {
    let mut pod = restricted_pod();
    lay(&mut pod, &fields);
    let found = Rule { level, version }.violations(&Subject::of_value(&pod).unwrap());
    assert_eq!(details(&found), expected, "{} {fields}", Rule { level, version });
}

/// A pod that keeps to the level restricted.
pub(super) fn restricted_pod() -> Value {
    json!({"metadata": {"annotations": {}}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }})
}

/// Lays objects over each other; items of lists by their place.
pub(super) fn lay(target: &mut Value, over: &Value) {
    match (target, over) {
        (Value::Object(target), Value::Object(over)) => {
            for (key, value) in over {
                lay(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(target), Value::Array(over)) => {
            for (at, value) in over.iter().enumerate() {
                if at == target.len() {
                    target.push(Value::Null);
                }
                lay(&mut target[at], value);
            }
        }
        (target, over) => *target = over.clone(),
    }
}

/// The same at the levels baseline and restricted.
fn both(version: Version, fields: Value, expected: &str) {
    check(Level::Baseline, version, fields.clone(), expected);
    check(Level::Restricted, version, fields, expected);
}

pub(super) fn container(security: Value) -> Value {
    json!({"spec": {"containers": [{"securityContext": security}]}})
}

pub(super) fn pod(security: Value) -> Value {
    json!({"spec": {"securityContext": security}})
}

#[test]
fn what_keeps_to_a_level_is_allowed() {
    for minor in 0..=40 {
        both(Version::Minor(minor), json!({}), "");
    }
    both(LATEST, json!({}), "");
    let all = json!({"spec": {"hostNetwork": true, "containers": [{"securityContext": {"privileged": true}}]}});
    check(Level::Privileged, LATEST, all, "");
}

#[test]
fn nothing_said_is_baseline_and_not_restricted() {
    let bare = json!({"spec": {"securityContext": null, "containers": [{"name": "c", "securityContext": null}]}});
    check(Level::Baseline, LATEST, bare.clone(), "");
    let expected = r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#;
    check(Level::Restricted, LATEST, bare.clone(), expected);
    check(Level::Restricted, Version::Minor(25), bare.clone(), expected);
    let two = json!({"spec": {"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [{"name": "a"}]}});
    let expected = r#"allowPrivilegeEscalation != false (containers "a", "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (containers "a", "c" must set securityContext.capabilities.drop=["ALL"])"#;
    let mut both = bare;
    lay(&mut both, &two);
    check(Level::Restricted, LATEST, both, expected);
    let windows = json!({"spec": {"os": {"name": "windows"}, "securityContext": {"seccompProfile": null},
        "containers": [{"name": "c", "securityContext": null}]}});
    check(Level::Restricted, LATEST, windows.clone(), "");
    let old = Rule { level: Level::Restricted, version: Version::Minor(24) };
    let bare = json!({"spec": {"os": {"name": "windows"}, "containers": [{"name": "c"}]}});
    let found = old.violations(&Subject::of_value(&bare).unwrap());
    assert_eq!(
        reasons(&found),
        "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    );
}

#[test]
fn the_host_is_kept_from_pods() {
    both(LATEST, json!({"spec": {"hostNetwork": false, "hostPID": false, "hostIPC": false}}), "");
    let all = json!({"spec": {"hostIPC": true, "hostNetwork": true, "hostPID": true}});
    both(LATEST, all, "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)");
    let volumes = json!({"spec": {"volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "emptyDir": {}},
        {"name": "d", "hostPath": {"path": "/"}}]}});
    check(Level::Baseline, LATEST, volumes, r#"hostPath volumes (volumes "a", "d")"#);
    let ports = |ports: Value| json!({"spec": {"containers": [{"ports": ports}]}});
    both(LATEST, ports(json!([{"containerPort": 1, "hostPort": 0}])), "");
    both(LATEST, ports(json!([{"containerPort": 1, "hostPort": 80}])), r#"hostPort (container "c" uses hostPort 80)"#);
    let several = ports(json!([{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 8080}]));
    both(LATEST, several, r#"hostPort (container "c" uses hostPorts 80, 8080)"#);
    both(LATEST, container(json!({"privileged": false})), "");
    let expected = r#"privileged (container "c" must not set securityContext.privileged=true)"#;
    both(LATEST, container(json!({"privileged": true})), expected);
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "e", "securityContext":
        {"privileged": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}});
    both(LATEST, debug, r#"privileged (container "e" must not set securityContext.privileged=true)"#);
    let expected = r#"hostProcess (pod and container "c" must not set securityContext.windowsOptions.hostProcess=true)"#;
    let mut process = pod(json!({"windowsOptions": {"hostProcess": true}}));
    lay(&mut process, &container(json!({"windowsOptions": {"hostProcess": true}})));
    both(LATEST, process, expected);
}

#[test]
fn probes_and_handlers_name_no_host_since_v1_34() {
    let fields = json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": 1, "host": "a"}},
        "readinessProbe": {"tcpSocket": {"port": 1, "host": ""}}, "lifecycle": {"preStop": {"httpGet": {"port": 1, "host": "b"}}}}]}});
    both(Version::Minor(33), fields.clone(), "");
    both(Version::Minor(34), fields, r#"probe or lifecycle host (container "c" uses probe or lifecycle hosts "a", "b")"#);
    let one = json!({"spec": {"containers": [{"startupProbe": {"tcpSocket": {"port": 1, "host": "a"}}}]}});
    both(LATEST, one, r#"probe or lifecycle host (container "c" uses probe or lifecycle host "a")"#);
}

#[test]
fn capabilities() {
    let add = |names: Value| container(json!({"capabilities": {"add": names}}));
    check(Level::Baseline, LATEST, add(json!(["CHOWN", "SYS_CHROOT"])), "");
    let expected =
        r#"non-default capabilities (container "c" must not include "NET_ADMIN", "NET_RAW" in securityContext.capabilities.add)"#;
    check(Level::Baseline, LATEST, add(json!(["NET_RAW", "CHOWN", "NET_ADMIN"])), expected);
    check(Level::Restricted, LATEST, add(json!(["NET_BIND_SERVICE"])), "");
    let expected = r#"unrestricted capabilities (container "c" must not include "CHOWN" in securityContext.capabilities.add)"#;
    check(Level::Restricted, LATEST, add(json!(["CHOWN"])), expected);
    let both = container(json!({"capabilities": {"drop": ["KILL"], "add": ["CHOWN"]}}));
    let expected = r#"unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]; container "c" must not include "CHOWN" in securityContext.capabilities.add)"#;
    check(Level::Restricted, LATEST, both, expected);
    let twice = json!({"spec": {"initContainers": [{"name": "i", "securityContext": {"capabilities": {"add": ["NET_RAW"]}}}],
        "containers": [{"securityContext": {"capabilities": {"add": ["NET_RAW"]}}}]}});
    let expected =
        r#"non-default capabilities (containers "i", "c" must not include "NET_RAW" in securityContext.capabilities.add)"#;
    check(Level::Baseline, LATEST, twice, expected);
}

#[test]
fn app_armor() {
    both(LATEST, pod(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "p"}})), "");
    let mut fields = pod(json!({"appArmorProfile": {"type": "Unconfined"}}));
    let expected = r#"forbidden AppArmor profile (pod must not set AppArmor profile type to "Unconfined")"#;
    both(LATEST, fields.clone(), expected);
    let key = "container.apparmor.security.beta.kubernetes.io/c";
    for allowed in ["", "runtime/default", "localhost/p"] {
        both(LATEST, json!({"metadata": {"annotations": {key: allowed}}}), "");
    }
    lay(&mut fields, &json!({"metadata": {"annotations": {key: "unconfined"}}}));
    let expected = r#"forbidden AppArmor profiles (pod and annotation must not set AppArmor profile type to "Unconfined", "container.apparmor.security.beta.kubernetes.io/c="unconfined"")"#;
    both(LATEST, fields, expected);
}

#[test]
fn se_linux() {
    for kind in ["", "container_t", "container_init_t", "container_kvm_t"] {
        both(Version::Minor(25), pod(json!({"seLinuxOptions": {"type": kind, "level": "s0"}})), "");
    }
    let engine = container(json!({"seLinuxOptions": {"type": "container_engine_t"}}));
    both(Version::Minor(31), engine.clone(), "");
    let expected = r#"seLinuxOptions (container "c" set forbidden securityContext.seLinuxOptions: type "container_engine_t")"#;
    both(Version::Minor(30), engine, expected);
    let mut all = pod(json!({"seLinuxOptions": {"type": "a", "user": "u"}}));
    lay(&mut all, &container(json!({"seLinuxOptions": {"type": "b", "role": "r"}})));
    let expected = r#"seLinuxOptions (pod and container "c" set forbidden securityContext.seLinuxOptions: types "a", "b"; user may not be set; role may not be set)"#;
    both(LATEST, all, expected);
}

#[test]
fn proc_is_masked_but_for_pods_with_their_own_users() {
    both(LATEST, container(json!({"procMount": "Default"})), "");
    let expected = r#"procMount (container "c" must not set securityContext.procMount to "Unmasked")"#;
    both(LATEST, container(json!({"procMount": "Unmasked"})), expected);
    let own = json!({"spec": {"hostUsers": false, "containers": [{"securityContext": {"procMount": "Unmasked"}}]}});
    both(Version::Minor(34), own.clone(), expected);
    check(Level::Baseline, Version::Minor(35), own.clone(), "");
    check(Level::Restricted, Version::Minor(35), own, expected);
}

#[test]
fn seccomp() {
    let expected = r#"seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")"#;
    both(LATEST, pod(json!({"seccompProfile": {"type": "Unconfined"}})), expected);
    both(LATEST, container(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "p"}})), "");
    let expected = r#"seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")"#;
    both(LATEST, container(json!({"seccompProfile": {"type": "Unconfined"}})), expected);
    let mut only = pod(json!({"seccompProfile": null}));
    lay(&mut only, &container(json!({"seccompProfile": {"type": "RuntimeDefault"}})));
    check(Level::Restricted, LATEST, only, "");
    let key = "seccomp.security.alpha.kubernetes.io/pod";
    let old = json!({"metadata": {"annotations": {key: "unconfined"}}});
    both(
        Version::Minor(18),
        old.clone(),
        r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
    );
    both(Version::Minor(19), old, "");
}

#[test]
fn sysctls() {
    let set = |names: &[&str]| {
        let all: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        pod(json!({"sysctls": all}))
    };
    let since = [
        (0, "kernel.shm_rmid_forced"),
        (0, "net.ipv4.ip_unprivileged_port_start"),
        (27, "net.ipv4.ip_local_reserved_ports"),
        (29, "net.ipv4.tcp_keepalive_probes"),
        (32, "net.ipv4.tcp_wmem"),
    ];
    for (minor, name) in since {
        both(Version::Minor(minor), set(&[name]), "");
        both(LATEST, set(&[name]), "");
        if minor > 0 {
            both(Version::Minor(minor - 1), set(&[name]), &format!("forbidden sysctls ({name})"));
        }
    }
    both(LATEST, set(&["b", "a", "net.ipv4.tcp_syncookies"]), "forbidden sysctls (b, a)");
}

#[test]
fn volumes_of_the_restricted_level() {
    let sources = [
        ("configMap", json!({"name": "x"}), true),
        ("csi", json!({"driver": "d"}), true),
        ("downwardAPI", json!({}), true),
        ("emptyDir", json!({}), true),
        ("ephemeral", json!({}), true),
        ("persistentVolumeClaim", json!({"claimName": "x"}), true),
        ("projected", json!({}), true),
        ("secret", json!({"secretName": "x"}), true),
        ("hostPath", json!({"path": "/"}), false),
        ("nfs", json!({"server": "s", "path": "/"}), false),
        ("iscsi", json!({"targetPortal": "p", "iqn": "i", "lun": 0}), false),
        ("fc", json!({}), false),
        ("gitRepo", json!({"repository": "r"}), false),
    ];
    for (source, value, allowed) in sources {
        let fields = json!({"spec": {"volumes": [{"name": "v", source: value}]}});
        let expected = format!(r#"restricted volume types (volume "v" uses restricted volume type "{source}")"#);
        check(Level::Restricted, LATEST, fields, if allowed { "" } else { &expected });
    }
    let several = json!({"spec": {"volumes": [{"name": "b", "nfs": {"server": "s", "path": "/"}}, {"name": "a", "hostPath": {"path": "/"}}]}});
    let expected = r#"restricted volume types (volumes "b", "a" use restricted volume types "hostPath", "nfs")"#;
    check(Level::Restricted, LATEST, several, expected);
}

#[test]
fn root_is_for_pods_with_their_own_users() {
    let expected = r#"runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)"#;
    check(Level::Restricted, LATEST, pod(json!({"runAsNonRoot": false})), expected);
    let expected = r#"runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)"#;
    check(Level::Restricted, LATEST, container(json!({"runAsNonRoot": false})), expected);
    check(Level::Baseline, LATEST, container(json!({"runAsNonRoot": false})), "");
    check(Level::Restricted, LATEST, pod(json!({"runAsUser": 1000})), "");
    let mut zero = pod(json!({"runAsUser": 0}));
    lay(&mut zero, &container(json!({"runAsUser": 0})));
    check(Level::Restricted, LATEST, zero.clone(), r#"runAsUser=0 (pod and container "c" must not set runAsUser=0)"#);
    check(Level::Restricted, Version::Minor(22), zero.clone(), "");
    lay(&mut zero, &json!({"spec": {"hostUsers": false, "securityContext": {"runAsNonRoot": null}}}));
    check(Level::Restricted, Version::Minor(35), zero.clone(), "");
    let expected = r#"runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), runAsUser=0 (pod and container "c" must not set runAsUser=0)"#;
    check(Level::Restricted, Version::Minor(34), zero, expected);
}

#[test]
fn the_table_is_in_order() {
    let ids: BTreeSet<&str> = CHECKS.iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), CHECKS.len(), "each once");
    assert!(CHECKS.is_sorted_by_key(|row| (row.level, row.id)), "by level and name");
    for row in &CHECKS {
        assert!(row.forms.is_sorted_by_key(|(since, _)| *since), "{}", row.id);
        assert!(row.replaces.is_none_or(|id| ids.contains(id)), "{}", row.id);
    }
}

#[test]
fn labels() {
    let check = |labels: &[(&str, &str)], expected: &str, wrong: &[&str]| {
        let find =
            |key: &str| labels.iter().find(|(name, _)| key == format!("pod-security.kubernetes.io/{name}")).map(|(_, v)| *v);
        let (policy, errors) = Policy::of(find);
        assert_eq!(format!("{} {} {}", policy.enforce, policy.audit, policy.warn), expected, "{labels:?}");
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), wrong, "{labels:?}");
    };
    check(&[], "privileged:latest privileged:latest privileged:latest", &[]);
    check(
        &[("enforce", "baseline"), ("enforce-version", "v1.25"), ("warn", "restricted"), ("audit-version", "latest")],
        "baseline:v1.25 privileged:latest restricted:latest",
        &[],
    );
    let level = |mode: &str, value: &str| {
        format!(
            "metadata.labels[pod-security.kubernetes.io/{mode}]: Invalid value: \"{value}\": must be one of privileged, baseline, restricted"
        )
    };
    let strict = level("enforce", "strict");
    check(&[("enforce", "strict")], "restricted:latest privileged:latest privileged:latest", &[&strict]);
    let warn = level("warn", "Baseline");
    check(&[("warn", "Baseline")], "privileged:latest privileged:latest privileged:latest", &[&warn]);
    for version in ["v1.025", "1.25", "v2.0", "v1.", "v1.-1", "v1.99999999999"] {
        let told = format!(
            "metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: \"{version}\": must be \"latest\" or \"v1.x\""
        );
        check(&[("enforce-version", version)], "privileged:latest privileged:latest privileged:latest", &[&told]);
    }
}

//! The published tables of the standards (Kubernetes documentation, "Pod Security Standards", and the pages of the releases v1.25 to
//! v1.36): each control in each version, at each level.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::checks::CHECKS;
use super::tests::{container, lay, pod, restricted_pod};
use super::{Level, Rule, Subject, Version, Violation};

/// The versions whose standards are compared.
const VERSIONS: RangeInclusive<u32> = 25..=36;
const NEVER: u32 = u32::MAX;

/// What a pod does, and in which versions a level forbids it: from the first number on, before the second one.
struct Fixture {
    control: &'static str,
    fields: Value,
    baseline: (u32, u32),
    restricted: (u32, u32),
}

fn fixture(control: &'static str, fields: Value, baseline: (u32, u32), restricted: (u32, u32)) -> Fixture {
    Fixture { control, fields, baseline, restricted }
}

const ALWAYS: (u32, u32) = (0, NEVER);
const ALLOWED: (u32, u32) = (NEVER, NEVER);

/// Forbidden at both levels in every version.
fn forbidden(control: &'static str, fields: Value) -> Fixture {
    fixture(control, fields, ALWAYS, ALWAYS)
}

/// Forbidden at the level restricted alone in every version.
fn restricted(control: &'static str, fields: Value) -> Fixture {
    fixture(control, fields, ALLOWED, ALWAYS)
}

fn allowed(control: &'static str, fields: Value) -> Fixture {
    fixture(control, fields, ALLOWED, ALLOWED)
}

/// The same fields in each kind of container.
fn each_container(fields: &Value) -> Vec<Value> {
    let base =
        json!({"name": "other", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}});
    let of = |list: &str, base: Value| {
        let mut one = base;
        lay(&mut one, fields);
        json!({"spec": {list: [one]}})
    };
    vec![of("containers", json!({})), of("initContainers", base.clone()), of("ephemeralContainers", base)]
}

fn sysctl(name: &str) -> Value {
    pod(json!({"sysctls": [{"name": name, "value": "1"}]}))
}

fn own_users(mut fields: Value) -> Value {
    lay(&mut fields, &json!({"spec": {"hostUsers": false}}));
    fields
}

fn windows(mut fields: Value) -> Value {
    lay(&mut fields, &json!({"spec": {"os": {"name": "windows"}}}));
    fields
}

fn host() -> Vec<Fixture> {
    let mut all = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        all.push(forbidden("host namespaces", json!({"spec": {field: true}})));
        all.push(allowed("host namespaces", json!({"spec": {field: false}})));
    }
    let process = json!({"windowsOptions": {"hostProcess": true}});
    all.push(forbidden("hostProcess", pod(process.clone())));
    all.push(allowed("hostProcess", pod(json!({"windowsOptions": {"hostProcess": false}}))));
    let volume = json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}});
    all.push(fixture("hostPath volumes", volume.clone(), ALWAYS, ALLOWED));
    all.push(restricted("restricted volume types", volume));
    for fields in each_container(&json!({"securityContext": process})) {
        all.push(forbidden("hostProcess", fields));
    }
    for fields in each_container(&json!({"securityContext": {"privileged": true}})) {
        all.push(forbidden("privileged", fields));
    }
    for fields in each_container(&json!({"ports": [{"containerPort": 1, "hostPort": 80}]})) {
        all.push(forbidden("hostPort", fields));
    }
    all.push(allowed("hostPort", json!({"spec": {"containers": [{"ports": [{"containerPort": 1, "hostPort": 0}]}]}})));
    let get = json!({"httpGet": {"port": 1, "host": "10.0.0.1"}});
    let socket = json!({"tcpSocket": {"port": 1, "host": "10.0.0.1"}});
    for handler in [get, socket] {
        let since = (34, NEVER);
        let fields = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| json!({probe: handler}));
        let hooks = ["postStart", "preStop"].map(|hook| json!({"lifecycle": {hook: handler}}));
        for fields in fields.iter().chain(&hooks).flat_map(each_container) {
            all.push(fixture("probe or lifecycle host", fields, since, since));
        }
    }
    all
}

fn modules() -> Vec<Fixture> {
    let mut all = Vec::new();
    let profile = |kind: &str| json!({"type": kind, "localhostProfile": "p"});
    for kind in ["RuntimeDefault", "Localhost"] {
        all.push(allowed("forbidden AppArmor profile", pod(json!({"appArmorProfile": profile(kind)}))));
        all.push(allowed("seccompProfile", pod(json!({"seccompProfile": profile(kind)}))));
    }
    all.push(forbidden("forbidden AppArmor profile", pod(json!({"appArmorProfile": profile("Unconfined")}))));
    all.push(forbidden("seccompProfile", pod(json!({"seccompProfile": profile("Unconfined")}))));
    for fields in each_container(&json!({"securityContext": {"appArmorProfile": profile("Unconfined")}})) {
        all.push(forbidden("forbidden AppArmor profile", fields));
    }
    for fields in each_container(&json!({"securityContext": {"seccompProfile": profile("Unconfined")}})) {
        all.push(forbidden("seccompProfile", fields));
    }
    let annotation =
        |value: &str| json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": value}}});
    all.push(forbidden("forbidden AppArmor profile", annotation("unconfined")));
    all.extend(["runtime/default", "localhost/p"].map(|value| allowed("forbidden AppArmor profile", annotation(value))));
    for kind in ["", "container_t", "container_init_t", "container_kvm_t"] {
        all.push(allowed("seLinuxOptions", pod(json!({"seLinuxOptions": {"type": kind, "level": "s0"}}))));
    }
    let engine = json!({"seLinuxOptions": {"type": "container_engine_t"}});
    all.push(fixture("seLinuxOptions", pod(engine.clone()), (0, 31), (0, 31)));
    for options in [json!({"type": "spc_t"}), json!({"user": "u"}), json!({"role": "r"})] {
        all.push(forbidden("seLinuxOptions", pod(json!({"seLinuxOptions": options}))));
        all.extend(
            each_container(&json!({"securityContext": {"seLinuxOptions": options}}))
                .into_iter()
                .map(|fields| forbidden("seLinuxOptions", fields)),
        );
    }
    all
}

fn kernel() -> Vec<Fixture> {
    let mut all = Vec::new();
    let sysctls = [
        (0, "kernel.shm_rmid_forced"),
        (0, "net.ipv4.ip_local_port_range"),
        (0, "net.ipv4.ip_unprivileged_port_start"),
        (0, "net.ipv4.tcp_syncookies"),
        (0, "net.ipv4.ping_group_range"),
        (27, "net.ipv4.ip_local_reserved_ports"),
        (29, "net.ipv4.tcp_keepalive_time"),
        (29, "net.ipv4.tcp_fin_timeout"),
        (29, "net.ipv4.tcp_keepalive_intvl"),
        (29, "net.ipv4.tcp_keepalive_probes"),
        (32, "net.ipv4.tcp_rmem"),
        (32, "net.ipv4.tcp_wmem"),
        (NEVER, "kernel.msgmax"),
        (NEVER, "net.core.somaxconn"),
    ];
    all.extend(sysctls.map(|(since, name)| fixture("forbidden sysctls", sysctl(name), (0, since), (0, since))));
    let unmasked = json!({"securityContext": {"procMount": "Unmasked"}});
    for fields in each_container(&unmasked) {
        all.push(fixture("procMount", own_users(fields.clone()), (0, 35), ALWAYS));
        all.push(forbidden("procMount", fields));
    }
    all.push(allowed("procMount", container(json!({"procMount": "Default"}))));
    let default = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";
    for name in default.split(' ') {
        let fields = container(json!({"capabilities": {"add": [name]}}));
        all.push(allowed("non-default capabilities", fields.clone()));
        all.push(restricted("unrestricted capabilities", fields));
    }
    all.push(allowed("unrestricted capabilities", container(json!({"capabilities": {"add": ["NET_BIND_SERVICE"]}}))));
    for fields in each_container(&json!({"securityContext": {"capabilities": {"add": ["NET_RAW"]}}})) {
        all.push(fixture("non-default capabilities", fields.clone(), ALWAYS, ALLOWED));
        all.push(restricted("unrestricted capabilities", fields));
    }
    for fields in each_container(&json!({"securityContext": {"capabilities": {"drop": null}}})) {
        all.push(allowed("unrestricted capabilities", windows(fields.clone())));
        all.push(restricted("unrestricted capabilities", fields));
    }
    all
}

fn hardening() -> Vec<Fixture> {
    let mut all = Vec::new();
    let sources = "configMap csi downwardAPI emptyDir ephemeral persistentVolumeClaim projected secret";
    let volume = |source: &str, value: Value| json!({"spec": {"volumes": [{"name": "v", source: value}]}});
    all.push(allowed("restricted volume types", volume("csi", json!({"driver": "d"}))));
    all.push(allowed("restricted volume types", volume("persistentVolumeClaim", json!({"claimName": "c"}))));
    let plain = sources.split(' ').filter(|source| !matches!(*source, "csi" | "persistentVolumeClaim"));
    all.extend(plain.map(|source| allowed("restricted volume types", volume(source, json!({})))));
    let others = [
        ("nfs", json!({"server": "s", "path": "/"})),
        ("iscsi", json!({"targetPortal": "p", "iqn": "i", "lun": 0})),
        ("fc", json!({})),
        ("gitRepo", json!({"repository": "r"})),
        ("glusterfs", json!({"endpoints": "e", "path": "/"})),
        ("rbd", json!({"monitors": [], "image": "i"})),
        ("cephfs", json!({"monitors": []})),
        ("azureDisk", json!({"diskName": "d", "diskURI": "u"})),
        ("vsphereVolume", json!({"volumePath": "p"})),
    ];
    all.extend(others.map(|(source, value)| restricted("restricted volume types", volume(source, value))));
    for fields in [json!({"allowPrivilegeEscalation": true}), json!({"allowPrivilegeEscalation": null})] {
        for fields in each_container(&json!({"securityContext": fields})) {
            all.push(allowed("allowPrivilegeEscalation != false", windows(fields.clone())));
            all.push(restricted("allowPrivilegeEscalation != false", fields));
        }
    }
    let root = pod(json!({"runAsNonRoot": null}));
    all.push(fixture("runAsNonRoot != true", own_users(root.clone()), ALLOWED, (0, 35)));
    all.push(restricted("runAsNonRoot != true", root));
    for fields in each_container(&json!({"securityContext": {"runAsNonRoot": false}})) {
        all.push(restricted("runAsNonRoot != true", fields));
    }
    let zero = pod(json!({"runAsUser": 0}));
    all.push(fixture("runAsUser=0", own_users(zero.clone()), ALLOWED, (0, 35)));
    all.push(restricted("runAsUser=0", zero));
    all.push(allowed("runAsUser=0", pod(json!({"runAsUser": 1}))));
    for fields in each_container(&json!({"securityContext": {"runAsUser": 0}})) {
        all.push(restricted("runAsUser=0", fields));
    }
    let nothing = pod(json!({"seccompProfile": null}));
    all.push(allowed("seccompProfile", windows(nothing.clone())));
    all.push(restricted("seccompProfile", nothing));
    all
}

fn violations(fields: &Value, level: Level, version: Version) -> Vec<Violation> {
    let mut pod = restricted_pod();
    lay(&mut pod, fields);
    Rule { level, version }.violations(&Subject::of_value(&pod).unwrap())
}

/// Issue 8: "Pod Security Standards' own test fixtures pass for every version from 1.25 on".
#[test]
fn every_control_in_every_version() {
    let mut found = BTreeSet::new();
    for Fixture { control, fields, baseline, restricted } in [host(), modules(), kernel(), hardening()].into_iter().flatten() {
        for (level, (since, until)) in [(Level::Baseline, baseline), (Level::Restricted, restricted)] {
            let versions = VERSIONS.map(|minor| (minor, Version::Minor(minor))).chain([(*VERSIONS.end(), Version::Latest)]);
            for (minor, version) in versions {
                let expected = since <= minor && minor < until;
                let all = violations(&fields, level, version);
                let got = all.iter().any(|violation| violation.reason.starts_with(control));
                assert_eq!(got, expected, "{control} at {}: {fields}: {all:?}", Rule { level, version });
                if got {
                    found.insert((control, level));
                }
            }
        }
        assert!(violations(&fields, Level::Privileged, Version::Latest).is_empty());
    }
    // Each row of the table is a control of its level, and each control was violated.
    let levels = |level: Level| found.iter().filter(|(_, own)| *own == level).count();
    let rows = |level: Level| CHECKS.iter().filter(|row| row.level == level).count();
    assert_eq!(levels(Level::Baseline), rows(Level::Baseline), "{found:?}");
    // Of the level restricted: its own, and those of baseline that it does not put another one in the place of.
    let replaced = CHECKS.iter().filter(|row| row.replaces.is_some()).count();
    assert_eq!(levels(Level::Restricted), CHECKS.len() - replaced, "{found:?}");
}

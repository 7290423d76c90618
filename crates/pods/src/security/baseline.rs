//! Checks of the level baseline.

use super::subject::{Setters, Words, containers, plural, quoted, violation};
use super::{Subject, Violation};

/// What a container may add: what runtimes give by default, but NET_RAW.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Safe sysctls, with the minor version in which each was taken in.
const SYSCTLS: [(u32, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

pub(super) fn capabilities(pod: &Subject) -> Option<Violation> {
    let (bad, added) = adders(pod, &CAPABILITIES);
    if bad.is_empty() {
        return None;
    }
    violation("non-default capabilities", must_not_add(&bad, &added))
}

/// The containers that add other capabilities than these, and the others.
pub(super) fn adders<'a>(pod: &'a Subject, allowed: &[&str]) -> (Vec<&'a str>, Words<'a>) {
    let (mut bad, mut added) = (Vec::new(), Words::new());
    for member in pod.members() {
        let all = member.security.and_then(|security| security.capabilities.as_ref()?.add.as_deref()).unwrap_or_default();
        let others: Vec<&str> = all.iter().map(String::as_str).filter(|capability| !allowed.contains(capability)).collect();
        if !others.is_empty() {
            bad.push(member.name);
        }
        added.extend(others);
    }
    (bad, added)
}

pub(super) fn must_not_add(bad: &[&str], added: &Words<'_>) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", containers(bad), quoted(added))
}

pub(super) fn host_namespaces(pod: &Subject) -> Option<Violation> {
    let spec = &pod.spec;
    let all = [("hostNetwork=true", spec.host_network), ("hostPID=true", spec.host_pid), ("hostIPC=true", spec.host_ipc)];
    let used: Vec<_> = all.iter().filter(|(_, set)| *set == Some(true)).map(|(name, _)| *name).collect();
    if used.is_empty() { None } else { violation("host namespaces", used.join(", ")) }
}

pub(super) fn host_path_volumes(pod: &Subject) -> Option<Violation> {
    let volumes = pod.spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
    let names: Vec<_> = volumes.map(|volume| volume.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural(names.len(), "volume", "volumes"), quoted(names)))
}

pub(super) fn host_ports(pod: &Subject) -> Option<Violation> {
    let ports_of = |ports: &[k8s_openapi::api::core::v1::ContainerPort]| -> Vec<String> {
        ports.iter().filter_map(|port| port.host_port).filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let bad = pod.which(|member| !ports_of(member.ports).is_empty());
    if bad.is_empty() {
        return None;
    }
    let ports: std::collections::BTreeSet<String> = pod.members().flat_map(|member| ports_of(member.ports)).collect();
    let (uses, word) = (plural(bad.len(), "uses", "use"), plural(ports.len(), "hostPort", "hostPorts"));
    let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
    violation("hostPort", format!("{} {uses} {word} {ports}", containers(&bad)))
}

const HOST: &str = "probe or lifecycle host";

pub(super) fn probe_hosts(pod: &Subject) -> Option<Violation> {
    let (mut bad, mut hosts) = (Words::new(), Words::new());
    for member in pod.members() {
        let probes = member.probes.into_iter().flatten().map(|probe| (&probe.http_get, &probe.tcp_socket));
        let handlers = member.lifecycle.into_iter().flat_map(|lifecycle| [&lifecycle.post_start, &lifecycle.pre_stop]);
        let handlers = handlers.flatten().map(|handler| (&handler.http_get, &handler.tcp_socket));
        for (http, tcp) in probes.chain(handlers) {
            let named =
                [http.as_ref().and_then(|get| get.host.as_deref()), tcp.as_ref().and_then(|socket| socket.host.as_deref())];
            for host in named.into_iter().flatten().filter(|host| !host.is_empty()) {
                bad.insert(member.name);
                hosts.insert(host);
            }
        }
    }
    if bad.is_empty() {
        return None;
    }
    let names: Vec<_> = bad.into_iter().collect();
    let (uses, word) = (plural(names.len(), "uses", "use"), plural(hosts.len(), HOST, "probe or lifecycle hosts"));
    violation(HOST, format!("{} {uses} {word} {}", containers(&names), quoted(hosts)))
}

pub(super) fn privileged(pod: &Subject) -> Option<Violation> {
    let bad = pod.which(|member| member.security.and_then(|security| security.privileged) == Some(true));
    if bad.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}

pub(super) fn proc_mount(pod: &Subject) -> Option<Violation> {
    let unusual = |member: &super::subject::Member<'_>| {
        member.security.and_then(|security| security.proc_mount.clone()).filter(|mount| mount != "Default")
    };
    let bad = pod.which(|member| unusual(member).is_some());
    if bad.is_empty() {
        return None;
    }
    let kinds: std::collections::BTreeSet<String> = pod.members().filter_map(|member| unusual(&member)).collect();
    violation("procMount", format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(kinds)))
}

/// What is in /proc belongs to the pod's own users.
pub(super) fn proc_mount_1_35(pod: &Subject) -> Option<Violation> {
    if pod.has_own_users() { None } else { proc_mount(pod) }
}

fn sysctls_of(pod: &Subject, minor: u32) -> Option<Violation> {
    let safe = |name: &str| SYSCTLS.iter().any(|(since, safe)| *since <= minor && *safe == name);
    let all = pod.spec.security_context.as_ref().and_then(|security| security.sysctls.as_deref()).unwrap_or_default();
    let bad: Vec<_> = all.iter().map(|sysctl| sysctl.name.as_str()).filter(|name| !safe(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

pub(super) fn sysctls(pod: &Subject) -> Option<Violation> {
    sysctls_of(pod, 0)
}

pub(super) fn sysctls_1_27(pod: &Subject) -> Option<Violation> {
    sysctls_of(pod, 27)
}

pub(super) fn sysctls_1_29(pod: &Subject) -> Option<Violation> {
    sysctls_of(pod, 29)
}

pub(super) fn sysctls_1_32(pod: &Subject) -> Option<Violation> {
    sysctls_of(pod, 32)
}

pub(super) fn host_process(pod: &Subject) -> Option<Violation> {
    let set = |options: Option<&k8s_openapi::api::core::v1::WindowsSecurityContextOptions>| {
        options.and_then(|options| options.host_process) == Some(true)
    };
    let own = pod.spec.security_context.as_ref().and_then(|security| security.windows_options.as_ref());
    let bad = Setters {
        pod: set(own),
        containers: pod.which(|member| set(member.security.and_then(|security| security.windows_options.as_ref()))),
    };
    if bad.is_empty() {
        return None;
    }
    violation("hostProcess", format!("{} must not set securityContext.windowsOptions.hostProcess=true", bad.words()))
}

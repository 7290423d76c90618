//! What pods and containers are made from, in the messages of the interface.

use std::collections::BTreeMap;

use runtime::Groups;
use runtime::api::{self, Error, Result, SandboxConfig};

use crate::convert::{mount, resources};
use crate::messages::*;

/// Labels by which kubelets find what is theirs again (kubernetes/kubernetes, pkg/kubelet/types/labels.go).
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Whose it is, where several use one runtime: the cgroup of all pods of a node.
pub(super) const ROOT: &str = "knarr.io/root";
/// The cgroup of a sandbox's pod below [`ROOT`], which is to be removed with the sandbox, whatever else is known of it.
pub(super) const GROUP: &str = "knarr.io/group";

fn labels(pod: &api::PodIdentity, root: &str) -> BTreeMap<String, String> {
    let pairs = [(POD_NAME, &*pod.name), (POD_NAMESPACE, &*pod.namespace), (POD_UID, &*pod.uid), (ROOT, root)];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A sandbox.
pub(super) fn sandbox(config: &SandboxConfig, groups: &Groups) -> PodSandboxConfig {
    let pod = &config.pod;
    let metadata = PodSandboxMetadata {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        namespace: pod.namespace.clone(),
        attempt: config.attempt,
    };
    let security = LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(config, None)),
        // Runtimes refuse privileged containers in other sandboxes, and which containers come is not known: it is the pause process that
        // it speaks of, which does nothing.
        privileged: config.users.is_none(),
        seccomp: Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault as i32, ..Default::default() }),
        ..Default::default()
    };
    let group = (GROUP.to_owned(), config.cgroup_parent.clone());
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: format!("/{}", groups.path(&config.cgroup_parent)),
        security_context: Some(security),
        sysctls: config.sysctls.clone(),
        overhead: None,
        resources: Some(resources(&config.resources)),
    };
    PodSandboxConfig {
        metadata: Some(metadata),
        hostname: if config.host_network { String::new() } else { config.hostname.clone() },
        log_directory: config.log_directory.display().to_string(),
        dns_config: config.resolv_conf.as_deref().map(dns),
        port_mappings: config.host_ports.iter().map(port).collect(),
        labels: config.labels.clone().into_iter().chain(labels(pod, groups.root())).chain([group]).collect(),
        annotations: config.annotations.clone(),
        linux: Some(linux),
    }
}

/// The lines of a resolv.conf.
fn dns(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words),
            Some("search") => config.searches = words.collect(),
            Some("options") => config.options.extend(words),
            _ => {}
        }
    }
    config
}

fn port(port: &api::HostPort) -> PortMapping {
    let protocol = match port.protocol.as_str() {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    PortMapping {
        protocol: protocol as i32,
        container_port: port.container_port.into(),
        host_port: port.host_port.into(),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

/// The namespaces of a sandbox, or of a container in it that sees the processes of `target`.
fn namespaces(config: &SandboxConfig, target: Option<&str>) -> NamespaceOption {
    let mode = |mode: api::NamespaceMode| match mode {
        api::NamespaceMode::Pod => NamespaceMode::Pod as i32,
        api::NamespaceMode::Container => NamespaceMode::Container as i32,
        api::NamespaceMode::Node => NamespaceMode::Node as i32,
    };
    let users = config.users.map(|range| {
        let mapping = vec![IdMapping { host_id: range.host, container_id: 0, length: range.size }];
        UserNamespace { mode: NamespaceMode::Pod as i32, uids: mapping.clone(), gids: mapping }
    });
    NamespaceOption {
        network: if config.host_network { NamespaceMode::Node } else { NamespaceMode::Pod } as i32,
        pid: if target.is_some() { NamespaceMode::Target as i32 } else { mode(config.pid) },
        ipc: mode(config.ipc),
        target_id: target.unwrap_or_default().to_owned(),
        userns_options: users,
    }
}

/// A container of a sandbox.
///
/// # Errors
/// It has what the interface has no words for.
pub(super) fn container(config: &api::ContainerConfig, sandbox: &SandboxConfig, groups: &Groups) -> Result<ContainerConfig> {
    if !config.hooks.is_empty() {
        let what = "hooks of the Container Device Interface: a runtime behind --container-runtime-endpoint is not told of them";
        return Err(Error::Create(what.to_owned()));
    }
    let path = |path: &std::path::Path| path.display().to_string();
    let image = ImageSpec {
        image: config.image.clone(),
        user_specified_image: config.image_reference.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
        ..Default::default()
    };
    let mut labels = labels(&sandbox.pod, groups.root());
    labels.insert(CONTAINER_NAME.to_owned(), config.name.clone());
    let linux =
        LinuxContainerConfig { resources: Some(resources(&config.resources)), security_context: Some(security(config, sandbox)) };
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: config.name.clone(), attempt: config.attempt }),
        image: Some(image),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config.env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: config.mounts.iter().map(|one| mount(one, &sandbox.runtime_handler)).collect(),
        devices: config.devices.iter().map(device).collect::<Result<_>>()?,
        labels,
        annotations: config.annotations.clone(),
        log_path: path(&config.log_path),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(linux),
        stop_signal: config.stop_signal.as_deref().and_then(Signal::named).unwrap_or(Signal::RuntimeDefault) as i32,
        ..Default::default()
    })
}

fn device(device: &api::Device) -> Result<Device> {
    if device.numbers.is_some() || device.mode.is_some() || device.uid.is_some() || device.gid.is_some() {
        let path = device.container_path.display();
        let what =
            format!("device {path}: a runtime behind --container-runtime-endpoint makes devices only as they are on the node");
        return Err(Error::Create(what));
    }
    Ok(Device {
        container_path: device.container_path.display().to_string(),
        host_path: device.host_path.display().to_string(),
        permissions: if device.permissions.is_empty() { "rwm".to_owned() } else { device.permissions.clone() },
    })
}

fn security(config: &api::ContainerConfig, sandbox: &SandboxConfig) -> LinuxContainerSecurityContext {
    let security = &config.security;
    let number = |id: Option<i64>| id.map(|value| Int64Value { value });
    let seccomp = match &security.seccomp {
        _ if security.privileged => (ProfileType::Unconfined, String::new()),
        None => (ProfileType::Unconfined, String::new()),
        Some(api::Seccomp::RuntimeDefault) => (ProfileType::RuntimeDefault, String::new()),
        Some(api::Seccomp::Localhost(path)) => (ProfileType::Localhost, path.display().to_string()),
    };
    let (apparmor, apparmor_profile) = security.app_armor.as_ref().map(app_armor).unzip();
    let paths = |paths: &[&str]| match security.unmasked_proc || security.privileged {
        true => Vec::new(),
        false => paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let policy = if security.strict_groups { SupplementalGroupsPolicy::Strict } else { SupplementalGroupsPolicy::Merge };
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
            ..Default::default()
        }),
        privileged: security.privileged,
        namespace_options: Some(namespaces(sandbox, config.target.as_deref())),
        run_as_user: number(security.run_as_user),
        run_as_group: number(security.run_as_group),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: policy as i32,
        no_new_privs: security.no_new_privs,
        masked_paths: paths(api::MASKED_PATHS),
        readonly_paths: paths(api::READONLY_PATHS),
        seccomp: Some(SecurityProfile { profile_type: seccomp.0 as i32, localhost_ref: seccomp.1 }),
        apparmor,
        apparmor_profile: apparmor_profile.unwrap_or_default(),
        ..Default::default()
    }
}

/// In both forms, as upstream: older runtimes know the second one alone.
fn app_armor(profile: &api::AppArmor) -> (SecurityProfile, String) {
    let (kind, name, old) = match profile {
        api::AppArmor::RuntimeDefault => (ProfileType::RuntimeDefault, String::new(), "runtime/default".to_owned()),
        api::AppArmor::Unconfined => (ProfileType::Unconfined, String::new(), "unconfined".to_owned()),
        api::AppArmor::Localhost(name) => (ProfileType::Localhost, name.clone(), format!("localhost/{name}")),
    };
    (SecurityProfile { profile_type: kind as i32, localhost_ref: name }, old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_resolv_conf() {
        let config = dns("nameserver 10.43.0.10\nsearch a.svc svc\noptions ndots:5 edns0\n# no\n");
        assert_eq!(config.servers, ["10.43.0.10"]);
        assert_eq!(config.searches, ["a.svc", "svc"]);
        assert_eq!(config.options, ["ndots:5", "edns0"]);
    }

    /// Nothing is said of a profile that nobody asks for: that one is the runtime's to choose.
    #[test]
    fn profiles_of_app_armor() {
        let check = |app_armor: Option<api::AppArmor>, expected: Option<(ProfileType, &str)>, old: &str| {
            let mut config = api::ContainerConfig::default();
            config.security.app_armor = app_armor;
            let made = security(&config, &SandboxConfig::default());
            let profile = made.apparmor.as_ref().map(|profile| (profile.profile_type(), profile.localhost_ref.as_str()));
            assert_eq!((profile, made.apparmor_profile.as_str()), (expected, old));
        };
        check(None, None, "");
        check(Some(api::AppArmor::RuntimeDefault), Some((ProfileType::RuntimeDefault, "")), "runtime/default");
        check(Some(api::AppArmor::Unconfined), Some((ProfileType::Unconfined, "")), "unconfined");
        check(Some(api::AppArmor::Localhost("p".to_owned())), Some((ProfileType::Localhost, "p")), "localhost/p");
    }

    /// What a runtime cannot be told is refused, and not left out.
    #[test]
    fn devices_as_they_are_on_the_node() {
        let plain = api::Device { host_path: "/dev/a".into(), container_path: "/dev/b".into(), ..Default::default() };
        assert_eq!(device(&plain).ok().map(|device| device.permissions).as_deref(), Some("rwm"));
        assert!(device(&api::Device { mode: Some(0o600), ..plain }).is_err());
    }

    #[test]
    fn processes_of_another_container_are_seen() {
        let sandbox = SandboxConfig { host_network: true, ..Default::default() };
        let seen = namespaces(&sandbox, Some("c1"));
        assert_eq!((seen.pid, seen.target_id.as_str()), (NamespaceMode::Target as i32, "c1"));
        assert_eq!(seen.network, NamespaceMode::Node as i32);
        assert_eq!(namespaces(&SandboxConfig::default(), None).network, NamespaceMode::Pod as i32);
    }
}

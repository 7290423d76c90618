//! Sandboxes.

use std::fmt::Write;

use grpc::Error;
use runtime::api;

use super::{annotations, invalid, number, path, plain, refuse, resources, unsupported};
use crate::messages::*;

/// Where pods of clients are that name no cgroup: below the limits that the kubelet sets for pods without requests.
const GROUP: &str = "kubepods/besteffort";

/// The sandbox that a client asks for; `resolv_conf` is the node's.
pub(crate) fn sandbox(config: PodSandboxConfig, handler: String, resolv_conf: &str) -> Result<api::SandboxConfig, Error> {
    let PodSandboxMetadata { name, uid, namespace, attempt } =
        config.metadata.ok_or_else(|| invalid("the sandbox has no metadata"))?;
    for (what, text) in [("name", &name), ("uid", &uid), ("namespace", &namespace)] {
        plain(text, what)?;
    }
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    refuse(security.selinux_options.is_some_and(|options| options != SeLinuxOption::default()), "SELinux")?;
    let spaces = security.namespace_options.unwrap_or_default();
    let host_network = spaces.network() == NamespaceMode::Node;
    refuse(!host_network && spaces.network() != NamespaceMode::Pod, "network namespaces of containers")?;
    let hostname = if config.hostname.is_empty() { name.clone() } else { config.hostname };
    let log_directory = match config.log_directory.as_str() {
        "" => Default::default(),
        directory => path(directory, "log_directory")?,
    };
    Ok(api::SandboxConfig {
        cgroup_parent: group(&linux.cgroup_parent, &uid)?,
        pod: api::PodIdentity { name, namespace, uid },
        attempt,
        hostname,
        log_directory,
        resolv_conf: Some(config.dns_config.as_ref().map_or_else(|| resolv_conf.to_owned(), resolver)),
        host_network,
        users: spaces.userns_options.as_ref().map(users).transpose()?.flatten(),
        host_ports: config.port_mappings.iter().filter(|port| port.host_port != 0).map(host_port).collect::<Result<_, _>>()?,
        bandwidth: api::Bandwidth::default(),
        pid: mode(spaces.pid(), "pid")?,
        ipc: mode(spaces.ipc(), "ipc")?,
        sysctls: linux.sysctls,
        resources: linux.resources.as_ref().map(resources).transpose()?.unwrap_or_default(),
        runtime_handler: handler,
        annotations: annotations(config.annotations, &config.labels)?,
        labels: config.labels,
    })
}

fn mode(mode: NamespaceMode, what: &str) -> Result<api::NamespaceMode, Error> {
    match mode {
        NamespaceMode::Pod => Ok(api::NamespaceMode::Pod),
        NamespaceMode::Container if what == "pid" => Ok(api::NamespaceMode::Container),
        NamespaceMode::Node => Ok(api::NamespaceMode::Node),
        _ => Err(unsupported(&format!("{what} namespaces {mode:?} of a sandbox"))),
    }
}

/// A group of its own below the one that is named, so that it can be removed with the sandbox.
fn group(parent: &str, uid: &str) -> Result<String, Error> {
    refuse(parent.ends_with(".slice"), "cgroups of systemd")?;
    let parent = parent.trim_matches('/');
    if parent.contains('\0') || parent.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(invalid(format!("cgroup_parent {parent:?} is not a path of a cgroup")));
    }
    let parent = if parent.is_empty() { GROUP } else { parent };
    // The kubelet names the pod's own.
    let is_own = parent.rsplit('/').next().and_then(|last| last.strip_prefix("pod")) == Some(uid);
    Ok(if is_own { parent.to_owned() } else { format!("{parent}/pod{uid}") })
}

fn users(users: &UserNamespace) -> Result<Option<api::IdRange>, Error> {
    match (users.mode(), &users.uids[..], &users.gids[..]) {
        (NamespaceMode::Node, [], []) => Ok(None),
        (NamespaceMode::Pod, [uids], [gids]) if uids == gids && uids.container_id == 0 && uids.length > 0 => {
            Ok(Some(api::IdRange { host: uids.host_id, size: uids.length }))
        }
        _ => Err(unsupported("user namespaces with another mapping than one range from 0 on, the same for users and groups")),
    }
}

fn host_port(port: &PortMapping) -> Result<api::HostPort, Error> {
    let host_ip = (!port.host_ip.is_empty()).then(|| port.host_ip.parse()).transpose();
    Ok(api::HostPort {
        protocol: format!("{:?}", port.protocol()).to_ascii_uppercase(),
        container_port: number(port.container_port.into(), "container_port")?,
        host_port: number(port.host_port.into(), "host_port")?,
        host_ip: host_ip.map_err(|_| invalid(format!("host_ip {:?} is not an address", port.host_ip)))?,
    })
}

/// See resolv.conf(5).
fn resolver(dns: &DnsConfig) -> String {
    let mut text = String::new();
    for (word, values) in [("search", &dns.searches), ("options", &dns.options)] {
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", values.join(" "));
        }
    }
    for server in &dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut PodSandboxConfig)) -> Result<api::SandboxConfig, grpc::Code> {
        let metadata =
            PodSandboxMetadata { name: "web".to_owned(), uid: "u1".to_owned(), namespace: "shop".to_owned(), attempt: 1 };
        let mut config = PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
        change(&mut config);
        sandbox(config, String::new(), "nameserver 192.0.2.1\n").map_err(|error| error.code)
    }

    fn spaces(config: &mut PodSandboxConfig) -> &mut NamespaceOption {
        let security = config.linux.get_or_insert_default().security_context.get_or_insert_default();
        security.namespace_options.get_or_insert_default()
    }

    #[test]
    fn a_sandbox_of_few_words() {
        let config = asked(|_| ()).unwrap();
        assert_eq!((config.hostname.as_str(), config.cgroup_parent.as_str()), ("web", "kubepods/besteffort/podu1"));
        assert_eq!(config.resolv_conf.as_deref(), Some("nameserver 192.0.2.1\n"));
        assert_eq!((config.pid, config.ipc, config.host_network), (api::NamespaceMode::Pod, api::NamespaceMode::Pod, false));
    }

    /// A group is removed with its sandbox, with all that runs in it: only that of the sandbox itself is its own.
    #[test]
    fn the_group_of_a_sandbox_is_its_own() {
        let check = |parent: &str, uid: &str, expected: &str| assert_eq!(group(parent, uid).unwrap(), expected, "{parent} {uid}");
        check("", "u", "kubepods/besteffort/podu");
        check("/kubepods/burstable/podu", "u", "kubepods/burstable/podu");
        check("/kubepods", "kubepods", "kubepods/podkubepods");
        check("/kubepods/besteffort", "t", "kubepods/besteffort/podt");
        check("/kubepods/podab", "b", "kubepods/podab/podb");
    }

    #[test]
    fn what_sandboxes_can_have() {
        let config = asked(|config| {
            let [servers, searches, options] = ["10.0.0.10", "a.b", "ndots:5"].map(|text| vec![text.to_owned()]);
            config.dns_config = Some(DnsConfig { servers, searches, options });
            let range = IdMapping { host_id: 65536, container_id: 0, length: 65536 };
            let users = UserNamespace { mode: NamespaceMode::Pod.into(), uids: vec![range.clone()], gids: vec![range] };
            *spaces(config) = NamespaceOption {
                network: NamespaceMode::Node.into(),
                pid: NamespaceMode::Container.into(),
                ipc: NamespaceMode::Node.into(),
                userns_options: Some(users),
                ..Default::default()
            };
            config.port_mappings =
                vec![PortMapping { host_port: 53, container_port: 5353, protocol: Protocol::Udp.into(), ..Default::default() }];
        });
        let config = config.unwrap();
        assert_eq!(config.resolv_conf.as_deref(), Some("search a.b\noptions ndots:5\nnameserver 10.0.0.10\n"));
        assert_eq!(
            (config.pid, config.ipc, config.host_network),
            (api::NamespaceMode::Container, api::NamespaceMode::Node, true)
        );
        assert_eq!(config.users, Some(api::IdRange { host: 65536, size: 65536 }));
        assert_eq!((config.host_ports[0].protocol.as_str(), config.host_ports[0].host_port), ("UDP", 53));
    }

    #[test]
    fn what_sandboxes_cannot_have() {
        use grpc::Code::{InvalidArgument, Unimplemented};
        type Change = fn(&mut PodSandboxConfig);
        let checks: [(Change, grpc::Code); 10] = [
            (|config| config.metadata = None, InvalidArgument),
            (|config| config.metadata.as_mut().unwrap().uid = "../x".to_owned(), InvalidArgument),
            (|config| config.metadata.as_mut().unwrap().namespace = "a/b".to_owned(), InvalidArgument),
            (|config| config.log_directory = "logs".to_owned(), InvalidArgument),
            (|config| drop(config.annotations.insert("knarr.io/x".to_owned(), String::new())), InvalidArgument),
            (|config| config.linux.get_or_insert_default().cgroup_parent = "/a/../..".to_owned(), InvalidArgument),
            (|config| config.linux.get_or_insert_default().cgroup_parent = "/a\0b".to_owned(), InvalidArgument),
            (|config| config.linux.get_or_insert_default().cgroup_parent = "a.slice".to_owned(), Unimplemented),
            (|config| spaces(config).network = NamespaceMode::Container.into(), Unimplemented),
            (|config| spaces(config).pid = NamespaceMode::Target.into(), Unimplemented),
        ];
        for (number, (change, expected)) in checks.into_iter().enumerate() {
            assert_eq!(asked(change).map(drop), Err(expected), "{number}");
        }
    }
}

//! Containers.

use std::path::{Component, Path, PathBuf};

use grpc::Error;
use runtime::api;

use super::{annotations, invalid, path, plain, refuse, resources, unsupported};
use crate::messages::*;

/// The image that a container is of.
pub(crate) struct Image {
    pub(crate) id: String,
    pub(crate) digest: String,
}

/// The container that a client asks for, in `sandbox`. A container whose processes it sees is `target`, by name.
pub(crate) fn container(
    config: ContainerConfig,
    image: Image,
    sandbox: &api::Sandbox,
    target: Option<String>,
) -> Result<api::ContainerConfig, Error> {
    refuse(!config.cdi_devices.is_empty(), "devices by names of the Container Device Interface")?;
    let stop_signal = config.stop_signal().name();
    let metadata = config.metadata.ok_or_else(|| invalid("the container has no metadata"))?;
    plain(&metadata.name, "name")?;
    let linux = config.linux.unwrap_or_default();
    let written =
        config.image.map(|image| if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image });
    Ok(api::ContainerConfig {
        name: metadata.name,
        attempt: metadata.attempt,
        image: image.id,
        image_reference: written.unwrap_or_default(),
        image_digest: image.digest,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        env: config.envs.into_iter().map(|KeyValue { key, value }| (key, value)).collect(),
        mounts: config.mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
        devices: config.devices.into_iter().map(device).collect::<Result<_, _>>()?,
        hooks: Vec::new(),
        log_path: log_path(&config.log_path, sandbox)?,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: linux.resources.as_ref().map(resources).transpose()?.unwrap_or_default(),
        security: linux.security_context.map(|security| of_security(security, sandbox)).transpose()?.unwrap_or_default(),
        annotations: annotations(config.annotations, &config.labels)?,
        target,
        stop_signal,
        log_limit: None,
    })
}

/// Below the sandbox's directory of logs. A container without a log says nothing to anybody.
fn log_path(log: &str, sandbox: &api::Sandbox) -> Result<PathBuf, Error> {
    if log.is_empty() || sandbox.log_directory.as_os_str().is_empty() {
        return Ok(PathBuf::from("/dev/null"));
    }
    let path = Path::new(log);
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if is_below && path.file_name().is_some() && !log.contains('\0') {
        return Ok(path.to_owned());
    }
    Err(invalid(format!("log_path {log:?} is not below the sandbox's directory of logs")))
}

fn mount(mount: Mount) -> Result<api::Mount, Error> {
    refuse(mount.selinux_relabel, "SELinux")?;
    refuse(!mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty(), "ids of a mount: they follow from the sandbox's")?;
    refuse(mount.image.is_some() && !mount.host_path.is_empty(), "a mount of an image and a path of the node at once")?;
    let propagation = match mount.propagation() {
        MountPropagation::Private => api::Propagation::Private,
        MountPropagation::HostToContainer => api::Propagation::HostToContainer,
        MountPropagation::Bidirectional => api::Propagation::Bidirectional,
    };
    if mount.recursive_read_only && (!mount.readonly || propagation != api::Propagation::Private) {
        return Err(invalid("recursive_read_only is for mounts that are readonly and private"));
    }
    let host_path = if mount.image.is_some() { PathBuf::new() } else { path(&mount.host_path, "host_path")? };
    Ok(api::Mount {
        host_path,
        container_path: path(&mount.container_path, "container_path")?,
        readonly: mount.readonly,
        recursive_readonly: mount.recursive_read_only,
        propagation,
        image: mount.image.map(|image| api::ImageSource { id: image.image, sub_path: mount.image_sub_path }),
    })
}

fn device(device: Device) -> Result<api::Device, Error> {
    if !device.permissions.bytes().all(|letter| b"rwm".contains(&letter)) {
        return Err(invalid(format!("permissions {:?} of a device are not of r, w and m", device.permissions)));
    }
    let host_path = path(&device.host_path, "host_path")?;
    let inside =
        if device.container_path.is_empty() { host_path.clone() } else { path(&device.container_path, "container_path")? };
    Ok(api::Device { host_path, container_path: inside, permissions: device.permissions, ..Default::default() })
}

fn of_security(security: LinuxContainerSecurityContext, sandbox: &api::Sandbox) -> Result<api::SecurityContext, Error> {
    refuse(security.selinux_options.as_ref().is_some_and(|options| *options != SeLinuxOption::default()), "SELinux")?;
    refuse(!security.run_as_username.is_empty(), "run_as_username: users are given by number")?;
    let strict = security.supplemental_groups_policy() == SupplementalGroupsPolicy::Strict;
    let seccomp = seccomp(security.seccomp.as_ref(), &security.seccomp_profile_path)?;
    let app_armor = app_armor(security.apparmor.as_ref(), &security.apparmor_profile)?;
    if let Some(spaces) = &security.namespace_options {
        namespaces(spaces, sandbox)?;
    }
    if security.run_as_group.is_some() && security.run_as_user.is_none() {
        return Err(invalid("run_as_group is only for containers with run_as_user"));
    }
    let capabilities = security.capabilities.unwrap_or_default();
    refuse(!capabilities.add_ambient_capabilities.is_empty(), "ambient capabilities")?;
    let bare = |names: Vec<String>| names.iter().map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned()).collect();
    Ok(api::SecurityContext {
        privileged: security.privileged,
        add_capabilities: bare(capabilities.add_capabilities),
        drop_capabilities: bare(capabilities.drop_capabilities),
        run_as_user: security.run_as_user.map(|user| user.value),
        run_as_non_root: false,
        run_as_group: security.run_as_group.map(|group| group.value),
        supplemental_groups: security.supplemental_groups,
        strict_groups: strict,
        readonly_rootfs: security.readonly_rootfs,
        no_new_privs: security.no_new_privs,
        seccomp,
        app_armor,
        unmasked_proc: false,
    })
}

/// Containers are in the namespaces of their sandbox.
fn namespaces(asked: &NamespaceOption, sandbox: &api::Sandbox) -> Result<(), Error> {
    let has = |mode: api::NamespaceMode| match mode {
        api::NamespaceMode::Pod => NamespaceMode::Pod,
        api::NamespaceMode::Container => NamespaceMode::Container,
        api::NamespaceMode::Node => NamespaceMode::Node,
    };
    let network = if sandbox.host_network { NamespaceMode::Node } else { NamespaceMode::Pod };
    let asked_for =
        [("network", asked.network(), network), ("pid", asked.pid(), has(sandbox.pid)), ("ipc", asked.ipc(), has(sandbox.ipc))];
    for (what, asked, had) in asked_for {
        if asked != had && !(what == "pid" && asked == NamespaceMode::Target) {
            return Err(unsupported(&format!("{what} namespace {asked:?} in a sandbox that was made with {had:?}")));
        }
    }
    Ok(())
}

fn seccomp(profile: Option<&SecurityProfile>, deprecated: &str) -> Result<Option<api::Seccomp>, Error> {
    let local = |file: &str| Ok(Some(api::Seccomp::Localhost(path(file, "the profile of seccomp")?)));
    match (profile.map(|profile| (profile.profile_type(), &profile.localhost_ref)), deprecated) {
        (Some((ProfileType::RuntimeDefault, _)), _) | (None, "runtime/default" | "docker/default") => {
            Ok(Some(api::Seccomp::RuntimeDefault))
        }
        (Some((ProfileType::Unconfined, _)), _) | (None, "" | "unconfined") => Ok(None),
        (Some((ProfileType::Localhost, file)), _) => local(file),
        (None, old) => match old.strip_prefix("localhost/") {
            Some(file) => local(file),
            None => Err(invalid(format!("{old:?} is no profile of seccomp"))),
        },
    }
}

fn app_armor(profile: Option<&SecurityProfile>, deprecated: &str) -> Result<Option<api::AppArmor>, Error> {
    let local = |name: &str| match name.strip_prefix("localhost/").unwrap_or(name) {
        "" => Err(invalid("a profile of AppArmor has no name")),
        name => Ok(Some(api::AppArmor::Localhost(name.to_owned()))),
    };
    match (profile.map(|profile| (profile.profile_type(), profile.localhost_ref.as_str())), deprecated) {
        (Some((ProfileType::RuntimeDefault, "")), _) | (None, "runtime/default") => Ok(Some(api::AppArmor::RuntimeDefault)),
        (Some((ProfileType::Unconfined, "")), _) | (None, "unconfined") => Ok(Some(api::AppArmor::Unconfined)),
        (Some((ProfileType::Localhost, name)), _) => local(name),
        (Some((kind, name)), _) => Err(invalid(format!("{name:?} is no profile of AppArmor of type {kind:?}"))),
        (None, "") => Ok(None),
        (None, old) if old.starts_with("localhost/") => local(old),
        (None, old) => Err(invalid(format!("{old:?} is no profile of AppArmor"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(change: impl FnOnce(&mut ContainerConfig)) -> Result<api::ContainerConfig, grpc::Code> {
        let mut config =
            ContainerConfig { metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 2 }), ..Default::default() };
        change(&mut config);
        let image = Image { id: "sha256:1".to_owned(), digest: "r@sha256:2".to_owned() };
        let sandbox = api::Sandbox { log_directory: "/var/log/pods/x".into(), ..Default::default() };
        container(config, image, &sandbox, None).map_err(|error| error.code)
    }

    fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
        config.linux.get_or_insert_default().security_context.get_or_insert_default()
    }

    #[test]
    fn what_containers_can_have() {
        let config = asked(|config| {
            config.log_path = "c/0.log".to_owned();
            config.labels.insert("a".to_owned(), "b".to_owned());
            config.stop_signal = Signal::SigRtminPlus3.into();
            let host_path = "/".to_owned();
            config.mounts = vec![Mount { host_path, container_path: "/host".to_owned(), readonly: true, ..Default::default() }];
            let security = security(config);
            security.run_as_user = Some(Int64Value { value: 7 });
            security.capabilities = Some(Capability { add_capabilities: vec!["CAP_NET_RAW".to_owned()], ..Default::default() });
            security.seccomp = Some(SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() });
            let linux = config.linux.get_or_insert_default();
            linux.resources =
                Some(LinuxContainerResources { memory_limit_in_bytes: 1 << 20, cpu_quota: -1, ..Default::default() });
        });
        let config = config.unwrap();
        assert_eq!((config.log_path.to_str(), config.attempt, config.image.as_str()), (Some("c/0.log"), 2, "sha256:1"));
        assert_eq!((config.security.run_as_user, config.security.seccomp), (Some(7), Some(api::Seccomp::RuntimeDefault)));
        assert_eq!(config.security.add_capabilities, ["NET_RAW"]);
        assert_eq!(config.stop_signal.as_deref(), Some("SIGRTMIN+3"));
        assert_eq!((config.resources.memory_limit, config.resources.cpu_quota), (Some(1 << 20), None));
        assert_eq!(config.annotations.get("knarr.io/cri-labels").map(String::as_str), Some(r#"{"a":"b"}"#));
        let plain = asked(|_| ()).unwrap();
        assert_eq!((plain.log_path.as_path(), plain.stop_signal), (Path::new("/dev/null"), None));
    }

    #[test]
    fn profiles_of_app_armor() {
        let check = |profile: Option<(ProfileType, &str)>, old: &str, expected: Result<Option<api::AppArmor>, ()>| {
            let profile =
                profile.map(|(kind, name)| SecurityProfile { profile_type: kind.into(), localhost_ref: name.to_owned() });
            assert_eq!(app_armor(profile.as_ref(), old).map_err(drop), expected, "{profile:?} {old}");
        };
        let named = || Ok(Some(api::AppArmor::Localhost("p".to_owned())));
        check(None, "", Ok(None));
        check(Some((ProfileType::RuntimeDefault, "")), "localhost/q", Ok(Some(api::AppArmor::RuntimeDefault)));
        check(Some((ProfileType::Unconfined, "")), "", Ok(Some(api::AppArmor::Unconfined)));
        check(Some((ProfileType::Localhost, "p")), "", named());
        check(Some((ProfileType::Localhost, "localhost/p")), "", named());
        check(Some((ProfileType::Localhost, "")), "", Err(()));
        check(Some((ProfileType::RuntimeDefault, "p")), "", Err(()));
        check(None, "runtime/default", Ok(Some(api::AppArmor::RuntimeDefault)));
        check(None, "unconfined", Ok(Some(api::AppArmor::Unconfined)));
        check(None, "localhost/p", named());
        check(None, "localhost/", Err(()));
        check(None, "p", Err(()));
    }

    #[test]
    fn what_containers_cannot_have() {
        use grpc::Code::{InvalidArgument, Unimplemented};
        type Change = fn(&mut ContainerConfig);
        let mount = |host: &str, inside: &str| Mount {
            host_path: host.to_owned(),
            container_path: inside.to_owned(),
            ..Default::default()
        };
        let mounts = [mount("relative", "/a"), mount("/", "a")];
        for mount in mounts {
            assert_eq!(asked(|config| config.mounts.push(mount.clone())).map(drop), Err(InvalidArgument), "{mount:?}");
        }
        let checks: [(Change, grpc::Code); 16] = [
            (|config| config.metadata = None, InvalidArgument),
            (|config| config.log_path = "../0.log".to_owned(), InvalidArgument),
            (|config| config.log_path = "/etc/passwd".to_owned(), InvalidArgument),
            (|config| config.log_path = ".".to_owned(), InvalidArgument),
            (|config| config.log_path = "a\0b".to_owned(), InvalidArgument),
            (|config| config.metadata.as_mut().unwrap().name = "..".to_owned(), InvalidArgument),
            (|config| config.metadata.as_mut().unwrap().name = "a\0b".to_owned(), InvalidArgument),
            (|config| config.cdi_devices.push(CdiDevice::default()), Unimplemented),
            (|config| security(config).run_as_username = "root".to_owned(), Unimplemented),
            (|config| security(config).run_as_group = Some(Int64Value { value: 1 }), InvalidArgument),
            (|config| security(config).apparmor_profile = "x".to_owned(), InvalidArgument),
            (|config| security(config).seccomp_profile_path = "x".to_owned(), InvalidArgument),
            (
                |config| security(config).selinux_options = Some(SeLinuxOption { level: "s0".to_owned(), ..Default::default() }),
                Unimplemented,
            ),
            (
                |config| {
                    security(config).namespace_options =
                        Some(NamespaceOption { network: NamespaceMode::Node.into(), ..Default::default() })
                },
                Unimplemented,
            ),
            (
                |config| {
                    security(config).capabilities =
                        Some(Capability { add_ambient_capabilities: vec!["X".to_owned()], ..Default::default() })
                },
                Unimplemented,
            ),
            (
                |config| {
                    let linux = config.linux.get_or_insert_default();
                    linux.resources = Some(LinuxContainerResources {
                        unified: [("a".to_owned(), "b".to_owned())].into(),
                        ..Default::default()
                    });
                },
                Unimplemented,
            ),
        ];
        for (number, (change, expected)) in checks.into_iter().enumerate() {
            assert_eq!(asked(change).map(drop), Err(expected), "{number}");
        }
    }
}

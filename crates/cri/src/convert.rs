//! Parts of containers in the messages of the interface, as both ends write them.

use runtime::api;

use crate::messages::*;

/// A mount; an image in it is for containers of a handler.
pub(crate) fn mount(mount: &api::Mount, handler: &str) -> Mount {
    let propagation = match mount.propagation {
        api::Propagation::Private => MountPropagation::Private,
        api::Propagation::HostToContainer => MountPropagation::HostToContainer,
        api::Propagation::Bidirectional => MountPropagation::Bidirectional,
    };
    let image = mount.image.as_ref();
    let of = |source: &api::ImageSource| ImageSpec {
        image: source.id.clone(),
        runtime_handler: handler.to_owned(),
        ..Default::default()
    };
    Mount {
        container_path: mount.container_path.display().to_string(),
        host_path: if image.is_some() { String::new() } else { mount.host_path.display().to_string() },
        readonly: mount.readonly,
        propagation: propagation as i32,
        recursive_read_only: mount.recursive_readonly,
        image: image.map(of),
        image_sub_path: image.map(|source| source.sub_path.clone()).unwrap_or_default(),
        ..Default::default()
    }
}

/// Limits; what is 0 or empty is left as it is.
pub(crate) fn resources(limits: &api::Resources) -> LinuxContainerResources {
    let whole = |value: Option<u64>| value.and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
    LinuxContainerResources {
        cpu_period: whole(limits.cpu_period),
        cpu_quota: limits.cpu_quota.unwrap_or(0),
        cpu_shares: whole(limits.cpu_shares),
        memory_limit_in_bytes: limits.memory_limit.unwrap_or(0),
        oom_score_adj: limits.oom_score_adj.unwrap_or(0).into(),
        cpuset_cpus: limits.cpus.clone().unwrap_or_default(),
        cpuset_mems: limits.memory_nodes.clone().unwrap_or_default(),
        hugepage_limits: limits
            .huge_pages
            .iter()
            .map(|(size, limit)| HugepageLimit { page_size: size.clone(), limit: *limit })
            .collect(),
        ..Default::default()
    }
}

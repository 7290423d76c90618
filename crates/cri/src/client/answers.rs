//! What a runtime tells of sandboxes, containers and images, as the kubelet knows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use runtime::api;
use serde_json::Value;

use super::records::ContainerRecord;
use crate::messages::*;

/// A time in nanoseconds since 1970; 0 is none.
fn time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds > 0).then(|| Timestamp::from_nanosecond(nanoseconds.into()).ok()).flatten()
}

/// What a runtime tells whom asks for more (`info.info`): containerd and CRI-O have the same names.
fn info(info: &BTreeMap<String, String>) -> Value {
    info.get("info").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The network namespace of a sandbox, by its OCI configuration.
fn netns(info: &Value) -> Option<PathBuf> {
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces")?.as_array()?;
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network")?;
    Some(PathBuf::from(network["path"].as_str().filter(|path| !path.is_empty())?))
}

/// A sandbox.
pub(super) fn sandbox(answer: PodSandboxStatusResponse, resources: api::Resources) -> Option<api::Sandbox> {
    let (status, told) = (answer.status?, info(&answer.info));
    let metadata = status.metadata.unwrap_or_default();
    let namespaces = status.linux.and_then(|linux| linux.namespaces?.options).unwrap_or_default();
    let on_host = namespaces.network == NamespaceMode::Node as i32;
    let mode = |mode: i32| if mode == NamespaceMode::Node as i32 { api::NamespaceMode::Node } else { api::NamespaceMode::Pod };
    let network = status.network.unwrap_or_default();
    let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    Some(api::Sandbox {
        id: status.id,
        pod: api::PodIdentity { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid },
        attempt: metadata.attempt,
        state: match status.state == PodSandboxState::Ready as i32 {
            true => api::SandboxState::Ready,
            false => api::SandboxState::NotReady,
        },
        created: time(status.created_at).unwrap_or_default(),
        ips: if on_host { Vec::new() } else { ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).collect() },
        netns: netns(&told).filter(|_| !on_host),
        runtime_handler: status.runtime_handler,
        resources,
        labels: status.labels.into_iter().collect(),
        annotations: status.annotations.into_iter().collect(),
        host_network: on_host,
        pid: mode(namespaces.pid),
        ipc: mode(namespaces.ipc),
        // It is not told again.
        log_directory: PathBuf::new(),
    })
}

/// A container.
pub(super) fn container(answer: ContainerStatusResponse, record: ContainerRecord) -> Option<api::Container> {
    let (status, told) = (answer.status?, info(&answer.info));
    let stop_signal = status.stop_signal().name();
    let metadata = status.metadata.unwrap_or_default();
    let state = match ContainerState::try_from(status.state) {
        Ok(ContainerState::Created) => api::ContainerState::Created,
        Ok(ContainerState::Running) => api::ContainerState::Running,
        // Unknown is what a runtime says of one that it has lost: upstream takes it for ended, too.
        Ok(ContainerState::Exited | ContainerState::Unknown) | Err(_) => api::ContainerState::Exited,
    };
    let sandbox = match record.sandbox.is_empty() {
        true => told["sandboxID"].as_str().unwrap_or_default().to_owned(),
        false => record.sandbox,
    };
    let user = status.user.and_then(|user| user.linux).and_then(|user| {
        let groups = user.supplemental_groups.into_iter().map(u32::try_from).collect::<Result<_, _>>().ok()?;
        Some(api::ProcessUser { uid: user.uid.try_into().ok()?, gid: user.gid.try_into().ok()?, groups })
    });
    let running = state == api::ContainerState::Running;
    Some(api::Container {
        id: status.id,
        sandbox,
        name: metadata.name,
        attempt: metadata.attempt,
        state,
        created: time(status.created_at).unwrap_or_default(),
        started: time(status.started_at),
        finished: time(status.finished_at),
        exit_code: (state == api::ContainerState::Exited).then_some(status.exit_code),
        signal: None,
        reason: status.reason,
        message: status.message,
        image: if status.image_id.is_empty() { status.image_ref } else { status.image_id },
        image_reference: record.image_reference,
        image_digest: record.image_digest,
        log_path: status.log_path.into(),
        annotations: record.annotations,
        pid: told["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0 && running),
        user,
        stop_signal,
    })
}

/// An image.
pub(super) fn image(image: Image) -> api::Image {
    let user = match (image.uid, image.username.as_str()) {
        (Some(uid), _) => Some(api::User::id(uid.value).unwrap_or_else(|| api::User::OutOfRange(uid.value.to_string()))),
        (None, "") => None,
        (None, name) => Some(api::User::parse(name)),
    };
    api::Image {
        id: image.id,
        tags: image.repo_tags,
        digests: image.repo_digests,
        size: image.size,
        user,
        pinned: image.pinned,
        nodes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_told_of_a_sandbox() {
        let told =
            r#"{"pid": 7, "runtimeSpec": {"linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/n"}]}}}"#;
        let answer = |network: NamespaceMode| {
            let options = NamespaceOption { network: network as i32, ..Default::default() };
            let status = PodSandboxStatus {
                id: "s".into(),
                state: PodSandboxState::Ready as i32,
                created_at: 1_000_000_000,
                network: Some(PodSandboxNetworkStatus {
                    ip: "10.0.0.2".into(),
                    additional_ips: vec![PodIp { ip: "fd00::2".into() }],
                }),
                linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
                ..Default::default()
            };
            let info = BTreeMap::from([("info".to_owned(), told.to_owned())]);
            sandbox(PodSandboxStatusResponse { status: Some(status), info, ..Default::default() }, api::Resources::default())
                .unwrap()
        };
        let own = answer(NamespaceMode::Pod);
        assert_eq!(own.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.2", "fd00::2"]);
        assert_eq!((own.netns, own.created.as_second()), (Some("/run/n".into()), 1));
        let host = answer(NamespaceMode::Node);
        assert_eq!((host.netns, host.ips.len()), (None, 0));
    }

    #[test]
    fn what_is_told_of_a_container() {
        let check = |state: ContainerState, pid: Option<u32>, code: Option<i32>| {
            let status = ContainerStatus { state: state as i32, exit_code: 3, ..Default::default() };
            let info = BTreeMap::from([("info".to_owned(), r#"{"sandboxID": "s", "pid": 7}"#.to_owned())]);
            let found = container(ContainerStatusResponse { status: Some(status), info }, ContainerRecord::default()).unwrap();
            assert_eq!((found.pid, found.exit_code, found.sandbox.as_str(), found.started), (pid, code, "s", None));
        };
        check(ContainerState::Created, None, None);
        check(ContainerState::Running, Some(7), None);
        check(ContainerState::Exited, None, Some(3));
        check(ContainerState::Unknown, None, Some(3));
    }
}

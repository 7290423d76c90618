//! What the engine has, as clients see it.

use std::collections::BTreeMap;

use grpc::Error;
use jiff::Timestamp;
use runtime::api;

use super::errors;
use crate::convert;
use crate::messages::*;

/// Annotations that begin so are the node's own, and shown to nobody.
pub(super) const RESERVED: &str = "knarr";
/// The annotation with the labels of what a client has made, as JSON. What the kubelet makes has none.
pub(super) const LABELS: &str = "knarr.io/cri-labels";

/// Nanoseconds since 1970.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// Which of `ids` is meant by an identifier or the begin of one.
pub(super) fn meant<'a>(what: &str, id: &str, ids: impl Iterator<Item = &'a str>) -> Result<String, Error> {
    if id.is_empty() {
        return Err(errors::invalid(format!("the identifier of a {what} is required")));
    }
    let mut found: Vec<&str> = ids.filter(|known| known.starts_with(id)).collect();
    if let Some(whole) = found.iter().position(|known| *known == id) {
        found = vec![found[whole]];
    }
    match found[..] {
        [] => Err(errors::not_found(what, id)),
        [one] => Ok(one.to_owned()),
        _ => Err(errors::invalid(format!("{what} {id:?} is the begin of several identifiers"))),
    }
}

/// Whether labels have all that a filter asks for.
pub(super) fn selected(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn shown(annotations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let shown = annotations.iter().filter(|(key, _)| !key.starts_with(RESERVED));
    shown.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Labels of what a client has made.
fn given(annotations: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(annotations.get(LABELS)?).ok()
}

/// The labels by which clients know to which pod something belongs; upstream's kubelet sets them.
fn of_pod(pod: &api::PodIdentity) -> [(String, String); 3] {
    let label = |name: &str, value: &String| (format!("io.kubernetes.pod.{name}"), value.clone());
    [label("name", &pod.name), label("namespace", &pod.namespace), label("uid", &pod.uid)]
}

fn sandbox_labels(sandbox: &api::Sandbox) -> BTreeMap<String, String> {
    given(&sandbox.annotations).unwrap_or_else(|| sandbox.labels.clone().into_iter().chain(of_pod(&sandbox.pod)).collect())
}

pub(super) fn sandbox(sandbox: &api::Sandbox) -> PodSandbox {
    let ready = sandbox.state == api::SandboxState::Ready;
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: Some(PodSandboxMetadata {
            name: sandbox.pod.name.clone(),
            uid: sandbox.pod.uid.clone(),
            namespace: sandbox.pod.namespace.clone(),
            attempt: sandbox.attempt,
        }),
        state: if ready { PodSandboxState::Ready } else { PodSandboxState::NotReady }.into(),
        created_at: nanoseconds(sandbox.created),
        labels: sandbox_labels(sandbox),
        annotations: shown(&sandbox.annotations),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

fn mode(mode: api::NamespaceMode) -> i32 {
    match mode {
        api::NamespaceMode::Pod => NamespaceMode::Pod,
        api::NamespaceMode::Container => NamespaceMode::Container,
        api::NamespaceMode::Node => NamespaceMode::Node,
    }
    .into()
}

pub(super) fn sandbox_status(from: &api::Sandbox) -> PodSandboxStatus {
    let PodSandbox { id, metadata, state, created_at, labels, annotations, runtime_handler } = sandbox(from);
    let mut ips = from.ips.iter().map(ToString::to_string);
    let network = if from.host_network { NamespaceMode::Node } else { NamespaceMode::Pod };
    let options = NamespaceOption { network: network.into(), pid: mode(from.pid), ipc: mode(from.ipc), ..Default::default() };
    PodSandboxStatus {
        id,
        metadata,
        state,
        created_at,
        network: Some(PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| PodIp { ip }).collect(),
        }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
        labels,
        annotations,
        runtime_handler,
    }
}

pub(super) fn state(state: api::ContainerState) -> ContainerState {
    match state {
        api::ContainerState::Created => ContainerState::Created,
        api::ContainerState::Running => ContainerState::Running,
        api::ContainerState::Exited => ContainerState::Exited,
    }
}

fn image_spec(image: &str, written: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), user_specified_image: written.to_owned(), ..Default::default() }
}

pub(super) fn container(container: &api::Container, pod: Option<&api::PodIdentity>) -> Container {
    let name = ("io.kubernetes.container.name".to_owned(), container.name.clone());
    let by_kubelet = || pod.map(of_pod).into_iter().flatten().chain([name]).collect();
    Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: container.attempt }),
        image: Some(image_spec(&container.image, &container.image_reference)),
        image_ref: container.image_digest.clone(),
        state: state(container.state).into(),
        created_at: nanoseconds(container.created),
        labels: given(&container.annotations).unwrap_or_else(by_kubelet),
        annotations: shown(&container.annotations),
        image_id: container.image.clone(),
    }
}

pub(super) fn container_status(from: &api::Container, pod: Option<&api::PodIdentity>) -> ContainerStatus {
    let Container { id, metadata, image, image_ref, state, created_at, labels, annotations, image_id, .. } = container(from, pod);
    let user = from.user.as_ref().map(|user| LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.groups.iter().map(|group| i64::from(*group)).collect(),
    });
    ContainerStatus {
        id,
        metadata,
        state,
        created_at,
        started_at: from.started.map(nanoseconds).unwrap_or_default(),
        finished_at: from.finished.map(nanoseconds).unwrap_or_default(),
        exit_code: from.exit_code.unwrap_or_default(),
        image,
        image_ref,
        reason: from.reason.clone(),
        message: from.message.clone(),
        labels,
        annotations,
        log_path: from.log_path.to_string_lossy().into_owned(),
        image_id,
        user: user.map(|linux| ContainerUser { linux: Some(linux) }),
        stop_signal: from.stop_signal.as_deref().and_then(Signal::named).unwrap_or(Signal::RuntimeDefault).into(),
        ..Default::default()
    }
}

/// A status with what the container was made from, too.
pub(super) fn made_from(config: api::ContainerConfig, status: ContainerStatus) -> ContainerStatus {
    let linux = Some(convert::resources(&config.resources));
    ContainerStatus {
        mounts: config.mounts.iter().map(|mount| convert::mount(mount, "")).collect(),
        resources: Some(ContainerResources { linux }),
        ..status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_may_be_cut_off_where_they_stay_unambiguous() {
        let check = |id: &str, expected: Result<&str, grpc::Code>| {
            let found = meant("container", id, ["abc", "abcd", "bcd"].into_iter());
            assert_eq!(found.as_deref().map_err(|error| error.code), expected, "{id}");
        };
        check("b", Ok("bcd"));
        check("abcd", Ok("abcd"));
        check("abc", Ok("abc"));
        check("ab", Err(grpc::Code::InvalidArgument));
        check("x", Err(grpc::Code::NotFound));
        check("", Err(grpc::Code::InvalidArgument));
    }

    /// `ContainerStatus`: "Mounts for the container", "Resource limits configuration of the container"; and it keeps what is known of the container.
    #[test]
    fn a_status_has_what_the_container_was_made_from() {
        let mounts = vec![
            api::Mount { host_path: "/a".into(), container_path: "/b".into(), readonly: true, ..Default::default() },
            api::Mount {
                container_path: "/c".into(),
                image: Some(api::ImageSource { id: "sha256:1".into(), sub_path: "d".into() }),
                propagation: api::Propagation::HostToContainer,
                ..Default::default()
            },
        ];
        let resources = api::Resources { memory_limit: Some(1 << 20), cpu_shares: Some(512), ..Default::default() };
        let config = api::ContainerConfig { mounts, resources, ..Default::default() };
        let stop_signal = Signal::SigQuit.into();
        let status = made_from(config, ContainerStatus { id: "c".to_owned(), stop_signal, ..Default::default() });
        let paths = |mount: &Mount| (mount.host_path.clone(), mount.container_path.clone(), mount.readonly);
        let seen: Vec<_> = status.mounts.iter().map(paths).collect();
        let own = |text: &str| text.to_owned();
        assert_eq!(seen, [(own("/a"), own("/b"), true), (String::new(), own("/c"), false)]);
        let image = status.mounts[1].image.as_ref().map(|image| image.image.as_str());
        assert_eq!((image, status.mounts[1].image_sub_path.as_str()), (Some("sha256:1"), "d"));
        assert_eq!(status.mounts[1].propagation(), MountPropagation::HostToContainer);
        let linux = status.resources.as_ref().and_then(|resources| resources.linux.as_ref()).unwrap();
        assert_eq!((linux.memory_limit_in_bytes, linux.cpu_shares, linux.cpu_quota), (1 << 20, 512, 0));
        assert_eq!((status.id.as_str(), status.stop_signal()), ("c", Signal::SigQuit));
    }

    #[test]
    fn labels_are_those_of_the_client_or_those_of_the_kubelet() {
        let pod = api::PodIdentity { name: "web".to_owned(), namespace: "shop".to_owned(), uid: "u1".to_owned() };
        let labels = |annotations: &[(&str, &str)]| {
            let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let seen = sandbox(&api::Sandbox {
                pod: pod.clone(),
                labels: [("app".to_owned(), "x".to_owned())].into(),
                annotations,
                ..Default::default()
            });
            (seen.labels.into_iter().collect::<Vec<_>>(), seen.annotations.into_keys().collect::<Vec<_>>())
        };
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        let kubelet = [
            ("app", "x"),
            ("io.kubernetes.pod.name", "web"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", "u1"),
        ];
        assert_eq!(labels(&[("note", "n")]), (pairs(&kubelet), vec!["note".to_owned()]));
        assert_eq!(labels(&[("note", "n"), (LABELS, r#"{"a":"b"}"#)]), (pairs(&[("a", "b")]), vec!["note".to_owned()]));
    }
}

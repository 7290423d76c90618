//! Checks of the level restricted.

use k8s_openapi::api::core::v1::Volume;

use super::subject::{Setters, Words, containers, plural, quoted, violation};
use super::{Subject, Violation, baseline, profiles};

pub(super) fn privilege_escalation(pod: &Subject) -> Option<Violation> {
    let bad = pod.which(|member| member.security.and_then(|security| security.allow_privilege_escalation) != Some(false));
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    violation("allowPrivilegeEscalation != false", detail)
}

/// Windows has no such thing.
pub(super) fn privilege_escalation_1_25(pod: &Subject) -> Option<Violation> {
    if pod.is_windows() { None } else { privilege_escalation(pod) }
}

pub(super) fn capabilities(pod: &Subject) -> Option<Violation> {
    let keeping = pod.which(|member| {
        let dropped = member.security.and_then(|security| security.capabilities.as_ref()?.drop.as_deref());
        !dropped.unwrap_or_default().iter().any(|capability| capability == "ALL")
    });
    let (adding, added) = baseline::adders(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        details.push(baseline::must_not_add(&adding, &added));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn capabilities_1_25(pod: &Subject) -> Option<Violation> {
    if pod.is_windows() { None } else { capabilities(pod) }
}

/// The source of a volume that is not among those that the level allows.
fn restricted_source(volume: &Volume) -> Option<&'static str> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    let others = [
        ("hostPath", volume.host_path.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("fc", volume.fc.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
    ];
    let named = others.iter().find(|(_, set)| *set).map_or("unknown", |(name, _)| *name);
    (!allowed).then_some(named)
}

pub(super) fn volumes(pod: &Subject) -> Option<Violation> {
    let all = pod.spec.volumes.iter().flatten().filter_map(|volume| Some((volume.name.as_str(), restricted_source(volume)?)));
    let (names, kinds): (Vec<&str>, Words<'_>) = all.unzip();
    if names.is_empty() {
        return None;
    }
    let (volumes, uses) = (plural(names.len(), "volume", "volumes"), plural(names.len(), "uses", "use"));
    let word = plural(kinds.len(), "restricted volume type", "restricted volume types");
    violation("restricted volume types", format!("{volumes} {} {uses} {word} {}", quoted(names), quoted(kinds)))
}

pub(super) fn non_root(pod: &Subject) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let own = pod.spec.security_context.as_ref().and_then(|security| security.run_as_non_root);
    let of = |member: &super::subject::Member<'_>| member.security.and_then(|security| security.run_as_non_root);
    let bad = Setters { pod: own == Some(false), containers: pod.which(|member| of(member) == Some(false)) };
    if !bad.is_empty() {
        return violation(REASON, format!("{} must not set securityContext.runAsNonRoot=false", bad.words()));
    }
    let open = pod.which(|member| own != Some(true) && of(member).is_none());
    if open.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&open)))
}

/// Root of a pod with its own users is nobody on the node.
pub(super) fn non_root_1_35(pod: &Subject) -> Option<Violation> {
    if pod.has_own_users() { None } else { non_root(pod) }
}

pub(super) fn user(pod: &Subject) -> Option<Violation> {
    let bad = Setters {
        pod: pod.spec.security_context.as_ref().and_then(|security| security.run_as_user) == Some(0),
        containers: pod.which(|member| member.security.and_then(|security| security.run_as_user) == Some(0)),
    };
    if bad.is_empty() { None } else { violation("runAsUser=0", format!("{} must not set runAsUser=0", bad.words())) }
}

pub(super) fn user_1_35(pod: &Subject) -> Option<Violation> {
    if pod.has_own_users() { None } else { user(pod) }
}

pub(super) fn seccomp(pod: &Subject) -> Option<Violation> {
    if let Some(bad) = profiles::seccomp(pod) {
        return Some(bad);
    }
    let own = pod.spec.security_context.as_ref().is_some_and(|security| security.seccomp_profile.is_some());
    let open = pod.which(|member| !own && member.security.is_none_or(|security| security.seccomp_profile.is_none()));
    if open.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&open)
    );
    violation("seccompProfile", detail)
}

pub(super) fn seccomp_1_25(pod: &Subject) -> Option<Violation> {
    if pod.is_windows() { None } else { seccomp(pod) }
}

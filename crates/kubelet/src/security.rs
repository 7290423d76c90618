//! The security context of a container: its own fields over those of its pod.

use std::path::{Component, Path};

use k8s_openapi::api::core::v1::{AppArmorProfile, SeccompProfile};
use runtime::api::{AppArmor, Image, Seccomp, SecurityContext, User};

use crate::spec::{Member, Model};

/// Why a container must not run as the user it would run as (CreateContainerConfigError).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The effective user is root.
    #[error("container's runAsUser breaks non-root policy (pod: \"{0}\", container: {1})")]
    RunsAsRoot(String, String),
    /// The image's user is root.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{0}\", container: {1})")]
    ImageRunsAsRoot(String, String),
    /// The image names its user and nobody can know its uid.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({2}), cannot verify user is non-root (pod: \"{0}\", container: {1})"
    )]
    UserHasNoNumber(String, String, String),
    /// The profile is not named by a path below the directory of profiles.
    #[error(
        "localhostProfile must be set to a path below the node's directory of seccomp profiles if seccompProfile type is Localhost, not {0:?}"
    )]
    Seccomp(String),
    /// There is no such type of profile, or one of the node's has no name.
    #[error(
        "appArmorProfile must be RuntimeDefault, Unconfined, or Localhost with the localhostProfile that it names, not {0:?}"
    )]
    AppArmor(String),
    /// Kernel files of the host would be open to root in the container.
    #[error("procMount Unmasked needs a user namespace: set hostUsers to false, or use Default")]
    Unmasked,
}

/// What comes from elsewhere than the pod and its image.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// The node's directory of seccomp profiles.
    pub profiles: &'a Path,
    /// Who names no profile has that of the runtime.
    pub seccomp_default: bool,
    /// Groups that the pod's volumes ask for.
    pub groups: &'a [u32],
}

/// Merges the pod's and the container's security context and checks `runAsNonRoot` against the image.
pub fn effective(model: &Model, member: &Member, image: &Image, around: Around<'_>) -> Result<SecurityContext, Error> {
    let pod = model.spec().security_context.clone().unwrap_or_default();
    let own = member.spec.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(pod.run_as_user);
    let run_as_non_root = own.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
    if run_as_non_root {
        verify_non_root(model, member, run_as_user, image)?;
    }
    let privileged = own.privileged.unwrap_or(false);
    let has_users = model.spec().host_users == Some(false);
    if own.proc_mount.as_deref() == Some("Unmasked") && !privileged && !has_users {
        return Err(Error::Unmasked);
    }
    let capabilities = own.capabilities.unwrap_or_default();
    let adds_sys_admin = capabilities.add.iter().flatten().any(|name| matches!(name.as_str(), "SYS_ADMIN" | "CAP_SYS_ADMIN"));
    let mut groups: Vec<i64> = pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(pod.fs_group);
    groups.extend(around.groups.iter().map(|group| i64::from(*group)));
    groups.sort_unstable();
    groups.dedup();
    Ok(SecurityContext {
        privileged,
        add_capabilities: capabilities.add.into_iter().flatten().map(plain_capability).collect(),
        drop_capabilities: capabilities.drop.into_iter().flatten().map(plain_capability).collect(),
        run_as_user,
        run_as_non_root,
        run_as_group: own.run_as_group.or(pod.run_as_group),
        supplemental_groups: groups,
        strict_groups: pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged && !adds_sys_admin,
        app_armor: pods::app_armor::of_container(&model.pod, &member.spec).map(app_armor).transpose()?,
        seccomp: seccomp(own.seccomp_profile.or(pod.seccomp_profile), privileged, around)?,
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn plain_capability(name: String) -> String {
    name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
}

fn app_armor(profile: AppArmorProfile) -> Result<AppArmor, Error> {
    match (profile.type_.as_str(), profile.localhost_profile) {
        ("RuntimeDefault", _) => Ok(AppArmor::RuntimeDefault),
        ("Unconfined", _) => Ok(AppArmor::Unconfined),
        ("Localhost", Some(name)) if !name.is_empty() => Ok(AppArmor::Localhost(name)),
        _ => Err(Error::AppArmor(profile.type_)),
    }
}

fn seccomp(profile: Option<SeccompProfile>, privileged: bool, around: Around<'_>) -> Result<Option<Seccomp>, Error> {
    if privileged {
        return Ok(None);
    }
    let Some(profile) = profile else { return Ok(around.seccomp_default.then_some(Seccomp::RuntimeDefault)) };
    match profile.type_.as_str() {
        "RuntimeDefault" => Ok(Some(Seccomp::RuntimeDefault)),
        "Localhost" => {
            let name = profile.localhost_profile.unwrap_or_default();
            let below = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if below && !name.is_empty() {
                Ok(Some(Seccomp::Localhost(around.profiles.join(name))))
            } else {
                Err(Error::Seccomp(name))
            }
        }
        _ => Ok(None),
    }
}

fn verify_non_root(model: &Model, member: &Member, user: Option<i64>, image: &Image) -> Result<(), Error> {
    let (pod, container) = (model.title(), member.spec.name.clone());
    match user {
        Some(0) => return Err(Error::RunsAsRoot(pod, container)),
        Some(_) => return Ok(()),
        None => {}
    }
    match &image.user {
        None | Some(User::Id(0)) => Err(Error::ImageRunsAsRoot(pod, container)),
        Some(User::Id(_)) => Ok(()),
        Some(name) => Err(Error::UserHasNoNumber(pod, container, name.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn around(seccomp_default: bool, groups: &[u32]) -> Around<'_> {
        Around { profiles: Path::new("/profiles"), seccomp_default, groups }
    }

    fn merge_with(pod: Value, own: Value, user: Option<&str>, around: Around<'_>) -> Result<SecurityContext, Error> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {
            "securityContext": pod, "containers": [{"name": "c", "securityContext": own}]}});
        let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let image = Image { user: user.map(User::parse), ..Default::default() };
        effective(&model, &model.members[0], &image, around)
    }

    fn merge(pod: Value, own: Value, user: Option<&str>) -> Result<SecurityContext, Error> {
        merge_with(pod, own, user, around(false, &[]))
    }

    #[track_caller]
    fn check(pod: Value, own: Value, user: Option<&str>, error: Option<&str>) {
        let error = error.map(|text| format!("{text} (pod: \"p_n(u)\", container: c)"));
        assert_eq!(merge(pod, own, user).err().map(|e| e.to_string()), error);
    }

    #[test]
    fn non_root() {
        let strict = json!({"runAsNonRoot": true});
        check(strict.clone(), json!({"runAsUser": 5}), None, None);
        check(strict.clone(), json!({}), Some("1000"), None);
        check(strict.clone(), json!({"runAsNonRoot": false}), None, None);
        check(strict.clone(), json!({"runAsUser": 0}), None, Some("container's runAsUser breaks non-root policy"));
        check(strict.clone(), json!({}), None, Some("container has runAsNonRoot and image will run as root"));
        let text = "container has runAsNonRoot and image has non-numeric user (web), cannot verify user is non-root";
        check(strict.clone(), json!({}), Some("web"), Some(text));
        // Every way to write 0, and what the kernel would not take for a number of its own.
        for root in ["0", "00", "+0", "-0"] {
            check(strict.clone(), json!({}), Some(root), Some("container has runAsNonRoot and image will run as root"));
        }
        for user in ["-1", "4294967295", "4294967296"] {
            let text =
                format!("container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root");
            check(strict.clone(), json!({}), Some(user), Some(&text));
        }
        assert!(merge(strict, json!({}), Some("5")).is_ok_and(|merged| merged.run_as_non_root), "the runtime looks again");
    }

    #[test]
    fn kernel_files_stay_masked() {
        let refused = merge(json!({}), json!({"procMount": "Unmasked"}), None).err();
        assert_eq!(refused, Some(Error::Unmasked));
        assert!(merge(json!({}), json!({"procMount": "Default"}), None).is_ok());
        // KEP-4265: `Unmasked` is for pods with a user namespace.
        let spec = json!({"hostUsers": false, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]});
        let model = crate::pod::testing::model(spec);
        let own = effective(&model, &model.members[0], &Image::default(), around(false, &[])).unwrap();
        assert!(own.unmasked_proc);
    }

    #[test]
    fn merges_container_over_pod() {
        let pod = json!({"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [9, 3]});
        let own = json!({"runAsUser": 7, "allowPrivilegeEscalation": false, "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]}});
        let merged = merge(pod, own, None).unwrap();
        assert_eq!((merged.run_as_user, merged.run_as_group, merged.no_new_privs), (Some(7), Some(2), true));
        assert_eq!(merged.supplemental_groups, [3, 9]);
        assert_eq!((merged.add_capabilities, merged.drop_capabilities), (vec!["NET_ADMIN".to_owned()], vec!["ALL".to_owned()]));
    }

    /// tasks/configure-pod-container/configure-persistent-volume-storage: "the annotated GID is applied to all containers in the Pod in the same
    /// way that GIDs specified in the Pod's security context are."
    #[test]
    fn groups_of_volumes_are_among_those_of_the_pod() {
        let merged =
            merge_with(json!({"fsGroup": 3, "supplementalGroups": [9]}), json!({}), None, around(false, &[1234, 9])).unwrap();
        assert_eq!(merged.supplemental_groups, [3, 9, 1234]);
    }

    /// KEP-2413: without a profile of its own a container has `RuntimeDefault` in the place of `Unconfined`.
    #[test]
    fn the_default_is_for_who_names_no_profile() {
        let check = |pod: Value, own: Value, expected: Option<Seccomp>| {
            assert_eq!(merge_with(pod, own, None, around(true, &[])).unwrap().seccomp, expected);
        };
        check(json!({}), json!({}), Some(Seccomp::RuntimeDefault));
        check(json!({}), json!({"privileged": true}), None);
        check(json!({}), json!({"seccompProfile": {"type": "Unconfined"}}), None);
        check(json!({"seccompProfile": {"type": "Unconfined"}}), json!({}), None);
    }

    /// KEP-24. What is not asked for is left to the runtime.
    #[test]
    fn app_armor_profiles() {
        let check = |pod: Value, own: Value, expected: Result<Option<AppArmor>, &str>| {
            let own = json!({"privileged": true, "appArmorProfile": own});
            let merged = merge(json!({"appArmorProfile": pod}), own, None).map(|merged| merged.app_armor);
            assert_eq!(merged, expected.map_err(|kind| Error::AppArmor(kind.to_owned())));
        };
        let local = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        check(json!(null), json!(null), Ok(None));
        check(json!({"type": "RuntimeDefault"}), json!(null), Ok(Some(AppArmor::RuntimeDefault)));
        check(json!({"type": "RuntimeDefault"}), json!({"type": "Unconfined"}), Ok(Some(AppArmor::Unconfined)));
        check(local("a"), local("b"), Ok(Some(AppArmor::Localhost("b".to_owned()))));
        check(local("a"), local(""), Err("Localhost"));
        check(json!(null), json!({"type": "Localhost"}), Err("Localhost"));
        check(json!({"type": "Other"}), json!(null), Err("Other"));
    }

    #[test]
    fn seccomp_profiles() {
        let check = |pod: Value, own: Value, expected: Result<Option<Seccomp>, &str>| {
            let merged = merge(json!({"seccompProfile": pod}), own, None).map(|merged| merged.seccomp);
            assert_eq!(merged, expected.map_err(|name| Error::Seccomp(name.to_owned())));
        };
        let local = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        check(json!({"type": "RuntimeDefault"}), json!({}), Ok(Some(Seccomp::RuntimeDefault)));
        check(json!({"type": "RuntimeDefault"}), json!({"seccompProfile": {"type": "Unconfined"}}), Ok(None));
        check(local("a/b.json"), json!({}), Ok(Some(Seccomp::Localhost("/profiles/a/b.json".into()))));
        check(local("a/b.json"), json!({"privileged": true}), Ok(None));
        check(json!(null), json!({}), Ok(None));
        check(local("../b.json"), json!({}), Err("../b.json"));
        check(local("/etc/b.json"), json!({}), Err("/etc/b.json"));
    }
}

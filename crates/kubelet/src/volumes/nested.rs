//! Mount points inside of volumes that containers only read.
//!
//! A container may mount one volume below another: its keys at `/etc/app/certs`, its configuration at `/etc/app`. The runtime cannot make the directory in
//! what is mounted read-only, so it is made in the volume, as upstream does (`MakeNestedMountpoints`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{PodSpec, VolumeMount};

use super::atomic;
use super::mounts::absolute;

/// Where containers mount something below the volume, relative to it.
pub fn below(spec: &PodSpec, volume: &str) -> BTreeSet<PathBuf> {
    let containers =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|container| &container.volume_mounts);
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| &container.volume_mounts);
    containers.chain(ephemeral).flatten().flat_map(|mounts| below_in(mounts, volume)).collect()
}

fn below_in(mounts: &[VolumeMount], volume: &str) -> Vec<PathBuf> {
    let whole = |mount: &&VolumeMount| mount.name == volume && mount.sub_path.is_none() && mount.sub_path_expr.is_none();
    let pairs = mounts.iter().filter(whole).flat_map(|outer| mounts.iter().map(move |inner| (outer, inner)));
    let relative = pairs.filter_map(|(outer, inner)| {
        Some(absolute(&inner.mount_path).strip_prefix(absolute(&outer.mount_path)).ok()?.to_owned())
    });
    let is_inside =
        |path: &PathBuf| path.parent().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)));
    relative.filter(is_inside).collect()
}

/// Makes these directories in a volume. What it has there itself stays; `group` gets what is made (fsGroup).
pub fn make(volume: &Path, below: &BTreeSet<PathBuf>, group: Option<u32>) -> io::Result<()> {
    for path in below {
        let mut at = volume.to_owned();
        for part in path {
            at.push(part);
            match fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() => {}
                // A key of the volume has this name.
                Ok(_) => break,
                Err(_) => {
                    fs::create_dir(&at)?;
                    atomic::own(&at, group, 0o755)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::super::atomic::{File, Payload, write};
    use super::*;

    #[test]
    fn what_is_mounted_below() {
        let check = |mounts: Value, expected: &[&str]| {
            let containers = json!([{"name": "a", "volumeMounts": mounts}, {"name": "b", "volumeMounts": [{"name": "x", "mountPath": "/etc/app/other"}]}]);
            let spec: PodSpec = serde_json::from_value(json!({"containers": containers})).unwrap();
            assert_eq!(below(&spec, "v"), expected.iter().map(PathBuf::from).collect(), "{mounts}");
        };
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
        check(json!([mount("v", "/etc/app"), mount("k", "/etc/app/certs")]), &["certs"]);
        check(json!([mount("k", "/etc/app/certs/a/"), mount("l", "etc/app/b"), mount("v", "/etc/app/")]), &["certs/a", "b"]);
        check(json!([mount("v", "/etc/app"), mount("k", "/etc/app"), mount("l", "/etc/app2"), mount("m", "/etc")]), &[]);
        check(json!([mount("v", "/etc/app"), mount("v", "/etc/app/again")]), &["again"]);
        check(json!([mount("v", "/a"), mount("k", "/a/../../b"), mount("l", "/a/b/../c")]), &[]);
        check(json!([{"name": "v", "mountPath": "/etc/app", "subPath": "x"}, mount("k", "/etc/app/certs")]), &[]);
        check(json!([mount("k", "/etc/app/certs")]), &[]);
    }

    #[test]
    fn mount_points_stay_and_keys_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("v");
        let payload = |names: &[&str]| -> Payload {
            let file = |name: &&str| ((*name).to_owned(), File { data: name.as_bytes().to_vec(), mode: 0o644, uid: None });
            names.iter().map(file).collect()
        };
        let below: BTreeSet<PathBuf> = ["certs/a", "key", "sub/x"].map(PathBuf::from).into();
        for names in [&["key", "sub/file"][..], &["key", "sub/file", "more"]] {
            write(&volume, &payload(names), None).unwrap();
            make(&volume, &below, None).unwrap();
            assert!(volume.join("certs/a").is_dir() && fs::read(volume.join("key")).unwrap() == b"key");
            assert!(!volume.join("sub/x").exists());
        }
    }
}

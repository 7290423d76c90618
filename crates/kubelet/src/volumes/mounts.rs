//! What a container sees of its pod's volumes.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, ImageVolumeSource, Volume, VolumeMount};
use runtime::api::{Features, ImageSource, Mount, Propagation};

use super::{claims, path, sub_path};
use crate::expand::expand;
use crate::spec::Model;

/// What mounts are made from beside the pod.
pub struct Surroundings<'a> {
    /// Directory of the pod.
    pub pod_dir: &'a Path,
    /// The container's environment, for `subPathExpr`.
    pub env: &'a HashMap<String, String>,
    /// Identifiers of images by the names of the volumes that show them.
    pub images: &'a BTreeMap<String, String>,
    /// What the runtime can do.
    pub features: Features,
}

/// The mounts of `container`, sub paths bound. Blocking.
pub fn of_container(model: &Model, container: &Container, around: &Surroundings<'_>) -> Result<Vec<Mount>, String> {
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    mounts.map(|(index, mount)| one(model, container, index, mount, around)).collect()
}

/// Where the volumes that `container` mounts are, but for those that are the node's or images.
pub fn places(model: &Model, container: &Container, pod_dir: &Path) -> Vec<PathBuf> {
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    let volumes = model.spec().volumes.iter().flatten().filter(|volume| mounted(&volume.name));
    volumes.filter(|volume| volume.host_path.is_none() && volume.image.is_none()).map(|volume| path(pod_dir, volume)).collect()
}

/// The image volumes of `container` with their sources.
pub fn image_volumes<'a>(model: &'a Model, container: &'a Container) -> impl Iterator<Item = (&'a str, &'a ImageVolumeSource)> {
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    let volumes = model.spec().volumes.iter().flatten().filter(move |volume| mounted(&volume.name));
    volumes.filter_map(|volume| Some((volume.name.as_str(), volume.image.as_ref()?)))
}

fn one(
    model: &Model,
    container: &Container,
    index: usize,
    mount: &VolumeMount,
    around: &Surroundings<'_>,
) -> Result<Mount, String> {
    let volume = model.spec().volumes.iter().flatten().find(|volume| volume.name == mount.name);
    let volume =
        volume.ok_or_else(|| format!("cannot find volume {:?} to mount into container {:?}", mount.name, container.name))?;
    if volume.image.is_some() {
        let id =
            around.images.get(&volume.name).ok_or_else(|| format!("the image of volume {:?} is not present", volume.name))?;
        let image = Some(ImageSource { id: id.clone(), sub_path: sub(mount, around.env)?.unwrap_or_default() });
        return Ok(Mount { container_path: absolute(&mount.mount_path), readonly: true, image, ..Mount::default() });
    }
    let pod_dir = around.pod_dir;
    let root = path(pod_dir, volume);
    let recursive_readonly = recursive_readonly(mount, around.features.recursive_readonly)?;
    let propagation = propagation(volume, mount, &root)?;
    let host_path = match sub(mount, around.env)? {
        None => root,
        Some(sub) => {
            let target = pod_dir.join("volume-subpaths").join(&volume.name).join(&container.name).join(index.to_string());
            let failed = |error| {
                format!("failed to prepare subPath for volumeMount {:?} of container {:?}: {error}", mount.name, container.name)
            };
            sub_path::bind(&root, &sub, &target).map_err(failed)?;
            target
        }
    };
    // Files that the kubelet writes are not for the container to change.
    let managed =
        volume.config_map.is_some() || volume.secret.is_some() || volume.downward_api.is_some() || volume.projected.is_some();
    let to_read = claims::is_read_only(volume)
        || volume.csi.as_ref().is_some_and(|source| source.read_only == Some(true))
        || volume.nfs.as_ref().is_some_and(|source| source.read_only == Some(true));
    Ok(Mount {
        host_path,
        container_path: absolute(&mount.mount_path),
        readonly: mount.read_only == Some(true) || managed || to_read,
        recursive_readonly,
        propagation,
        image: None,
    })
}

/// Whether all that is mounted below the mount is to be read-only, too (KEP-3857).
pub fn recursive_readonly(mount: &VolumeMount, is_supported: bool) -> Result<bool, String> {
    match mount.recursive_read_only.as_deref() {
        Some("Enabled") if !is_supported => {
            let message = "requested recursive read-only mode, but it is not supported by the runtime";
            Err(format!("volume {:?} {message}", mount.name))
        }
        Some("Enabled" | "IfPossible") => Ok(is_supported && mount.read_only == Some(true)),
        _ => Ok(false),
    }
}

/// What the mount asks for, once its volume can do it: a path of the host must, a volume of ours is made to.
fn propagation(volume: &Volume, mount: &VolumeMount, root: &Path) -> Result<Propagation, String> {
    let wanted = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") => Propagation::Bidirectional,
        _ => return Ok(Propagation::Private),
    };
    if volume.host_path.is_some() {
        super::propagation::check(root, wanted)?;
    } else {
        super::propagation::share(root).map_err(|error| format!("volume {:?} cannot be shared: {error}", volume.name))?;
    }
    Ok(wanted)
}

/// The part of the volume to mount, all of it when none.
fn sub(mount: &VolumeMount, env: &HashMap<String, String>) -> Result<Option<String>, String> {
    let literal = mount.sub_path.clone().filter(|path| !path.is_empty());
    let Some(expression) = mount.sub_path_expr.as_deref().filter(|path| !path.is_empty()) else { return Ok(literal) };
    let value = |name: &str| env.get(name);
    let missing = crate::expand::references(expression).into_iter().find(|name| value(name).is_none());
    match missing {
        Some(name) => Err(format!("failed to expand subPath for volumeMount {:?}: missing value for {name:?}", mount.name)),
        None => expand(expression, value).map(Some).map_err(|error| error.to_string()),
    }
}

/// A path in a container, which begins at its root.
pub fn absolute(path: &str) -> PathBuf {
    if path.starts_with('/') { PathBuf::from(path) } else { Path::new("/").join(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(mount: Value, expected: Result<(&str, &str, bool), &str>) {
        let model = model(json!({
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "m", "configMap": {"name": "x"}}, {"name": "h", "hostPath": {"path": "/srv"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "x"}}, {"name": "r", "persistentVolumeClaim": {"claimName": "x", "readOnly": true}},
                {"name": "n", "nfs": {"server": "s", "path": "/", "readOnly": true}},
                {"name": "i", "image": {"reference": "img"}}, {"name": "gone", "image": {"reference": "img"}}],
            "containers": [{"name": "c", "volumeMounts": [mount]}]}));
        let images = BTreeMap::from([("i".to_owned(), "sha256:1".to_owned())]);
        let features = runtime::api::Features { recursive_readonly: true, ..Default::default() };
        let env = HashMap::new();
        let around = Surroundings { pod_dir: Path::new("/pod"), env: &env, images: &images, features };
        let mounts = of_container(&model, &model.members[0].spec, &around);
        let seen = mounts.map(|list| {
            let mount = &list[0];
            if let Some(image) = &mount.image {
                return (format!("{}!{}", image.id, image.sub_path), mount.container_path.display().to_string(), mount.readonly);
            }
            (mount.host_path.display().to_string(), mount.container_path.display().to_string(), mount.readonly)
        });
        let expected = expected.map(|(host, inside, readonly)| (host.to_owned(), inside.to_owned(), readonly));
        assert_eq!(seen, expected.map_err(str::to_owned));
    }

    /// KEP-3857: "If the field is set to Enabled, the mount is made recursively read-only if it is supported by the container runtime, otherwise the
    /// pod will not be started and an error will be generated to indicate the reason."
    #[test]
    fn recursive_read_only_mounts() {
        let check = |read_only: bool, mode: Option<&str>, is_supported: bool, expected: Result<bool, &str>| {
            let mount = json!({"name": "e", "mountPath": "/x", "readOnly": read_only, "recursiveReadOnly": mode});
            let decided = recursive_readonly(&serde_json::from_value(mount).unwrap(), is_supported);
            assert_eq!(decided, expected.map_err(str::to_owned), "{mode:?} {is_supported}");
        };
        check(true, None, true, Ok(false));
        check(true, Some("Disabled"), true, Ok(false));
        check(true, Some("IfPossible"), true, Ok(true));
        check(true, Some("IfPossible"), false, Ok(false));
        check(true, Some("Enabled"), true, Ok(true));
        let why = "volume \"e\" requested recursive read-only mode, but it is not supported by the runtime";
        check(true, Some("Enabled"), false, Err(why));
    }

    #[test]
    fn whole_volumes() {
        let volume = |name: &str| json!({"name": name, "mountPath": "/x"});
        check(volume("e"), Ok(("/pod/volumes/kubernetes.io~empty-dir/e", "/x", false)));
        check(volume("m"), Ok(("/pod/volumes/kubernetes.io~configmap/m", "/x", true)));
        check(volume("h"), Ok(("/srv", "/x", false)));
        check(volume("c"), Ok(("/pod/volumes/kubernetes.io~local-volume/c", "/x", false)));
        check(volume("n"), Ok(("/pod/volumes/kubernetes.io~nfs/n", "/x", true)));
        check(volume("i"), Ok(("sha256:1!", "/x", true)));
        check(json!({"name": "i", "mountPath": "/x", "subPath": "etc"}), Ok(("sha256:1!etc", "/x", true)));
        check(volume("gone"), Err("the image of volume \"gone\" is not present"));
        check(volume("r"), Ok(("/pod/volumes/kubernetes.io~local-volume/r", "/x", true)));
        let recursive = json!({"name": "e", "mountPath": "/x", "readOnly": true, "recursiveReadOnly": "Enabled"});
        check(recursive, Ok(("/pod/volumes/kubernetes.io~empty-dir/e", "/x", true)));
        check(volume("none"), Err("cannot find volume \"none\" to mount into container \"c\""));
        let unknown = json!({"name": "e", "mountPath": "x", "subPathExpr": "$(POD)"});
        check(unknown, Err("failed to expand subPath for volumeMount \"e\": missing value for \"POD\""));
    }
}

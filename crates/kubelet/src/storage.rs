//! Limits of what a pod writes to the node's disk: emptyDir volumes, the containers' own files and logs, and all of it together (KEP-361).
//!
//! Only pods with such limits are measured, one at a time, and no more often than takes a tenth of a processor. When the disk itself is
//! short, the eviction manager measures all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use apimachinery::quantity::Quantity;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Volume};
use runtime::{DiskUsage, disk_usage};
use tokio::sync::Semaphore;

use crate::context::{self, Context};
use crate::spec::Model;
use crate::{units, volumes};

/// Longest pause between two measurements of a pod that are cheap. In its first seconds there are more of them.
pub const PAUSE: Duration = Duration::from_secs(10);

const RESOURCE: &str = "ephemeral-storage";

/// What a pod has written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of emptyDir volumes on disk, by name.
    pub volumes: BTreeMap<String, DiskUsage>,
    /// What containers changed of their image, by name.
    pub written: BTreeMap<String, DiskUsage>,
    /// Their logs, and the files for their last words.
    pub logs: BTreeMap<String, DiskUsage>,
    /// The file of hosts that all have, which their root may write to (kubernetes#92916).
    pub hosts: DiskUsage,
}

impl Usage {
    fn of_volume(&self, name: &str) -> i64 {
        self.volumes.get(name).map_or(0, |usage| bytes(usage.bytes))
    }

    fn of_container(&self, name: &str) -> i64 {
        [&self.written, &self.logs].into_iter().filter_map(|parts| parts.get(name)).map(|usage| bytes(usage.bytes)).sum()
    }

    fn all(&self) -> i64 {
        let parts = [&self.volumes, &self.written, &self.logs];
        let parts = parts.into_iter().flat_map(BTreeMap::values);
        parts.chain([&self.hosts]).map(|usage| bytes(usage.bytes)).fold(0, i64::saturating_add)
    }
}

fn on_disk(volume: &Volume) -> Option<&EmptyDirVolumeSource> {
    volume.empty_dir.as_ref().filter(|source| source.medium.as_deref().unwrap_or_default().is_empty())
}

fn size_limit(source: &EmptyDirVolumeSource) -> Option<i64> {
    source.size_limit.as_ref().map(units::whole).filter(|limit| *limit > 0)
}

fn total_limit(model: &Model) -> Option<Quantity> {
    let limits = pods::resources::together(model.spec(), pods::resources::limits);
    limits.get(RESOURCE).copied().filter(|limit| limit.signum() > 0)
}

/// Whether there is a limit to keep. Critical pods stay whatever they write.
pub fn is_limited(model: &Model) -> bool {
    if pods::state::is_critical(&model.pod) {
        return false;
    }
    let mut volumes = model.spec().volumes.iter().flatten().filter_map(on_disk);
    volumes.any(|source| size_limit(source).is_some()) || total_limit(model).is_some()
}

/// Why the pod must go, in upstream's words.
pub fn verdict(model: &Model, usage: &Usage) -> Option<String> {
    for volume in model.spec().volumes.iter().flatten() {
        let Some(limit) = on_disk(volume).and_then(|source| source.size_limit.as_ref()) else { continue };
        let used = usage.of_volume(&volume.name);
        if units::whole(limit) > 0 && used > units::whole(limit) {
            return Some(format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, limit.0));
        }
    }
    if let Some(limit) = total_limit(model).filter(|limit| usage.all() > limit.as_i64()) {
        return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
    }
    for member in model.members.iter() {
        let limits = member.spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let Some(limit) = limits.and_then(|limits| limits.get(RESOURCE)) else { continue };
        let used = usage.of_container(&member.spec.name);
        if used > units::whole(limit) {
            return Some(format!("Container {} exceeded its local ephemeral storage limit {:?}. ", member.spec.name, limit.0));
        }
    }
    None
}

/// Measures the pod, whose containers have these names and identifiers. Gives why it must go, if it must, and for how long it is not to be
/// measured again.
pub async fn check(cx: &Context, model: &Model, containers: Vec<(String, String)>) -> (Option<String>, Duration) {
    static ONE: Semaphore = Semaphore::const_new(1);
    let _turn = ONE.acquire().await;
    let begun = Instant::now();
    let usage = measure(cx, model, containers).await;
    (verdict(model, &usage), begun.elapsed() * 9)
}

/// Measures the pod, whose containers have these names and identifiers.
pub async fn measure(cx: &Context, model: &Model, containers: Vec<(String, String)>) -> Usage {
    let (pod_dir, log_dir) = (cx.pod_dir(model.uid()), cx.log_dir(model));
    let wanted: Vec<(String, PathBuf)> = model
        .spec()
        .volumes
        .iter()
        .flatten()
        .filter(|volume| on_disk(volume).is_some())
        .map(|volume| (volume.name.clone(), volumes::path(&pod_dir, volume)))
        .collect();
    let names: Vec<String> = model.members.iter().map(|member| member.spec.name.clone()).collect();
    let work = move || Usage {
        volumes: wanted.into_iter().map(|(name, path)| (name, disk_usage(&path))).collect(),
        logs: names
            .into_iter()
            .map(|name| {
                let last_words = pod_dir.join(context::CONTAINERS).join(&name);
                let usage = disk_usage(&log_dir.join(&name)) + disk_usage(&last_words);
                (name, usage)
            })
            .collect(),
        hosts: disk_usage(&pod_dir.join(context::HOSTS)),
        written: BTreeMap::new(),
    };
    let mut usage = tokio::task::spawn_blocking(work).await.unwrap_or_default();
    for (name, id) in containers {
        usage.written.insert(name, cx.runtime().container_disk_usage(&id).await.unwrap_or_default());
    }
    usage
}

fn bytes(used: u64) -> i64 {
    i64::try_from(used).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing::model;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(spec: Value, volume: u64, container: u64, expected: Option<&str>) {
        let model = model(spec);
        let megabytes = |count: u64| DiskUsage { bytes: count << 20, inodes: 1 };
        let usage = Usage {
            volumes: BTreeMap::from([("v".to_owned(), megabytes(volume))]),
            written: BTreeMap::from([("c".to_owned(), megabytes(container.saturating_sub(1)))]),
            logs: BTreeMap::from([("c".to_owned(), megabytes(container.min(1)))]),
            hosts: DiskUsage::default(),
        };
        assert_eq!(verdict(&model, &usage).as_deref(), expected);
        assert_eq!(
            is_limited(&model),
            verdict(&model, &Usage { volumes: [("v".to_owned(), megabytes(1 << 40))].into(), ..usage }).is_some()
        );
    }

    #[test]
    fn limits_of_volumes_containers_and_pods() {
        let pod = |medium: &str, size: Value, limits: Value| {
            json!({"volumes": [{"name": "v", "emptyDir": {"medium": medium, "sizeLimit": size}}],
                "containers": [{"name": "c", "resources": {"limits": limits}}]})
        };
        let none = || json!({});
        check(pod("", json!("1Mi"), none()), 1, 50, None);
        check(pod("", json!("1Mi"), none()), 2, 0, Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "));
        check(pod("", Value::Null, none()), 50, 50, None);
        check(pod("", json!("0"), none()), 50, 50, None);
        let limited = || json!({"ephemeral-storage": "4Mi"});
        check(pod("", Value::Null, limited()), 2, 2, None);
        let all = "Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. ";
        check(pod("", Value::Null, limited()), 3, 2, Some(all));
        let mut two = pod("", Value::Null, limited());
        two["containers"].as_array_mut().unwrap().push(json!({"name": "d", "resources": {"limits": limited()}}));
        check(two, 0, 5, Some("Container c exceeded its local ephemeral storage limit \"4Mi\". "));
    }

    #[test]
    fn critical_pods_are_not_measured() {
        let spec =
            json!({"priority": 2_000_001_000, "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}], "containers": []});
        assert!(!is_limited(&model(spec)));
    }

    #[test]
    fn a_volume_in_memory_has_its_size_from_the_kernel() {
        let spec = json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}], "containers": []});
        assert!(!is_limited(&model(spec)));
    }
}

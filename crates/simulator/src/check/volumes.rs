//! Claims, volumes, and what is left of them on nodes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Cluster, name, number};

fn text<'v>(object: &'v Value, path: &str) -> &'v str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// A claim and its volume name each other, and no claim waits while a volume would do.
pub(super) fn bound(cluster: &Cluster<'_>) {
    let (claims, volumes) = (cluster.of("core/persistentvolumeclaims"), cluster.of("core/persistentvolumes"));
    for claim in &claims {
        let (phase, chosen) = (text(claim, "/status/phase"), text(claim, "/spec/volumeName"));
        let volume = volumes.iter().find(|volume| volume["metadata"]["name"] == chosen);
        match phase {
            "Bound" => {
                let own = volume.is_some_and(|volume| volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]);
                cluster.expect(own, || format!("{} is bound to {chosen}, which is not its", name(claim)));
            }
            "Pending" => {
                let would = |volume: &&Value| {
                    text(volume, "/status/phase") == "Available"
                        && volume["spec"]["storageClassName"] == claim["spec"]["storageClassName"]
                };
                let free = volumes.iter().find(would);
                cluster.expect(free.is_none(), || format!("{} waits, and {} is free", name(claim), name(free.unwrap_or(claim))));
            }
            // Its volume was taken away.
            "Lost" => cluster.expect(volume.is_none(), || format!("{} is lost, and {chosen} is there", name(claim))),
            other => cluster.expect(false, || format!("{} is {other:?}", name(claim))),
        }
    }
    for volume in &volumes {
        let claim = &volume["spec"]["claimRef"];
        let of = claims.iter().find(|one| one["metadata"]["uid"] == claim["uid"]);
        match text(volume, "/status/phase") {
            "Bound" => cluster.expect(of.is_some(), || format!("{} is bound and its claim is gone", name(volume))),
            "Available" => cluster.expect(!claim["uid"].is_string(), || format!("{} is available and claimed", name(volume))),
            "Released" => {
                let kept = text(volume, "/spec/persistentVolumeReclaimPolicy") == "Retain";
                cluster.expect(kept && of.is_none(), || format!("{} is released and still there", name(volume)));
            }
            other => cluster.expect(false, || format!("{} is {other:?}", name(volume))),
        }
    }
}

/// Where claims go with their pods, those of ordinals that are not wanted are gone.
pub(super) fn claims_of_sets(cluster: &Cluster<'_>) {
    let claims = cluster.of("core/persistentvolumeclaims");
    for set in cluster.of("apps/statefulsets") {
        let own = claims.iter().filter(|claim| claim["metadata"]["namespace"] == set["metadata"]["namespace"]);
        let names: BTreeSet<&str> = own.map(|claim| text(claim, "/metadata/name")).collect();
        let (wanted, of) = (number(&set, "/spec/replicas"), |ordinal| format!("data-{}-{ordinal}", text(&set, "/metadata/name")));
        if !set["spec"]["volumeClaimTemplates"].is_array() {
            continue;
        }
        let all = (0..wanted).all(|ordinal| names.contains(of(ordinal).as_str()));
        cluster.expect(all, || format!("{} wants {wanted} claims of {names:?}", name(&set)));
        if text(&set, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled") == "Delete" {
            let more = (wanted..10).find(|ordinal| names.contains(of(*ordinal).as_str()));
            cluster.expect(more.is_none(), || format!("{} has the claim of ordinal {more:?}", name(&set)));
        }
    }
}

/// Every volume that a node made has its directory there, and nothing else has.
pub(super) fn directories(cluster: &Cluster<'_>) {
    let volumes = cluster.of("core/persistentvolumes");
    let made = volumes.iter().filter_map(|volume| {
        let node = volume["metadata"]["annotations"]["knarr.io/node"].as_str()?;
        Some((node.to_owned(), text(volume, "/metadata/name").to_owned()))
    });
    let (made, there): (BTreeSet<_>, _) = (made.collect(), cluster.kubelets.directories());
    for (node, volume) in there.difference(&made) {
        cluster.expect(false, || format!("the directory of {volume} is left on {node}"));
    }
    for (node, volume) in made.difference(&there) {
        cluster.expect(false, || format!("{volume} has no directory on {node}"));
    }
}

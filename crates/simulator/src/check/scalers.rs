//! Autoscalers and quotas.

use serde_json::Value;

use super::{Cluster, name, number};

/// What a pod asks for, and what it may use of that, in thousandths of a processor: see the workload's templates.
const TARGET: f64 = 25.0;
/// `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

/// Each has set the size that follows from what its pods use.
pub(super) fn autoscalers(cluster: &Cluster<'_>) {
    for scaler in cluster.of("autoscaling/horizontalpodautoscalers") {
        let target = cluster.of("apps/deployments").into_iter().find(|deployment| {
            let (meta, spec) = (&deployment["metadata"], &scaler["spec"]["scaleTargetRef"]);
            meta["namespace"] == scaler["metadata"]["namespace"] && meta["name"] == spec["name"]
        });
        let size = target.as_ref().map_or(0, |target| number(target, "/spec/replicas"));
        if size == 0 {
            continue;
        }
        let (least, most) = (number(&scaler, "/spec/minReplicas"), number(&scaler, "/spec/maxReplicas"));
        let within = (least..=most).contains(&size);
        cluster.expect(within, || format!("{} allows {least} to {most} and its target has {size}", name(&scaler)));
        let namespace = scaler["metadata"]["namespace"].as_str().unwrap_or_default();
        // What a pod uses is a whole number.
        let each = (cluster.kubelets.demand(namespace) / size as u64) as f64;
        let ratio = each / TARGET;
        let wanted = ((ratio * size as f64).ceil() as i64).clamp(least, most);
        let right = wanted == size || (ratio - 1.0).abs() <= TOLERANCE + 0.04;
        cluster.expect(right, || format!("{} wants {wanted}, for {each}m each, and its target has {size}", name(&scaler)));
        let said = number(&scaler, "/status/desiredReplicas");
        cluster.expect(said == size, || format!("{} says {said} and its target has {size}", name(&scaler)));
    }
}

/// Each counts what is there.
pub(super) fn quotas(cluster: &Cluster<'_>) {
    for quota in cluster.of("core/resourcequotas") {
        let here = |resource: &str| {
            let mut all = cluster.of(resource);
            all.retain(|object| object["metadata"]["namespace"] == quota["metadata"]["namespace"]);
            all
        };
        let is_over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let pods = here("core/pods").iter().filter(|pod| !is_over(pod)).count();
        for (resource, is) in [
            ("pods", pods),
            ("services", here("core/services").len()),
            ("count/deployments.apps", here("apps/deployments").len()),
            ("persistentvolumeclaims", here("core/persistentvolumeclaims").len()),
        ] {
            let said = quota["status"]["used"][resource].as_str().and_then(|text| text.parse::<usize>().ok());
            cluster.expect(said == Some(is), || format!("{} says {said:?} of {resource} are used, not {is}", name(&quota)));
        }
    }
}

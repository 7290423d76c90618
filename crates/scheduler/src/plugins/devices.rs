//! Devices for claims (KEP-4381): those that a pod's claims have must be usable on its node, and for the others there must be some; as for
//! extended resources that device classes stand for where the node has none of its own (KEP-5004).

use std::borrow::Cow;

use crate::attempt::Attempt;
use crate::cluster::{Cluster, NodeInfo};
use crate::devices::Devices;
use crate::framework::{Event, Filter, Plugin, Reason, Score, Verdict, scale};
use crate::pod::PodInfo;

pub(super) struct DynamicResources;

/// Its name.
pub(crate) const NAME: &str = "DynamicResources";

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn refuse(&self, pod: &PodInfo, cluster: &Cluster, attempt: &Attempt) -> Option<Reason> {
        let devices = &cluster.devices;
        let refusal = devices.concern(pod).then(|| attempt.claims(pod, devices).err()).flatten()?;
        Some(Cow::Owned(refusal.to_string()))
    }

    fn filter<'a>(&self, pod: &'a PodInfo, cluster: &'a Cluster, attempt: &'a Attempt) -> Option<Box<dyn Filter + 'a>> {
        let devices = &cluster.devices;
        devices.concern(pod).then(|| Box::new(Available { pod, devices, attempt }) as Box<dyn Filter>)
    }

    /// Upstream's, for lists of alternatives are what users prefer.
    fn weight(&self) -> i64 {
        2
    }

    fn score<'a>(
        &self,
        pod: &'a PodInfo,
        cluster: &'a Cluster,
        attempt: &'a Attempt,
        _: &[&'a NodeInfo],
    ) -> Option<Box<dyn Score + 'a>> {
        let devices = &cluster.devices;
        let claims = devices.concern(pod).then(|| attempt.claims(pod, devices).ok()).flatten()?;
        claims.any_alternatives().then(|| Box::new(Preferred { attempt }) as Box<dyn Score>)
    }

    fn helped_by(&self, event: Event) -> bool {
        matches!(event, Event::Node | Event::Device | Event::DeviceClass)
    }
}

struct Available<'a> {
    pod: &'a PodInfo,
    devices: &'a Devices,
    attempt: &'a Attempt,
}

impl Filter for Available<'_> {
    fn check(&self, node: &NodeInfo, reasons: &mut Vec<Reason>) -> Verdict {
        let Some(reason) = self.attempt.lacks_devices(self.pod, self.devices, node) else { return Verdict::Fits };
        reasons.push(Cow::Owned(reason));
        Verdict::Unfit
    }
}

/// Nodes where claims get what they prefer.
struct Preferred<'a> {
    attempt: &'a Attempt,
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.attempt.preference(node)
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale(scores, false);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use base::tasks::Tasks;
    use client::Informers;
    use client::fake::Fake;
    use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
    use serde_json::json;

    use super::*;
    use crate::cycle::Chooser;
    use crate::testing::{node, pod};

    /// KEP-4816: of nodes that will do, the one wins where requests get the alternatives that stand first in their lists.
    #[tokio::test]
    async fn nodes_with_what_is_preferred_win() {
        let (fake, tasks) = (Fake::default(), Tasks::root());
        for name in ["big", "middle", "small", "any"] {
            let selectors = json!([{"cel": {"expression": format!("'{name}' == 'any' || device.driver == '{name}'")}}]);
            fake.put::<DeviceClass>(
                &serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"selectors": selectors}})).unwrap(),
            );
        }
        let listed = |name: &str, classes: &[&str]| {
            let of = |class: &&str| json!({"name": class, "deviceClassName": class});
            json!({"name": name, "firstAvailable": classes.iter().map(of).collect::<Vec<_>>()})
        };
        let exactly = json!({"name": "r", "exactly": {"deviceClassName": "any"}});
        for (name, requests) in [
            ("one", vec![listed("r", &["big", "middle", "small"])]),
            ("turned", vec![listed("r", &["small", "middle", "big"])]),
            ("same", vec![listed("r", &["any", "big"])]),
            ("none", vec![exactly]),
        ] {
            let meta = json!({"namespace": "a", "name": name, "uid": name});
            let claim = json!({"metadata": meta, "spec": {"devices": {"requests": requests}}});
            fake.put::<ResourceClaim>(&serde_json::from_value(claim).unwrap());
        }
        let informers = Informers::new(fake.client(), tasks.0.clone());
        let mut cluster = Cluster::default();
        cluster.devices = Devices::new(&informers);
        informers.of::<DeviceClass>().synced().await;
        informers.of::<ResourceClaim>().synced().await;
        for (name, driver) in [("a", "small"), ("b", "middle"), ("c", "big")] {
            let pool = json!({"name": name, "generation": 1, "resourceSliceCount": 1});
            let spec = json!({"driver": driver, "nodeName": name, "pool": pool, "devices": [{"name": "d"}]});
            let slice = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
            cluster.devices.pools.changed(name, None, Some(Arc::new(slice)));
            cluster.set_node(&node(name, json!({})));
        }
        let mut check = |claim: &str, expected: &str| {
            let pod = PodInfo::new(Arc::new(pod("p", json!({"resourceClaims": [{"name": "d", "resourceClaimName": claim}]}))));
            let mut chooser = Chooser::default();
            let chosen = (0..64).map(|_| chooser.choose(&pod, &mut cluster, &Attempt::default()).unwrap());
            let chosen: std::collections::BTreeSet<String> = chosen.collect();
            assert_eq!(chosen.into_iter().collect::<Vec<_>>().join(" "), expected, "{claim}");
        };
        check("one", "c");
        check("turned", "a");
        check("same", "a b c");
        check("none", "a b c");
    }
}

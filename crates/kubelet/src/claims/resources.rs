//! What a container has by claims, as the pod resources API tells it (KEP-3695).

use std::collections::BTreeMap;

use csi::pod_resources::{CdiDevice, ClaimResource, DynamicResource};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::Claims;
use super::prepare::asked;
use super::records::{Device, Record};

impl Claims {
    /// The devices of a container by claims that are prepared, each once, claim by claim.
    pub fn of_container(&self, pod: &Pod, container: &Container) -> Vec<DynamicResource> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let records = self.records.lock();
        let mut claims: BTreeMap<&str, (&Record, Vec<ClaimResource>)> = BTreeMap::new();
        for (name, request) in asked(pod, container) {
            let Some(record) = records.values().find(|record| record.is_of(name, uid)) else { continue };
            let (_, devices) = claims.entry(&record.uid).or_insert((record, Vec::new()));
            for (driver, device) in record.devices(request) {
                let device = told(driver, device);
                if !devices.contains(&device) {
                    devices.push(device);
                }
            }
        }
        let claim = |(record, claim_resources): (&Record, Vec<ClaimResource>)| DynamicResource {
            claim_name: record.name.clone(),
            claim_namespace: record.namespace.clone(),
            claim_resources,
        };
        claims.into_values().map(claim).collect()
    }
}

fn told(driver: &str, device: &Device) -> ClaimResource {
    ClaimResource {
        cdi_devices: device.cdi.iter().map(|name| CdiDevice { name: name.clone() }).collect(),
        driver_name: driver.to_owned(),
        pool_name: device.pool.clone(),
        device_name: device.device.clone(),
        share_id: device.share.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prost::Message;
    use serde_json::json;

    use super::*;

    /// KEP-3695: which devices containers have by claims is told by `dynamic_resources`, device by device.
    #[test]
    fn containers_have_the_devices_of_their_requests() {
        let claims = json!([{"name": "crane", "request": "r"}, {"name": "crane", "request": "s"}]);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"resourceClaims": [{"name": "crane", "resourceClaimName": "shared"}], "containers": [
                {"name": "c", "resources": {"claims": claims}}, {"name": "d", "resources": {"claims": [{"name": "crane"}]}}, {"name": "e"}]},
        }))
        .unwrap();
        let device = |requests: &[&str], name: &str, cdi: &[&str], share: Option<&str>| Device {
            requests: requests.iter().map(|one| (*one).to_owned()).collect(),
            pool: "p".to_owned(),
            device: name.to_owned(),
            cdi: cdi.iter().map(|one| (*one).to_owned()).collect(),
            share: share.map(str::to_owned),
        };
        let devices = vec![
            device(&["r"], "a", &["v/c=a", "v/c=all"], None),
            device(&["r", "s"], "b", &[], Some("part")),
            device(&["other"], "x", &[], None),
        ];
        let record = |name: &str, devices: Option<Vec<Device>>| Record {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            pods: ["u".to_owned()].into(),
            drivers: [("driver".to_owned(), devices)].into(),
        };
        let known = Claims::default();
        let of = |index: usize| known.of_container(&pod, &pod.spec.as_ref().unwrap().containers[index]);
        assert_eq!(of(0), []);
        for record in [record("shared", Some(devices)), record("of-another", Some(vec![Device::default()]))] {
            known.records.lock().insert(record.uid.clone(), record);
        }
        let resource = |name: &str, cdi: &[&str], share: Option<&str>| ClaimResource {
            cdi_devices: cdi.iter().map(|name| CdiDevice { name: (*name).to_owned() }).collect(),
            driver_name: "driver".to_owned(),
            pool_name: "p".to_owned(),
            device_name: name.to_owned(),
            share_id: share.map(str::to_owned),
        };
        let (a, b) = (resource("a", &["v/c=a", "v/c=all"], None), resource("b", &[], Some("part")));
        let claim = |claim_resources: Vec<ClaimResource>| DynamicResource {
            claim_name: "shared".to_owned(),
            claim_namespace: "ns".to_owned(),
            claim_resources,
        };
        assert_eq!(of(0), [claim(vec![a.clone(), b.clone()])]);
        assert_eq!(of(1), [claim(vec![a, b.clone(), resource("x", &[], None)])]);
        assert_eq!(of(2), []);
        // Names and numbers of upstream's `api.proto`.
        let wire = claim(vec![ClaimResource { cdi_devices: vec![CdiDevice { name: "n".into() }], ..b }]).encode_to_vec();
        let inner = b"\x0a\x03\x0a\x01n\x12\x06driver\x1a\x01p\x22\x01b\x2a\x04part";
        let expected = [b"\x12\x06shared\x1a\x02ns\x22".as_slice(), &[u8::try_from(inner.len()).unwrap()], inner].concat();
        assert_eq!(wire, expected);
    }
}

//! A pod's claims are prepared by their drivers before its sandbox is made, and given back when its containers have ended and no other pod of
//! the node uses them.

use std::collections::BTreeSet;

use client::Api;
use client::Key;
use client::events::Type;
use csi::dra::Claim;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use pods::claims::{self as rules, Named};

use super::Claims;
use super::records::{Device, Record};
use crate::context::Context;
use crate::spec::{Member, Model};

/// Has the claims of a pod prepared. The error has been told by an event.
pub async fn prepare(cx: &Context, model: &Model) -> Result<(), String> {
    let prepared = prepare_all(cx, model).await;
    prepared.map_err(|error| {
        let message = format!("Failed to prepare dynamic resources: {error}");
        cx.pod_event(model, Type::Warning, "FailedPrepareDynamicResources", message.clone());
        message
    })
}

/// Nothing is begun before all claims are found and all of their drivers are there: what is begun has to be given back, by the same drivers.
async fn prepare_all(cx: &Context, model: &Model) -> Result<(), String> {
    let mut claims = Vec::new();
    for named in rules::all(&model.pod) {
        claims.extend(found(cx, model, named).await?);
    }
    for claim in &claims {
        for driver in drivers(claim) {
            cx.claims.driver(driver)?;
        }
    }
    for claim in &claims {
        prepare_one(cx, model, claim).await?;
    }
    Ok(())
}

/// The claim that a pod names, which it may use; none where it needs none.
async fn found(cx: &Context, model: &Model, named: Named<'_>) -> Result<Option<ResourceClaim>, String> {
    let name = match named {
        Named::Nothing => return Ok(None),
        Named::NotMade => {
            let pod = Key::namespaced(model.namespace(), model.name());
            return Err(format!("prepare dynamic resources: pod \"{pod}\": ResourceClaim not created yet"));
        }
        Named::Shared(name) | Named::Own(name) => name,
    };
    let api: Api<ResourceClaim> = Api::namespaced(cx.options.client.clone(), model.namespace());
    let claim = api.get(name).await.map_err(|error| format!("fetch ResourceClaim {name}: {}", client::why(&error)))?;
    if matches!(named, Named::Own(_)) && !rules::is_for(&claim, model.uid()) {
        let text = format!("ResourceClaim {}/{name} was not created for pod {}", model.namespace(), model.name());
        return Err(format!("{text} (pod is not owner)"));
    }
    if !rules::is_reserved_for(&claim, model.uid()) {
        let (pod, uid) = (format!("{}({})", model.name(), model.uid()), claim.metadata.uid.unwrap_or_default());
        return Err(format!("pod {pod} is not allowed to use resource claim {name}({uid})"));
    }
    Ok(Some(claim))
}

/// Whose devices a claim has.
fn drivers(claim: &ResourceClaim) -> impl Iterator<Item = &str> {
    let allocation = claim.status.iter().flat_map(|status| status.allocation.iter());
    let results =
        allocation.flat_map(|allocation| allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten()));
    results.map(|result| result.driver.as_str())
}

async fn prepare_one(cx: &Context, model: &Model, claim: &ResourceClaim) -> Result<(), String> {
    let uid = claim.metadata.uid.clone().unwrap_or_default();
    let _one = cx.claims.lock(&uid).await;
    let mut record = begin(cx, model, claim, &uid).await?;
    for driver in left(&cx.claims, &record) {
        let devices = Some(prepared_by(cx, &driver, &record).await?);
        if record.drivers.insert(driver.clone(), devices.clone()) != Some(devices) {
            cx.claims.keep(record.clone()).await?;
        }
        cx.claims.prepared.lock().insert((uid.clone(), driver));
    }
    Ok(())
}

/// The drivers that are to prepare a claim. One whose devices are known is asked again by another process: what it has prepared goes with
/// the machine's memory, such as its CDI files below `/run`, and the record stays. It answers as before where all is there still.
fn left(claims: &Claims, record: &Record) -> Vec<String> {
    let prepared = claims.prepared.lock();
    let is_left = |driver: &str, is_known: bool| !is_known || !prepared.contains(&(record.uid.clone(), driver.to_owned()));
    let drivers = record.drivers.iter().filter(|(driver, devices)| is_left(driver, devices.is_some()));
    drivers.map(|(driver, _)| driver.clone()).collect()
}

/// Writes down that a pod uses a claim, and whose devices the claim has.
async fn begin(cx: &Context, model: &Model, claim: &ResourceClaim, uid: &str) -> Result<Record, String> {
    let known = cx.claims.records.lock().get(uid).cloned();
    let mut record = known.unwrap_or_else(|| Record {
        namespace: model.namespace().to_owned(),
        name: claim.metadata.name.clone().unwrap_or_default(),
        uid: uid.to_owned(),
        ..Record::default()
    });
    let before = record.clone();
    for driver in drivers(claim) {
        record.drivers.entry(driver.to_owned()).or_default();
    }
    record.pods.insert(model.uid().to_owned());
    if record != before {
        cx.claims.keep(record.clone()).await?;
    }
    Ok(record)
}

fn claim_of(record: &Record) -> Claim {
    Claim { namespace: record.namespace.clone(), uid: record.uid.clone(), name: record.name.clone() }
}

async fn prepared_by(cx: &Context, driver: &str, record: &Record) -> Result<Vec<Device>, String> {
    let plugin = cx.claims.driver(driver)?;
    let failed = |error: grpc::Error| format!("NodePrepareResources failed for ResourceClaim {}: {error}", record.name);
    let devices = plugin.prepare(claim_of(record)).await.map_err(failed)?;
    let device = |one: csi::dra::Device| Device {
        requests: one.request_names,
        pool: one.pool_name,
        device: one.device_name,
        cdi: one.cdi_device_ids,
        share: one.share_id,
    };
    Ok(devices.into_iter().map(device).collect())
}

/// The claims whose devices a container has, each with the request that they belong to; none are all requests.
pub(super) fn asked<'a>(pod: &'a Pod, container: &'a Container) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
    let named = container.resources.iter().flat_map(|resources| resources.claims.iter().flatten()).filter_map(|asked| {
        let entry = rules::entries(pod).iter().find(|entry| entry.name == asked.name)?;
        Some((rules::named(pod, entry).name()?, asked.request.as_deref()))
    });
    let extended = rules::extended(pod).into_iter().flat_map(|status| {
        let requests = rules::extended_of(pod, &container.name);
        requests.map(|one| (status.resource_claim_name.as_str(), Some(one.request_name.as_str())))
    });
    named.chain(extended)
}

/// What the devices of the claims that a container names, and of the one for its extended resources, are called by the Container Device
/// Interface.
///
/// # Errors
/// A claim is not prepared.
pub fn cdi_devices(cx: &Context, model: &Model, member: &Member) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for (name, request) in asked(&model.pod, &member.spec) {
        let records = cx.claims.records.lock();
        let is_ours = |record: &&Record| record.is_of(name, model.uid()) && record.is_prepared();
        let record = records.values().find(is_ours).ok_or_else(|| format!("resource claim {name} is not prepared"))?;
        names.extend(record.cdi(request).map(str::to_owned));
    }
    Ok(names)
}

/// Gives back what no pod of the node uses when this one has ended. Idempotent.
///
/// # Errors
/// A driver does not answer: again later.
pub async fn give_back(cx: &Context, pod: &str) -> Result<(), String> {
    let of_pod = |record: &&Record| record.pods.contains(pod);
    let uids: Vec<String> = cx.claims.records.lock().values().filter(of_pod).map(|record| record.uid.clone()).collect();
    for uid in uids {
        let _one = cx.claims.lock(&uid).await;
        let Some(mut record) = cx.claims.records.lock().get(&uid).cloned() else { continue };
        let others: BTreeSet<String> = record.pods.iter().filter(|other| *other != pod).cloned().collect();
        if !others.is_empty() {
            record.pods = others;
            cx.claims.keep(record).await?;
            continue;
        }
        for driver in record.drivers.keys() {
            let failed = |error: grpc::Error| format!("NodeUnprepareResources failed for ResourceClaim {}: {error}", record.name);
            cx.claims.driver(driver)?.unprepare(claim_of(&record)).await.map_err(failed)?;
        }
        cx.claims.forget(&uid).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// As upstream, whose record says nothing of what is prepared (`claiminfo.go`, `newClaimInfoFromState`).
    #[tokio::test]
    async fn each_process_has_claims_prepared_once() {
        let home = tempfile::tempdir().unwrap();
        let drivers = [("d".to_owned(), Some(vec![Device::default()])), ("e".to_owned(), None)];
        let record = Record { uid: "u".into(), drivers: drivers.into(), ..Record::default() };
        let claims = Claims::load(home.path());
        claims.keep(record.clone()).await.unwrap();
        for driver in ["d", "e"] {
            claims.prepared.lock().insert(("u".to_owned(), driver.to_owned()));
        }
        assert_eq!(left(&claims, &record), ["e"]);
        let claims = Claims::load(home.path());
        let found = claims.records.lock()["u"].clone();
        assert!(found == record && left(&claims, &found) == ["d", "e"]);
        claims.prepared.lock().insert(("u".to_owned(), "d".to_owned()));
        assert_eq!(left(&claims, &found), ["e"]);
        // Given back and claimed again.
        claims.forget("u").await.unwrap();
        assert_eq!(left(&claims, &found), ["d", "e"]);
    }

    /// KEP-4381 and KEP-5004: a container has the devices of the requests that it names, and of those that its extended resources became.
    #[test]
    fn containers_have_the_requests_they_ask_for() {
        let claims = json!([{"name": "a"}, {"name": "b", "request": "r"}, {"name": "unmade"}]);
        let mapping = |container, request| json!({"containerName": container, "resourceName": "a/b", "requestName": request});
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": {"claims": claims}}, {"name": "d"}], "resourceClaims": [
                {"name": "a", "resourceClaimName": "one"}, {"name": "b", "resourceClaimName": "two"},
                {"name": "unmade", "resourceClaimTemplateName": "t"}]},
            "status": {"extendedResourceClaimStatus": {"resourceClaimName": "x", "requestMappings": [mapping("c", "r0"), mapping("d", "r1")]}},
        }))
        .unwrap();
        let of = |index: usize| asked(&pod, &pod.spec.as_ref().unwrap().containers[index]).collect::<Vec<_>>();
        assert_eq!(of(0), [("one", None), ("two", Some("r")), ("x", Some("r0"))]);
        assert_eq!(of(1), [("x", Some("r1"))]);
    }
}

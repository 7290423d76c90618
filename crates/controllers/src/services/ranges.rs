//! Addresses of Services as objects (KEP-1880): an IPAddress for each cluster address, which says whose it is, and ServiceCIDRs that
//! stay for as long as addresses of theirs are used.
//!
//! The API server gives addresses away from a set of its own; these objects follow, for people and for programs that take addresses
//! of the same ranges.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use client::Api;
use client::kube;
use client::kube::api::{ListParams, Patch, PatchParams, PostParams};
use client::{Index, Informer, Informers, Key};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::targets::Family;
use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::namespace::tolerate;
use crate::queue::Queue;
use crate::{meta, write};

const ACCOUNT: &str = "service-cidrs-controller";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// Keys are services.
pub(crate) struct Addresses {
    services: Informer<Service>,
    addresses: Informer<IPAddress>,
    by_service: Index<IPAddress>,
}

impl Addresses {
    pub(crate) fn new(informers: &Informers) -> Self {
        let addresses: Informer<IPAddress> = informers.of();
        let by_service = addresses.index("service", |address, values| {
            if let Some(key) = service_of(address) {
                values.add(key.to_string());
            }
        });
        Self { services: informers.of(), by_service, addresses }
    }
}

/// The service that has an address.
fn service_of(address: &IPAddress) -> Option<Key> {
    let parent = &address.spec.parent_ref;
    let of_service = parent.resource == "services" && parent.group.as_deref().unwrap_or_default().is_empty();
    of_service.then(|| Key::namespaced(parent.namespace.as_deref().unwrap_or_default(), &parent.name))
}

/// The cluster addresses of a service, as IPAddresses are named.
fn addresses_of(service: &Service) -> BTreeSet<String> {
    let all = service.spec.iter().flat_map(|spec| spec.cluster_ips.iter().flatten());
    all.filter_map(|address| Some(address.parse::<IpAddr>().ok()?.to_string())).collect()
}

fn object(name: &str, service: &Key) -> IPAddress {
    let family = Family::of(name).unwrap_or(Family::V4).as_str();
    let labels = [(FAMILY, family), (MANAGED_BY, MANAGER)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    IPAddress {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..ObjectMeta::default() },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: Some(String::new()),
                resource: "services".to_owned(),
                namespace: service.namespace.clone(),
                name: service.name.clone(),
            },
        },
    }
}

impl Controller for Addresses {
    const NAME: &'static str = "service-ip-addresses";
    const ACCOUNT: &'static str = ACCOUNT;

    fn sources(&self) -> Vec<Source> {
        let services = Source::mapped(&self.services, |change, queue| {
            let shown = |service: &Option<Arc<Service>>| service.as_deref().map(addresses_of).unwrap_or_default();
            if shown(&change.old) != shown(&change.new) {
                queue.add(change.key.clone());
            }
        });
        let addresses = Source::mapped(&self.addresses, |change, queue| {
            if let Some(key) = change.object().and_then(|address| service_of(address)) {
                queue.add(key);
            }
        });
        vec![services, addresses]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let api: Api<IPAddress> = Api::all(cx.client.clone());
        let mut wanted = self.services.by_key(key).as_deref().map(addresses_of).unwrap_or_default();
        for address in self.by_service.get(&key.to_string()) {
            if !wanted.remove(meta::name(address.as_ref())) {
                write::delete(&api, address.as_ref()).await?;
            }
        }
        let mut taken = Vec::new();
        for name in wanted {
            match api.create(&PostParams::default(), &object(&name, key)).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => taken.push(name),
                other => drop(other?),
            }
        }
        for name in taken {
            // The cache may not show it yet. That of a service that had the address before goes soon.
            let there = api.get_opt(&name).await?;
            if there.as_ref().and_then(service_of).as_ref() != Some(key) {
                return Err(Error::Other(format!("the address {name} of service {key} is claimed by another object")));
            }
        }
        Ok(Action::Done)
    }
}

/// Keys are ServiceCIDRs.
pub(crate) struct Ranges {
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
}

impl Ranges {
    pub(crate) fn new(informers: &Informers) -> Self {
        Self { ranges: informers.of(), addresses: informers.of() }
    }

    /// Whether an address is used that only this range has. Services are asked for anew: the cache may be behind.
    async fn is_used(&self, cx: &Cx, range: &ServiceCIDR) -> Result<bool, Error> {
        let own = networks(range);
        let others = self.ranges.list();
        let others = others.iter().filter(|other| other.metadata.name != range.metadata.name && !meta::ends(other.as_ref()));
        let others: Vec<IpNet> = others.flat_map(|other| networks(other)).collect();
        let only_here = |address: &IpAddr| {
            own.iter().any(|range| range.contains(address)) && !others.iter().any(|range| range.contains(address))
        };
        if self.addresses.list().iter().filter_map(|address| meta::name(address.as_ref()).parse().ok()).any(|one| only_here(&one))
        {
            return Ok(true);
        }
        let services: Api<Service> = Api::all(cx.client.clone());
        let services = services.list(&ListParams::default()).await?;
        let mut addresses = services.items.iter().flat_map(addresses_of).filter_map(|address| address.parse().ok());
        Ok(addresses.any(|address| only_here(&address)))
    }
}

fn networks(range: &ServiceCIDR) -> Vec<IpNet> {
    let all = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    all.filter_map(|range| range.parse().ok()).collect()
}

impl Controller for Ranges {
    const NAME: &'static str = "service-cidr-controller";
    const ACCOUNT: &'static str = ACCOUNT;

    fn sources(&self) -> Vec<Source> {
        let known = self.ranges.clone();
        let look_at_ending = move |queue: &Queue| {
            known.select(meta::ends).iter().for_each(|range| queue.add(Key::of(range.as_ref())));
        };
        // One that ends may go when its addresses go, or when another range has them.
        let ranges = Source::mapped(&self.ranges, {
            let look_at_ending = look_at_ending.clone();
            move |change, queue| {
                queue.add(change.key.clone());
                let has = |range: &Option<Arc<ServiceCIDR>>| {
                    range.as_deref().filter(|range| !meta::ends(*range)).map(networks).unwrap_or_default()
                };
                if has(&change.old) != has(&change.new) {
                    look_at_ending(queue);
                }
            }
        });
        let gone = Source::mapped(&self.addresses, move |change, queue| {
            if change.new.is_none() {
                look_at_ending(queue);
            }
        });
        vec![ranges, gone]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(range) = self.ranges.by_key(key) else { return Ok(Action::Done) };
        let protected = range.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
        match (meta::ends(range.as_ref()), protected) {
            (false, false) => set_protected(cx, &range, true).await?,
            (false, true) if !has_condition(&range) => set_ready(cx, &range, true).await?,
            (true, true) if self.is_used(cx, &range).await? => set_ready(cx, &range, false).await?,
            (true, true) => set_protected(cx, &range, false).await?,
            _ => {}
        }
        Ok(Action::Done)
    }
}

fn has_condition(range: &ServiceCIDR) -> bool {
    range.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|condition| condition.type_ == "Ready")
}

/// Gives the range its finalizer, or takes it away.
async fn set_protected(cx: &Cx, range: &ServiceCIDR, protected: bool) -> Result<(), Error> {
    let mut changed = range.clone();
    let finalizers = changed.metadata.finalizers.get_or_insert_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if protected {
        finalizers.push(FINALIZER.to_owned());
    }
    let api: Api<ServiceCIDR> = Api::all(cx.client.clone());
    tolerate(api.replace(meta::name(range), &PostParams::default(), &changed).await)
}

/// Says whether addresses are given from the range.
async fn set_ready(cx: &Cx, range: &ServiceCIDR, ready: bool) -> Result<(), Error> {
    let (status, reason, message) = match ready {
        true => ("True", "", "Kubernetes Service CIDR is ready"),
        false => (
            "False",
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
        ),
    };
    let said = range.status.iter().flat_map(|status| status.conditions.iter().flatten()).find(|one| one.type_ == "Ready");
    if said.is_some_and(|said| said.status == status) {
        return Ok(());
    }
    let now = meta::whole_seconds(cx.clock.now());
    let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
    let patch = json!({"metadata": {"resourceVersion": range.metadata.resource_version}, "status": {"conditions": [condition]}});
    let api: Api<ServiceCIDR> = Api::all(cx.client.clone());
    tolerate(api.patch_status(meta::name(range), &PatchParams::default(), &Patch::Merge(patch)).await)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{World, object as from_json};

    fn service(name: &str, addresses: &[&str]) -> Service {
        from_json(
            json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"clusterIP": addresses[0], "clusterIPs": addresses}}),
        )
    }

    fn range(name: &str, cidrs: &[&str]) -> ServiceCIDR {
        from_json(json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}}))
    }

    /// Names of the addresses, each with the name of its service.
    fn shown(addresses: &[IPAddress]) -> Vec<String> {
        let mut all: Vec<String> =
            addresses.iter().map(|address| format!("{} {}", meta::name(address), address.spec.parent_ref.name)).collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn addresses_follow_services() {
        let world = World::new();
        world.start(&["service-ip-addresses"]);
        world.fake.put::<Service>(&service("x", &["10.43.0.9", "fd43:0:0::9"]));
        world.fake.put::<Service>(&service("y", &["None"]));
        world.fake.until::<IPAddress>(|all| shown(all) == ["10.43.0.9 x", "fd43::9 x"]).await;
        world.fake.put::<Service>(&service("x", &["10.43.0.9"]));
        world.fake.until::<IPAddress>(|all| shown(all) == ["10.43.0.9 x"]).await;
        // What somebody deletes comes again; what is of nobody goes.
        let api: Api<IPAddress> = Api::all(world.fake.client());
        let old = api.get("10.43.0.9").await.unwrap().metadata.uid;
        api.delete("10.43.0.9", &Default::default()).await.unwrap();
        world.fake.until::<IPAddress>(|all| shown(all) == ["10.43.0.9 x"] && all[0].metadata.uid != old).await;
        world.fake.put::<IPAddress>(&object("10.43.0.77", &Key::namespaced("a", "gone")));
        world.fake.until::<IPAddress>(|all| shown(all) == ["10.43.0.9 x"]).await;
        let services: Api<Service> = Api::namespaced(world.fake.client(), "a");
        services.delete("x", &Default::default()).await.unwrap();
        world.fake.until::<IPAddress>(|all| all.is_empty()).await;
    }

    /// KEP-1880: "The ServiceCIDR will be protected with a finalizer, until there are no addresses of it left that no other has."
    #[tokio::test]
    async fn a_range_stays_while_it_is_used() {
        let world = World::new();
        world.start(&["service-ip-addresses", "service-cidr-controller"]);
        world.fake.put::<Service>(&service("x", &["10.43.0.9"]));
        world.fake.put::<ServiceCIDR>(&range("one", &["10.43.0.0/24"]));
        world.fake.put::<ServiceCIDR>(&range("free", &["10.44.0.0/24"]));
        let api: Api<ServiceCIDR> = Api::all(world.fake.client());
        let is = |all: &[ServiceCIDR], name: &str, status: &str| {
            let found = all.iter().find(|range| meta::name(*range) == name);
            let conditions = found.and_then(|range| range.status.as_ref()?.conditions.clone()).unwrap_or_default();
            conditions.iter().any(|one| one.type_ == "Ready" && one.status == status)
        };
        world.fake.until::<ServiceCIDR>(|all| is(all, "one", "True") && is(all, "free", "True")).await;
        world.fake.until::<IPAddress>(|all| all.len() == 1).await;
        for name in ["one", "free"] {
            api.delete(name, &Default::default()).await.unwrap();
        }
        world.fake.until::<ServiceCIDR>(|all| all.len() == 1 && is(all, "one", "False")).await;
        let services: Api<Service> = Api::namespaced(world.fake.client(), "a");
        services.delete("x", &Default::default()).await.unwrap();
        world.fake.until::<ServiceCIDR>(|all| all.is_empty()).await;
    }

    #[tokio::test]
    async fn another_range_may_have_the_addresses() {
        let world = World::new();
        world.fake.put::<Service>(&service("x", &["10.43.0.9"]));
        world.fake.put::<ServiceCIDR>(&range("one", &["10.43.0.0/24"]));
        world.fake.put::<ServiceCIDR>(&range("two", &["10.43.0.0/16"]));
        world.start(&["service-ip-addresses", "service-cidr-controller"]);
        let protected = |range: &ServiceCIDR| range.metadata.finalizers.iter().flatten().any(|one| one == FINALIZER);
        world.fake.until::<ServiceCIDR>(|all| all.iter().all(protected)).await;
        let api: Api<ServiceCIDR> = Api::all(world.fake.client());
        api.delete("one", &Default::default()).await.unwrap();
        world.fake.until::<ServiceCIDR>(|all| all.iter().map(meta::name).collect::<Vec<_>>() == ["two"]).await;
        // Nor does it matter when the other range is made: "please remove them or create a new ServiceCIDR".
        api.delete("two", &Default::default()).await.unwrap();
        let waits = |range: &ServiceCIDR| {
            range.status.iter().flat_map(|status| status.conditions.iter().flatten()).any(|one| one.status == "False")
        };
        world.fake.until::<ServiceCIDR>(|all| all.iter().all(waits)).await;
        world.fake.put::<ServiceCIDR>(&range("three", &["10.43.0.0/16"]));
        world.fake.until::<ServiceCIDR>(|all| all.iter().map(meta::name).collect::<Vec<_>>() == ["three"]).await;
    }
}

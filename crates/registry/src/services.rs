//! Addresses and node ports of Services.
//!
//! What is taken is a set that follows the services in the cache, change by change ([`book`]); what is being written is held
//! meanwhile. So nothing leaks and nothing needs repair after a crash.

mod addresses;
mod book;
mod families;
mod ports;

use std::ops::RangeInclusive;
use std::sync::Arc;

use apimachinery::field::{ErrorKind, Errors};
use apimachinery::{Status, meta};
use async_trait::async_trait;
use ipnet::IpNet;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use store::Hold;

use crate::admission::Request;
use crate::{Admission, Operation};
use book::{Book, Taken};

const SERVICES: &str = "services";
const NETWORKING: &str = "networking.k8s.io";

/// The plugin that gives services their addresses and ports.
#[derive(Clone, Default)]
pub(crate) struct ServiceAddresses(Arc<Mutex<Book>>);

/// Gives back what it holds when it is dropped: by then the service exists, or never will.
struct Held {
    book: Arc<Mutex<Book>>,
    taken: Taken,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.book.lock().release(&self.taken);
    }
}

#[async_trait]
impl Admission for ServiceAddresses {
    fn name(&self) -> &'static str {
        "ServiceAddresses"
    }

    fn handles(&self, request: &Request<'_>) -> bool {
        let def = &request.resource.def;
        def.group.is_empty()
            && def.plural == SERVICES
            && request.subresource.is_empty()
            && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn reserve(&self, request: &mut Request<'_>) -> Result<Option<Hold>, Status> {
        let (registry, old) = (request.registry, request.old);
        let Some(object) = request.object_mut() else { return Ok(None) };
        let path = crate::entry::object_path(meta::namespace(object), meta::name(object));
        let mut book = self.0.lock();
        // Followed under the lock: whoever waits for it sees what was written before.
        book.follow(&registry.builtin("", SERVICES)?.storage.cache);
        book.follow_claims(&registry.builtin(NETWORKING, "ipaddresses")?.storage.cache);
        book.follow_ranges(&registry.builtin(NETWORKING, "servicecidrs")?.storage.cache);
        let mut errors = Errors::new();
        let own = &registry.options.service_cidrs;
        let cluster = Cluster { families: families::of(own), own, ranges: book.ranges(own), ports: &registry.options.node_ports };
        let wanted = complete(object, old, &book, &path, &cluster, &mut errors);
        if !errors.is_empty() {
            return Err(refusal(meta::name(object), &errors));
        }
        book.hold(&wanted);
        drop(book);
        Ok(Some(Arc::new(Held { book: self.0.clone(), taken: wanted })))
    }
}

/// The Services that the server makes by itself, at addresses of its ranges.
const OWN: [&str; 2] = ["default/kubernetes", "kube-system/kube-dns"];

/// What services of the cluster can have.
struct Cluster<'a> {
    /// Families of their addresses, the default one first.
    families: Vec<&'static str>,
    /// Ranges of which new addresses are.
    ranges: Vec<IpNet>,
    /// Ranges that the server was given. Its own Services may ask for their addresses also while the ServiceCIDR of these is to go, which waits for
    /// them.
    own: &'a [IpNet],
    /// Ports of nodes.
    ports: &'a RangeInclusive<u16>,
}

/// Fills in families, addresses and ports, and says what the service at `path` now takes. Pure.
fn complete(
    object: &mut Value,
    old: Option<&Value>,
    book: &Book,
    path: &str,
    cluster: &Cluster<'_>,
    errors: &mut Errors,
) -> Taken {
    let mut wanted = Taken::default();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return wanted };
    let old = old.and_then(|old| old.get("spec"));
    if kind(spec) == "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            spec.remove(key);
        }
        return wanted;
    }
    families::complete(spec, old, &cluster.families, errors);
    if errors.is_empty() {
        addresses::complete(spec, old, (book, path), cluster, &mut wanted, errors);
    }
    if errors.is_empty() {
        ports::complete(spec, old, (book, path), cluster.ports, &mut wanted, errors);
    }
    wanted
}

/// The type of a service.
fn kind(spec: &Map<String, Value>) -> &str {
    spec.get("type").and_then(Value::as_str).unwrap_or("ClusterIP")
}

/// The texts of a list in a spec.
fn texts(spec: &Map<String, Value>, key: &str) -> Vec<String> {
    let all = spec.get(key).and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// What is said of a service that cannot be had. Where there is no more of what it asks for rightly, nothing is wrong with it.
fn refusal(name: &str, errors: &Errors) -> Status {
    match errors.0.iter().find(|error| error.kind == ErrorKind::Internal) {
        Some(error) => Status::internal(&error.detail),
        None => Status::invalid("", "Service", name, errors),
    }
}

#[cfg(test)]
mod tests;

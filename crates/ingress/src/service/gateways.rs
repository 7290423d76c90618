//! Follows the kinds of the Gateway API while they are served, and writes their statuses.
//!
//! They are custom resources: each is watched when its definition is there, and forgotten when that goes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::{OnFailure, Tasks};
use bytes::Bytes;
use client::custom::{self, Change};
use client::{Client, Key};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::annotations::Problem;
use crate::classes::CLASS;
use crate::gateway::grpc::over_http;
use crate::gateway::status::{Kind, POLICY_VERSIONS, STREAM_VERSIONS, TLS_VERSIONS, settle};
use crate::gateway::types::{GROUP, Object};
use crate::gateway::{CONTROLLER, Objects, Plan};
use crate::model::reference;

/// Changes that wait to be taken; watches wait when there are more.
const QUEUE: usize = 256;
/// How long a refused status waits.
const RETRY: Duration = Duration::from_secs(2);

/// The resources, and the versions in which each is read, the best first.
const RESOURCES: [(Resource, &str, &[&str]); 9] = [
    (Resource::Classes, "gatewayclasses", &["v1"]),
    (Resource::Gateways, "gateways", &["v1"]),
    (Resource::Routes, "httproutes", &["v1"]),
    (Resource::GrpcRoutes, "grpcroutes", &["v1"]),
    (Resource::TlsRoutes, "tlsroutes", &TLS_VERSIONS),
    (Resource::TcpRoutes, "tcproutes", &STREAM_VERSIONS),
    (Resource::UdpRoutes, "udproutes", &STREAM_VERSIONS),
    (Resource::Grants, "referencegrants", &["v1beta1"]),
    (Resource::BackendTls, "backendtlspolicies", &POLICY_VERSIONS),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Resource {
    Classes,
    Gateways,
    Routes,
    GrpcRoutes,
    TlsRoutes,
    TcpRoutes,
    UdpRoutes,
    Grants,
    BackendTls,
}

/// What happened to the objects of a resource.
pub(super) struct News(Resource, Change);

/// The objects, and how they change.
pub(super) struct Gateways {
    pub(super) objects: Objects,
    receiver: mpsc::Receiver<News>,
    /// Those of which all is known.
    known: BTreeSet<Resource>,
    /// The problems of the last plan.
    told: Vec<(Key, Problem)>,
    statuses: Arc<Due>,
}

impl Gateways {
    /// Begins to follow them.
    pub(super) fn start(client: &Client, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        for (resource, plural, versions) in RESOURCES {
            let follow = follow(client.clone(), resource, plural, versions, sender.clone());
            tasks.spawn_until_cancelled(format!("watch of {plural}"), OnFailure::Shutdown, follow);
        }
        let statuses = Arc::new(Due::default());
        let writer = write(client.clone(), statuses.clone());
        tasks.spawn_until_cancelled("status of gateways", OnFailure::Shutdown, writer);
        Self { objects: Objects::default(), receiver, known: BTreeSet::new(), told: Vec::new(), statuses }
    }

    /// The next change. To be given to [`Gateways::take`].
    pub(super) async fn next(&mut self) -> News {
        match self.receiver.recv().await {
            Some(news) => news,
            // The watches have ended: so does the process.
            None => std::future::pending().await,
        }
    }

    /// The next one when there is one now.
    pub(super) fn try_next(&mut self) -> Option<News> {
        self.receiver.try_recv().ok()
    }

    /// Takes a change over.
    pub(super) fn take(&mut self, News(resource, change): News) {
        if matches!(change, Change::All(_)) {
            self.known.insert(resource);
        }
        match resource {
            Resource::Classes => apply(&mut self.objects.classes, change, same),
            Resource::Gateways => apply(&mut self.objects.gateways, change, same),
            Resource::Routes => apply(&mut self.objects.routes, change, same),
            Resource::GrpcRoutes => apply(&mut self.objects.grpc, change, over_http),
            Resource::TlsRoutes => apply(&mut self.objects.tls, change, same),
            Resource::TcpRoutes => apply(&mut self.objects.tcp, change, same),
            Resource::UdpRoutes => apply(&mut self.objects.udp, change, same),
            Resource::Grants => apply(&mut self.objects.grants, change, same),
            Resource::BackendTls => apply(&mut self.objects.backend_tls, change, same),
        }
    }

    /// Whether all is known that was there at the start.
    pub(super) fn are_known(&self) -> bool {
        self.known.len() == RESOURCES.len()
    }

    /// Whether there is anything to plan.
    pub(super) fn is_empty(&self) -> bool {
        self.objects.classes.is_empty() && self.objects.gateways.is_empty()
    }

    /// Has the statuses written that are not as they have to be.
    pub(super) fn settle(&self, plan: &Plan) {
        let now = now();
        let mut due = self.statuses.due.lock();
        for (kind, key, wanted) in &plan.statuses {
            let old = match kind {
                Kind::GatewayClass => self.objects.classes.get(key).map(|object| &object.status),
                Kind::Gateway => self.objects.gateways.get(key).map(|object| &object.status),
                Kind::HttpRoute => self.objects.routes.get(key).map(|object| &object.status),
                Kind::GrpcRoute => self.objects.grpc.get(key).map(|object| &object.status),
                Kind::TlsRoute => self.objects.tls.get(key).map(|object| &object.status),
                Kind::TcpRoute => self.objects.tcp.get(key).map(|object| &object.status),
                Kind::UdpRoute => self.objects.udp.get(key).map(|object| &object.status),
                Kind::BackendTlsPolicy => self.objects.backend_tls.get(key).map(|object| &object.status),
            };
            match settle(wanted, old.unwrap_or(&Value::Null), &now) {
                Some(status) => drop(due.insert((*kind, key.clone()), status)),
                None => drop(due.remove(&(*kind, key.clone()))),
            }
        }
        self.statuses.wake.notify_one();
    }

    /// The problems of Gateways that nobody was told, and whom they are about.
    pub(super) fn untold(&mut self, plan: &Plan) -> Vec<(ObjectReference, Problem)> {
        let told = std::mem::replace(&mut self.told, plan.problems.clone());
        let new = plan.problems.iter().filter(|problem| !told.contains(problem));
        let about = |key: &Key| {
            let uid = self.objects.gateways.get(key).and_then(|gateway| gateway.metadata.uid.clone());
            reference("gateway.networking.k8s.io/v1", "Gateway", key, uid)
        };
        new.map(|(key, problem)| (about(key), problem.clone())).collect()
    }
}

/// The time, as conditions have it.
fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Takes a change over, in the form in which objects are kept.
fn apply<S, K>(objects: &mut BTreeMap<Key, Object<K>>, change: Change, keep: fn(Object<S>) -> Object<K>)
where
    S: Default + DeserializeOwned,
    K: Default,
{
    let kept = |object: &Bytes| read::<S>(object).map(|(key, object)| (key, keep(object)));
    match change {
        Change::Served => (),
        Change::All(all) => *objects = all.iter().filter_map(kept).collect(),
        Change::Set(object) => objects.extend(kept(&object)),
        Change::Gone(object) => {
            if let Some((key, _)) = kept(&object) {
                objects.remove(&key);
            }
        }
    }
}

fn same<S: Default>(object: Object<S>) -> Object<S> {
    object
}

fn read<S: Default + DeserializeOwned>(bytes: &Bytes) -> Option<(Key, Object<S>)> {
    let object: Object<S> = serde_json::from_slice(bytes)
        .inspect_err(|error| tracing::warn!(%error, "an object of the Gateway API cannot be read"))
        .ok()?;
    Some((Key { namespace: object.metadata.namespace.clone(), name: object.name().to_owned() }, object))
}

/// Follows one resource as long as its definition is there.
async fn follow(
    client: Client,
    resource: Resource,
    plural: &'static str,
    versions: &'static [&'static str],
    sender: mpsc::Sender<News>,
) -> Result<(), Infallible> {
    let mut changes = std::pin::pin!(custom::follow(client.clone(), GROUP, plural, versions));
    while let Some(change) = changes.next().await {
        if matches!(change, Change::Served) && resource == Resource::Classes {
            class(&client).await;
        }
        if sender.send(News(resource, change)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Makes the class that there is from the start. One that is there stays as it is.
async fn class(client: &Client) {
    let class = json!({"apiVersion": format!("{GROUP}/v1"), "kind": "GatewayClass", "metadata": {"name": CLASS},
        "spec": {"controllerName": CONTROLLER}});
    let request = http::Request::post(format!("/apis/{GROUP}/v1/gatewayclasses"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(class.to_string().into_bytes());
    let Ok(request) = request else { return };
    match client.request::<Value>(request).await {
        Err(client::kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => tracing::warn!(error = client::why(&error), "the GatewayClass {CLASS} cannot be made"),
        Ok(_) => {}
    }
}

/// Statuses to be written: the last word on each object.
#[derive(Default)]
struct Due {
    due: Mutex<BTreeMap<(Kind, Key), Value>>,
    wake: Notify,
}

async fn write(client: Client, statuses: Arc<Due>) -> Result<(), Infallible> {
    loop {
        let due = std::mem::take(&mut *statuses.due.lock());
        if due.is_empty() {
            statuses.wake.notified().await;
            continue;
        }
        let mut refused = Vec::new();
        for ((kind, key), status) in due {
            if let Err(error) = patch(&client, kind, &key, &status).await {
                tracing::debug!(%key, error = client::why(&error), "a status cannot be written yet");
                refused.push(((kind, key), status));
            }
        }
        if !refused.is_empty() {
            tokio::time::sleep(RETRY).await;
            let mut due = statuses.due.lock();
            for (place, status) in refused {
                due.entry(place).or_insert(status);
            }
        }
    }
}

async fn patch(client: &Client, kind: Kind, key: &Key, status: &Value) -> client::kube::Result<()> {
    let namespace = key.namespace.as_ref().map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
    // What is not there in one version may be there in another; what is in none is gone.
    for version in kind.versions() {
        let path = format!("/apis/{GROUP}/{version}/{namespace}{}/{}/status", kind.plural(), key.name);
        let request = http::Request::patch(path)
            .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
            .body(json!({"status": status}).to_string().into_bytes())
            .map_err(client::kube::Error::HttpError)?;
        match client.request::<Value>(request).await {
            Err(client::kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(drop),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert!(now().ends_with('Z') && now().len() == "2026-01-01T00:00:00Z".len(), "{}", now());
    }
}

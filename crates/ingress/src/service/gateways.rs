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
const RESOURCES: [(Resource, &str, &[&str]); 10] = [
    (Resource::Classes, "gatewayclasses", &["v1"]),
    (Resource::Gateways, "gateways", &["v1"]),
    (Resource::ListenerSets, "listenersets", &["v1"]),
    (Resource::Routes, "httproutes", &["v1"]),
    (Resource::GrpcRoutes, "grpcroutes", &["v1"]),
    (Resource::TlsRoutes, "tlsroutes", &TLS_VERSIONS),
    (Resource::TcpRoutes, "tcproutes", &STREAM_VERSIONS),
    (Resource::UdpRoutes, "udproutes", &STREAM_VERSIONS),
    (Resource::Grants, "referencegrants", &["v1", "v1beta1"]),
    (Resource::BackendTls, "backendtlspolicies", &POLICY_VERSIONS),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Resource {
    Classes,
    Gateways,
    ListenerSets,
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
    told: Vec<(Kind, Key, Problem)>,
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
            // Other definitions may have more fields.
            self.statuses.unknown.lock().clear();
        }
        match resource {
            Resource::Classes => apply(&mut self.objects.classes, change, same),
            Resource::Gateways => apply(&mut self.objects.gateways, change, same),
            Resource::ListenerSets => apply(&mut self.objects.listener_sets, change, same),
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
        let (mut due, unknown) = (self.statuses.due.lock(), self.statuses.unknown.lock());
        for (kind, key, wanted) in &plan.statuses {
            let wanted = known(*kind, wanted.clone(), &unknown);
            let old = match kind {
                Kind::GatewayClass => self.objects.classes.get(key).map(Object::written),
                Kind::Gateway => self.objects.gateways.get(key).map(Object::written),
                Kind::ListenerSet => self.objects.listener_sets.get(key).map(Object::written),
                Kind::HttpRoute => self.objects.routes.get(key).map(Object::written),
                Kind::GrpcRoute => self.objects.grpc.get(key).map(Object::written),
                Kind::TlsRoute => self.objects.tls.get(key).map(Object::written),
                Kind::TcpRoute => self.objects.tcp.get(key).map(Object::written),
                Kind::UdpRoute => self.objects.udp.get(key).map(Object::written),
                Kind::BackendTlsPolicy => self.objects.backend_tls.get(key).map(Object::written),
            };
            let (version, old) = old.unwrap_or((None, &Value::Null));
            match settle(&wanted, old, &now) {
                Some(status) => drop(due.insert((*kind, key.clone()), Wanted { version: version.cloned(), status })),
                None => drop(due.remove(&(*kind, key.clone()))),
            }
        }
        self.statuses.wake.notify_one();
    }

    /// The problems of Gateways and ListenerSets that nobody was told, and whom they are about.
    pub(super) fn untold(&mut self, plan: &Plan) -> Vec<(ObjectReference, Problem)> {
        let told = std::mem::replace(&mut self.told, plan.problems.clone());
        let new = plan.problems.iter().filter(|problem| !told.contains(problem));
        let about = |kind: Kind, key: &Key| {
            let metadata = match kind {
                Kind::ListenerSet => self.objects.listener_sets.get(key).map(|set| &set.metadata),
                _ => self.objects.gateways.get(key).map(|gateway| &gateway.metadata),
            };
            let uid = metadata.and_then(|metadata| metadata.uid.clone());
            reference("gateway.networking.k8s.io/v1", kind.name(), key, uid)
        };
        new.map(|(kind, key, problem)| (about(*kind, key), problem.clone())).collect()
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
    due: Mutex<BTreeMap<(Kind, Key), Wanted>>,
    /// Fields that the definitions that are installed do not have, or have in another form. To write them again at each change would be in vain.
    unknown: Mutex<BTreeSet<(Kind, String)>>,
    wake: Notify,
}

/// A status to be written.
struct Wanted {
    /// The version of the object that it follows from.
    version: Option<String>,
    status: Value,
}

async fn write(client: Client, statuses: Arc<Due>) -> Result<(), Infallible> {
    loop {
        let due = std::mem::take(&mut *statuses.due.lock());
        if due.is_empty() {
            statuses.wake.notified().await;
            continue;
        }
        let mut refused = Vec::new();
        for ((kind, key), Wanted { version, status }) in due {
            let wanted = Wanted { status: known(kind, status, &statuses.unknown.lock()), version };
            let result = patch(&client, kind, &key, &wanted).await;
            let fields = unknown(kind, &wanted.status, &result);
            statuses.unknown.lock().extend(fields.into_iter().map(|field| (kind, field)));
            match result {
                Ok(_) => {}
                // Somebody else has written it, such as the controller of another Gateway of the route: what follows from that comes with the change.
                Err(client::kube::Error::Api(told)) if told.code == 409 => {}
                Err(error) => {
                    tracing::debug!(%key, error = client::why(&error), "a status cannot be written yet");
                    refused.push(((kind, key), wanted));
                }
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

/// A status without the fields that are not known.
fn known(kind: Kind, mut status: Value, unknown: &BTreeSet<(Kind, String)>) -> Value {
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|field, _| !unknown.contains(&(kind, field.clone())));
    }
    status
}

/// The fields of a status that are not there after it was written. A list of features has had another form in experimental definitions, which refuse it.
fn unknown(kind: Kind, status: &Value, result: &client::kube::Result<Value>) -> Vec<String> {
    match result {
        Ok(object) if object["status"].is_object() => {
            let fields = status.as_object().into_iter().flat_map(|fields| fields.keys());
            fields.filter(|field| object["status"].get(field.as_str()).is_none()).cloned().collect()
        }
        Err(client::kube::Error::Api(told)) if told.code == 422 && kind == Kind::GatewayClass => {
            vec!["supportedFeatures".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// Writes a status, unless the object has changed: lists are written whole, and others have a part of them. What the object is then, null when it is gone.
async fn patch(client: &Client, kind: Kind, key: &Key, wanted: &Wanted) -> client::kube::Result<Value> {
    let mut body = json!({"status": wanted.status});
    if let Some(version) = &wanted.version {
        body["metadata"] = json!({"resourceVersion": version});
    }
    let body = body.to_string().into_bytes();
    let namespace = key.namespace.as_ref().map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
    // What is not there in one version may be there in another; what is in none is gone.
    for version in kind.versions() {
        let path = format!("/apis/{GROUP}/{version}/{namespace}{}/{}/status", kind.plural(), key.name);
        let request = http::Request::patch(path)
            .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
            .body(body.clone())
            .map_err(client::kube::Error::HttpError)?;
        match client.request::<Value>(request).await {
            Err(client::kube::Error::Api(status)) if status.code == 404 => {}
            other => return other,
        }
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A definition before GEP-2162 prunes the features; an experimental one of then has a list of names.
    #[test]
    fn fields_that_definitions_do_not_have() {
        let status = json!({"conditions": [], "supportedFeatures": []});
        let refused = |code| Err(client::kube::Error::Api(Box::new(client::kube::core::Status { code, ..Default::default() })));
        let of = |kind, result| unknown(kind, &status, &result);
        assert_eq!(of(Kind::GatewayClass, Ok(json!({"status": status}))), [""; 0]);
        assert_eq!(of(Kind::GatewayClass, Ok(json!({"status": {"conditions": []}}))), ["supportedFeatures"]);
        assert_eq!(of(Kind::GatewayClass, Ok(Value::Null)), [""; 0], "it is gone");
        assert_eq!(of(Kind::GatewayClass, refused(422)), ["supportedFeatures"]);
        assert_eq!(of(Kind::GatewayClass, refused(409)), [""; 0]);
        assert_eq!(of(Kind::Gateway, refused(422)), [""; 0]);
        let fields = [(Kind::GatewayClass, "supportedFeatures".to_owned())].into();
        assert_eq!(known(Kind::GatewayClass, status.clone(), &fields), json!({"conditions": []}));
        assert_eq!(known(Kind::Gateway, status.clone(), &fields), status);
    }

    #[test]
    fn times() {
        assert!(now().ends_with('Z') && now().len() == "2026-01-01T00:00:00Z".len(), "{}", now());
    }
}

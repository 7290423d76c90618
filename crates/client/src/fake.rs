//! A small API server in memory, for tests of components: every resource path, no kinds, no validation.
//!
//! It knows get, list, watch (also streaming lists and bookmarks), create with `generateName`, update, patch (merge,
//! strategic as far as components use it, JSON patch refused), delete with finalizers and preconditions, the `status`
//! subresource, `nodes/proxy` (every kubelet says yes), `pods/binding`, `pods/eviction`, `namespaces/finalize`, field and label
//! selectors, metadata-only
//! reads and discovery.

mod api;
mod db;
mod path;
mod selector;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use codec::Decode;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde::Serialize;
use serde_json::Value;

use db::Db;

/// One request that the fake has served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub path: String,
}

/// The fake server. Cheap to clone; clones share their objects.
#[derive(Clone, Default)]
pub struct Fake {
    db: Arc<Db>,
}

impl Fake {
    /// A client of this server. To be called within a tokio runtime.
    pub fn client(&self) -> Client {
        Client::new(self.clone(), "default")
    }

    /// Puts `object` in as it is, without an API call. Its kind and metadata say where.
    pub fn put<K: kube::Resource<DynamicType = ()> + Serialize>(&self, object: &K) {
        let mut value = serde_json::to_value(object).unwrap_or_default();
        value["apiVersion"] = Value::from(K::api_version(&()).into_owned());
        value["kind"] = Value::from(K::kind(&()).into_owned());
        let place = path::Place {
            group: K::group(&()).into_owned(),
            version: K::version(&()).into_owned(),
            resource: K::plural(&()).into_owned(),
            namespace: object.meta().namespace.clone(),
        };
        self.db.put(&place, value);
    }

    /// Objects of a kind as they are stored.
    pub fn all<K: kube::Resource<DynamicType = ()> + Decode>(&self) -> Vec<K> {
        let place = path::Place {
            group: K::group(&()).into_owned(),
            version: K::version(&()).into_owned(),
            resource: K::plural(&()).into_owned(),
            namespace: None,
        };
        self.db.list(&place).into_iter().filter_map(|value| K::from_tree(&value).ok()).collect()
    }

    /// Announces a resource in discovery: group, version, plural, kind, namespaced.
    pub fn serve(&self, group: &str, version: &str, plural: &str, kind: &str, namespaced: bool) {
        self.db.serve(group, version, plural, kind, namespaced);
    }

    /// A version of a resource is served no more: requests for it are answered with 404, and watches of it end.
    pub fn withdraw(&self, group: &str, version: &str, plural: &str) {
        self.db.withdraw(group, version, plural);
    }

    /// Returns when so many requests were refused because what they are for was withdrawn.
    pub async fn until_refused(&self, times: usize) {
        // The sender lives in self.
        let _ = self.db.refused().wait_for(|count| *count >= times).await;
    }

    /// The writes that were made through the API so far, in order.
    pub fn writes(&self) -> Vec<Call> {
        self.db.writes()
    }

    /// Returns when `condition` holds for the objects of a kind; woken by every write.
    pub async fn until<K>(&self, mut condition: impl FnMut(&[K]) -> bool)
    where
        K: kube::Resource<DynamicType = ()> + Decode,
    {
        let mut version = self.db.subscribe();
        while !condition(&self.all::<K>()) {
            // The sender lives in self.
            let _ = version.changed().await;
        }
    }
}

impl tower::Service<Request<Body>> for Fake {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let db = self.db.clone();
        Box::pin(async move { Ok(api::serve(db, request).await) })
    }
}

/// The body of an answer: whole, or a watch that goes on.
pub type Answer = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, Infallible>;

//! Watches on single ConfigMaps and Secrets, shared by the pods that refer to them.
//!
//! A node may read only what its pods refer to, so nothing is listed: each reference is a watch on one name, which
//! lives as long as some pod holds it. ClusterTrustBundles are for everybody: there is one watch of all of them, while some pod refers to any.

mod budget;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::future::{self, Future};
use std::sync::{Arc, Weak};

use base::tasks::{OnFailure, Tasks};
use client::Object;
use client::watch::{Event, Watch};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::budget::{Budget, Place};
use crate::env::Objects;
use crate::spec::{Member, Model, Role};

/// What is known of a referenced object.
#[derive(Debug)]
pub enum View<K> {
    /// Nothing yet, and why when it could not be read.
    Unknown(Option<Unread>),
    /// It does not exist.
    Absent,
    /// It exists.
    Present(Arc<K>),
}

/// What a pod refers to, by name or as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The ConfigMap of this name.
    ConfigMap(String),
    /// The Secret of this name.
    Secret(String),
    /// All ConfigMaps and Secrets of the pod.
    Both,
    /// All ClusterTrustBundles.
    TrustBundles,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigMap(name) => write!(f, "ConfigMap {name:?}"),
            Self::Secret(name) => write!(f, "Secret {name:?}"),
            Self::Both => f.write_str("ConfigMaps and Secrets"),
            Self::TrustBundles => f.write_str("ClusterTrustBundles"),
        }
    }
}

/// What cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {what}: {why}")]
pub struct Unread {
    /// What.
    pub what: Subject,
    /// Why.
    pub why: String,
}

struct Entry<K> {
    view: watch::Sender<View<K>>,
    listeners: Mutex<Vec<Weak<Notify>>>,
    token: CancellationToken,
    _place: Place,
}

impl<K> Drop for Entry<K> {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl<K> Entry<K> {
    fn set(&self, view: View<K>) {
        self.view.send_replace(view);
        self.listeners.lock().retain(|listener| {
            listener.upgrade().is_some_and(|notify| {
                notify.notify_one();
                true
            })
        });
    }

    fn present(&self) -> Option<Arc<K>> {
        match &*self.view.borrow() {
            View::Present(object) => Some(object.clone()),
            _ => None,
        }
    }

    /// Waits until the object was read, or could not be.
    async fn known(&self) -> Result<(), Unread> {
        let mut receiver = self.view.subscribe();
        let view = receiver.wait_for(|view| !matches!(view, View::Unknown(None))).await;
        match view.as_deref() {
            Ok(View::Unknown(Some(error))) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

type Shared<K> = Arc<Mutex<HashMap<(String, String), Weak<Entry<K>>>>>;
/// By name.
type Bundles = BTreeMap<String, ClusterTrustBundle>;

/// Most ConfigMaps and Secrets that one pod may refer to: with more it would leave too little to the others ([`budget`]).
const OF_POD: usize = 250;

/// All watches of one kubelet.
#[derive(Clone)]
pub struct References {
    client: kube::Client,
    tasks: Tasks,
    config_maps: Shared<ConfigMap>,
    secrets: Shared<Secret>,
    bundles: Shared<Bundles>,
    budget: Arc<Budget>,
}

impl References {
    /// Watches with `client`, under `tasks`.
    pub fn new(client: kube::Client, tasks: Tasks) -> Self {
        Self {
            client,
            tasks,
            config_maps: Arc::default(),
            secrets: Arc::default(),
            bundles: Arc::default(),
            budget: Arc::default(),
        }
    }

    /// The references of one pod. `changed` is notified when one of them changes, or when there is room for those that had none. Where ephemeral
    /// containers make them too many, it is theirs that are not read.
    pub fn of_pod(&self, model: &Model, changed: &Arc<Notify>) -> PodReferences {
        let lasting = Names::of(pods::references::References::lasting(&model.pod));
        if lasting.count() > OF_POD {
            return PodReferences { refused: Some(lasting.refused()), ..PodReferences::default() };
        }
        // Once for a pod: it may refer to more objects than can be looked at for each of them.
        forget_unused(&self.config_maps);
        forget_unused(&self.secrets);
        forget_unused(&self.bundles);
        let _turn = self.budget.turn.lock();
        let all = Names::of(pods::references::References::of(&model.pod));
        let (namespace, count, is_too_many) = (model.namespace(), all.count(), all.count() > OF_POD);
        let room = |names: &Names| {
            let told = self.budget.has(count, self.missing(names, namespace), changed);
            told.map_err(|why| Unread { what: Subject::Both, why })
        };
        if let Err(unread) = room(&lasting) {
            return PodReferences { refused: Some(unread), waits: true, ..PodReferences::default() };
        }
        let refused = is_too_many.then(|| all.refused());
        let late = all.without(&lasting);
        let bundles = lasting.bundles.then(|| self.all_bundles(changed));
        let lasting = self.hold(lasting, namespace, changed);
        let late = match refused {
            Some(unread) => Err((unread, false)),
            None => room(&late).map_err(|unread| (unread, true)).map(|()| self.hold(late, namespace, changed)),
        };
        match late {
            Ok(late) => PodReferences { lasting, late, bundles, ..PodReferences::default() },
            Err((unread, waits)) => {
                PodReferences { lasting, bundles, late_refused: Some(unread), waits, ..PodReferences::default() }
            }
        }
    }

    /// How many of them nobody watches yet.
    fn missing(&self, names: &Names, namespace: &str) -> usize {
        fn of<K>(shared: &Shared<K>, names: &BTreeSet<String>, namespace: &str) -> usize {
            let entries = shared.lock();
            let is_held = |name: &&String| {
                entries.get(&(namespace.to_owned(), (*name).clone())).is_some_and(|entry| entry.strong_count() > 0)
            };
            names.len() - names.iter().filter(is_held).count()
        }
        of(&self.config_maps, &names.config_maps, namespace) + of(&self.secrets, &names.secrets, namespace)
    }

    fn hold(&self, names: Names, namespace: &str, changed: &Arc<Notify>) -> Held {
        let map = |name: String| {
            let entry = self.entry(&self.config_maps, (namespace, &name), Subject::ConfigMap(name.clone()), changed);
            (name, entry)
        };
        let secret = |name: String| {
            let entry = self.entry(&self.secrets, (namespace, &name), Subject::Secret(name.clone()), changed);
            (name, entry)
        };
        let config_maps = names.config_maps.into_iter().map(map).collect();
        Held { config_maps, secrets: names.secrets.into_iter().map(secret).collect() }
    }

    fn entry<K>(&self, shared: &Shared<K>, (namespace, name): (&str, &str), what: Subject, changed: &Arc<Notify>) -> Arc<Entry<K>>
    where
        K: Object + kube::Resource<Scope = NamespaceResourceScope>,
    {
        let title = format!("watch of {} {namespace}/{name}", K::kind(&()));
        self.shared(shared, (namespace, name), title, changed, |entry| {
            let watch = Watch::new(self.client.clone(), K::url_path(&(), Some(namespace)), &format!("metadata.name={name}"));
            follow(watch, what, entry)
        })
    }

    fn all_bundles(&self, changed: &Arc<Notify>) -> Arc<Entry<Bundles>> {
        self.shared(&self.bundles, ("", ""), "watch of ClusterTrustBundles".to_owned(), changed, |entry| {
            follow_all(Watch::new(self.client.clone(), <ClusterTrustBundle as kube::Resource>::url_path(&(), None), ""), entry)
        })
    }

    /// The entry of a key, with the task that keeps it current for as long as somebody holds it.
    fn shared<K: Send + Sync + 'static, F: Future<Output = ()> + Send + 'static>(
        &self,
        shared: &Shared<K>,
        (namespace, name): (&str, &str),
        title: String,
        changed: &Arc<Notify>,
        follow: impl FnOnce(Weak<Entry<K>>) -> F,
    ) -> Arc<Entry<K>> {
        let mut entries = shared.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let entry = entries.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let token = self.tasks.token().child_token();
            let entry = Arc::new(Entry {
                view: watch::Sender::new(View::Unknown(None)),
                listeners: Mutex::default(),
                token: token.clone(),
                _place: self.budget.take(),
            });
            entries.insert(key, Arc::downgrade(&entry));
            let task = follow(Arc::downgrade(&entry));
            self.tasks.spawn(title, OnFailure::Log, async move {
                token.run_until_cancelled(task).await;
                Ok::<_, std::convert::Infallible>(())
            });
            entry
        });
        let mut listeners = entry.listeners.lock();
        // Pods come and go while an object stays as it is.
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(changed));
        drop(listeners);
        entry
    }
}

/// Forgets what no pod holds any more.
fn forget_unused<K>(shared: &Shared<K>) {
    shared.lock().retain(|_, entry| entry.strong_count() > 0);
}

async fn follow<K: Object>(watch: Watch, what: Subject, entry: Weak<Entry<K>>) {
    let mut events = std::pin::pin!(watch.events::<K>());
    let mut found = None;
    while let Some(event) = events.next().await {
        let Some(entry) = entry.upgrade() else { return };
        match event {
            Ok(Event::Init) => found = None,
            Ok(Event::InitApply(object)) => found = Some(Arc::new(object)),
            Ok(Event::InitDone(_)) => entry.set(found.take().map_or(View::Absent, View::Present)),
            Ok(Event::Apply(object)) => entry.set(View::Present(Arc::new(object))),
            Ok(Event::Delete(_)) => entry.set(View::Absent),
            Err(error) => {
                // An object that was read stays readable while the API is away.
                if matches!(&*entry.view.borrow(), View::Present(_) | View::Absent) {
                    continue;
                }
                entry.set(View::Unknown(Some(Unread { what: what.clone(), why: error.to_string() })));
            }
        }
    }
}

async fn follow_all(watch: Watch, entry: Weak<Entry<Bundles>>) {
    let mut events = std::pin::pin!(watch.events::<ClusterTrustBundle>());
    let mut all = Bundles::new();
    let mut is_listing = true;
    while let Some(event) = events.next().await {
        let Some(entry) = entry.upgrade() else { return };
        let named = |bundle: ClusterTrustBundle| (bundle.metadata.name.clone().unwrap_or_default(), bundle);
        match event {
            Ok(Event::Init) => (is_listing, all) = (true, Bundles::new()),
            Ok(Event::InitDone(_)) => is_listing = false,
            Ok(Event::InitApply(bundle) | Event::Apply(bundle)) => all.extend([named(bundle)]),
            Ok(Event::Delete(bundle)) => drop(all.remove(&named(bundle).0)),
            Err(error) => {
                if !matches!(&*entry.view.borrow(), View::Present(_)) {
                    entry.set(View::Unknown(Some(Unread { what: Subject::TrustBundles, why: error.to_string() })));
                }
                continue;
            }
        }
        if !is_listing {
            entry.set(View::Present(Arc::new(all.clone())));
        }
    }
}

/// Names of ConfigMaps and Secrets, and whether there are ClusterTrustBundles beside them.
struct Names {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
    bundles: bool,
}

impl Names {
    fn of(all: pods::references::References) -> Self {
        Self { config_maps: all.config_maps, secrets: all.secrets, bundles: all.trust_bundles }
    }

    fn count(&self) -> usize {
        self.config_maps.len() + self.secrets.len()
    }

    fn without(self, others: &Self) -> Self {
        Self { config_maps: &self.config_maps - &others.config_maps, secrets: &self.secrets - &others.secrets, ..self }
    }

    fn refused(&self) -> Unread {
        let why = format!("the pod refers to {} of them, and a node reads at most {OF_POD} for one pod", self.count());
        Unread { what: Subject::Both, why }
    }
}

/// Objects by name.
#[derive(Default)]
struct Held {
    config_maps: BTreeMap<String, Arc<Entry<ConfigMap>>>,
    secrets: BTreeMap<String, Arc<Entry<Secret>>>,
}

/// Ends when an object was read, or could not be.
type Known<'a> = BoxFuture<'a, Result<(), Unread>>;

impl Held {
    /// One of each object, in their order.
    fn each_known(&self) -> impl Iterator<Item = Known<'_>> {
        let config_maps = self.config_maps.values().map(|entry| entry.known().boxed());
        config_maps.chain(self.secrets.values().map(|entry| entry.known().boxed()))
    }
}

/// Returns when all of them have been read, or says which is the first that cannot be.
async fn all_known(each: impl Iterator<Item = Known<'_>>) -> Result<(), Unread> {
    for known in each {
        known.await?;
    }
    Ok(())
}

/// What one pod refers to.
#[derive(Default)]
pub struct PodReferences {
    lasting: Held,
    /// What only ephemeral containers refer to.
    late: Held,
    bundles: Option<Arc<Entry<Bundles>>>,
    /// Why nothing of all that is read.
    refused: Option<Unread>,
    /// Why nothing is read that only ephemeral containers refer to.
    late_refused: Option<Unread>,
    /// Whether that is so for want of room.
    waits: bool,
}

impl PodReferences {
    /// Whether there may be room some time for what is not read.
    pub fn wait_for_room(&self) -> bool {
        self.waits
    }

    /// Returns when all of them have been read that the pod has for all its life, or says why one cannot be. Ephemeral containers hold up nothing
    /// but themselves.
    pub async fn known(&self) -> Result<(), Unread> {
        all_known(self.each_known()).await
    }

    /// One of all that the pod has for all its life.
    fn each_known(&self) -> impl Iterator<Item = Known<'_>> {
        let refused = self.refused.clone().map(|unread| future::ready(Err(unread)).boxed());
        let held = self.lasting.each_known().chain(self.bundles.iter().map(|entry| entry.known().boxed()));
        // What is refused as a whole holds nothing.
        refused.into_iter().chain(held)
    }

    /// Waits in the same way, and lists all that cannot be read: one object that is refused says nothing of the others.
    pub async fn unread(&self) -> Vec<Unread> {
        let mut all = Vec::new();
        for known in self.each_known() {
            all.extend(known.await.err());
        }
        all
    }

    /// As [`Self::known`], for what the container starts with.
    pub async fn known_to(&self, member: &Member) -> Result<(), Unread> {
        self.known().await?;
        if member.role != Role::Ephemeral {
            return Ok(());
        }
        let own = Names::of(pods::references::References::of_variables(&member.spec));
        let is_late = own.config_maps.iter().any(|name| !self.lasting.config_maps.contains_key(name))
            || own.secrets.iter().any(|name| !self.lasting.secrets.contains_key(name));
        match &self.late_refused {
            Some(unread) if is_late => Err(unread.clone()),
            _ if is_late => all_known(self.late.each_known()).await,
            _ => Ok(()),
        }
    }
}

impl Objects for PodReferences {
    fn config_map(&self, name: &str) -> Option<Arc<ConfigMap>> {
        self.lasting.config_maps.get(name).or_else(|| self.late.config_maps.get(name))?.present()
    }

    fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.lasting.secrets.get(name).or_else(|| self.late.secrets.get(name))?.present()
    }

    fn trust_bundles(&self) -> Arc<Bundles> {
        self.bundles.as_ref().and_then(|entry| entry.present()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;

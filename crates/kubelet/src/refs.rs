//! Watches on single ConfigMaps and Secrets, shared by the pods that refer to them.
//!
//! A node may read only what its pods refer to, so nothing is listed: each reference is a watch on one name, which
//! lives as long as some pod holds it. ClusterTrustBundles are for everybody: there is one watch of all of them, while some pod refers to any.

mod budget;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Weak};

use base::tasks::{OnFailure, Tasks};
use client::Object;
use client::watch::{Event, Watch};
use futures::StreamExt;
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

/// An object, or all of a kind, that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {kind}{name}: {why}", name = if name.is_empty() { "s".to_owned() } else { format!(" {name:?}") })]
pub struct Unread {
    /// The kind.
    pub kind: &'static str,
    /// Its name; empty is all of the kind.
    pub name: String,
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
            told.map_err(|why| Unread { kind: "ConfigMaps and Secret", name: String::new(), why })
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
        let maps = names.config_maps.into_iter();
        let maps = maps.map(|name| (name.clone(), self.entry(&self.config_maps, namespace, &name, changed))).collect();
        let secrets = names.secrets.into_iter();
        let secrets = secrets.map(|name| (name.clone(), self.entry(&self.secrets, namespace, &name, changed))).collect();
        Held { config_maps: maps, secrets }
    }

    fn entry<K>(&self, shared: &Shared<K>, namespace: &str, name: &str, changed: &Arc<Notify>) -> Arc<Entry<K>>
    where
        K: Object + kube::Resource<Scope = NamespaceResourceScope> + k8s_openapi::Resource,
    {
        let title = format!("watch of {} {namespace}/{name}", K::kind(&()));
        self.shared(shared, (namespace, name), title, changed, |entry| {
            let watch = Watch::new(self.client.clone(), K::url_path(&(), Some(namespace)), &format!("metadata.name={name}"));
            follow(watch, K::KIND, name.to_owned(), entry)
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

async fn follow<K: Object>(watch: Watch, kind: &'static str, name: String, entry: Weak<Entry<K>>) {
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
                let (kind, name, why) = (kind, name.clone(), error.to_string());
                entry.set(View::Unknown(Some(Unread { kind, name, why })));
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
                    let unread = Unread { kind: "ClusterTrustBundle", name: String::new(), why: error.to_string() };
                    entry.set(View::Unknown(Some(unread)));
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
        Unread { kind: "ConfigMaps and Secret", name: String::new(), why }
    }
}

/// Objects by name.
#[derive(Default)]
struct Held {
    config_maps: BTreeMap<String, Arc<Entry<ConfigMap>>>,
    secrets: BTreeMap<String, Arc<Entry<Secret>>>,
}

impl Held {
    async fn known(&self) -> Result<(), Unread> {
        for entry in self.config_maps.values() {
            entry.known().await?;
        }
        for entry in self.secrets.values() {
            entry.known().await?;
        }
        Ok(())
    }
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
        if let Some(unread) = &self.refused {
            return Err(unread.clone());
        }
        self.lasting.known().await?;
        match &self.bundles {
            Some(entry) => entry.known().await,
            None => Ok(()),
        }
    }

    /// Waits in the same way, and lists all that cannot be read: one object that is refused says nothing of the others.
    pub async fn unread(&self) -> Vec<Unread> {
        if let Some(unread) = &self.refused {
            return vec![unread.clone()];
        }
        let mut all = Vec::new();
        for entry in self.lasting.config_maps.values() {
            all.extend(entry.known().await.err());
        }
        for entry in self.lasting.secrets.values() {
            all.extend(entry.known().await.err());
        }
        if let Some(entry) = &self.bundles {
            all.extend(entry.known().await.err());
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
            _ if is_late => self.late.known().await,
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
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn pods_that_are_gone_do_not_listen() {
        let (tasks, _failures) = Tasks::root();
        let references = References::new(client::fake::Fake::default().client(), tasks);
        let pod = json!({"metadata": {"namespace": "n"}, "spec": {"imagePullSecrets": [{"name": "s"}], "containers": []}});
        let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let stays = Arc::new(Notify::new());
        let held = references.of_pod(&model, &stays);
        for _ in 0..10 {
            references.of_pod(&model, &Arc::new(Notify::new()));
        }
        assert!(held.lasting.secrets["s"].listeners.lock().len() <= 2);
    }

    /// A pod has room for more references than can be looked at for each of them.
    #[tokio::test]
    async fn more_references_than_others_can_do_without_are_refused() {
        let (tasks, _failures) = Tasks::root();
        let references = References::new(client::fake::Fake::default().client(), tasks);
        let many = 40_000;
        let secrets: Vec<_> = (0..many).map(|number| json!({"name": format!("s{number}")})).collect();
        let pod = json!({"metadata": {"namespace": "n"}, "spec": {"imagePullSecrets": secrets, "containers": []}});
        let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let begin = std::time::Instant::now();
        let held = references.of_pod(&model, &Arc::new(Notify::new()));
        let refused = held.known().await.unwrap_err().to_string();
        let expected =
            "cannot read ConfigMaps and Secrets: the pod refers to 40000 of them, and a node reads at most 250 for one pod";
        assert_eq!((refused.as_str(), references.secrets.lock().len()), (expected, 0));
        assert!(begin.elapsed() < std::time::Duration::from_secs(20), "each was compared with each: {:?}", begin.elapsed());
    }

    /// A pod that runs keeps what it has whatever somebody debugs it with.
    #[tokio::test]
    async fn ephemeral_containers_are_refused_alone() {
        let (tasks, _failures) = Tasks::root();
        let references = References::new(client::fake::Fake::default().client(), tasks);
        let from = |range: std::ops::Range<usize>| -> Vec<_> {
            range.map(|number| json!({"secretRef": {"name": format!("s{number}")}})).collect()
        };
        let pod = |debugger: std::ops::Range<usize>| {
            let pod = json!({"metadata": {"namespace": "n"}, "spec": {
                "containers": [{"name": "app", "envFrom": from(0..200)}],
                "ephemeralContainers": [{"name": "few", "envFrom": from(0..2)}, {"name": "many", "envFrom": from(debugger)}]}});
            Model::new(Arc::new(serde_json::from_value(pod).unwrap()))
        };
        let check = |debugger: std::ops::Range<usize>, expected: usize, refused: &[&str]| {
            let model = pod(debugger);
            let held = references.of_pod(&model, &Arc::new(Notify::new()));
            assert_eq!((held.lasting.secrets.len(), held.late.secrets.len()), (200, expected));
            // What the pod has for all its life has been read, and nothing else.
            held.lasting.secrets.values().for_each(|entry| entry.set(View::Absent));
            for member in &*model.members {
                let known = futures::FutureExt::now_or_never(tokio::task::unconstrained(held.known_to(member)));
                let name = member.spec.name.as_str();
                match &known {
                    Some(Ok(())) => assert_ne!(name, "many"),
                    Some(Err(unread)) => assert!(unread.to_string().contains("at most 250"), "{unread}"),
                    None => assert_eq!(name, "many"),
                }
                assert_eq!(matches!(known, Some(Err(_))), refused.contains(&name), "{name}: {known:?}");
            }
        };
        check(150..250, 50, &[]);
        check(150..251, 0, &["many"]);
    }
}

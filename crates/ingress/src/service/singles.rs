//! Watches on single objects that somebody refers to, Secrets and ConfigMaps, one for each name: no other is read.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use base::tasks::{OnFailure, Tasks};
use client::kube::Resource;
use client::kube::core::NamespaceResourceScope;
use client::watch::{Event, Watch};
use client::{Client, Key};
use codec::Decode;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Changes that wait to be taken; watches wait when there are more.
const QUEUE: usize = 256;

type News<K> = (Key, Option<Arc<K>>);

/// What can be followed so.
pub(super) trait Single:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Decode + Send + Sync + 'static
{
}

impl<K> Single for K where K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Decode + Send + Sync + 'static {}

/// The objects of a kind that somebody refers to.
pub(super) struct Singles<K> {
    client: Client,
    tasks: Tasks,
    watched: BTreeMap<Key, Watched>,
    sender: mpsc::Sender<News<K>>,
    receiver: mpsc::Receiver<News<K>>,
}

struct Watched {
    token: CancellationToken,
    known: bool,
}

impl<K: Single> Singles<K> {
    pub(super) fn new(client: Client, tasks: Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { client, tasks, watched: BTreeMap::new(), sender, receiver }
    }

    /// Watches these and no others; those that are no longer watched.
    pub(super) fn want(&mut self, wanted: &BTreeSet<Key>) -> Vec<Key> {
        let gone: Vec<Key> = self.watched.keys().filter(|key| !wanted.contains(*key)).cloned().collect();
        for key in &gone {
            if let Some(watched) = self.watched.remove(key) {
                watched.token.cancel();
            }
        }
        for key in wanted {
            if !self.watched.contains_key(key) {
                let token = self.watch(key);
                self.watched.insert(key.clone(), Watched { token, known: false });
            }
        }
        gone
    }

    /// The next object that is there, changed or gone.
    pub(super) async fn next(&mut self) -> News<K> {
        loop {
            // The sender lives in self.
            let Some(news) = self.receiver.recv().await else { std::future::pending().await };
            if self.is_news(&news) {
                return news;
            }
        }
    }

    /// The next one when there is one now.
    pub(super) fn try_next(&mut self) -> Option<News<K>> {
        loop {
            let news = self.receiver.try_recv().ok()?;
            if self.is_news(&news) {
                return Some(news);
            }
        }
    }

    /// Whether everyone was looked for.
    pub(super) fn all_known(&self) -> bool {
        self.watched.values().all(|watched| watched.known)
    }

    /// What comes of a watch that has just ended is nobody's business.
    fn is_news(&mut self, (key, _): &News<K>) -> bool {
        self.watched.get_mut(key).map(|watched| watched.known = true).is_some()
    }

    fn watch(&self, key: &Key) -> CancellationToken {
        let token = self.tasks.token().child_token();
        let path = K::url_path(&(), key.namespace.as_deref());
        let watch = Watch::new(self.client.clone(), path, &format!("metadata.name={}", key.name));
        let (ended, follow) = (token.clone(), follow(watch, key.clone(), self.sender.clone()));
        self.tasks.spawn(format!("watch of {} {key}", K::kind(&())), OnFailure::Log, async move {
            ended.run_until_cancelled(follow).await;
            Ok::<_, Infallible>(())
        });
        token
    }
}

async fn follow<K: Single>(watch: Watch, key: Key, sender: mpsc::Sender<News<K>>) {
    let mut events = std::pin::pin!(watch.events::<K>());
    let mut found = None;
    while let Some(event) = events.next().await {
        let news = match event {
            Ok(Event::Init) => {
                found = None;
                continue;
            }
            Ok(Event::InitApply(object)) => {
                found = Some(Arc::new(object));
                continue;
            }
            Ok(Event::InitDone(_)) => found.take(),
            Ok(Event::Apply(object)) => Some(Arc::new(object)),
            Ok(Event::Delete(_)) => None,
            Err(error) => {
                tracing::debug!(%key, %error, "the watch of an object failed and begins again");
                continue;
            }
        };
        if sender.send((key.clone(), news)).await.is_err() {
            return;
        }
    }
}

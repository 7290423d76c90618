//! What a controller is.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::events::Recorder;
use client::{Change, Changes, Client, Informer, Key, Step, kube};
use futures::future::BoxFuture;

use crate::clock::Clock;
use crate::queue::Queue;

/// Brings the world of one key nearer to what is wanted.
///
/// `reconcile` gets a key, never an event: it reads the caches, decides by a pure function and applies the changes.
/// It may be called at any time, any number of times.
pub trait Controller: Send + Sync + Sized + 'static {
    /// For logs and metrics.
    const NAME: &'static str;
    /// The service account in `kube-system` whose rights it has. Upstream's names, so that upstream's roles apply.
    const ACCOUNT: &'static str;
    /// How many keys it works on at the same time.
    const CONCURRENCY: usize = 5;
    /// The longest time until it looks again at a key that fails.
    const RETRY_MAX: Duration = crate::queue::RETRY_MAX;

    /// What makes it look at which key.
    fn sources(&self) -> Vec<Source>;

    /// How long a key is not looked at again after a look, whatever happens to it: for keys of which one look is much work, and which change all
    /// the time.
    fn rest(&self, key: &Key) -> Duration {
        let _ = key;
        Duration::ZERO
    }

    /// Looks at one key. An error means: again, later and later.
    fn reconcile(&self, cx: &Cx, key: &Key) -> impl Future<Output = Result<Action, Error>> + Send;
}

/// What a controller works with.
#[derive(Clone)]
pub struct Cx {
    /// Writes with the controller's identity.
    pub client: Client,
    /// Tells users.
    pub events: Recorder,
    /// Tells the time.
    pub clock: Clock,
}

/// What follows a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until something changes.
    Done,
    /// Another look after this time.
    After(Duration),
}

impl Action {
    /// What was written has to be seen first. The cache tells of it, which leads to the next look; only what was gone again before the
    /// cache was listed anew is never told.
    pub(crate) const UNSEEN: Self = Self::After(Duration::from_secs(30));

    /// Another look after `delay`, if there is one.
    pub fn after(delay: Option<Duration>) -> Self {
        delay.map_or(Action::Done, Action::After)
    }
}

/// Why a reconciliation did not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the API answered, or why it did not.
    #[error("{}", client::why(.0))]
    Api(#[from] kube::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// The HTTP status of the API's answer, if there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// Something that makes a controller look at keys.
pub struct Source {
    /// Resolves when the source has delivered what was there at the start.
    pub(crate) synced: BoxFuture<'static, ()>,
    /// Puts keys into the queue, for ever.
    pub(crate) feed: Box<dyn FnOnce(Queue) -> BoxFuture<'static, ()> + Send>,
}

impl Source {
    /// The objects of an informer, each by its own key.
    pub fn own<K: client::Object>(informer: &Informer<K>) -> Self {
        Self::stepped(informer, |step, queue| queue.add(step.key().clone()))
    }

    /// An informer that is only read: its changes concern no key.
    pub(crate) fn read<K: client::Object>(informer: &Informer<K>) -> Self {
        let informer = informer.clone();
        Self { synced: Box::pin(async move { informer.synced().await }), feed: Box::new(|_| Box::pin(std::future::pending())) }
    }

    /// No changes: it hands the queue to a controller of which the look at one key leads to the look at another.
    pub(crate) fn handle(slot: &Arc<OnceLock<Queue>>) -> Self {
        let slot = slot.clone();
        let feed = move |queue: Queue| {
            slot.get_or_init(|| queue);
            Box::pin(std::future::pending()) as BoxFuture<'static, ()>
        };
        Self { synced: Box::pin(std::future::ready(())), feed: Box::new(feed) }
    }

    /// These keys, once.
    pub fn once(keys: Vec<Key>) -> Self {
        let feed = move |queue: Queue| {
            keys.into_iter().for_each(|key| queue.add(key));
            Box::pin(std::future::pending()) as BoxFuture<'static, ()>
        };
        Self { synced: Box::pin(std::future::ready(())), feed: Box::new(feed) }
    }

    /// The changes of an informer; `map` adds the keys that each concerns.
    pub fn mapped<K: client::Object>(informer: &Informer<K>, map: impl Fn(&Change<K>, &Queue) + Send + 'static) -> Self {
        Self::stepped(informer, move |step, queue| map(&step.change(), queue))
    }

    /// The same for a kind of which there are many: `map` decodes those that it needs.
    pub fn stepped<K: client::Object>(informer: &Informer<K>, map: impl Fn(&Step<K>, &Queue) + Send + 'static) -> Self {
        let mut changes = informer.changes();
        let informer = informer.clone();
        Self {
            synced: Box::pin(async move { informer.synced().await }),
            feed: Box::new(move |queue| Box::pin(async move { feed(&mut changes, &queue, map).await })),
        }
    }
}

async fn feed<K: client::Object>(changes: &mut Changes<K>, queue: &Queue, map: impl Fn(&Step<K>, &Queue)) {
    loop {
        let step = changes.next_step().await;
        map(&step, queue);
    }
}

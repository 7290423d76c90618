//! Objects that quotas only count, of whatever kind: how many there are, and when one goes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::pods::quota;
use client::kube::api::ListParams;
use client::kube::core::{ApiResource, DynamicObject};
use client::kube::{self, Api, Resource};
use client::watch::{self, Event};
use client::{Client, Informer, Key, metadata};
use futures::stream::{AbortHandle, SelectAll, abortable};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ResourceQuota;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use crate::controller::Error;
use crate::discovery::{Discovery, discover};
use crate::queue::Queue;

/// Group and plural.
type Name = (String, String);
type Watch = Pin<Box<dyn Stream<Item = (Name, Seen)> + Send>>;

/// How soon it is asked again whether a resource is served that quotas count.
pub(super) const RETRY: Duration = Duration::from_secs(30);

/// How soon, when it was served a moment ago, or when it was asked a moment ago about other names.
const SOON: Duration = Duration::from_secs(1);

/// What says what the API serves, as group, plural and kind.
const DEFINITIONS: [(&str, &str, &str); 2] = [
    ("apiextensions.k8s.io", "customresourcedefinitions", "CustomResourceDefinition"),
    ("apiregistration.k8s.io", "apiservices", "APIService"),
];

/// What a watch tells.
enum Seen {
    /// An object went in this namespace; none when it may be any.
    Gone(Option<String>),
    /// The resource is not served any more in the version that was watched. Nothing follows.
    Missing,
    /// The API may serve other resources than before.
    Served,
}

/// What was not found when the API was asked what it serves.
struct Learned {
    at: Instant,
    /// The group versions that did not answer.
    failures: Vec<String>,
}

pub(super) struct Others {
    client: Client,
    known: Mutex<HashMap<Name, ApiResource>>,
    /// The last answer. Counts wait here for one of them to ask. None when the API is to be asked again.
    learned: tokio::sync::Mutex<Option<Learned>>,
}

/// The group and plural of what is only counted under this name; what takes more than a number is counted elsewhere.
pub(super) fn counted(name: &str) -> Option<(&str, &str)> {
    let typed = |resource: &(&str, &str)| {
        matches!(*resource, ("", "pods" | "services" | "persistentvolumeclaims") | quota::devices::RESOURCE)
    };
    quota::counted(name).filter(|resource| !typed(resource))
}

impl Others {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default(), learned: tokio::sync::Mutex::default() }
    }

    /// The resource as the API serves it; None when it does not, or did not half a minute ago. An error when it is unknown whether it does.
    async fn resource(&self, group: &str, plural: &str) -> Result<Option<ApiResource>, Error> {
        let key = (group.to_owned(), plural.to_owned());
        let known = || self.known.lock().get(&key).cloned();
        if let Some(known) = known() {
            return Ok(Some(known));
        }
        let mut learned = self.learned.lock().await;
        if let Some(known) = known() {
            return Ok(Some(known));
        }
        // Names that nothing is served by cost no discovery at each count: quotas may have any.
        let last = match learned.take().filter(|last| last.at.elapsed() < RETRY) {
            Some(last) => last,
            None => self.discover().await?,
        };
        let last = learned.insert(last);
        let silent = last.failures.iter().find(|version| version.split_once('/').map_or("", |(group, _)| group) == group);
        match (known(), silent) {
            (None, Some(version)) => Err(Error::Other(format!("{plural}.{group} cannot be counted: no answer from {version}"))),
            (found, _) => Ok(found),
        }
    }

    /// Asks the API what it serves.
    async fn learn(&self) -> Result<(), Error> {
        let mut learned = self.learned.lock().await;
        *learned = Some(self.discover().await?);
        Ok(())
    }

    async fn discover(&self) -> Result<Learned, Error> {
        let at = Instant::now();
        let Discovery { resources, failures } = discover(&self.client).await?;
        let found = resources.into_iter().filter(|one| one.namespaced);
        self.known.lock().extend(found.map(|one| ((one.api.group.clone(), one.api.plural.clone()), one.api)));
        Ok(Learned { at, failures })
    }

    /// The resource is not served as it is known: the API is asked again.
    async fn forget(&self, group: &str, plural: &str) {
        let mut learned = self.learned.lock().await;
        self.known.lock().remove(&(group.to_owned(), plural.to_owned()));
        *learned = None;
    }

    /// How many objects the namespace has. The API counts them: one is read.
    pub(super) async fn count(&self, namespace: &str, group: &str, plural: &str) -> Result<i64, Error> {
        for _ in 0..2 {
            let Some(resource) = self.resource(group, plural).await? else { break };
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
            match api.list_metadata(&ListParams::default().limit(1)).await {
                Ok(list) => {
                    let more = list.metadata.remaining_item_count.unwrap_or(0);
                    return Ok(i64::try_from(list.items.len()).unwrap_or(0).saturating_add(more));
                }
                // It may be served in another version by now.
                Err(kube::Error::Api(status)) if status.is_not_found() => self.forget(group, plural).await,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(0)
    }

    /// Enqueues quotas when objects go that they count, and when such objects are served for the first time, for ever.
    pub(super) async fn follow(&self, quotas: &Informer<ResourceQuota>, queue: &Queue) {
        let (mut changes, mut followed) = (quotas.changes(), Followed::default());
        let (mut again, mut asked) = (None, None);
        loop {
            tokio::select! {
                change = changes.next() => {
                    let names = |quota: Option<Arc<ResourceQuota>>| quota.as_deref().map(super::numbered_of).unwrap_or_default();
                    let (old, new) = (names(change.old), names(change.new));
                    if followed.add(&new) {
                        again = Some(soonest(asked, Instant::now()));
                    }
                    if !old.is_subset(&new) {
                        followed.keep(&quotas.list().iter().flat_map(|quota| super::numbered_of(quota)).collect());
                        again = again.filter(|_| !followed.unwatched.is_empty());
                    }
                }
                Some((name, seen)) = followed.next(), if followed.has_more() => {
                    let namespace = match seen {
                        Seen::Gone(namespace) => namespace,
                        Seen::Served => {
                            again = again.map(|again: Instant| again.min(soonest(asked, Instant::now())));
                            continue;
                        }
                        Seen::Missing => {
                            followed.during(self.forget(&name.0, &name.1)).await;
                            followed.lost(&name);
                            again = Some(Instant::now() + SOON);
                            None
                        }
                    };
                    let quotas = namespace.map_or_else(|| quotas.list(), |namespace| quotas.in_namespace(&namespace));
                    let concerned = quotas.iter().filter(|quota| super::numbered_of(quota).contains(&name));
                    concerned.for_each(|quota| queue.add(Key::of(quota.as_ref())));
                }
                () = until(again) => {
                    // Once for all of them. What is not known then is asked for again.
                    let is_known = |name: &Name| self.known.lock().contains_key(name);
                    if !followed.unwatched.iter().all(is_known) {
                        asked = Some(Instant::now());
                        if let Err(error) = followed.during(self.learn()).await {
                            tracing::debug!(%error, "discovery failed, again later");
                        }
                    }
                    followed.watch(&self.client, &self.known.lock());
                    again = (!followed.unwatched.is_empty()).then(|| Instant::now() + RETRY);
                }
            }
        }
    }
}

/// What quotas count, and the watches that are open for that.
#[derive(Default)]
struct Followed {
    watches: SelectAll<Watch>,
    /// What they have told during other requests.
    told: VecDeque<(Name, Seen)>,
    /// What is watched, with what ends the watch.
    watched: BTreeMap<Name, AbortHandle>,
    /// What is not: nothing that is served is known by these names.
    unwatched: BTreeSet<Name>,
    /// What ends the watches of what says what the API serves. They are open while anything is unwatched: who counts what is not served wants to
    /// know when it is.
    definitions: Vec<AbortHandle>,
}

impl Followed {
    fn has_more(&self) -> bool {
        !self.told.is_empty() || !self.watches.is_empty()
    }

    async fn next(&mut self) -> Option<(Name, Seen)> {
        match self.told.pop_front() {
            Some(told) => Some(told),
            None => self.watches.next().await,
        }
    }

    /// Waits for other requests of the client. The watches go on meanwhile: one that nobody polls may keep its turn among the client's
    /// requests, and those behind it would wait for ever.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                output = &mut work => return output,
                Some(told) = self.watches.next(), if !self.watches.is_empty() => self.told.push_back(told),
            }
        }
    }

    /// Takes names that a quota counts. Whether there is a new one among them.
    fn add(&mut self, names: &BTreeSet<Name>) -> bool {
        let before = self.unwatched.len();
        self.unwatched.extend(names.iter().filter(|name| !self.watched.contains_key(*name)).cloned());
        self.unwatched.len() > before
    }

    /// No other names are counted any more.
    fn keep(&mut self, names: &BTreeSet<Name>) {
        self.unwatched.retain(|name| names.contains(name));
        self.watched.extract_if(.., |name, _| !names.contains(name)).for_each(|(_, end)| end.abort());
        self.rest();
    }

    /// A resource is not served any more, and its watch has ended.
    fn lost(&mut self, name: &Name) {
        if self.watched.remove(name).is_some() {
            self.unwatched.insert(name.clone());
        }
    }

    /// Watches what is known by now, and what tells of the rest.
    fn watch(&mut self, client: &Client, known: &HashMap<Name, ApiResource>) {
        for name in self.unwatched.extract_if(.., |name| known.contains_key(name)).collect::<Vec<_>>() {
            let end = self.open(deletions(client, &known[&name], name.clone()));
            self.watched.insert(name, end);
        }
        if !self.unwatched.is_empty() && self.definitions.is_empty() {
            self.definitions = DEFINITIONS.map(|definitions| self.open(served(client, definitions))).into();
        }
        self.rest();
    }

    fn open(&mut self, watch: Watch) -> AbortHandle {
        let (watch, end) = abortable(watch);
        self.watches.push(Box::pin(watch));
        end
    }

    /// Where everything is watched nobody asks what else is served.
    fn rest(&mut self) {
        if self.unwatched.is_empty() {
            self.definitions.drain(..).for_each(|end| end.abort());
        }
    }
}

/// When the API is asked about new names: at once, but not for each of many quotas that come one after the other.
fn soonest(asked: Option<Instant>, now: Instant) -> Instant {
    asked.map_or(now, |asked| now.max(asked + SOON))
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What is read of an object that has gone.
#[derive(Deserialize)]
struct Place {
    namespace: Option<String>,
}

/// Tells when the API serves other resources: a definition that has just been established is served already.
fn served(client: &Client, (group, plural, kind): (&str, &str, &str)) -> Watch {
    let name = (group.to_owned(), plural.to_owned());
    let [api_version, version] = [format!("{group}/v1"), "v1".to_owned()];
    let resource = ApiResource { group: name.0.clone(), version, api_version, kind: kind.to_owned(), plural: name.1.clone() };
    let changes = metadata_of(client, &resource).encoded().filter_map(move |event| {
        let is_change = matches!(event, Ok(Event::Apply(_) | Event::Delete(_) | Event::InitDone(_)));
        std::future::ready(is_change.then(|| (name.clone(), Seen::Served)))
    });
    Box::pin(changes)
}

fn metadata_of(client: &Client, resource: &ApiResource) -> watch::Watch {
    watch::Watch::new(client.clone(), DynamicObject::url_path(resource, None), "").metadata_only()
}

fn deletions(client: &Client, resource: &ApiResource, name: Name) -> Watch {
    let watch = metadata_of(client, resource);
    let seen = watch.encoded().filter_map(|event| {
        std::future::ready(match event {
            Ok(Event::Delete(object)) => metadata::of(&object).ok().map(|place: Place| Seen::Gone(place.namespace)),
            // A new list: what went meanwhile is not told.
            Ok(Event::InitDone(_)) => Some(Seen::Gone(None)),
            Err(error) if error.is_missing() => Some(Seen::Missing),
            _ => None,
        })
    });
    let seen = Some(Box::pin(seen));
    // It ends with the resource: a watch that goes on would ask for what is not there.
    Box::pin(futures::stream::unfold(seen, move |seen| {
        let name = name.clone();
        async move {
            let mut seen = seen?;
            let one = seen.next().await?;
            let rest = (!matches!(one, Seen::Missing)).then_some(seen);
            Some(((name, one), rest))
        }
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use client::fake::Fake;
    use futures::FutureExt;

    use super::*;

    /// A quota may name anything: what is not served is asked for once for all counts, not at each.
    #[tokio::test]
    async fn what_is_not_served_costs_one_discovery() {
        let fake = Fake::default();
        fake.serve("example.com", "v1", "widgets", "Widget", true);
        let others = Others::new(fake.client());
        let count = async |name: &str| {
            assert_eq!(others.count("a", "example.com", name).await.unwrap(), 0);
            others.learned.lock().await.as_ref().map(|learned| learned.at)
        };
        let first = count("gadgets").await;
        assert_eq!([count("gizmos").await, count("gadgets").await, count("widgets").await], [first; 3]);
        // What was served and is not any more may be served in another version.
        fake.withdraw("example.com", "v1", "widgets");
        let second = count("widgets").await;
        assert!(second > first);
        assert_eq!([count("widgets").await, count("gizmos").await], [second; 2]);
    }

    /// Quotas come and go: what none of them counts is watched no more, and what the API serves only while that is a question.
    #[tokio::test]
    async fn watches_end_with_what_counts() {
        let fake = Fake::default();
        let names = |plurals: &[&str]| -> BTreeSet<Name> {
            plurals.iter().map(|plural| ("example.com".to_owned(), (*plural).to_owned())).collect()
        };
        let of = |(group, plural): Name| {
            let [version, kind] = ["v1", "K"].map(str::to_owned);
            let resource = ApiResource { api_version: format!("{group}/v1"), group, version, kind, plural };
            ((resource.group.clone(), resource.plural.clone()), resource)
        };
        let known = |plurals: &[&str]| names(plurals).into_iter().map(of).collect::<HashMap<_, _>>();
        let mut followed = Followed::default();
        // What is open; streams that have ended are taken away by a look at all of them.
        let open = |followed: &mut Followed| {
            while let Some(Some(_)) = followed.watches.next().now_or_never() {}
            (followed.watches.len(), followed.watched.len(), followed.unwatched.len(), followed.definitions.len())
        };
        assert!(followed.add(&names(&["widgets", "gadgets"])) && !followed.add(&names(&["gadgets"])));
        followed.watch(&fake.client(), &known(&["widgets"]));
        assert_eq!(open(&mut followed), (3, 1, 1, 2));
        assert!(!followed.add(&names(&["widgets"])));
        followed.watch(&fake.client(), &known(&["widgets"]));
        assert_eq!(open(&mut followed), (3, 1, 1, 2), "once");
        followed.watch(&fake.client(), &known(&["widgets", "gadgets"]));
        assert_eq!(open(&mut followed), (2, 2, 0, 0));
        assert!(followed.add(&names(&["gizmos"])));
        followed.watch(&fake.client(), &known(&["widgets"]));
        assert_eq!(open(&mut followed), (4, 2, 1, 2));
        followed.keep(&names(&["widgets"]));
        assert_eq!(open(&mut followed), (1, 1, 0, 0));
        followed.lost(&names(&["gadgets"]).pop_first().unwrap());
        assert_eq!(followed.unwatched.len(), 0, "nobody counts it");
        followed.keep(&names(&[]));
        assert_eq!(open(&mut followed), (0, 0, 0, 0));
    }

    #[test]
    fn new_names_are_asked_about_together() {
        let now = Instant::now();
        let check = |asked: Option<Duration>, after: Duration| {
            assert_eq!(soonest(asked.map(|ago| now.checked_sub(ago).unwrap()), now), now + after, "{asked:?}");
        };
        check(None, Duration::ZERO);
        check(Some(Duration::ZERO), SOON);
        check(Some(SOON / 4), SOON / 4 * 3);
        check(Some(SOON * 2), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_watch_ends_with_its_resource() {
        let fake = Fake::default();
        let [group, version, kind, plural] = ["example.com", "v1", "Widget", "widgets"].map(str::to_owned);
        let resource = ApiResource { api_version: format!("{group}/{version}"), group, version, kind, plural };
        fake.serve("example.com", "v1", "widgets", "Widget", true);
        let mut watch = deletions(&fake.client(), &resource, (String::new(), String::new()));
        assert!(matches!(watch.next().await, Some((_, Seen::Gone(None)))));
        fake.withdraw("example.com", "v1", "widgets");
        while !matches!(watch.next().await.unwrap().1, Seen::Missing) {}
        assert!(matches!(watch.next().now_or_never(), Some(None)));
    }
}

//! ResourceQuotas: what the objects of a namespace take together. The API server adds what it lets in; this controller counts
//! what is there, and so gives back what has gone.

mod count;
mod others;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ::pods::quota::{self, Scoped, Usage};
use client::Api;
use client::kube::api::PostParams;
use client::{Client, Entry, Informer, Informers, Key, Step, resource_version};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, Service};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim};
use memchr::memmem;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::controller::{Action, Controller, Cx, Error, Source};
use crate::{meta, pods};
use others::Others;

/// How long a quota has to stay as it is before it is lowered: what the API server has added may not be written yet.
const SETTLE: Duration = Duration::from_millis(500);
/// How long after a change by the API server everything is counted, should the object not have been written.
const RECOUNT: Duration = Duration::from_secs(5);

pub(crate) struct ResourceQuotas {
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    device_claims: Informer<ResourceClaim>,
    device_classes: Informer<DeviceClass>,
    others: Arc<Others>,
    /// The version of a quota that is to be lowered, and since when it has been that.
    lowered: Mutex<HashMap<Key, (Option<String>, Instant)>>,
}

impl ResourceQuotas {
    /// `client` has the controller's own identity, which may read the metadata of everything.
    pub(crate) fn new(informers: &Informers, client: Client) -> Self {
        Self {
            quotas: informers.of(),
            pods: informers.of(),
            services: informers.of(),
            claims: informers.of(),
            device_claims: informers.of(),
            device_classes: informers.of(),
            others: Arc::new(Others::new(client)),
            lowered: Mutex::default(),
        }
    }

    /// Quotas are looked at when it becomes known of a pod when it will count no more, or that it will sooner. Not at once: pods often end together.
    fn ending(&self) -> Source {
        let quotas = self.quotas.clone();
        Source::stepped(&self.pods, move |step, queue| {
            if ends_sooner(step.old.as_ref(), step.new.as_ref()) {
                let quotas = quotas.in_namespace(step.key().ns());
                quotas.iter().for_each(|quota| queue.add_after(Key::of(quota.as_ref()), SETTLE));
            }
        })
    }

    /// Quotas are looked at when an object of the informer goes, or when `ended` holds for a change of it and the quotas of its namespace; and a
    /// while after one is seen that is older than the quota: the objects may have been counted without it, as the caches are not equally quick.
    fn gone<K: client::Object>(&self, informer: &Informer<K>, ended: Ended<K>) -> Source {
        let quotas = self.quotas.clone();
        Source::stepped(informer, move |step, queue| {
            let quotas = quotas.in_namespace(step.key().ns());
            if quotas.is_empty() {
                return;
            }
            if step.new.is_none() || ended(step, &quotas) {
                quotas.iter().for_each(|quota| queue.add(Key::of(quota.as_ref())));
            } else if let (None, Some(new)) = (&step.old, &step.new) {
                let newer = |quota: &Arc<ResourceQuota>| resource_version::of(quota.as_ref()) > new.version();
                quotas.iter().filter(|quota| newer(quota)).for_each(|quota| queue.add_after(Key::of(quota.as_ref()), RECOUNT));
            }
        })
    }
}

/// Whether a change of an object may leave more of the quotas of its namespace.
type Ended<K> = fn(&Step<K>, &[Arc<ResourceQuota>]) -> bool;

/// Whether a pod has begun to end, or its deletion has become shorter than it was.
fn ends_sooner(old: Option<&Entry<Pod>>, new: Option<&Entry<Pod>>) -> bool {
    let end = |pod: Option<&Entry<Pod>>| quota::overdue_after(pod.filter(|pod| pod.is_ending())?.get()?.as_ref());
    end(new).is_some_and(|new| end(old).is_none_or(|old| new < old))
}

/// Whether a pod has ended, got a deadline or become smaller, and so takes less of a quota, or nothing.
fn leaves(step: &Step<Pod>, quotas: &[Arc<ResourceQuota>]) -> bool {
    let ended = |pod: &Entry<Pod>| pods::may_be_finished(pod) && pod.get().is_some_and(|pod| pods::is_finished(&pod));
    let ends = step.old.as_ref().is_some_and(|old| !ended(old)) && step.new.as_ref().is_some_and(ended);
    ends || gets_deadline(step) || (quotas.iter().any(|quota| counts_amounts(quota)) && is_resized(step))
}

/// Whether a pod takes other amounts than before: what it gives up counts until its node has taken it away.
fn is_resized(step: &Step<Pod>) -> bool {
    let (Some(old), Some(new)) = (&step.old, &step.new) else { return false };
    let taken = |pod: &Entry<Pod>| pod.get().map(|pod| quota::of_pod(&pod, Timestamp::UNIX_EPOCH));
    may_be_resized(old, new) && taken(old) != taken(new)
}

/// Whether what says how much a pod takes is written in another way than before: a pod's status changes often, its amounts hardly ever.
fn may_be_resized(old: &Entry<Pod>, new: &Entry<Pod>) -> bool {
    let is_same = |field: &str| old.written(field).eq(new.written(field));
    // A resize that its node cannot do counts no more.
    let refusals = |pod: &Entry<Pod>| memmem::find_iter(pod.json(), "\"Infeasible\"").count();
    [old, new].iter().any(|pod| pod.mentions("allocatedResources"))
        && !(is_same("resources") && is_same("allocatedResources") && refusals(old) == refusals(new))
}

/// Whether a quota is about more of pods than their number.
fn counts_amounts(quota: &ResourceQuota) -> bool {
    let mut names = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    names.any(|(name, _)| quota::concerns("", "pods", name) && !matches!(name.as_str(), "pods" | "count/pods"))
}

fn gets_deadline(step: &Step<Pod>) -> bool {
    let (Some(old), Some(new)) = (&step.old, &step.new) else { return false };
    let deadline = |pod: &Entry<Pod>| pod.get().and_then(|pod| pod.spec.as_ref()?.active_deadline_seconds);
    let field = "activeDeadlineSeconds";
    !old.written(field).eq(new.written(field)) && deadline(old) != deadline(new)
}

/// Whether an object is another than before: a claim of a volume may have left a class of attributes, or given up an expansion, and a Service have
/// fewer ports of nodes.
fn changed<K: client::Object>(step: &Step<K>, _: &[Arc<ResourceQuota>]) -> bool {
    step.old.is_some()
}

fn counts_devices(quota: &ResourceQuota) -> bool {
    let mut names = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    names.any(|(name, _)| quota::devices::concerned(name))
}

impl Controller for ResourceQuotas {
    const NAME: &'static str = "resourcequota";
    const ACCOUNT: &'static str = "resourcequota-controller";

    fn sources(&self) -> Vec<Source> {
        let own = Source::mapped(&self.quotas, |change, queue| {
            let hard = |quota: &Arc<ResourceQuota>| quota.spec.as_ref().and_then(|spec| spec.hard.clone());
            match (&change.old, &change.new) {
                (Some(old), Some(new)) if hard(old) == hard(new) => queue.add_after(change.key.clone(), RECOUNT),
                _ => queue.add(change.key.clone()),
            }
        });
        let (others, quotas) = (self.others.clone(), self.quotas.clone());
        let of_others = Source {
            synced: Box::pin(std::future::ready(())),
            feed: Box::new(move |queue| Box::pin(async move { others.follow(&quotas, &queue).await })),
        };
        let of_claims = self.gone(&self.claims, changed);
        let of_devices = self.gone(&self.device_claims, |_, _| false);
        let quotas = self.quotas.clone();
        // The name of devices has changed.
        let of_classes = Source::mapped(&self.device_classes, move |_, queue| {
            quotas.list().iter().filter(|quota| counts_devices(quota)).for_each(|quota| queue.add(Key::of(quota.as_ref())));
        });
        let of_pods = self.gone(&self.pods, leaves);
        vec![own, of_pods, self.ending(), self.gone(&self.services, changed), of_claims, of_devices, of_classes, of_others]
    }

    async fn reconcile(&self, cx: &Cx, key: &Key) -> Result<Action, Error> {
        let Some(quota) = self.quotas.by_key(key) else {
            self.lowered.lock().remove(key);
            return Ok(Action::Done);
        };
        let now = cx.clock.now();
        let Counted { usage, unknown, error, overdue } = self.usage(&quota, now).await;
        let status = count::status(&quota, &usage, &unknown);
        let action = match self.write(cx, key, &quota, status).await? {
            // Nothing tells that a pod's time is over.
            Action::Done => Action::after(overdue.map(|end| until(end, now))),
            sooner @ Action::After(_) => sooner,
        };
        error.map_or(Ok(action), Err)
    }
}

/// How long it is until a time is over.
fn until(end: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(now)).unwrap_or_default() + Duration::from_secs(1)
}

/// What objects take.
#[derive(Default)]
struct Counted {
    usage: Usage,
    /// Names of what could not be counted.
    unknown: BTreeSet<String>,
    /// Why, of the first.
    error: Option<Error>,
    /// When the first of the pods that end will take nothing any more.
    overdue: Option<Timestamp>,
}

impl ResourceQuotas {
    /// Writes a status, if it is another.
    async fn write(&self, cx: &Cx, key: &Key, quota: &ResourceQuota, status: ResourceQuotaStatus) -> Result<Action, Error> {
        let change = count::change(quota.status.as_ref(), &status);
        if change == count::Change::Lower
            && let Some(left) = self.settles(key, quota.metadata.resource_version.clone())
        {
            return Ok(Action::After(left));
        }
        self.lowered.lock().remove(key);
        if change != count::Change::None {
            let next = ResourceQuota { status: Some(status), ..quota.clone() };
            let api: Api<ResourceQuota> = Api::namespaced(cx.client.clone(), key.ns());
            api.replace_status(&key.name, &PostParams::default(), &next).await?;
        }
        Ok(Action::Done)
    }

    /// How long the quota still has to stay at this version before it is lowered; None when it has.
    fn settles(&self, key: &Key, version: Option<String>) -> Option<Duration> {
        let mut lowered = self.lowered.lock();
        let now = Instant::now();
        let (seen, since) = lowered.entry(key.clone()).or_insert_with(|| (version.clone(), now));
        if *seen != version {
            (*seen, *since) = (version, now);
        }
        SETTLE.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }

    /// What the objects take that the quota is about. As upstream, what cannot be counted keeps nothing else from it: its definition may be about
    /// to go, or its server be away.
    async fn usage(&self, quota: &ResourceQuota, now: Timestamp) -> Counted {
        let spec = quota.spec.clone().unwrap_or_default();
        let namespace = meta::namespace(quota);
        let mut counted = self.sized(namespace, &spec, now);
        for (group, plural) in numbered(&spec) {
            let one = quota::of_any(&group, &plural).into_iter();
            match self.others.count(namespace, &group, &plural).await {
                Ok(number) => count::add(&mut counted.usage, one.map(|(name, one)| (name, one.times(number))).collect()),
                Err(error) => {
                    counted.unknown.extend(one.map(|(name, _)| name));
                    counted.error.get_or_insert(error);
                }
            }
        }
        counted
    }

    /// What the objects take that are more than numbers.
    fn sized(&self, namespace: &str, spec: &ResourceQuotaSpec, now: Timestamp) -> Counted {
        let names = || spec.hard.iter().flatten().map(|(name, _)| name.as_str());
        let concerns = |(group, plural): (&str, &str)| names().any(|name| quota::concerns(group, plural, name));
        let Counted { mut usage, mut overdue, .. } = Counted::default();
        if concerns(("", "pods")) {
            let pods = self.pods.in_namespace(namespace);
            for pod in pods.iter().filter(|pod| quota::selects(spec, Scoped::Pod(pod))) {
                count::add(&mut usage, quota::of_pod(pod, now));
                let end = quota::overdue_after(pod).filter(|end| *end >= now);
                overdue = overdue.into_iter().chain(end).min();
            }
        }
        if concerns(("", "persistentvolumeclaims")) {
            let claims =
                self.claims.in_namespace(namespace).into_iter().filter(|claim| quota::selects(spec, Scoped::Claim(claim)));
            claims.for_each(|claim| count::add(&mut usage, quota::of_claim(&claim)));
        }
        let all = quota::selects(spec, Scoped::Other);
        if all && concerns(("", "services")) {
            let services = self.services.in_namespace(namespace);
            services.iter().for_each(|service| count::add(&mut usage, quota::of_service(service)));
        }
        if all && concerns(quota::devices::RESOURCE) {
            self.devices(namespace).for_each(|taken| count::add(&mut usage, taken));
        }
        Counted { usage, overdue, ..Counted::default() }
    }

    /// What claims of devices take.
    fn devices(&self, namespace: &str) -> impl Iterator<Item = Usage> {
        let extended = quota::devices::extended(self.device_classes.list().iter().map(AsRef::as_ref));
        self.device_claims.in_namespace(namespace).into_iter().map(move |claim| {
            let owner = quota::devices::owner(&claim).and_then(|name| self.pods.by_key(&Key::namespaced(namespace, name)));
            quota::devices::of_claim(&claim, &extended, owner.as_deref())
        })
    }
}

/// The same of a quota.
fn numbered_of(quota: &ResourceQuota) -> BTreeSet<(String, String)> {
    quota.spec.as_ref().map(numbered).unwrap_or_default()
}

/// Groups and plurals of the objects that the quota only counts.
fn numbered(spec: &ResourceQuotaSpec) -> BTreeSet<(String, String)> {
    let names = spec.hard.iter().flatten().filter(|_| quota::selects(spec, Scoped::Other));
    let counted = names.filter_map(|(name, _)| others::counted(name));
    counted.map(|(group, plural)| (group.to_owned(), plural.to_owned())).collect()
}

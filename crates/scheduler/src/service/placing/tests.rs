#![allow(clippy::unwrap_used)]

use base::budgets::shares::Shares;
use base::tasks::{Failures, Tasks};
use client::fake::Fake;
use client::kube::client::Body;
use client::{Change, Client, Informers, Key};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use tokio::time::Instant;
use tower::Service;

use super::*;
use crate::Options;
use crate::api::{BindError, Written};
use crate::configuration::Configuration;
use crate::metrics::Metrics;
use crate::service::panics::Stage;
use crate::testing::{node, pod};
use crate::volumes::Volumes;

/// A scheduler of one node where one binding of a namespace may wait, and what it runs with.
pub(in crate::service) struct World {
    pub(in crate::service) scheduler: Scheduler,
    pub(in crate::service) fake: Fake,
    _tasks: (Tasks, Failures),
}

impl World {
    pub(in crate::service) async fn new() -> Self {
        let fake = Fake::default();
        let client = fake.client();
        Self::with(fake, client).await
    }

    /// What the scheduler writes goes by `client`.
    async fn with(fake: Fake, client: Client) -> Self {
        let tasks = Tasks::root();
        let class = json!({"metadata": {"name": "late"}, "provisioner": "p", "volumeBindingMode": "WaitForFirstConsumer"});
        fake.put::<StorageClass>(&serde_json::from_value(class).unwrap());
        for name in ["first", "second"] {
            let spec = json!({"storageClassName": "late", "accessModes": ["ReadWriteOnce"]});
            let claim = json!({"metadata": {"namespace": "a", "name": name, "uid": name}, "spec": spec});
            fake.put::<PersistentVolumeClaim>(&serde_json::from_value(claim).unwrap());
        }
        let informers = Informers::new(fake.client(), tasks.0.clone());
        let options = Options { informers: informers.clone(), client, configuration: Configuration::default() };
        let mut scheduler = Scheduler::new(&options, &tasks.0, Arc::default(), Metrics::default());
        scheduler.cluster.volumes = Volumes::new(&informers);
        informers.of::<PersistentVolumeClaim>().synced().await;
        informers.of::<StorageClass>().synced().await;
        scheduler.waiting.shares = Shares::new(1);
        scheduler.cluster.set_node(&node("n", json!({})));
        Self { scheduler, fake, _tasks: tasks }
    }

    /// A pod that waits for a node, with a claim of its name where it has one.
    pub(in crate::service) fn add(&mut self, name: &str, has_claim: bool) -> Arc<PodInfo> {
        let claims = json!([{"name": "v", "persistentVolumeClaim": {"claimName": name}}]);
        let pod = pod(name, json!({"volumes": if has_claim { claims } else { json!([]) }}));
        self.fake.put::<Pod>(&pod);
        let pod = Arc::new(PodInfo::new(Arc::new(pod)));
        self.scheduler.queue.add(pod.clone(), 0);
        pod
    }

    /// What the status of a pod says after all writes.
    pub(in crate::service) async fn told(&mut self, name: &str) -> String {
        while self.scheduler.writes.next().await.is_some() {}
        let pods = self.fake.all::<Pod>();
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap();
        let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.next().and_then(|one| one.message.clone()).unwrap_or_default()
    }
}

pub(in crate::service) fn trial() -> Trial {
    Trial { started: Instant::now(), entered: Instant::now(), attempts: 1, number: 1, lane: 0 }
}

const FULL: &str = "0/1 nodes are available: 1 pods of the namespace wait for their volumes and devices already.";

/// Who waits for a share has a node: it keeps what it was promised, makes no room, and is tried again when a binding ends, however it ends.
#[tokio::test]
async fn a_full_share_is_no_lack_of_nodes() {
    for result in [Ok(()), Err(BindError::Late)] {
        let mut world = World::new().await;
        let first = world.add("first", true);
        world.scheduler.schedule_one();
        assert_eq!(world.scheduler.with_needs.len(), 1);
        let second = world.add("second", true);
        assert!(world.scheduler.cluster.nominations.set(second.clone(), "n").is_none());
        // Pods that wait for nothing need no share.
        world.add("third", false);
        world.scheduler.schedule_one();
        world.scheduler.schedule_one();
        assert_eq!((world.scheduler.cluster.node_of("second"), world.scheduler.cluster.node_of("third")), (None, Some("n")));
        assert_eq!(world.told("second").await, FULL);
        assert_eq!(world.scheduler.cluster.nominations.node_of("second"), Some("n"));
        assert_eq!(world.scheduler.queue.lengths(), (0, 0, 1));

        world.scheduler.with_needs.clear();
        let (node, key) = ("n".to_owned(), first.key());
        // The work ends in a task of its own.
        let (trial, share) = loop {
            match world.scheduler.waiting.shares.take("a") {
                Some(share) => break (trial(), Some(share)),
                None => tokio::task::yield_now().await,
            }
        };
        let failed = result.is_err();
        let (pod, claims) = (first, Vec::new());
        world.scheduler.written(Written::Bound { pod, node, trial, claims, share, by_extender: false, result });
        assert_eq!(world.scheduler.queue.get(&key).is_some(), failed);
        assert_eq!(world.scheduler.queue.lengths(), (0, 1 + usize::from(failed), 0));
        let attempt = Attempt::default();
        assert!(world.scheduler.lacks_share(&second, &attempt).is_none());
    }
}

/// Extenders answer later: the share may have gone meanwhile, and that is said in the same way.
#[tokio::test]
async fn a_share_may_go_while_a_node_is_chosen() {
    let mut world = World::new().await;
    let second = world.add("second", true);
    let (tried, trial) = world.scheduler.queue.pop(0).unwrap();
    assert!(world.scheduler.cluster.nominations.set(second, "n").is_none());
    let other = world.scheduler.waiting.shares.take("a").unwrap();
    world.scheduler.place(tried, "n".to_owned(), trial, &Attempt::default());
    assert_eq!(world.told("second").await, FULL);
    assert_eq!(world.scheduler.cluster.nominations.node_of("second"), Some("n"));
    assert_eq!((world.scheduler.cluster.node_of("second"), world.scheduler.queue.lengths()), (None, (0, 0, 1)));
    world.scheduler.leave(other);
    assert_eq!(world.scheduler.queue.lengths(), (0, 1, 0));
}

/// KEP-5278 (`NominatedNodeNameForExpectation`): the node is told before PreBind where there is something to wait for, and no more when the binding fails.
#[tokio::test]
async fn a_pod_that_waits_tells_its_node() {
    let mut world = World::new().await;
    world.add("third", false);
    let first = world.add("first", true);
    let nominated = |pods: &[Pod], name: &str| {
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).unwrap();
        pod.status.as_ref().and_then(|status| status.nominated_node_name.clone())
    };
    world.scheduler.schedule_one();
    world.scheduler.schedule_one();
    let fake = world.fake.clone();
    tokio::select! {
        _ = world.scheduler.with_needs.next() => panic!("the claim has no volume"),
        _ = fake.until::<Pod>(|pods| nominated(pods, "first").as_deref() == Some("n")) => {}
    }
    assert_eq!(nominated(&fake.all(), "third"), None, "it waits for nothing");
    world.scheduler.with_needs.clear();
    let all = fake.all::<Pod>();
    let latest = all.into_iter().find(|pod| pod.metadata.uid == first.object().unwrap().metadata.uid).unwrap();
    let pod = Arc::new(PodInfo::new(Arc::new(latest)));
    let (node, trial, share) = ("n".to_owned(), trial(), world.scheduler.waiting.shares.take("a"));
    let result = Err(BindError::Late);
    world.scheduler.written(Written::Bound { pod, node, trial, claims: Vec::new(), share, by_extender: false, result });
    assert!(world.told("first").await.starts_with("binding rejected"));
    assert_eq!(nominated(&fake.all(), "first"), None);
}

/// That only helps others to choose: a pod whose status nobody can write waits a moment for it, and gets its volumes.
#[tokio::test]
async fn a_pod_whose_node_cannot_be_told_gets_what_it_needs() {
    let fake = Fake::default();
    let server = fake.clone();
    let silent = tower::service_fn(move |request: http::Request<Body>| {
        let mut server = server.clone();
        async move {
            if request.method() == http::Method::PATCH && request.uri().path().ends_with("/pods/first/status") {
                std::future::pending::<()>().await;
            }
            server.call(request).await
        }
    });
    let mut world = World::with(fake, Client::new(silent, "default")).await;
    world.add("first", true);
    world.scheduler.schedule_one();
    let chosen = |claim: &PersistentVolumeClaim| {
        let annotations = claim.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(::pods::volumes::SELECTED_NODE)).is_some_and(|node| node == "n")
    };
    let fake = world.fake.clone();
    tokio::select! {
        _ = world.scheduler.with_needs.next() => panic!("the claim has no volume"),
        () = fake.until::<PersistentVolumeClaim>(|claims| claims.iter().any(chosen)) => {}
    }
}

/// Has the scheduler hold a pod as if it had panicked on it.
fn hold(scheduler: &Scheduler, uid: &str, stage: Stage) {
    scheduler.panics.blame(Some((uid.to_owned(), stage)));
    assert_eq!(scheduler.panics.hold(Instant::now()).as_deref(), Some(uid));
}

/// A pod on which the scheduler has failed is tried often while it is held: each time would be a write and an event, and what it was promised would
/// be kept from others.
#[tokio::test]
async fn a_pod_that_is_held_is_told_once_and_keeps_no_room() {
    let mut world = World::new().await;
    let third = world.add("third", false);
    hold(&world.scheduler, third.uid(), Stage::Tried);
    for _ in 0..2 {
        assert!(world.scheduler.cluster.nominations.set(third.clone(), "n").is_none());
        world.scheduler.schedule_one();
        assert_eq!(world.scheduler.writes.len(), 1, "told once");
        assert_eq!(world.scheduler.cluster.nominations.node_of(third.uid()), None);
        assert_eq!(world.scheduler.cluster.node_of(third.uid()), None);
        assert_eq!(world.scheduler.queue.lengths(), (0, 1, 0));
        world.scheduler.queue.ripen(Instant::now() + std::time::Duration::from_secs(10));
    }
    let told = world.told("third").await;
    assert!(
        told.starts_with("0/1 nodes are available: the scheduler has failed on this pod, and tries it again after 2"),
        "{told}"
    );
}

/// What the scheduler cannot even read it reads again when the pod's time is over, and not before, also where the pod changes.
#[tokio::test]
async fn a_pod_that_cannot_be_read_waits() {
    let mut world = World::new().await;
    let (odd, now) = (Arc::new(pod("odd", json!({}))), Instant::now());
    let key = Key::of(odd.as_ref());
    let change = |old: bool, new: bool| Change { key: key.clone(), old: old.then(|| odd.clone()), new: new.then(|| odd.clone()) };
    let scheduler = &mut world.scheduler;
    scheduler.read(change(false, true), now);
    assert!(scheduler.queue.get(&key).is_some());
    hold(scheduler, odd.metadata.uid.as_deref().unwrap(), Stage::Read);
    scheduler.read(change(true, true), now);
    assert!(scheduler.queue.get(&key).is_none(), "nothing of it is known");
    let until = scheduler.due(now).unwrap();
    assert!(scheduler.queue.get(&key).is_none() && until > now);
    scheduler.due(until);
    assert!(scheduler.queue.get(&key).is_some() && scheduler.unread.is_empty());
    // One that goes meanwhile never comes back.
    hold(scheduler, odd.metadata.uid.as_deref().unwrap(), Stage::Read);
    scheduler.read(change(true, true), now);
    scheduler.read(change(true, false), now);
    assert!(scheduler.queue.get(&key).is_none() && scheduler.unread.is_empty());
}

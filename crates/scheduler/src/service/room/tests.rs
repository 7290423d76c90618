#![allow(clippy::unwrap_used)]

use client::Change;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::*;
use crate::api::Written;
use crate::attempt::Attempt;
use crate::filtering::FitError;
use crate::metrics::Outcome;
use crate::preemption::Refusal;
use crate::service::placing::tests::{World, trial};
use crate::testing::{node, pod};

/// A pod that asks for so many CPUs, with more fields at its top level.
fn asking(name: &str, priority: i32, cpu: &str, more: &[(&str, Value)]) -> Arc<Pod> {
    let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
    let mut pod = serde_json::to_value(pod(name, json!({"priority": priority, "containers": [container]}))).unwrap();
    for (pointer, value) in more {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        if pod.pointer(parent).is_none() {
            pod[&parent[1..]] = json!({});
        }
        pod.pointer_mut(parent).unwrap()[field] = value.clone();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn info(pod: &Arc<Pod>) -> Arc<PodInfo> {
    Arc::new(PodInfo::new(pod.clone()))
}

/// What ends a promise, or does not.
type Way = Box<dyn FnOnce(&mut Scheduler)>;

/// Upstream, eventhandlers.go: what happens to a nominated pod that goes, or loses its nomination, counts as AssignedPodDelete for pods of the same
/// or lower priority, since these were kept from its room as if it had been there.
#[tokio::test]
async fn who_was_kept_from_promised_room_is_tried_when_the_promise_ends() {
    let promised = asking("promised", 10, "4", &[]);
    let changed = |more: &'static [(&'static str, &'static str)]| {
        move |scheduler: &mut Scheduler| {
            let more: Vec<_> = more.iter().map(|(at, value)| (*at, json!(value))).collect();
            let (old, new) = (asking("promised", 10, "4", &[]), asking("promised", 10, "4", &more));
            scheduler.pod_changed(Change { key: client::Key::of(old.as_ref()), old: Some(old), new: Some(new) });
        }
    };
    let refuse = |room: Result<Preemption, Refusal>| {
        let promised = info(&promised);
        move |scheduler: &mut Scheduler| scheduler.refused(&promised, trial(), FitError::of(1), Some(room))
    };
    let placed_on = |node: &'static str| {
        let promised = info(&promised);
        move |scheduler: &mut Scheduler| scheduler.place(promised, node.to_owned(), trial(), &Attempt::default())
    };
    let ways: Vec<(&str, Way, bool)> = vec![
        ("bound elsewhere", Box::new(changed(&[("/spec/nodeName", "m")])), true),
        ("bound there", Box::new(changed(&[("/spec/nodeName", "n")])), false),
        ("finished", Box::new(changed(&[("/status/phase", "Failed")])), true),
        ("ends", Box::new(changed(&[("/metadata/deletionTimestamp", "2026-01-01T00:00:00Z")])), true),
        ("promised another", Box::new(changed(&[("/status/nominatedNodeName", "m")])), true),
        ("promised the same", Box::new(changed(&[("/status/nominatedNodeName", "n")])), false),
        ("hopeless", Box::new(refuse(Err(Refusal { message: String::new(), hopeless: true }))), true),
        ("not hopeless", Box::new(refuse(Err(Refusal { message: String::new(), hopeless: false }))), false),
        ("placed elsewhere", Box::new(placed_on("m")), true),
        ("placed there", Box::new(placed_on("n")), false),
        (
            "overtaken",
            Box::new(|scheduler| {
                let vip = info(&asking("vip", 100, "4", &[]));
                let room = Preemption::of("n", Vec::new());
                scheduler.refused(&vip, trial(), FitError::of(1), Some(Ok(room)));
            }),
            true,
        ),
        (
            "deleted",
            Box::new(|scheduler| {
                let old = asking("promised", 10, "4", &[]);
                scheduler.pod_changed(Change { key: client::Key::of(old.as_ref()), old: Some(old), new: None });
            }),
            true,
        ),
    ];
    for (what, end, wakes) in ways {
        let scheduler = &mut World::new().await.scheduler;
        scheduler.cluster.set_node(&node("m", json!({"status": {"allocatable": {"cpu": "0", "memory": "8Gi", "pods": "110"}}})));
        assert!(scheduler.cluster.nominations.set(info(&promised), "n").is_none());
        // One more important was kept from nothing, and has no hope.
        for (name, priority, cpu) in [("more", 20, "5"), ("less", 0, "1")] {
            scheduler.queue.add(info(&asking(name, priority, cpu, &[])), 0);
            scheduler.schedule_one();
        }
        assert_eq!(scheduler.queue.lengths(), (0, 0, 2), "{what}");
        end(scheduler);
        let (_, backs_off, waits) = scheduler.queue.lengths();
        assert_eq!((backs_off, waits), if wakes { (1, 1) } else { (0, 2) }, "{what}");
    }
}

/// A scheduler with a pod that waits for its volume; where `asked`, the volume has been asked for.
async fn waiting(asked: bool) -> (World, Arc<PodInfo>) {
    let mut world = World::new().await;
    let first = world.add("first", true);
    world.scheduler.schedule_one();
    let chosen = |claim: &PersistentVolumeClaim| {
        let annotations = claim.metadata.annotations.as_ref();
        annotations.is_some_and(|all| all.contains_key(::pods::volumes::SELECTED_NODE))
    };
    let fake = world.fake.clone();
    if asked {
        tokio::select! {
            _ = world.scheduler.with_needs.next() => panic!("the claim has no volume"),
            () = fake.until::<PersistentVolumeClaim>(|claims| claims.iter().any(chosen)) => {}
        }
    }
    (world, first)
}

/// Another pod makes room by the end of this one.
fn preempt(scheduler: &mut Scheduler, victim: &Arc<PodInfo>) {
    let vip = info(&asking("vip", 100, "4", &[]));
    scheduler.refused(&vip, trial(), FitError::of(1), Some(Ok(Preemption::of("n", vec![victim.clone()]))));
}

fn preempted(events: &[Event]) -> Vec<&str> {
    let all = events.iter().filter(|event| event.reason.as_deref() == Some("Preempted"));
    all.filter_map(|event| event.message.as_deref()).collect()
}

/// Upstream, executor.go, PreemptPod: the binding of a victim that is in PreBind is cancelled, which takes it back to the queue; it is not deleted.
#[tokio::test]
async fn who_waits_for_its_volume_makes_room_and_lives() {
    for asked in [false, true] {
        let (mut world, first) = waiting(asked).await;
        preempt(&mut world.scheduler, &first);
        assert!(world.scheduler.cluster.placed("first").is_some_and(|pod| pod.is_leaving));
        // Whoever looks again before the binding has ended finds the same pod.
        preempt(&mut world.scheduler, &first);
        let ended = world.scheduler.with_needs.next().await.unwrap();
        world.scheduler.written(ended);
        assert_eq!(world.told("first").await, "binding rejected: preempted by DefaultPreemption");
        assert_eq!((world.scheduler.cluster.node_of("first"), world.scheduler.queue.lengths()), (None, (0, 1, 0)));
        assert!(world.scheduler.waiting.bindings.is_empty() && !world.scheduler.waiting.shares.is_full("a"));
        let message = "Preempted by pod vip on node n (in kube-scheduler memory).";
        world.fake.until::<Event>(|events| preempted(events) == [message]).await;
    }
}

/// A node that is being written may not be taken back: the pod has to go.
#[tokio::test]
async fn whose_node_is_written_is_deleted() {
    let (mut world, first) = waiting(true).await;
    assert!(world.scheduler.waiting.bindings["first"].write().is_ok());
    preempt(&mut world.scheduler, &first);
    while world.scheduler.writes.next().await.is_some() {}
    assert!(world.fake.all::<Pod>().is_empty());
    world.fake.until::<Event>(|events| preempted(events) == ["Preempted by pod vip on node n"]).await;
}

/// Upstream, binder.go, checkBindings: "pod does not exist any more". Whoever preempts a pod fails its attempt, and it is tried again; who deletes
/// it fails nothing, also where it had been preempted before.
#[tokio::test]
async fn a_binding_that_is_called_off_says_why() {
    for (is_preempted, is_deleted) in [(true, false), (false, true), (true, true)] {
        let (mut world, first) = waiting(true).await;
        if is_preempted {
            preempt(&mut world.scheduler, &first);
        }
        if is_deleted {
            let old = Arc::new(world.fake.all::<Pod>().remove(0));
            world.scheduler.pod_changed(Change { key: first.key(), old: Some(old), new: None });
        }
        let ended = world.scheduler.with_needs.next().await.unwrap();
        let Written::Bound { result: Err(error), .. } = &ended else { panic!("it has no node") };
        let expected = if is_deleted { "pod does not exist any more" } else { "preempted by DefaultPreemption" };
        assert_eq!(error.to_string(), expected);
        let failed = world.scheduler.metrics.attempts(Outcome::Error);
        world.scheduler.written(ended);
        assert_eq!(world.scheduler.metrics.attempts(Outcome::Error) - failed, u64::from(!is_deleted), "{expected}");
        assert_eq!(world.scheduler.queue.lengths(), (0, usize::from(!is_deleted), 0), "{expected}");
        assert!(world.scheduler.waiting.bindings.is_empty() && !world.scheduler.waiting.shares.is_full("a"));
    }
}

/// The API binds no pod that ends, which finalizers may keep for long: its room is free at once.
#[tokio::test]
async fn who_ends_while_it_waits_gives_its_room_back() {
    let (mut world, first) = waiting(true).await;
    let old = Arc::new(world.fake.all::<Pod>().remove(0));
    let mut new = Pod::clone(&old);
    new.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    world.scheduler.pod_changed(Change { key: first.key(), old: Some(old), new: Some(Arc::new(new)) });
    assert_eq!(world.scheduler.cluster.node_of("first"), None);
    let ended = world.scheduler.with_needs.next().await.unwrap();
    let Written::Bound { result: Err(error), .. } = &ended else { panic!("it has no node") };
    assert_eq!(error.to_string(), "pod does not exist any more");
    world.scheduler.written(ended);
    assert_eq!(world.scheduler.queue.lengths(), (0, 0, 0));
    assert!(world.scheduler.waiting.bindings.is_empty() && !world.scheduler.waiting.shares.is_full("a"));
}

/// Upstream, binder.go, checkBindings: "failed to get node". The pod is tried again at once, not when its volume has come.
#[tokio::test]
async fn whose_node_goes_is_tried_again() {
    for (gone, is_called_off) in [("n", true), ("m", false)] {
        let (mut world, first) = waiting(true).await;
        let node = node(gone, json!({}));
        world.scheduler.cluster.set_node(&node);
        world.scheduler.node_changed(&Change { key: client::Key::of(&node), old: Some(Arc::new(node)), new: None });
        let binding = world.scheduler.waiting.bindings["first"].clone();
        assert_eq!(binding.write().is_err(), is_called_off, "{gone}");
        if !is_called_off {
            continue;
        }
        let ended = world.scheduler.with_needs.next().await.unwrap();
        world.scheduler.written(ended);
        assert_eq!(world.told("first").await, "binding rejected: node does not exist any more");
        assert_eq!((world.scheduler.cluster.node_of("first"), world.scheduler.queue.lengths()), (None, (0, 1, 0)));
        assert!(world.scheduler.queue.get(&first.key()).is_some());
    }
}

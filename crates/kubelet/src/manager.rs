//! Gives every pod of this node its task, and tells the tasks of changes.

mod asking;
mod inventory;
mod room;
mod task;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use asking::{Asking, Undecided};
use base::tasks::OnFailure;
use client::events::Type;
use client::{Change, Changes, Key};
use futures::StreamExt;
use inventory::inventory;
use k8s_openapi::api::core::v1::{Node, Pod};
use parking_lot::Mutex;
use room::Admission;
use task::Task;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::admission;
use crate::allocation::{self, Allocation, Pending, RESOURCES};
use crate::context::Context;
use crate::eviction::requests::{End, Request};
use crate::pod::cleanup;
use crate::pod::found::{Found, ended};
use crate::pod::report::Shown;
use crate::pod::state::{Evicted, Rejection};
use crate::pod::worker::Desired;
use crate::qos;
use crate::spec::Model;
use crate::statics::{self, Pods, Uids};

/// Delay before an orphaned pod is tried again to be removed, doubling up to the second value.
const ORPHAN_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Pause before the task of a pod that died is begun anew.
const REVIVE: Duration = Duration::from_secs(5);

/// What the node knows of its pods since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing yet.
    Waits,
    /// The static pods: the server has not answered.
    Alone,
    /// All.
    Knows,
}

struct Handle {
    desired: watch::Sender<Desired>,
    runtime_changed: Arc<Notify>,
    /// Why it was not admitted.
    rejected: Option<Rejection>,
    /// What it asks of the CPU, thousandths, if it is burstable.
    burstable: i64,
    /// What it has of the node.
    allocation: Allocation,
    /// The newest object, while it asks for something else.
    waiting: Option<Arc<Pod>>,
    /// What its admission waits for, while only the API can say whether the pod may run here.
    undecided: Option<Undecided>,
}

impl Handle {
    /// Whether the pod takes something of the node.
    fn counts(&self) -> bool {
        let desired = self.desired.borrow();
        // Of what has ended the API may not know yet: a full disk takes no status.
        let is_left = !desired.end.settled.is_cancelled() && !desired.pod.status.as_ref().is_some_and(ended);
        self.rejected.is_none() && self.undecided.is_none() && !desired.removed && is_left
    }

    /// Tells the pod's task of a newer object, as this node runs it.
    fn send(&self, pod: &Arc<Pod>, pending: Option<Pending>) {
        self.send_as_is(self.allocation.apply(pod), pending);
    }

    fn send_as_is(&self, pod: Arc<Pod>, pending: Option<Pending>) {
        self.desired.send_modify(|desired| {
            desired.pod = pod;
            desired.pending = pending;
        });
    }
}

/// Tasks that have ended, by pod UID.
#[derive(Default)]
struct Finished {
    uids: Mutex<Vec<String>>,
    notify: Notify,
}

/// Tells of a task's end, whatever ended it.
struct TellEnd(Arc<Finished>, String);

impl Drop for TellEnd {
    fn drop(&mut self) {
        self.0.uids.lock().push(std::mem::take(&mut self.1));
        self.0.notify.notify_one();
    }
}

/// All pods of the node.
pub struct Manager {
    cx: Arc<Context>,
    handles: HashMap<String, Handle>,
    uids: HashMap<Key, String>,
    found: HashMap<String, Found>,
    finished: Arc<Finished>,
    nodes: client::Informer<Node>,
    asking: Asking,
    /// CPU requests of the burstable pods.
    burstable: watch::Sender<i64>,
    /// What others ask.
    requests: mpsc::Receiver<Request>,
    statics: Running,
}

/// Static pods and their mirrors.
struct Running {
    wanted: watch::Receiver<Option<Arc<Pods>>>,
    /// UIDs of those that have a task, which the next pod of the same name waits for.
    uids: Uids,
    mirrors: HashMap<Key, Arc<Pod>>,
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether the pod has ended or is about to.
fn goes(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() || pod.status.as_ref().is_some_and(ended)
}

impl Manager {
    /// For this kubelet.
    pub fn new(cx: Arc<Context>, requests: mpsc::Receiver<Request>) -> Self {
        let nodes = cx.options.informers.of_selected(&format!("metadata.name={}", cx.options.node_name));
        let (handles, uids, found, finished, asking) = Default::default();
        let statics = Running { wanted: cx.statics.subscribe(), uids: HashMap::new(), mirrors: HashMap::new() };
        Self { cx, handles, uids, found, finished, nodes, asking, burstable: watch::Sender::new(0), requests, statics }
    }

    /// The Node object.
    pub fn nodes(&self) -> client::Informer<Node> {
        self.nodes.clone()
    }

    /// Runs until cancelled. `registered` becomes true when the API has the node. Fails when the runtime cannot say what it runs, as then
    /// nothing could be adopted.
    pub async fn run(mut self, mut registered: watch::Receiver<bool>) -> Result<(), runtime::api::Error> {
        let cx = self.cx.clone();
        let mut events = cx.runtime().events();
        self.found = inventory(&cx).await?;
        let shares = qos::follow(cx.clone(), self.burstable.subscribe());
        cx.tasks.spawn_until_cancelled("CPU shares of pods", OnFailure::Log, shares);
        let pods = cx.pods_of_node();
        let mut changes = pods.changes();
        let nodes = self.nodes.clone();
        let mut known = Box::pin(async {
            // An error would mean that this kubelet is no more.
            let _ = registered.wait_for(|registered| *registered).await;
            tokio::join!(pods.synced(), cx.services.synced(), nodes.synced());
        });
        let patience = tokio::time::Instant::now() + statics::PATIENCE;
        let mut stage = Stage::Waits;
        loop {
            if stage == Stage::Knows {
                self.retry();
            }
            self.share();
            tokio::select! {
                () = &mut known, if stage != Stage::Knows => {
                    stage = Stage::Knows;
                    self.begin_all(&mut changes).await;
                }
                () = tokio::time::sleep_until(patience), if stage == Stage::Waits => {
                    tracing::warn!("the server does not answer: static pods start with what this node knows");
                    stage = Stage::Alone;
                    self.sync_statics();
                }
                change = changes.next(), if stage == Stage::Knows => self.changed(change),
                Some(event) = events.next() => {
                    if let Some(handle) = self.handles.get(&event.pod_uid) {
                        handle.runtime_changed.notify_one();
                    }
                }
                () = async { self.finished.notify.notified().await } => self.reap(),
                told = self.asking.told() => self.node_told(told),
                Some(request) = self.requests.recv() => self.answer(request),
                Ok(()) = self.statics.wanted.changed(), if stage != Stage::Waits => self.sync_statics(),
            }
        }
    }

    /// Begins the pods that there are, once the API has told of all, and ends what nobody knows.
    async fn begin_all(&mut self, changes: &mut Changes<Pod>) {
        // An error would mean that this kubelet is no more.
        let _ = self.statics.wanted.wait_for(Option::is_some).await;
        let mut first: Vec<Change<Pod>> = std::iter::from_fn(|| changes.try_next()).collect();
        self.leave_all(&first);
        // Pods are admitted in the order of their creation.
        first.sort_by_key(|change| change.new.as_ref().and_then(|pod| pod.metadata.creation_timestamp.clone()));
        for change in first {
            self.changed(change);
        }
        self.sync_statics();
        self.remove_orphans();
    }

    /// Who needs what pods still have of the node that ended or were deleted while the kubelet was away waits for it, whichever of them
    /// is begun first.
    fn leave_all(&self, first: &[Change<Pod>]) {
        let statics = self.statics.wanted.borrow().clone().unwrap_or_default();
        let bound = first.iter().filter_map(|change| change.new.as_ref()).filter(|pod| !goes(pod));
        let staying: HashSet<&str> = bound.map(|pod| uid(pod)).chain(statics.values().map(|pod| uid(pod))).collect();
        for uid in self.cx.owners().iter().filter(|uid| !staying.contains(uid.as_str())) {
            self.cx.leave(uid);
        }
    }

    /// Answers who asks for pods or for the end of one.
    fn answer(&self, request: Request) {
        match request {
            // Who does not wait for it any more does not need it.
            Request::Active(sender) => drop(sender.send(self.models(|_, _| true))),
            Request::Alive(sender) => _ = sender.send(()),
            Request::Evict(uid, evicted, sender) => drop(sender.send(self.evict(&uid, evicted))),
        }
    }

    /// Begins the end of a pod, of which what is returned tells.
    fn evict(&self, uid: &str, evicted: Evicted) -> End {
        let Some(handle) = self.handles.get(uid) else { return End::over() };
        handle.desired.send_modify(|desired| desired.evicted = Evicted::merge(desired.evicted.take(), Some(evicted)));
        handle.desired.borrow().end.clone()
    }

    /// Tells of the requests that count now.
    fn share(&self) {
        let milli = self.handles.values().filter(|handle| handle.counts()).map(|handle| handle.burstable).sum();
        self.burstable.send_if_modified(|known| std::mem::replace(known, milli) != milli);
    }

    /// The pods that take something of the node, but for one.
    fn others(&self, uid: &str) -> Vec<Model> {
        self.models(|other, _| other != uid)
    }

    fn models(&self, is_meant: impl Fn(&str, &Handle) -> bool) -> Vec<Model> {
        let active = self.handles.iter().filter(|(uid, handle)| handle.counts() && is_meant(uid, handle));
        active.map(|(_, handle)| Model::new(handle.desired.borrow().pod.clone())).collect()
    }

    /// Hands a newer object on to its task, and decides on what it asks for beyond what the pod has.
    fn update(&mut self, pod: Arc<Pod>) {
        let Some(handle) = self.handles.get_mut(uid(&pod)) else { return };
        if handle.undecided.is_some() {
            // It has nothing yet, and is decided on as it is then.
            return self.grant(&pod);
        }
        // Most changes are of the status, and ask for nothing else than before.
        if handle.waiting.is_none() && handle.desired.borrow().pod.spec == pod.spec {
            return handle.send_as_is(pod, None);
        }
        let settled = Allocation::wanted(&pod) == handle.allocation || pod.metadata.deletion_timestamp.is_some();
        if settled || !handle.counts() {
            handle.waiting = None;
            return handle.send(&pod, None);
        }
        let before = handle.waiting.replace(pod.clone());
        let news = before.is_none_or(|before| !Arc::ptr_eq(&before, &pod));
        let known = handle.desired.borrow().pending.clone();
        match self.resize(&pod) {
            Ok(()) => self.grant(&pod),
            Err(pending) => {
                let told = known.as_ref() == Some(&pending);
                if !told {
                    let model = Model::new(pod.clone());
                    let text = allocation::summary(&model, Some(&pending.message));
                    let message = format!("Pod resize {}: {text}", pending.reason);
                    self.cx.pod_event(&model, Type::Warning, &format!("Resize{}", pending.reason), message);
                }
                if let Some(handle) = self.handles.get(uid(&pod)).filter(|_| news || !told) {
                    handle.send(&pod, Some(pending));
                }
            }
        }
    }

    /// Whether the pod can have what it asks for now.
    fn resize(&self, pod: &Arc<Pod>) -> Result<(), Pending> {
        let others = self.others(uid(pod));
        self.with_room(|room| admission::resize(&Model::new(pod.clone()), &others, room))
    }

    /// Gives the pod what it asks for.
    fn grant(&mut self, pod: &Arc<Pod>) {
        let Some(handle) = self.handles.get_mut(uid(pod)) else { return };
        handle.allocation = Allocation::wanted(pod);
        handle.burstable = qos::burstable_milli(&Model::new(pod.clone()));
        handle.waiting = None;
        handle.send(pod, None);
    }

    /// Asks for pods that wait for more, once all pods of the node are known, and again when others may have left: those with the highest
    /// priority first.
    fn retry(&mut self) {
        let mut waiting: Vec<_> = self.handles.values().filter_map(|handle| handle.waiting.clone()).collect();
        waiting.sort_by_key(|pod| std::cmp::Reverse(pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default()));
        for pod in waiting {
            self.update(pod);
        }
    }

    /// Begins static pods that are new, and ends those that are gone. One with another text waits for the end of the one before.
    fn sync_statics(&mut self) {
        let wanted = self.statics.wanted.borrow_and_update().clone().unwrap_or_default();
        for (key, known) in &self.statics.uids {
            if wanted.get(key).is_none_or(|pod| uid(pod) != known) {
                if let Some(handle) = self.handles.get(known) {
                    handle.desired.send_modify(|desired| desired.removed = true);
                }
                self.cx.leave(known);
            }
        }
        for (key, pod) in wanted.iter() {
            if !self.statics.uids.contains_key(key) {
                self.statics.uids.insert(key.clone(), uid(pod).to_owned());
                let mirror = self.statics.mirrors.get(key).filter(|mirror| statics::shows(mirror, pod)).cloned();
                let mut begun = pod.clone();
                if let Some(status) = mirror.as_ref().and_then(|mirror| mirror.status.clone()).filter(statics::goes_on) {
                    Arc::make_mut(&mut begun).status = Some(status);
                }
                self.begin(begun, Shown::Mirror(mirror));
            }
        }
        self.cx.statics.set_running(&self.statics.uids);
    }

    /// A mirror pod runs nothing: it shows what a static pod does.
    fn mirror_changed(&mut self, key: Key, mirror: Option<Arc<Pod>>) {
        let shown = |uid: &str| mirror.clone().filter(|mirror| statics::mirrored(mirror) == Some(uid));
        if let Some((uid, handle)) = self.statics.uids.get(&key).and_then(|uid| Some((uid, self.handles.get(uid)?))) {
            let shown = Shown::Mirror(shown(uid));
            handle.desired.send_if_modified(|desired| {
                let is_news = desired.shown != shown;
                desired.shown = shown;
                is_news
            });
        }
        match mirror {
            Some(mirror) => self.statics.mirrors.insert(key, mirror),
            None => self.statics.mirrors.remove(&key),
        };
    }

    fn changed(&mut self, change: Change<Pod>) {
        if change.object().is_some_and(|pod| statics::mirrored(pod).is_some()) {
            return self.mirror_changed(change.key, change.new);
        }
        let Change { key, new, .. } = change;
        let known = self.uids.get(&key).cloned();
        if let Some(known) = known.filter(|known| new.as_ref().is_none_or(|pod| uid(pod) != known)) {
            self.uids.remove(&key);
            if let Some(handle) = self.handles.get(&known) {
                handle.desired.send_modify(|desired| desired.removed = true);
            }
            self.cx.leave(&known);
        }
        let Some(pod) = new else { return };
        // What has ended is known here before the scheduler gives its place to another.
        if goes(&pod) {
            self.cx.leave(uid(&pod));
        }
        match self.handles.get(uid(&pod)) {
            Some(_) => self.update(pod),
            None => {
                self.uids.insert(key, uid(&pod).to_owned());
                self.begin(pod, Shown::Itself);
            }
        }
    }

    fn begin(&mut self, pod: Arc<Pod>, shown: Shown) {
        let found = self.found.remove(uid(&pod)).unwrap_or_default();
        let admission = self.admission(&pod, &found);
        let mut made: Vec<_> = found.containers.iter().collect();
        made.sort_by_key(|container| container.attempt);
        let records = made.iter().filter_map(|c| Some((c.name.as_str(), c.annotations.get(RESOURCES)?.as_str())));
        let allocation = Allocation::found(&pod, records);
        let given = allocation.apply(&pod);
        let waiting = (allocation != Allocation::wanted(&pod)).then_some(pod);
        let (task, name) = self.add(given, allocation, waiting, shown, admission);
        self.cx.tasks.spawn(name, OnFailure::Log, async move {
            task.run(found).await;
            Ok::<_, Infallible>(())
        });
    }

    /// A handle of the pod, which is here from now on, and its task with a name. Without an admission the API is asked.
    fn add(
        &mut self,
        pod: Arc<Pod>,
        allocation: Allocation,
        waiting: Option<Arc<Pod>>,
        shown: Shown,
        admission: Option<Admission>,
    ) -> (Task, String) {
        let (uid, model) = (uid(&pod).to_owned(), Model::new(pod.clone()));
        let desired = Desired { pod, removed: false, pending: None, evicted: None, shown, end: End::default() };
        let (desired, receiver) = watch::channel(desired);
        let runtime_changed = Arc::new(Notify::new());
        let (burstable, name) = (qos::burstable_milli(&model), format!("pod {}", model.title()));
        let end = TellEnd(self.finished.clone(), uid.clone());
        let (decision, decided) = oneshot::channel();
        let rejected = admission.as_ref().and_then(|admission| admission.as_ref().err().cloned());
        let undecided = match admission {
            Some(admission) => {
                // The task has the other end.
                let _ = decision.send(admission);
                None
            }
            None => Some(self.doubt(decision)),
        };
        let (cx, changed) = (self.cx.clone(), runtime_changed.clone());
        let task = Task { cx, desired: receiver, runtime_changed: changed, model, admission: decided, _end: end };
        self.handles.insert(uid, Handle { desired, runtime_changed, rejected, burstable, allocation, waiting, undecided });
        (task, name)
    }

    /// Forgets tasks that have done their work, and begins those anew that have not.
    fn reap(&mut self) {
        let ended = std::mem::take(&mut *self.finished.uids.lock());
        for uid in ended {
            let Some(handle) = self.handles.remove(&uid) else { continue };
            let is_removed = handle.desired.borrow().removed;
            if is_removed || self.cx.tasks.token().is_cancelled() {
                self.statics.uids.retain(|_, known| *known != uid);
                continue;
            }
            self.revive(handle);
        }
        self.sync_statics();
    }

    /// A new task must learn what runs: without that it would start everything a second time.
    fn revive(&mut self, handle: Handle) {
        let Handle { desired, rejected, allocation, waiting, undecided, .. } = handle;
        let Desired { pod, shown, .. } = desired.borrow().clone();
        let uid = uid(&pod).to_owned();
        let admission = undecided.is_none().then(|| rejected.map_or_else(|| Ok(Vec::new()), Err));
        let (task, name) = self.add(pod, allocation, waiting, shown, admission);
        tracing::error!("the task of {name} died, it is begun anew");
        let cx = self.cx.clone();
        self.cx.tasks.spawn(name, OnFailure::Log, async move {
            tokio::time::sleep(REVIVE).await;
            let found = inventory(&cx).await?.remove(&uid).unwrap_or_default();
            task.run(found).await;
            Ok::<_, runtime::api::Error>(())
        });
    }

    /// Ends what runs for pods that were deleted while the kubelet was away.
    fn remove_orphans(&mut self) {
        let mut orphans: HashMap<String, Option<PathBuf>> = HashMap::new();
        for (uid, found) in self.found.drain() {
            let pod = found.sandboxes.first().map(|sandbox| &sandbox.pod);
            let logs = pod.map(|pod| self.cx.options.pod_logs_dir.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid)));
            orphans.insert(uid, logs);
        }
        let known: HashSet<&String> = self.handles.keys().collect();
        let directories = std::fs::read_dir(self.cx.options.data_dir.join("pods")).into_iter().flatten().flatten();
        for entry in directories {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if !known.contains(&uid) {
                let recorded = std::fs::read_link(self.cx.log_record(&uid)).ok();
                let logs = orphans.entry(uid).or_default();
                *logs = logs.take().or(recorded);
            }
        }
        for uid in self.cx.owners() {
            if !known.contains(&uid) {
                orphans.entry(uid).or_default();
            }
        }
        for (uid, logs) in orphans {
            let cx = self.cx.clone();
            self.cx.tasks.spawn_until_cancelled(format!("orphaned pod {uid}"), OnFailure::Log, async move {
                let mut delay = ORPHAN_RETRY.0;
                // A volume's driver may come later than this process.
                while let Err(error) = cleanup::remove_pod(&cx, &uid, logs.as_deref()).await {
                    tracing::warn!(uid, error, "an orphaned pod is not removed yet");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(ORPHAN_RETRY.1);
                }
                Ok::<_, Infallible>(())
            });
        }
    }
}

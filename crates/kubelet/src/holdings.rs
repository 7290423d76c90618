//! What containers have of the node for themselves: processors, memory of NUMA nodes. Who has what, who is about to give it back, and the
//! file that says so to the next kubelet.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use base::files::{self, Outlives};
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// What each container has, by UID of the pod and by its name.
pub(crate) type Entries<T> = BTreeMap<String, BTreeMap<String, T>>;

/// Who has what. Pure.
#[derive(Clone, Debug)]
pub(crate) struct Held<T> {
    entries: Entries<T>,
    /// Pods on their way out that have something, by UID.
    leaving: BTreeSet<String>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Entries::new().into()
    }
}

impl<T> From<Entries<T>> for Held<T> {
    fn from(entries: Entries<T>) -> Self {
        Self { entries, leaving: BTreeSet::new() }
    }
}

impl<T> Held<T> {
    /// All of it.
    pub(crate) fn entries(&self) -> &Entries<T> {
        &self.entries
    }

    /// What a container has.
    pub(crate) fn of(&self, uid: &str, container: &str) -> Option<&T> {
        self.entries.get(uid)?.get(container)
    }

    /// What the containers of a pod have, to change it.
    pub(crate) fn of_pod_mut(&mut self, uid: &str) -> &mut BTreeMap<String, T> {
        self.entries.entry(uid.to_owned()).or_default()
    }

    /// What remains when the pods have ended that are on their way out; none where there are none.
    pub(crate) fn staying(&self) -> Option<Entries<T>>
    where
        T: Clone,
    {
        let stays = |(uid, _): &(&String, &BTreeMap<String, T>)| !self.leaving.contains(*uid);
        let staying = || self.entries.iter().filter(stays).map(|(uid, containers)| (uid.clone(), containers.clone()));
        self.has_leaving().then(|| staying().collect())
    }

    /// What pods on their way out have.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().filter(|(uid, _)| self.leaving.contains(*uid)).flat_map(|(_, containers)| containers.values())
    }

    /// Whether a pod that has something is on its way out.
    pub(crate) fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// A pod is on its way out.
    pub(crate) fn leave(&mut self, uid: &str) {
        if self.entries.contains_key(uid) {
            self.leaving.insert(uid.to_owned());
        }
    }

    /// Takes back what a pod has.
    pub(crate) fn release(&mut self, uid: &str) -> Option<BTreeMap<String, T>> {
        self.leaving.remove(uid);
        self.entries.remove(uid)
    }
}

/// Something of a node that containers have parts of.
pub(crate) trait Parts {
    /// What one container has.
    type Part;
    /// What is written down.
    type Record: Serialize + DeserializeOwned + Send + 'static;

    /// Who has what.
    fn held(&mut self) -> &mut Held<Self::Part>;

    /// What is to be written down.
    fn record(&self) -> Self::Record;

    /// Takes back what a pod has; whether it had something.
    fn release(&mut self, uid: &str) -> bool;
}

/// Why a container does not get a part.
pub(crate) trait Wait {
    /// Whether it will get it when pods have ended that are on their way out.
    fn is_for_leaving(&self) -> bool;
}

/// The parts of a node, and the file that says who has them.
pub(crate) struct Ledger<P> {
    path: PathBuf,
    parts: Mutex<P>,
    /// Changes when a pod has given back what it had.
    released: watch::Sender<()>,
    /// The file is written by one at a time.
    settling: tokio::sync::Mutex<()>,
}

/// What a file says; none where there is no file. Blocking.
pub(crate) fn read<R: DeserializeOwned>(path: &Path) -> io::Result<Option<R>> {
    base::records::read_json(path)
}

impl<P: Parts> Ledger<P> {
    pub(crate) fn new(path: PathBuf, parts: P) -> Self {
        Self { path, parts: Mutex::new(parts), released: watch::channel(()).0, settling: tokio::sync::Mutex::default() }
    }

    /// Where it is written down.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, P> {
        self.parts.lock()
    }

    /// Gives a container its part, as soon as pods on their way out have ended that it waits for.
    pub(crate) async fn give<T, R: Wait>(&self, mut give: impl FnMut(&mut P) -> Result<T, R>) -> Result<T, R> {
        let mut released = self.released.subscribe();
        loop {
            let given = give(&mut self.parts.lock());
            match given {
                // An error would mean that this kubelet is no more.
                Err(refusal) if refusal.is_for_leaving() => drop(released.changed().await),
                given => return given,
            }
        }
    }

    /// Held while it is written down, and while what follows from that is done.
    pub(crate) async fn settling(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.settling.lock().await
    }

    /// Replaces the file, also when the machine crashes.
    pub(crate) async fn write(&self) -> io::Result<()> {
        let (path, record) = (self.path.clone(), self.parts.lock().record());
        let write = move || files::replace(&path, &serde_json::to_vec(&record)?, Outlives::Machine);
        tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(error.into()))
    }

    /// Changes when a pod has given back what it had; none when no pod that has something is on its way out.
    pub(crate) fn leaving(&self) -> Option<watch::Receiver<()>> {
        let released = self.released.subscribe();
        self.parts.lock().held().has_leaving().then_some(released)
    }

    /// A pod is on its way out: who needs what it has waits for that.
    pub(crate) fn leave(&self, uid: &str) {
        self.parts.lock().held().leave(uid);
    }

    /// Takes back what a pod has, and tells those who wait; whether it had something.
    pub(crate) fn release(&self, uid: &str) -> bool {
        let had = self.parts.lock().release(uid);
        if had {
            self.released.send_replace(());
        }
        had
    }

    /// The pods that have something.
    pub(crate) fn pods(&self) -> Vec<String> {
        self.parts.lock().held().entries.keys().cloned().collect()
    }
}

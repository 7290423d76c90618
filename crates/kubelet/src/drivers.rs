//! Volumes of storage drivers (Container Storage Interface).
//!
//! | module | what |
//! |---|---|
//! | [`registration`] | drivers come and go with the sockets in the directory `plugins_registry` |
//! | [`announce`] | the node's CSINode object, and the labels that say where the node is |
//! | [`source`] | what is asked of a driver for a volume of a pod, pure |
//! | [`policy`] | what a driver's CSIDriver object asks for, pure |
//! | [`records`] | what was begun, on disk before it is begun |
//! | [`mount`] | staging and publishing, and the way back |
//! | [`operations`] | how long drivers take, for the node's page |
//! | [`expand`] | file systems that grow |
//! | [`count`] | how many volumes the node can have, asked again |

pub mod announce;
pub mod count;
pub mod expand;
pub mod mount;
pub(crate) mod operations;
pub mod policy;
pub mod records;
pub mod registration;
pub mod source;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use csi::Driver;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, watch};

/// The directory of volumes of drivers in a pod's directory, by upstream's name: drivers look for it.
pub const DIRECTORY: &str = "kubernetes.io~csi";

/// A driver with the number of its socket: the next one has another.
struct Registered {
    driver: Driver,
    socket: u64,
}

type Locks = HashMap<PathBuf, Arc<tokio::sync::Mutex<()>>>;

/// The drivers of this node.
#[derive(Default)]
pub struct Drivers {
    known: Mutex<BTreeMap<String, Registered>>,
    /// How many have come so far: what waits for one is tried again then.
    arrivals: watch::Sender<u64>,
    /// How often a volume stayed staged that no pod has any more.
    left: watch::Sender<u64>,
    /// How often a volume could not be attached since the node can have no more of its driver.
    full: watch::Sender<u64>,
    /// Drivers come and go one after the other.
    registering: tokio::sync::Mutex<()>,
    /// One thing at a time is done to a volume; by the directory where it is staged.
    locks: Mutex<Locks>,
}

impl Drivers {
    /// A driver that has made itself known. The error is what events say.
    pub fn find(&self, name: &str) -> Result<Driver, String> {
        let driver = self.known.lock().get(name).map(|known| known.driver.clone());
        driver.ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }

    fn insert(&self, name: &str, driver: Driver, socket: u64) {
        self.known.lock().insert(name.to_owned(), Registered { driver, socket });
        self.arrivals.send_modify(|number| *number += 1);
    }

    /// Changes when a driver comes.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    fn no_room(&self) {
        self.full.send_modify(|number| *number += 1);
    }

    fn stage_left(&self) {
        self.left.send_modify(|number| *number += 1);
    }

    /// Changes when a volume stays staged that no pod has any more.
    fn stages_left(&self) -> watch::Receiver<u64> {
        self.left.subscribe()
    }

    /// Forgets a driver, unless another one has taken its name meanwhile.
    fn remove(&self, name: &str, socket: u64) -> bool {
        let mut known = self.known.lock();
        let same = known.get(name).is_some_and(|known| known.socket == socket);
        if same {
            known.remove(name);
        }
        same
    }

    /// Waits until nobody else is at work on the volume that is staged there.
    async fn lock(&self, staging: PathBuf) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(staging).or_default().clone()
        };
        lock.lock_owned().await
    }
}

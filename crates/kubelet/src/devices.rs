//! Devices that plugins of the node give to containers (the kubelet's device plugin API, `v1beta1`).
//!
//! | module | what |
//! |---|---|
//! | [`inventory`] | which devices there are and who has them, pure |
//! | [`allocation`] | a pod gets its devices before it is admitted |
//! | [`health`] | how the devices of containers are, for their statuses |
//! | [`edits`] | what a container gets with its devices, pure |
//! | [`plugin`] | one plugin: what it registers as, and its list of devices |
//! | [`registration`] | the socket at which plugins register |
//! | [`pod_resources`] | the socket at which others ask who has which devices |
//! | [`records`] | assignments on disk |

mod allocation;
mod edits;
mod health;
mod inventory;
mod plugin;
pub mod pod_resources;
mod records;
pub mod registration;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};

pub use allocation::{Error as AllocationError, Reusable};
use inventory::Inventory;
pub use inventory::{Amount, Amounts};
use parking_lot::Mutex;
pub use plugin::{Refused, attach, detach};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The devices of this node.
#[derive(Default)]
pub struct Devices {
    /// The kubelet's directory of device plugins.
    directory: PathBuf,
    inventory: Mutex<Inventory>,
    /// Number of a resource's plugin, and what ends its task.
    followed: Mutex<HashMap<String, (u64, CancellationToken)>>,
    /// Changes when a pod has given its devices back.
    released: watch::Sender<()>,
    /// Changes with what plugins say of their devices.
    news: watch::Sender<()>,
    /// The file is written by one at a time.
    writing: tokio::sync::Mutex<()>,
}

impl Devices {
    /// Reads who has which devices. Blocking.
    pub fn load(data_dir: &Path) -> Self {
        let directory = data_dir.join("device-plugins");
        let inventory = records::read(&directory).unwrap_or_else(|error| {
            tracing::error!(%error, "the assignments of devices cannot be read: devices of pods that run may be given to others");
            Inventory::default()
        });
        Self { directory, inventory: Mutex::new(inventory), ..Self::default() }
    }

    /// What plugins say that the node has, by resource. What a plugin had that is gone is 0, or nothing once it is forgotten.
    pub fn amounts(&self) -> Amounts {
        self.inventory.lock().amounts()
    }

    /// The API has been told of these amounts.
    pub fn told(&self, amounts: &Amounts) {
        self.inventory.lock().told(amounts.iter().filter(|(_, amount)| amount.is_none()).map(|(name, _)| name));
    }

    /// Changes with what plugins say of their devices.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Changes when a pod has given its devices back; none when no pod that has some is on its way out.
    pub fn leaving(&self) -> Option<watch::Receiver<()>> {
        let released = self.released.subscribe();
        self.inventory.lock().has_leaving().then_some(released)
    }

    /// A pod is on its way out: who needs what it has waits for that.
    pub fn leave(&self, uid: &str) {
        self.inventory.lock().leave(uid);
    }

    /// Takes back what a pod has. Idempotent.
    pub async fn release(&self, uid: &str) {
        if !self.inventory.lock().release(uid) {
            return;
        }
        self.released.send_replace(());
        if let Err(error) = self.save().await {
            tracing::warn!(uid, %error, "the devices of a pod are free, and still assigned on disk");
        }
    }

    /// Whether no plugin has ever registered.
    pub fn are_unused(&self) -> bool {
        self.inventory.lock().is_unused()
    }

    /// The pods that have some.
    pub fn pods(&self) -> BTreeSet<String> {
        self.inventory.lock().held().map(|(owner, _)| owner.uid.clone()).collect()
    }

    /// What a container has, by resource.
    pub fn of_container(&self, uid: &str, container: &str) -> Reusable {
        let inventory = self.inventory.lock();
        let held = inventory.of_container(uid, container).into_iter();
        held.map(|(resource, held)| (resource.to_owned(), held.devices.clone())).collect()
    }

    /// A plugin is about to be followed, in the place of the one before it: gives its number. In one step, or the older of two that register at once
    /// could end the newer.
    fn expect(&self, name: &str, token: CancellationToken) -> Result<u64, inventory::TooMany> {
        let mut followed = self.followed.lock();
        let serial = self.inventory.lock().expect(name)?;
        if let Some((_, before)) = followed.insert(name.to_owned(), (serial, token)) {
            before.cancel();
        }
        Ok(serial)
    }

    /// Writes down who has which devices.
    async fn save(&self) -> io::Result<()> {
        let _one = self.writing.lock().await;
        let (directory, bytes) = (self.directory.clone(), records::encode(&self.inventory.lock())?);
        tokio::task::spawn_blocking(move || records::write(&directory, &bytes)).await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A plugin that registers at both sockets, or twice, and whoever is the last.
    #[test]
    fn the_last_plugin_that_registers_is_followed() {
        let devices = Devices::default();
        let expect = || {
            let token = CancellationToken::new();
            (devices.expect("example.com/berth", token.clone()).unwrap(), token)
        };
        let all: Vec<(u64, CancellationToken)> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..64).map(|_| scope.spawn(expect)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let last = all.iter().map(|(serial, _)| *serial).max().unwrap();
        let left: Vec<u64> = all.iter().filter(|(_, token)| !token.is_cancelled()).map(|(serial, _)| *serial).collect();
        assert_eq!(left, [last]);
        assert_eq!(devices.followed.lock()["example.com/berth"].0, last);
    }
}

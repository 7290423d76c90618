//! Devices that pods claim (dynamic resource allocation, KEP-4381): drivers prepare them on the node before the pod starts, and what they
//! name by the Container Device Interface ([`crate::cdi`]) reaches the containers.
//!
//! | module | what |
//! |---|---|
//! | [`prepare`] | a pod's claims are prepared, and given back when it has ended |
//! | [`health`] | how devices are, as drivers say |
//! | [`records`] | what was begun with which driver, on disk before it is begun |
//! | [`slices`] | those of a driver go with it |

pub mod health;
pub mod prepare;
mod records;
pub mod slices;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csi::dra::Plugin;
use health::Findings;
use parking_lot::Mutex;
use records::Record;
use tokio::sync::{OwnedMutexGuard, watch};

type Locks = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// The claims of the pods of this node, and who prepares them.
#[derive(Default)]
pub struct Claims {
    directory: PathBuf,
    /// Drivers by name, each with the number of its socket: the next one has another.
    drivers: Mutex<BTreeMap<String, (Plugin, u64)>>,
    /// By the claim's uid.
    records: Mutex<BTreeMap<String, Record>>,
    /// What this process had prepared, by the claim's uid and the driver. What a record says is from before a restart of the machine perhaps,
    /// which forgets all that drivers have in memory.
    prepared: Mutex<BTreeSet<(String, String)>>,
    /// One thing at a time is done to a claim.
    locks: Mutex<Locks>,
    findings: Mutex<Findings>,
    news: watch::Sender<()>,
}

impl Claims {
    /// Reads what was begun before. Blocking.
    pub fn load(data_dir: &Path) -> Self {
        let directory = data_dir.join("claims");
        let records = records::read(&directory).unwrap_or_else(|error| {
            tracing::error!(%error, "the record of prepared claims cannot be read: what is prepared may stay so");
            BTreeMap::new()
        });
        Self { directory, records: Mutex::new(records), ..Self::default() }
    }

    /// A driver has made itself known.
    pub fn insert(&self, name: &str, plugin: Plugin, socket: u64) {
        self.drivers.lock().insert(name.to_owned(), (plugin, socket));
    }

    /// Forgets a driver, unless another one has taken its name meanwhile. Whether it is gone.
    pub fn remove(&self, name: &str, socket: u64) -> bool {
        let mut drivers = self.drivers.lock();
        let same = drivers.get(name).is_some_and(|(_, number)| *number == socket);
        if same {
            drivers.remove(name);
            self.forget_findings(name);
        }
        same
    }

    /// Changes with what drivers say of their devices.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn driver(&self, name: &str) -> Result<Plugin, String> {
        let driver = self.drivers.lock().get(name).map(|(plugin, _)| plugin.clone());
        driver.ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    /// Waits until nobody else is at work on a claim.
    async fn lock(&self, uid: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(uid.to_owned()).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Keeps a record, on disk first.
    async fn keep(&self, record: Record) -> Result<(), String> {
        let (directory, written) = (self.directory.clone(), record.clone());
        let done = tokio::task::spawn_blocking(move || records::write(&directory, &written)).await;
        done.map_err(std::io::Error::other)
            .and_then(|done| done)
            .map_err(|error| format!("cannot write down a claim: {error}"))?;
        self.records.lock().insert(record.uid.clone(), record);
        Ok(())
    }

    async fn forget(&self, uid: &str) -> Result<(), String> {
        let path = records::path(&self.directory, uid);
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(format!("cannot forget a claim: {error}")),
            _ => {
                self.records.lock().remove(uid);
                self.prepared.lock().retain(|(claim, _)| claim != uid);
                Ok(())
            }
        }
    }
}

//! Devices that pods claim (dynamic resource allocation, KEP-4381): drivers prepare them on the node before the pod starts, and what they
//! name by the Container Device Interface ([`crate::cdi`]) reaches the containers.
//!
//! | module | what |
//! |---|---|
//! | [`prepare`] | a pod's claims are prepared, and given back when it has ended |
//! | [`instances`] | the plugins of drivers: which one serves, and since when none does |
//! | [`connection`] | whether a plugin is there |
//! | [`health`] | how devices are, as drivers say |
//! | [`records`] | what was begun with which driver, on disk before it is begun |
//! | [`resources`] | what a container has by claims, for monitors |
//! | [`slices`] | those of a driver go with it |

pub mod connection;
pub mod health;
mod instances;
pub mod prepare;
mod records;
mod resources;
pub mod slices;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csi::dra::Plugin;
use health::Findings;
use instances::Instances;
use parking_lot::Mutex;
use records::Record;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

type Locks = HashMap<String, Arc<tokio::sync::Mutex<()>>>;

/// The claims of the pods of this node, and who prepares them.
#[derive(Default)]
pub struct Claims {
    directory: PathBuf,
    instances: Mutex<Instances>,
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

    /// A plugin of a driver has made itself known. Whether it is to be seen from now on whether the driver is away for long.
    #[must_use]
    pub fn insert(&self, driver: &str, plugin: Plugin, socket: u64) -> bool {
        self.instances.lock().insert(driver, plugin, socket, Instant::now())
    }

    /// A plugin of a driver is there, or is there no more. Whether it is to be seen from now on whether the driver is away for long.
    #[must_use]
    fn connected(&self, driver: &str, socket: u64, is_connected: bool) -> bool {
        self.instances.lock().connected(driver, socket, is_connected, Instant::now())
    }

    /// Forgets a plugin of a driver. Whether it is to be seen from now on whether the driver is away for long.
    #[must_use]
    pub fn remove(&self, driver: &str, socket: u64) -> bool {
        let is_away = self.instances.lock().remove(driver, socket, Instant::now());
        self.forget_findings(driver, socket);
        is_away
    }

    /// Changes with what drivers say of their devices.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn driver(&self, name: &str) -> Result<Plugin, String> {
        self.instances.lock().serving(name).ok_or_else(|| format!("DRA driver {name} is not registered"))
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

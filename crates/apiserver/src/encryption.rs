//! Encryption at rest: what is stored of the resources that an EncryptionConfiguration names is encrypted.
//!
//! The first provider of a resource, with its first key, writes; all of them read. What another one has written is stale, and is written
//! anew when it is updated, also with what it is already. A stored value begins with `k8s:enc:`, the provider and the name of its key,
//! as upstream's; it is bound to its key in the store, so that one cannot be put in the place of another.
//!
//! Caches, and with them answers and watches, have what is not encrypted. The file is followed: a configuration that cannot read
//! what is stored is not taken.

mod cipher;
mod configuration;
mod metrics;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use base::directory;
use bytes::Bytes;
use parking_lot::Mutex;
use store::{Engine, Transformer};
use tokio::sync::RwLock;

pub use configuration::Invalid;
use configuration::{Configuration, Rule};

/// What every encrypted value begins with.
const ENCRYPTED: &[u8] = b"k8s:enc:";
/// Keys read at once when a configuration is tried.
const PAGE: usize = 500;

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("encryption configuration {path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is wrong.
    #[error("encryption configuration {path}: {source}", path = path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Invalid,
    },
    /// What is stored cannot be read with it.
    #[error("encryption configuration: {0}")]
    Unreadable(#[from] store::Error),
}

/// The configuration that is in force.
#[derive(Default)]
pub struct Encryption {
    configuration: ArcSwap<Configuration>,
    /// Held by what is written with it.
    writes: Arc<RwLock<()>>,
    /// The one that is tried.
    trial: ArcSwapOption<Trial>,
    /// The file as it was at the start.
    text: String,
}

impl Encryption {
    /// Reads a configuration; without one nothing is encrypted, and nothing that is can be read.
    pub fn load(path: Option<&Path>) -> Result<Arc<Self>, Error> {
        let Some(path) = path else { return Ok(Arc::default()) };
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let configuration = parse(path, &text)?;
        metrics::applied(&digest(text.as_bytes()));
        Ok(Arc::new(Self { configuration: ArcSwap::from_pointee(configuration), text, ..Self::default() }))
    }

    /// Takes in the file whenever it changes. `engine` is that in which values are encrypted.
    pub async fn follow(self: Arc<Self>, path: PathBuf, engine: Arc<dyn Engine>) -> Result<(), std::convert::Infallible> {
        let mut file = directory::File::new(&path, self.text.clone());
        loop {
            let text = file.changed().await;
            match self.renew(&path, &text, &*engine).await {
                Ok(()) => tracing::info!(path = %path.display(), "the encryption configuration has changed and is in force"),
                Err(error) => {
                    metrics::reloaded(false);
                    tracing::error!(%error, "the changed encryption configuration is not used; the one before stays in force");
                }
            }
        }
    }

    async fn renew(&self, path: &Path, text: &str, engine: &dyn Engine) -> Result<(), Error> {
        self.take(parse(path, text)?, engine).await?;
        metrics::reloaded(true);
        metrics::applied(&digest(text.as_bytes()));
        Ok(())
    }

    /// Puts a configuration in force that can read all that is stored. What is written goes on meanwhile: writers wait for those before
    /// them, twice, and never while all is read.
    async fn take(&self, next: Configuration, engine: &dyn Engine) -> Result<(), store::Error> {
        let trial = Arc::new(Trial { next: Arc::new(next), doubtful: Mutex::default() });
        // What was on its way is stored, and is read; what comes from here on is tried when it is written.
        let all = self.writes.write().await;
        self.trial.store(Some(trial.clone()));
        drop(all);
        let tried = try_on(&trial.next, &self.configuration.load_full(), engine).await;
        // Nothing is on its way with the one before: who is told that this one is in force may count upon it.
        let _all = self.writes.write().await;
        self.trial.store(None);
        tried?;
        let doubtful = std::mem::take(&mut *trial.doubtful.lock());
        for key in doubtful {
            // It may have been refused, or have gone again.
            if let Some(record) = engine.get(&key).await? {
                open(&trial.next, &key, &record.value)?;
            }
        }
        self.configuration.store(trial.next.clone());
        Ok(())
    }
}

/// A configuration that is tried while others write with the one in force.
struct Trial {
    next: Arc<Configuration>,
    /// Keys of values that it cannot read and that were to be stored.
    doubtful: Mutex<BTreeSet<Vec<u8>>>,
}

impl Trial {
    fn wrote(&self, key: &[u8], stored: &[u8]) {
        if open(&self.next, key, stored).is_err() {
            self.doubtful.lock().insert(key.to_vec());
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<Configuration, Error> {
    Configuration::parse(text).map_err(|source| Error::Invalid { path: path.to_owned(), source })
}

/// The hash of a configuration, as it stands in the metrics.
pub fn digest(text: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    digest.as_ref().iter().fold("sha256:".to_owned(), |mut hash, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hash, "{byte:02x}");
        hash
    })
}

/// A new key, of 32 bytes, in base64. None when the machine has no random numbers.
pub fn secret() -> Option<String> {
    use base64::Engine as _;
    Some(base64::engine::general_purpose::STANDARD.encode(cipher::random::<32>()?))
}

/// Reads all that either configuration speaks of.
async fn try_on(next: &Configuration, present: &Configuration, engine: &dyn Engine) -> Result<(), store::Error> {
    for (mut start, end) in next.ranges().into_iter().chain(present.ranges()) {
        loop {
            let page = engine.range(&start, &end, None, PAGE).await?;
            for record in &page.records {
                open(next, &record.key, &record.value)?;
            }
            match page.records.last() {
                Some(last) if page.more => start = [&last.key, &b"\0"[..]].concat(),
                _ => break,
            }
        }
    }
    Ok(())
}

/// The resource and group of a key of the store.
fn resource_of(key: &[u8]) -> Option<(&str, &str)> {
    let mut parts = std::str::from_utf8(key).ok()?.strip_prefix("/registry/")?.splitn(3, '/');
    let (group, resource) = (parts.next()?, parts.next()?);
    parts.next()?;
    Some((resource, if group == "core" { "" } else { group }))
}

fn rule<'a>(configuration: &'a Configuration, key: &[u8]) -> Option<&'a Rule> {
    if configuration.is_empty() {
        return None;
    }
    let (resource, group) = resource_of(key)?;
    configuration.rule(resource, group)
}

fn unreadable(key: &[u8], cause: String) -> store::Error {
    store::Error::Untransformed { key: String::from_utf8_lossy(key).into_owned(), cause }
}

fn open(configuration: &Configuration, key: &[u8], stored: &[u8]) -> Result<Option<Bytes>, store::Error> {
    let rule = rule(configuration, key);
    if !stored.starts_with(ENCRYPTED) {
        return match rule {
            Some(rule) if !rule.reads_plain() => Err(unreadable(
                key,
                "it is not encrypted, and the encryption configuration has no provider identity for it".to_owned(),
            )),
            _ => Ok(None),
        };
    }
    let mut wrong = false;
    for found in rule.iter().flat_map(|rule| rule.keys()).filter(|found| stored.starts_with(&found.prefix)) {
        if let Some(value) = found.cipher.open(key, &stored[found.prefix.len()..]) {
            metrics::transformed(key, "from_storage", &found.provider_prefix(), true);
            return Ok(Some(value.into()));
        }
        wrong = true;
    }
    // The head of an encrypted value: provider, version and name of the key, without what follows.
    let head: Vec<_> = stored[ENCRYPTED.len()..].splitn(4, |byte| *byte == b':').map(String::from_utf8_lossy).collect();
    let (provider, name) = match head.as_slice() {
        [provider, _, name, _] => (provider.as_ref(), name.as_ref()),
        _ => ("an unknown provider", ""),
    };
    metrics::transformed(key, "from_storage", "unknown", false);
    let cause = if wrong {
        format!(
            "it was encrypted with another key than the one which the encryption configuration has as {name:?} of {provider}, or is damaged"
        )
    } else {
        format!("it was encrypted with the key {name:?} of {provider}, which no encryption configuration has")
    };
    Err(unreadable(key, cause))
}

fn seal(configuration: &Configuration, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, store::Error> {
    let Some(first) = rule(configuration, key).and_then(Rule::writer) else { return Ok(None) };
    let sealed = first.cipher.seal(key, value).ok_or_else(|| unreadable(key, "it cannot be encrypted".to_owned()))?;
    metrics::transformed(key, "to_storage", &first.provider_prefix(), true);
    Ok(Some([&first.prefix[..], &sealed].concat().into()))
}

impl Transformer for Encryption {
    fn transform_to_storage(&self, key: &[u8], value: &[u8]) -> Result<Option<Bytes>, store::Error> {
        let configuration = self.configuration.load();
        let stored = seal(&configuration, key, value)?;
        if let Some(trial) = &*self.trial.load() {
            trial.wrote(key, stored.as_deref().unwrap_or(value));
        }
        Ok(stored)
    }

    fn transform_from_storage(&self, key: &[u8], stored: &[u8]) -> Result<Option<Bytes>, store::Error> {
        open(&self.configuration.load(), key, stored)
    }

    fn writes(&self) -> Option<&Arc<RwLock<()>>> {
        Some(&self.writes)
    }

    fn concerns(&self, key: &[u8]) -> bool {
        rule(&self.configuration.load(), key).is_some()
    }

    fn is_transformed(&self, stored: &[u8]) -> bool {
        stored.starts_with(ENCRYPTED)
    }

    fn is_stale(&self, key: &[u8], stored: &[u8]) -> bool {
        let configuration = self.configuration.load();
        match rule(&configuration, key).map(Rule::writer) {
            Some(Some(first)) => !stored.starts_with(&first.prefix),
            _ => stored.starts_with(ENCRYPTED),
        }
    }
}

#[cfg(test)]
mod tests;

//! Everything that is served, as one immutable snapshot. Routes, discovery, OpenAPI and the feeds of the caches derive from it; none
//! keeps a list of its own. A request holds the snapshot that it began with, and definitions of custom resources make the next one.

use std::collections::HashMap;
use std::sync::Arc;

use kinds::{Rules, Strategy};

use crate::form::{BUILTIN, Form};
use crate::storage::Storage;
use crate::{Remote, Served};

/// A snapshot of what is served.
#[derive(Clone, Default)]
pub struct Catalog {
    generation: u64,
    served: Vec<Arc<Served>>,
    /// Where the versions of each resource name stand in the list, of all groups.
    by_plural: HashMap<String, Vec<usize>>,
    by_prefix: HashMap<String, Arc<Storage>>,
    /// What other servers serve.
    remotes: Arc<Vec<Arc<Remote>>>,
}

impl Catalog {
    /// Of these kinds. A version that is converted comes after the one that is stored.
    pub(crate) fn builtin(strategies: &[&'static dyn Strategy]) -> Result<Self, String> {
        let mut catalog = Self { generation: 1, ..Self::default() };
        for strategy in strategies {
            let rules = Rules::Builtin(*strategy);
            let storage = match strategy.conversion() {
                None => Arc::new(Storage::new(Form::new(rules.clone(), BUILTIN)?)),
                Some(conversion) => {
                    let stored = catalog.served.iter().find(|one| one.def.own_kind() == conversion.stored);
                    stored.ok_or_else(|| format!("{:?} is served before it is stored", conversion.stored))?.storage.clone()
                }
            };
            let served = Served::new(rules, storage, strategy.conversion().is_some(), BUILTIN)?;
            if served.def.stored {
                catalog.by_prefix.insert(served.storage.prefix.clone(), served.storage.clone());
            }
            catalog.push(Arc::new(served));
        }
        Ok(catalog)
    }

    fn push(&mut self, served: Arc<Served>) {
        self.by_plural.entry(served.def.plural.to_string()).or_default().push(self.served.len());
        self.served.push(served);
    }

    /// The next snapshot, in which a storage is fed whose resource is not served yet.
    pub(crate) fn with_storage(&self, storage: &Arc<Storage>) -> Self {
        let mut next = self.clone();
        next.by_prefix.insert(storage.prefix.clone(), storage.clone());
        next
    }

    /// The next snapshot, in which these are the versions of the resource under `prefix`; its storage goes with the last of them.
    pub(crate) fn with_versions(&self, prefix: &str, versions: Vec<Arc<Served>>) -> Self {
        let (by_prefix, remotes) = (self.by_prefix.clone(), self.remotes.clone());
        let mut next = Self { generation: self.generation + 1, by_prefix, remotes, ..Self::default() };
        if versions.is_empty() {
            next.by_prefix.remove(prefix);
        }
        let others = self.served.iter().filter(|served| served.storage.prefix != prefix).cloned();
        others.chain(versions).for_each(|served| next.push(served));
        next
    }

    /// The next snapshot, in which other servers serve these.
    pub(crate) fn with_remotes(&self, remotes: Vec<Arc<Remote>>) -> Self {
        Self { generation: self.generation + 1, remotes: Arc::new(remotes), ..self.clone() }
    }

    /// Every group version that another server serves.
    pub fn remotes(&self) -> std::slice::Iter<'_, Arc<Remote>> {
        self.remotes.iter()
    }

    /// The other server of a group version. It comes before what is served here.
    pub fn remote(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.remotes.iter().find(|remote| remote.version == version && remote.group == group)
    }

    /// Grows with each change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every version of every resource: built-in kinds in the order of their list, then custom resources.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.served.iter()
    }

    /// The resource of that group, version and plural.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        let mut found = self.by_plural.get(plural)?.iter().map(|index| &self.served[*index]);
        found.find(|served| served.def.group == group && served.def.version == version)
    }

    /// Every version over the storage of that one, itself included.
    pub(crate) fn versions_of<'a>(&'a self, of: &'a Served) -> impl Iterator<Item = &'a Arc<Served>> {
        let named = self.by_plural.get(&*of.def.plural).into_iter().flatten().map(|index| &self.served[*index]);
        named.filter(|served| Arc::ptr_eq(&served.storage, &of.storage))
    }

    /// Whether anything is served in that group version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.served.iter().any(|served| served.def.group == group && served.def.version == version)
    }

    /// The storage under a prefix.
    pub(crate) fn storage(&self, prefix: &str) -> Option<&Arc<Storage>> {
        self.by_prefix.get(prefix)
    }

    /// Every storage.
    pub(crate) fn storages(&self) -> impl Iterator<Item = &Arc<Storage>> {
        self.by_prefix.values()
    }

    /// The storage of a key of the store, and the object's path in it.
    pub(crate) fn locate<'a>(&self, key: &'a [u8]) -> Option<(&Arc<Storage>, &'a str)> {
        let key = std::str::from_utf8(key).ok()?;
        let (end, _) = key.match_indices('/').nth(3)?;
        Some((self.by_prefix.get(&key[..=end])?, &key[end + 1..]))
    }
}

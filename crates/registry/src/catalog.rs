//! Everything that is served, as one immutable snapshot. Routes, discovery, OpenAPI and the feeds of the caches derive from it; none
//! keeps a list of its own. A request holds the snapshot that it began with, and definitions of custom resources make the next one, which
//! shares all but the changed resource with the one before: with a thousand definitions, one more costs what it costs alone.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use kinds::{Rules, Strategy};
use rpds::RedBlackTreeMapSync;

use crate::form::{BUILTIN, Form};
use crate::storage::{Storage, group_prefix, prefix};
use crate::{Remote, Served};

/// A snapshot of what is served.
#[derive(Clone, Default)]
pub struct Catalog {
    generation: u64,
    /// The generation since which the same group versions are served.
    versions_since: u64,
    builtin: Arc<Builtin>,
    /// Custom resources by their prefix in the store, so that those of a group stand together.
    custom: RedBlackTreeMapSync<Arc<str>, Custom>,
    /// What other servers serve.
    remotes: Arc<Vec<Arc<Remote>>>,
}

/// The kinds of the program, which never change.
#[derive(Default)]
struct Builtin {
    served: Vec<Arc<Served>>,
    /// Where the versions of each resource name stand in the list, of all groups.
    by_plural: HashMap<String, Vec<usize>>,
    by_prefix: HashMap<Arc<str>, Arc<Storage>>,
}

impl Builtin {
    fn push(&mut self, served: Arc<Served>) {
        self.by_plural.entry(served.def.plural.to_string()).or_default().push(self.served.len());
        self.served.push(served);
    }

    fn named(&self, plural: &str) -> impl Iterator<Item = &Arc<Served>> {
        self.by_plural.get(plural).into_iter().flatten().map(|index| &self.served[*index])
    }
}

/// A custom resource.
struct Custom {
    storage: Arc<Storage>,
    /// Its versions; none while its storage is opened, and where its objects are kept and nobody sees them.
    versions: Vec<Arc<Served>>,
}

impl Catalog {
    /// Of these kinds. A version that is converted comes after the one that is stored.
    pub(crate) fn builtin(strategies: &[&'static dyn Strategy]) -> Result<Self, String> {
        let mut builtin = Builtin::default();
        for strategy in strategies {
            let rules = Rules::Builtin(*strategy);
            let storage = match strategy.conversion() {
                None => Arc::new(Storage::new(Form::new(rules.clone(), BUILTIN)?)),
                Some(conversion) => {
                    let stored = builtin.served.iter().find(|one| one.def.own_kind() == conversion.stored);
                    stored.ok_or_else(|| format!("{:?} is served before it is stored", conversion.stored))?.storage.clone()
                }
            };
            let served = Served::new(rules, storage, strategy.conversion().is_some(), BUILTIN)?;
            if served.def.stored {
                builtin.by_prefix.insert(served.storage.prefix.clone(), served.storage.clone());
            }
            builtin.push(Arc::new(served));
        }
        Ok(Self { generation: 1, versions_since: 1, builtin: Arc::new(builtin), ..Self::default() })
    }

    /// Whether a resource is part of the program.
    pub(crate) fn is_builtin(&self, group: &str, plural: &str) -> bool {
        self.builtin.named(plural).any(|served| served.def.group == group)
    }

    /// The next snapshot, in which a storage is fed whose resource is not served yet.
    pub(crate) fn with_storage(&self, storage: &Arc<Storage>) -> Self {
        let custom = Custom { storage: storage.clone(), versions: Vec::new() };
        Self { custom: self.custom.insert(storage.prefix.clone(), custom), ..self.clone() }
    }

    /// The next snapshot, in which these are the versions of the custom resource over `storage`.
    pub(crate) fn with_versions(&self, storage: &Arc<Storage>, versions: Vec<Arc<Served>>) -> Self {
        let custom = Custom { storage: storage.clone(), versions };
        self.with_custom(&storage.prefix, self.custom.insert(storage.prefix.clone(), custom))
    }

    /// The next snapshot, without the custom resource under `prefix`.
    pub(crate) fn without(&self, prefix: &str) -> Self {
        self.with_custom(prefix, self.custom.remove(prefix))
    }

    /// The next snapshot, where of the custom resources the one under `prefix` is another.
    fn with_custom(&self, prefix: &str, custom: RedBlackTreeMapSync<Arc<str>, Custom>) -> Self {
        let mut next = Self { generation: self.generation + 1, custom, ..self.clone() };
        let of = |catalog: &Self| catalog.custom.get(prefix).map(|custom| custom.versions.clone()).unwrap_or_default();
        let differs = |served: &Arc<Served>| {
            let (group, version) = (&*served.def.group, &*served.def.version);
            self.has_version(group, version) != next.has_version(group, version)
        };
        if of(self).iter().chain(&of(&next)).any(differs) {
            next.versions_since = next.generation;
        }
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

    /// The generation since which the same group versions are served here: most definitions bring another kind of one that is there.
    pub fn versions_since(&self) -> u64 {
        self.versions_since
    }

    /// Every version of every resource: built-in kinds in the order of their list, then custom resources by group and name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.builtin.served.iter().chain(self.custom.values().flat_map(|custom| &custom.versions))
    }

    /// The resource of that group, version and plural.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        let is_it = |served: &&Arc<Served>| served.def.group == group && served.def.version == version;
        self.builtin.named(plural).find(is_it).or_else(|| self.custom.get(&*prefix(group, plural))?.versions.iter().find(is_it))
    }

    /// Every version over the storage of that one, itself included.
    pub(crate) fn versions_of<'a>(&'a self, of: &'a Served) -> impl Iterator<Item = &'a Arc<Served>> {
        let custom = self.custom.get(&of.storage.prefix).into_iter().flat_map(|custom| &custom.versions);
        let all = self.builtin.named(&of.def.plural).chain(custom);
        all.filter(|served| Arc::ptr_eq(&served.storage, &of.storage))
    }

    /// Whether anything is served in that group version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        let of_group = group_prefix(group);
        let from = (Bound::Included(of_group.as_str()), Bound::Unbounded);
        let custom = self.custom.range::<str, _>(from).take_while(|(prefix, _)| prefix.starts_with(&of_group));
        let custom = custom.flat_map(|(_, custom)| &custom.versions);
        self.builtin.served.iter().chain(custom).any(|served| served.def.group == group && served.def.version == version)
    }

    /// The storage under a prefix.
    pub(crate) fn storage(&self, prefix: &str) -> Option<&Arc<Storage>> {
        self.builtin.by_prefix.get(prefix).or_else(|| self.custom.get(prefix).map(|custom| &custom.storage))
    }

    /// Every storage.
    pub(crate) fn storages(&self) -> impl Iterator<Item = &Arc<Storage>> {
        self.builtin.by_prefix.values().chain(self.custom.values().map(|custom| &custom.storage))
    }

    /// The storage of a key of the store, and the object's path in it.
    pub(crate) fn locate<'a>(&self, key: &'a [u8]) -> Option<(&Arc<Storage>, &'a str)> {
        let key = std::str::from_utf8(key).ok()?;
        let (end, _) = key.match_indices('/').nth(3)?;
        Some((self.storage(&key[..=end])?, &key[end + 1..]))
    }
}

//! Everything that is served, as one immutable snapshot. Routes, discovery, OpenAPI and the feeds of the caches derive from it; none
//! keeps a list of its own. A request holds the snapshot that it began with.

use std::collections::HashMap;
use std::sync::Arc;

use kinds::{GroupVersionKindRef, KindDef, Strategy};

use crate::Served;
use crate::storage::Storage;

/// A snapshot of what is served.
#[derive(Default)]
pub struct Catalog {
    generation: u64,
    served: Vec<Arc<Served>>,
    by_name: HashMap<Name, usize>,
    by_prefix: HashMap<String, Arc<Storage>>,
}

/// Group, version and resource.
type Name = (&'static str, &'static str, &'static str);

impl Catalog {
    /// Of these kinds. A version that is converted comes after the one that is stored.
    pub(crate) fn of(strategies: &[&'static dyn Strategy]) -> Result<Self, String> {
        let mut catalog = Self { generation: 1, ..Self::default() };
        for strategy in strategies {
            catalog.add(*strategy)?;
        }
        Ok(catalog)
    }

    fn add(&mut self, strategy: &'static dyn Strategy) -> Result<(), String> {
        let storage = match strategy.conversion() {
            None => Arc::new(Storage::new(strategy)?),
            Some(conversion) => {
                let stored = self.served.iter().find(|one| gvk(one.def) == conversion.stored);
                stored.ok_or_else(|| format!("{:?} is served before it is stored", conversion.stored))?.storage.clone()
            }
        };
        let served = Served::new(strategy, storage)?;
        if served.def.stored && !served.is_converted() {
            self.by_prefix.insert(served.storage.prefix.clone(), served.storage.clone());
        }
        self.by_name.insert((served.def.group, served.def.version, served.def.plural), self.served.len());
        self.served.push(Arc::new(served));
        Ok(())
    }

    /// Grows with each change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every version of every resource, in the order of the list of kinds.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.served.iter()
    }

    /// The resource of that group, version and plural.
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.by_name.get(&(group, version, plural)).map(|index| &self.served[*index])
    }

    /// Whether anything is served in that group version.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.served.iter().any(|served| (served.def.group, served.def.version) == (group, version))
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

fn gvk(def: &'static KindDef) -> GroupVersionKindRef {
    (def.group, def.version, def.kind)
}

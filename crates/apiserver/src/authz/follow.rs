//! The index as the caches are: it is brought up to date, by what has changed, whenever somebody looks at it. So what a client has written is in force
//! when it has its answer.

use std::collections::HashMap;
use std::sync::Arc;

use registry::{Cursor, Entry, Registry, Served, Since};

use super::index::Index;

const GROUP: &str = "rbac.authorization.k8s.io";
/// The kinds: those that others refer to come first.
pub(super) const KINDS: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

/// One of the kinds, and how far its changes are in the index.
struct Kind {
    served: Option<Arc<Served>>,
    cursor: Cursor,
    /// The revision up to which they are.
    seen: u64,
    /// Revisions of the objects that are in the index: which have changed is known without decoding them.
    known: HashMap<Box<str>, u64>,
}

/// The index, and how far it is.
#[derive(Default)]
pub(super) struct Followed {
    pub(super) index: Index,
    kinds: Vec<Kind>,
}

impl Followed {
    /// Whether nothing has changed since.
    pub(super) fn is_current(&self, registry: &Registry) -> bool {
        let is_current = |kind: &Kind| kind.served.as_ref().is_none_or(|served| registry.seen(served) == kind.seen);
        !self.kinds.is_empty() && self.kinds.iter().all(is_current)
    }

    /// Takes in what has changed.
    pub(super) fn follow(&mut self, registry: &Registry) {
        if self.kinds.is_empty() {
            let served = KINDS.map(|plural| registry.resource(GROUP, "v1", plural));
            let kind = |served| Kind { served, cursor: Cursor::default(), seen: 0, known: HashMap::new() };
            self.kinds = served.into_iter().map(kind).collect();
        }
        let Self { index, kinds } = self;
        for (kind, plural) in kinds.iter_mut().zip(KINDS) {
            let Some(served) = kind.served.clone() else { continue };
            // Before the changes are read: later ones are read the next time.
            let seen = registry.seen(&served);
            match registry.since(&served, &mut kind.cursor) {
                Since::All(entries) => kind.replace(index, plural, &entries),
                Since::Changes(changes) => {
                    changes.into_iter().for_each(|(path, entry)| kind.put(index, plural, &path, entry.as_deref()));
                }
            }
            kind.seen = seen;
        }
        index.cluster_roles.settle();
    }
}

impl Kind {
    /// All objects that there are: those that have changed or gone meanwhile are taken in.
    fn replace(&mut self, index: &mut Index, plural: &str, entries: &[Arc<Entry>]) {
        let mut gone = std::mem::take(&mut self.known);
        for entry in entries {
            match gone.remove(entry.path()) {
                Some(revision) if revision == entry.revision => drop(self.known.insert(entry.path().into(), revision)),
                _ => self.put(index, plural, entry.path(), Some(entry)),
            }
        }
        gone.keys().for_each(|path| put(index, plural, path, None));
    }

    fn put(&mut self, index: &mut Index, plural: &str, path: &str, entry: Option<&Entry>) {
        match entry {
            Some(entry) if self.known.get(path) == Some(&entry.revision) => return,
            Some(entry) => drop(self.known.insert(path.into(), entry.revision)),
            None => drop(self.known.remove(path)),
        }
        put(index, plural, path, entry);
    }
}

fn put(index: &mut Index, plural: &str, path: &str, entry: Option<&Entry>) {
    let object = entry.map(Entry::value);
    let object = object.as_ref();
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    match plural {
        "clusterroles" => index.cluster_roles.put(name, object),
        "roles" => index.put_role(namespace, name, object),
        _ => index.put_binding(namespace, name, object),
    }
}

/// The RBAC objects of a cluster.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Objects {
    pub(super) cluster_roles: Vec<serde_json::Value>,
    pub(super) roles: Vec<serde_json::Value>,
    pub(super) cluster_bindings: Vec<serde_json::Value>,
    pub(super) bindings: Vec<serde_json::Value>,
}

/// The index of all objects.
#[cfg(test)]
pub(super) fn index(objects: &Objects) -> Index {
    use apimachinery::meta;
    let mut index = Index::default();
    objects.cluster_roles.iter().for_each(|role| index.cluster_roles.put(meta::name(role), Some(role)));
    objects.roles.iter().for_each(|role| index.put_role(meta::namespace(role), meta::name(role), Some(role)));
    for binding in objects.cluster_bindings.iter().chain(&objects.bindings) {
        index.put_binding(meta::namespace(binding), meta::name(binding), Some(binding));
    }
    index.cluster_roles.settle();
    index
}

#[cfg(test)]
mod tests;

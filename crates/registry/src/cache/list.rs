//! Selecting from the present objects.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Cache;
use crate::Entry;
use crate::served::object_path;

type Items = BTreeMap<Arc<str>, Arc<Entry>>;

/// The objects of a namespace (or all), behind `after`, in key order.
fn range<'a>(
    items: &'a Items,
    namespace: Option<&str>,
    after: Option<&str>,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Entry>)> {
    let prefix = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let start = match after {
        Some(after) if *after >= *prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix.as_str()),
    };
    items.range::<str, _>((start, Bound::Unbounded)).take_while(move |(path, _)| path.starts_with(&prefix))
}

/// Those of them that `selects` accepts.
pub(super) fn select(
    items: &Items,
    namespace: Option<&str>,
    after: Option<&str>,
    selects: impl Fn(&Entry) -> bool,
) -> Vec<Arc<Entry>> {
    range(items, namespace, after).filter(|(_, entry)| selects(entry)).map(|(_, entry)| entry.clone()).collect()
}

impl Cache {
    /// A consistent selection, with the revision of the newest change it shows.
    pub(crate) fn select(
        &self,
        namespace: Option<&str>,
        after: Option<&str>,
        selects: impl Fn(&Entry) -> bool,
    ) -> (Vec<Arc<Entry>>, u64) {
        let state = self.state.read();
        (select(&state.items, namespace, after, selects), state.revision)
    }

    /// A selection of the state at a revision, none when the changes since then are not all at hand.
    pub(crate) fn select_at(
        &self,
        at: u64,
        namespace: Option<&str>,
        after: Option<&str>,
        selects: impl Fn(&Entry) -> bool,
    ) -> Option<Vec<Arc<Entry>>> {
        let state = self.state.read();
        if at < state.complete_after {
            return None;
        }
        let since = state.ring.iter().skip(state.ring.partition_point(|change| change.revision() <= at));
        // The first change of an object since then says what it was then.
        let mut undone: BTreeMap<Arc<str>, _> = BTreeMap::new();
        for change in since {
            let path = object_path(change.entry.namespace(), change.entry.name());
            undone.entry(Arc::from(path)).or_insert_with(|| change.previous.clone());
        }
        if undone.is_empty() {
            return Some(select(&state.items, namespace, after, selects));
        }
        let untouched = range(&state.items, namespace, after).filter(|(path, _)| !undone.contains_key(*path));
        let restored: Items = undone.iter().filter_map(|(path, entry)| Some((path.clone(), entry.clone()?))).collect();
        let mut entries: Vec<_> = untouched.chain(range(&restored, namespace, after)).collect();
        // Two sorted lists in a row: cheap to sort.
        entries.sort_by_key(|(path, _)| *path);
        Some(entries.into_iter().filter(|(_, entry)| selects(entry)).map(|(_, entry)| entry.clone()).collect())
    }

    /// How many objects there are, and the bytes of all.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.items.len(), state.items.values().map(|entry| entry.json.len()).sum())
    }

    /// The revision of the newest change.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().revision
    }
}

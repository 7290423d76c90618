//! Selecting from the present objects.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Cache;
use crate::Entry;

/// The objects of a namespace (or all), behind `after`, that `selects` accepts, in key order.
pub(super) fn select(
    items: &BTreeMap<Arc<str>, Arc<Entry>>,
    namespace: Option<&str>,
    after: Option<&str>,
    selects: impl Fn(&Entry) -> bool,
) -> Vec<Arc<Entry>> {
    let prefix = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let start = match after {
        Some(after) => Bound::Excluded(after),
        None => Bound::Included(prefix.as_str()),
    };
    items
        .range::<str, _>((start, Bound::Unbounded))
        .take_while(|(path, _)| path.starts_with(&prefix))
        .filter(|(_, entry)| selects(entry))
        .map(|(_, entry)| entry.clone())
        .collect()
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

    /// The revision of the newest change.
    pub(crate) fn revision(&self) -> u64 {
        self.state.read().revision
    }
}

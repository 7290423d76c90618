//! Selecting from the present objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Cache;
use super::items::{Items, Place};
use crate::Entry;

/// Which objects to look at, and how many to take.
#[derive(Clone, Copy, Default)]
pub(crate) struct Window<'a> {
    /// Those of a namespace, or all.
    pub namespace: Option<&'a str>,
    /// Those behind this path.
    pub after: Option<&'a str>,
    /// Most objects that are taken, 0 for all.
    pub limit: usize,
}

/// What was taken.
#[derive(Default)]
pub(crate) struct Page {
    /// The objects, sorted by path.
    pub entries: Vec<Arc<Entry>>,
    /// More would have been selected.
    pub more: bool,
    /// Objects of the window behind the last one that was taken, selected or not; none when nobody has counted them.
    pub behind: Option<usize>,
}

impl Window<'_> {
    fn places(&self, items: &Items) -> (Place, Place) {
        let (first, end) = match self.namespace {
            None => (Place::default(), items.end()),
            // `0` is what follows `/`.
            Some(namespace) => (items.before(&format!("{namespace}/")), items.before(&format!("{namespace}0"))),
        };
        let start = self.after.map_or(first, |after| items.behind(after).max(first));
        (start, end.max(start))
    }

    fn contains(&self, entry: &Entry, path: &str) -> bool {
        self.namespace.is_none_or(|namespace| entry.namespace() == namespace) && self.after.is_none_or(|after| path > after)
    }

    /// Takes from the objects of the window, of which there are `count`.
    fn take<'a>(&self, objects: impl Iterator<Item = &'a Arc<Entry>>, count: usize, selects: impl Fn(&Entry) -> bool) -> Page {
        let (mut entries, mut seen, mut taken) = (Vec::new(), 0, 0);
        for entry in objects {
            seen += 1;
            if !selects(entry) {
                continue;
            }
            if self.limit > 0 && entries.len() == self.limit {
                return Page { entries, more: true, behind: Some(count.saturating_sub(taken)) };
            }
            entries.push(entry.clone());
            taken = seen;
        }
        Page { entries, more: false, behind: Some(count.saturating_sub(taken)) }
    }
}

/// What `selects` accepts of a window.
pub(super) fn select(items: &Items, window: Window<'_>, selects: impl Fn(&Entry) -> bool) -> Page {
    let (start, end) = window.places(items);
    let count = items.rank(end) - items.rank(start);
    window.take(items.range(start, end).map(|(_, entry)| entry), count, selects)
}

/// The same of the state before some changes: what was `undone` by going back says what objects were then.
fn select_undone(
    items: &Items,
    undone: &BTreeMap<String, Option<Arc<Entry>>>,
    window: Window<'_>,
    selects: impl Fn(&Entry) -> bool,
) -> Page {
    let (start, end) = window.places(items);
    let present = undone.keys().filter(|path| items.get(path).is_some()).count();
    let restored = undone.values().flatten().count();
    let count = items.rank(end) - items.rank(start) + restored - present;
    let untouched = items.range(start, end).filter(|(path, _)| !undone.contains_key(&***path));
    let mut untouched = untouched.map(|(path, entry)| (&**path, entry)).peekable();
    let mut old = undone.iter().filter_map(|(path, entry)| Some((path.as_str(), entry.as_ref()?))).peekable();
    let merged = std::iter::from_fn(|| match (untouched.peek(), old.peek()) {
        (Some((path, _)), Some((older, _))) if path > older => old.next(),
        (Some(_), _) => untouched.next(),
        (None, _) => old.next(),
    });
    window.take(merged.map(|(_, entry)| entry), count, selects)
}

impl Cache {
    /// A consistent selection, with the revision of the newest change it shows.
    pub(crate) fn select(&self, window: Window<'_>, selects: impl Fn(&Entry) -> bool) -> (Page, u64) {
        let state = self.state.read();
        (select(&state.items, window, selects), state.revision)
    }

    /// A selection of the state at a revision, none when the changes since then are not all at hand.
    pub(crate) fn select_at(&self, at: u64, window: Window<'_>, selects: impl Fn(&Entry) -> bool) -> Option<Page> {
        let state = self.state.read();
        if at < state.complete_after {
            return None;
        }
        let since = state.ring.iter().skip(state.ring.partition_point(|change| change.revision() <= at));
        // The first change of an object since then says what it was then.
        let mut undone: BTreeMap<String, _> = BTreeMap::new();
        for change in since {
            let path = change.entry.index.path().to_owned();
            if window.contains(&change.entry, &path) {
                undone.entry(path).or_insert_with(|| change.previous.clone());
            }
        }
        Some(match undone.is_empty() {
            true => select(&state.items, window, selects),
            false => select_undone(&state.items, &undone, window, selects),
        })
    }

    /// How many objects there are, and the bytes of all.
    pub(crate) fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.items.rank(state.items.end()), state.items.bytes())
    }

    /// The revision of the newest change. Takes no lock.
    pub(crate) fn revision(&self) -> u64 {
        self.newest.load(std::sync::atomic::Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::Index;

    fn entry(path: &str, revision: u64) -> Arc<Entry> {
        let strategy = kinds::KINDS.iter().find(|strategy| strategy.def().kind == "ConfigMap").unwrap();
        let (namespace, name) = path.split_once('/').unwrap();
        let object = serde_json::json!({"metadata": {"namespace": namespace, "name": name}});
        Arc::new(Entry { index: Arc::new(Index::of(*strategy, &object, 0)), revision, json: bytes::Bytes::new() })
    }

    fn items(paths: &[&str]) -> Items {
        let mut items = Items::default();
        for path in paths {
            items.insert(path, entry(path, 2));
        }
        items
    }

    fn shown(page: &Page) -> (String, bool, Option<usize>) {
        let names: Vec<String> = page.entries.iter().map(|entry| format!("{}{}", entry.name(), entry.revision)).collect();
        (names.join(" "), page.more, page.behind)
    }

    #[test]
    fn pages() {
        let items = items(&["a/1", "a/2", "a/3", "a-b/4", "b/5", "b/6"]);
        let check = |namespace, after, limit, without: &str, expected: (&str, bool, usize)| {
            let window = Window { namespace, after, limit };
            let (names, more, behind) = shown(&select(&items, window, |entry| entry.name() != without));
            assert_eq!(
                (names.as_str(), more, behind),
                (expected.0, expected.1, Some(expected.2)),
                "{namespace:?} {after:?} {limit}"
            );
        };
        check(None, None, 0, "", ("42 12 22 32 52 62", false, 0));
        check(None, None, 2, "", ("42 12", true, 4));
        check(None, Some("a/1"), 2, "", ("22 32", true, 2));
        check(None, Some("a/9"), 2, "", ("52 62", false, 0));
        check(Some("a"), None, 2, "", ("12 22", true, 1));
        check(Some("a"), Some("a/2"), 2, "", ("32", false, 0));
        check(Some("a"), Some("a-b/4"), 1, "", ("12", true, 2));
        check(Some("a"), Some("z/9"), 1, "", ("", false, 0));
        check(Some("b"), Some("a/1"), 0, "5", ("62", false, 0));
        check(Some("c"), None, 5, "", ("", false, 0));
        check(Some("a"), None, 1, "1", ("22", true, 1));
        check(Some("a"), None, 2, "3", ("12 22", false, 1));
    }

    #[test]
    fn the_past() {
        let items = items(&["a/1", "a/2", "b/3"]);
        let old = |path: &str| (path.to_owned(), Some(entry(path, 1)));
        let undone = BTreeMap::from([old("a/0"), old("a/2"), ("a/1".to_owned(), None), old("c/4")]);
        let check = |undone: &BTreeMap<_, _>, namespace, limit, expected: (&str, bool, usize)| {
            let window = Window { namespace, after: None, limit };
            let (names, more, behind) = shown(&select_undone(&items, undone, window, |_| true));
            assert_eq!((names.as_str(), more, behind), (expected.0, expected.1, Some(expected.2)), "{namespace:?} {limit}");
        };
        check(&undone, None, 0, ("01 21 32 41", false, 0));
        check(&undone, None, 3, ("01 21 32", true, 1));
        let of_a = undone.into_iter().filter(|(path, _)| path.starts_with("a/")).collect();
        check(&of_a, Some("a"), 1, ("01", true, 1));
    }
}

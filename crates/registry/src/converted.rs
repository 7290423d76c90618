//! What a webhook has converted lately for those who look at the same objects: many watch the same change, and admission reads the parameters
//! of its policies at each request. The webhook is asked once.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use apimachinery::Status;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::Entry;

/// Most objects that are kept, and bytes of them, in both versions.
const KEPT: usize = 512;
const KEPT_BYTES: usize = 4 << 20;

/// An object in another version, or why it cannot be had. Who comes while the webhook is asked waits for the same answer.
type Answer = Arc<OnceCell<Result<Arc<Entry>, Status>>>;

/// Objects of one version. Who looks at many of them finds each at once, in whatever order.
#[derive(Default)]
pub(crate) struct Converted(Mutex<Recent>);

/// An object as it is stored: its path, and the revision of its last write.
type Key = (Arc<str>, u64);

#[derive(Default)]
struct Recent {
    kept: HashMap<Key, Kept>,
    /// By when somebody has asked for them last: the first goes first.
    turns: BTreeMap<u64, Key>,
    /// The turn of who asks next.
    turn: u64,
    bytes: usize,
}

/// An object in the other version, and the bytes of it in both. It has none of the latter until it is converted.
struct Kept {
    answer: Answer,
    turn: u64,
    bytes: usize,
}

fn key(entry: &Entry) -> Key {
    (entry.index.key().clone(), entry.revision)
}

impl Recent {
    /// An object that has been converted, or is being. It is the one to go last then: parameters of policies, which every request asks for,
    /// outlast changes, which come once for each watch.
    fn find(&mut self, entry: &Entry) -> Option<&Answer> {
        let kept = self.kept.get_mut(&key(entry))?;
        let object = self.turns.remove(&kept.turn)?;
        kept.turn = self.turn;
        self.turns.insert(self.turn, object);
        self.turn += 1;
        Some(&kept.answer)
    }

    /// Keeps one that is not there yet.
    fn keep(&mut self, entry: &Entry, answer: Answer) {
        self.kept.insert(key(entry), Kept { answer, turn: self.turn, bytes: 0 });
        self.turns.insert(self.turn, key(entry));
        self.turn += 1;
        self.grow(&key(entry), entry.json.len());
    }

    /// One of them has so many more bytes. Those that nobody has asked for the longest go as long as there are too many.
    fn grow(&mut self, object: &Key, bytes: usize) {
        let Some(kept) = self.kept.get_mut(object) else { return };
        kept.bytes += bytes;
        self.bytes += bytes;
        while self.kept.len() > KEPT || self.bytes > KEPT_BYTES && self.kept.len() > 1 {
            let Some((_, oldest)) = self.turns.pop_first() else { return };
            self.bytes -= self.kept.remove(&oldest).map_or(0, |kept| kept.bytes);
        }
    }

    /// An answer is there.
    fn answered(&mut self, entry: &Entry, answer: &Answer, shown: &Result<Arc<Entry>, Status>) {
        let object = key(entry);
        // It may have gone meanwhile, and have come again.
        let Some(kept) = self.kept.get(&object).filter(|kept| Arc::ptr_eq(&kept.answer, answer)) else { return };
        match shown {
            Ok(shown) => self.grow(&object, shown.json.len()),
            Err(_) => {
                self.turns.remove(&kept.turn);
                self.bytes -= self.kept.remove(&object).map_or(0, |kept| kept.bytes);
            }
        }
    }
}

impl Converted {
    /// The object in this version, if it has been converted.
    pub(crate) fn known(&self, entry: &Entry) -> Option<Arc<Entry>> {
        self.0.lock().find(entry)?.get()?.clone().ok()
    }

    /// Takes note of one that has been converted with others.
    pub(crate) fn keep(&self, entry: &Entry, shown: Arc<Entry>) {
        let mut recent = self.0.lock();
        if recent.find(entry).is_none() {
            let (answer, shown) = (Arc::new(OnceCell::new_with(Some(Ok(shown.clone())))), Ok(shown));
            recent.keep(entry, answer.clone());
            recent.answered(entry, &answer, &shown);
        }
    }

    /// The object in this version. It is converted unless it has been, or is being; a failure is told to those who wait for it, and not kept.
    pub(crate) async fn get(
        &self,
        entry: &Entry,
        convert: impl Future<Output = Result<Arc<Entry>, Status>>,
    ) -> Result<Arc<Entry>, Status> {
        let answer = {
            let mut recent = self.0.lock();
            let found = recent.find(entry).cloned();
            found.unwrap_or_else(|| {
                let new = Answer::default();
                recent.keep(entry, new.clone());
                new
            })
        };
        let mut is_new = false;
        let convert = async {
            is_new = true;
            convert.await
        };
        let shown = answer.get_or_init(|| convert).await.clone();
        if is_new {
            self.0.lock().answered(entry, &answer, &shown);
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::Index;

    fn entry(name: &str, bytes: usize) -> Arc<Entry> {
        let strategy = kinds::KINDS.iter().find(|strategy| strategy.def().kind == "ConfigMap").unwrap();
        let index = Arc::new(Index::of(*strategy, &serde_json::json!({"metadata": {"name": name}}), 0));
        Arc::new(Entry { index, revision: 1, json: vec![b'x'; bytes].into() })
    }

    fn counted(converted: &Converted) -> (usize, usize) {
        let recent = converted.0.lock();
        assert_eq!(recent.bytes, recent.kept.values().map(|kept| kept.bytes).sum::<usize>());
        let turns = recent.turns.iter().map(|(turn, object)| (*turn, object.clone()));
        let mut kept: Vec<(u64, Key)> = recent.kept.iter().map(|(object, kept)| (kept.turn, object.clone())).collect();
        kept.sort();
        assert_eq!(kept, turns.collect::<Vec<_>>(), "each has its turn");
        (recent.kept.len(), recent.bytes)
    }

    /// Whoever changes many objects does not have the parameters of a policy converted at each request.
    #[tokio::test]
    async fn what_is_asked_for_again_and_again_stays() {
        let (converted, asked) = (Converted::default(), std::cell::Cell::new(0));
        let get = async |name: &str| {
            let convert = async {
                asked.set(asked.get() + 1);
                Ok(entry(name, 20))
            };
            converted.get(&entry(name, 10), convert).await.unwrap()
        };
        for change in 0..3 * KEPT {
            get("parameters").await;
            get(&format!("change-{change}")).await;
            converted.keep(&entry(&format!("other-{change}"), 10), entry("", 20));
        }
        assert_eq!((asked.get(), counted(&converted)), (1 + 3 * KEPT, (KEPT, 30 * KEPT)));
        assert!(converted.known(&entry("parameters", 10)).is_some() && converted.known(&entry("change-0", 10)).is_none());
    }

    /// Each version of an object is one of its own, and the one that nobody has asked for the longest goes first.
    #[tokio::test]
    async fn objects_are_found_by_path_and_revision() {
        let converted = Converted::default();
        let at = |revision: u64| Entry { revision, ..Entry::clone(&entry("a", 10)) };
        for revision in 1..=KEPT as u64 {
            converted.keep(&at(revision), entry(&format!("at-{revision}"), 1));
        }
        let known = |revision: u64| converted.known(&at(revision)).map(|shown| shown.name().to_owned());
        assert_eq!((known(1).as_deref(), known(3).as_deref()), (Some("at-1"), Some("at-3")));
        converted.keep(&at(0), entry("", 1));
        assert_eq!([known(2), known(KEPT as u64 + 1)], [None, None]);
        assert!(known(1).is_some() && known(0).is_some() && known(4).is_some());
        assert_eq!(counted(&converted), (KEPT, 11 * KEPT));
    }

    /// What a webhook has made of an object takes memory, too.
    #[tokio::test]
    async fn bytes_of_both_versions_are_bounded() {
        let converted = Converted::default();
        for name in ["a", "b", "c"] {
            converted.get(&entry(name, 10), async { Ok(entry(name, KEPT_BYTES / 2)) }).await.unwrap();
        }
        assert_eq!(counted(&converted), (1, 10 + KEPT_BYTES / 2));
        converted.keep(&entry("d", 10), entry("d", KEPT_BYTES));
        assert_eq!(counted(&converted), (1, 10 + KEPT_BYTES));
        let failed = converted.get(&entry("e", 10), async { Err(Status::expired()) }).await;
        assert!(
            failed.is_err() && converted.get(&entry("e", 10), async { Ok(entry("e", 1)) }).await.is_ok(),
            "failures are not kept"
        );
        assert_eq!(counted(&converted), (1, 11));
    }
}

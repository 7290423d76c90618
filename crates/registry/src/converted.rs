//! What a webhook has converted lately for those who look at the same objects: many watch the same change, and admission reads the parameters
//! of its policies at each request. The webhook is asked once.

use std::collections::VecDeque;
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

/// Objects of one version, the one that somebody asked for last at the end.
#[derive(Default)]
pub(crate) struct Converted(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    kept: VecDeque<Kept>,
    bytes: usize,
}

/// An object as it is stored, the same in the other version, and the bytes of both. It has none of the latter until it is converted.
struct Kept {
    entry: Arc<Entry>,
    answer: Answer,
    bytes: usize,
}

impl Recent {
    /// An object that has been converted, or is being. It is the one to go last then: parameters of policies, which every request asks for,
    /// outlast changes, which come once for each watch.
    fn find(&mut self, entry: &Entry) -> Option<&Answer> {
        let is_same = |kept: &Kept| kept.entry.revision == entry.revision && kept.entry.index.path() == entry.index.path();
        let at = self.kept.iter().rposition(is_same)?;
        let found = self.kept.remove(at)?;
        self.kept.push_back(found);
        self.kept.back().map(|found| &found.answer)
    }

    fn keep(&mut self, entry: &Arc<Entry>, answer: Answer) {
        self.kept.push_back(Kept { entry: entry.clone(), answer, bytes: 0 });
        self.grow(self.kept.len() - 1, entry.json.len());
    }

    /// One of them has so many more bytes. Those that nobody has asked for the longest go as long as there are too many.
    fn grow(&mut self, at: usize, bytes: usize) {
        self.kept[at].bytes += bytes;
        self.bytes += bytes;
        while self.kept.len() > KEPT || self.bytes > KEPT_BYTES && self.kept.len() > 1 {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= oldest.bytes;
        }
    }

    /// An answer is there.
    fn answered(&mut self, answer: &Answer, shown: &Result<Arc<Entry>, Status>) {
        let Some(at) = self.kept.iter().position(|kept| Arc::ptr_eq(&kept.answer, answer)) else { return };
        match shown {
            Ok(shown) => self.grow(at, shown.json.len()),
            Err(_) => self.bytes -= self.kept.remove(at).map_or(0, |kept| kept.bytes),
        }
    }
}

impl Converted {
    /// The object in this version, if it has been converted.
    pub(crate) fn known(&self, entry: &Entry) -> Option<Arc<Entry>> {
        self.0.lock().find(entry)?.get()?.clone().ok()
    }

    /// Takes note of one that has been converted with others.
    pub(crate) fn keep(&self, entry: &Arc<Entry>, shown: Arc<Entry>) {
        let mut recent = self.0.lock();
        if recent.find(entry).is_none() {
            let (answer, shown) = (Arc::new(OnceCell::new_with(Some(Ok(shown.clone())))), Ok(shown));
            recent.keep(entry, answer.clone());
            recent.answered(&answer, &shown);
        }
    }

    /// The object in this version. It is converted unless it has been, or is being; a failure is told to those who wait for it, and not kept.
    pub(crate) async fn get(
        &self,
        entry: &Arc<Entry>,
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
            self.0.lock().answered(&answer, &shown);
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
        let sum = recent.kept.iter().map(|kept| kept.entry.json.len() + kept.answer.get().unwrap().as_ref().unwrap().json.len());
        assert_eq!(recent.bytes, sum.sum::<usize>());
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

//! Changes that have left the rings, read from the store's history for watchers who were too slow or come late.
//!
//! Many fall out of a ring at the same place: what one of them reads is kept for a moment, and those who come while it is read wait for it. So
//! neither the store nor the memory pays for each of them.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use apimachinery::Status;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::cache::Change;

/// Most bytes of pages that are kept, of all kinds. The newest is kept however large it is.
const KEPT_BYTES: usize = 12 << 20;
/// Most pages that are kept or being read.
const KEPT: usize = 64;

/// A page that is kept, and since when.
struct Kept {
    key: Key,
    since: Instant,
    answer: Answer,
    /// Its size; 0 until it is read.
    bytes: usize,
}

/// The pages, newest last, and what they take together.
#[derive(Default)]
struct Pages {
    all: VecDeque<Kept>,
    bytes: usize,
}

/// Changes of one kind in the order of their revisions.
pub(crate) struct Page {
    pub(crate) changes: Vec<Arc<Change>>,
    /// Every change up to here is in it: where to read on.
    pub(crate) upto: u64,
}

impl Page {
    fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.weight()).sum()
    }
}

/// A page, or why it cannot be read. Who comes while it is read waits for the same answer.
type Answer = Arc<OnceCell<Result<Arc<Page>, Status>>>;

/// Which page: the prefix of the kind's keys, and the revision before it.
type Key = (Arc<str>, u64);

/// The pages that were read lately, newest last.
#[derive(Default)]
pub(crate) struct Past(Mutex<Pages>);

impl Past {
    /// The page of a kind that begins after a revision; `read` reads it unless it is there. A failure is told to those who wait for it, and not kept.
    pub(crate) async fn page(
        &self,
        prefix: &Arc<str>,
        after: u64,
        read: impl Future<Output = Result<Page, Status>>,
    ) -> Result<Arc<Page>, Status> {
        let answer = {
            let mut pages = self.0.lock();
            match pages.all.iter().find(|kept| kept.key.1 == after && kept.key.0 == *prefix) {
                Some(kept) => kept.answer.clone(),
                None => {
                    let new = Answer::default();
                    let key = (prefix.clone(), after);
                    pages.all.push_back(Kept { key, since: Instant::now(), answer: new.clone(), bytes: 0 });
                    new
                }
            }
        };
        // Who reads it counts it; others find it as it is.
        let mut size = None;
        let read = async {
            let page = read.await.map(Arc::new);
            size = Some(page.as_ref().map(|page| page.bytes()).map_err(drop));
            page
        };
        let page = answer.get_or_init(|| read).await.clone();
        if let Some(size) = size {
            self.0.lock().read(&answer, size.ok());
        }
        page
    }

    /// Lets go of the pages that were read before `oldest`.
    pub(crate) fn forget(&self, oldest: Instant) {
        self.0.lock().retain(|kept| kept.since >= oldest);
    }
}

impl Pages {
    fn retain(&mut self, keeps: impl Fn(&Kept) -> bool) {
        self.all.retain(keeps);
        self.bytes = self.all.iter().map(|kept| kept.bytes).sum();
    }

    /// A page is read and has so many bytes, or cannot be read. Lets go of the oldest as long as there are too many. Who waits for one has it
    /// all the same.
    fn read(&mut self, answer: &Answer, bytes: Option<usize>) {
        let Some(bytes) = bytes else { return self.retain(|kept| !Arc::ptr_eq(&kept.answer, answer)) };
        // It may have gone again.
        if let Some(kept) = self.all.iter_mut().find(|kept| Arc::ptr_eq(&kept.answer, answer)) {
            kept.bytes = bytes;
            self.bytes += bytes;
        }
        while self.all.len() > KEPT || self.bytes > KEPT_BYTES && self.all.len() > 1 {
            let Some(oldest) = self.all.pop_front() else { return };
            self.bytes -= oldest.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::entry::{Entry, Index};

    fn page(upto: u64, bytes: usize) -> Page {
        let strategy = kinds::KINDS.iter().find(|strategy| strategy.def().kind == "ConfigMap").unwrap();
        let index = Arc::new(Index::of(*strategy, &serde_json::json!({}), 0));
        let entry = Arc::new(Entry { index, revision: upto, json: vec![b'x'; bytes].into() });
        Page { changes: vec![Arc::new(Change::put(entry, None))], upto }
    }

    #[tokio::test]
    async fn a_page_is_read_once_and_kept_for_a_moment() {
        let (past, reads) = (Past::default(), std::cell::Cell::new(0));
        let (a, b): (Arc<str>, Arc<str>) = ("/a/".into(), "/b/".into());
        let get = |prefix: &Arc<str>, after: u64, bytes: usize| {
            let (past, prefix, reads) = (&past, prefix.clone(), &reads);
            async move {
                let read = async {
                    reads.set(reads.get() + 1);
                    tokio::task::yield_now().await;
                    Ok(page(after + 1, bytes))
                };
                past.page(&prefix, after, read).await.unwrap().upto
            }
        };
        // Both at once, and a third later.
        assert_eq!(tokio::join!(get(&a, 7, 10), get(&a, 7, 10)), (8, 8));
        assert_eq!((get(&a, 7, 10).await, reads.get()), (8, 1));
        assert_eq!((get(&b, 7, 10).await, get(&a, 8, 10).await, reads.get()), (8, 9, 3));
        // A large one drives out the others, and stays itself.
        get(&b, 9, KEPT_BYTES).await;
        assert_eq!((get(&b, 9, 0).await, reads.get()), (10, 4));
        assert_eq!((get(&a, 7, 10).await, reads.get()), (8, 5));
        // However many.
        for after in 100..300 {
            get(&a, after, 10).await;
        }
        let counted = |pages: &Pages| {
            (pages.bytes, pages.all.iter().map(|kept| kept.answer.get().unwrap().as_ref().unwrap().bytes()).sum())
        };
        assert!(past.0.lock().all.len() <= KEPT && past.0.lock().bytes > 0);
        let (known, summed): (usize, usize) = counted(&past.0.lock());
        assert_eq!(known, summed);
        past.forget(Instant::now());
        assert!(past.0.lock().all.is_empty() && past.0.lock().bytes == 0);
        let refused = past.page(&a, 5, async { Err(Status::expired()) }).await;
        assert!(refused.is_err() && past.page(&a, 5, async { Ok(page(6, 1)) }).await.is_ok(), "failures are not kept");
    }
}

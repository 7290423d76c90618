//! What a webhook has converted lately for those who watch: many see the same change, and the webhook is asked once.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use apimachinery::Status;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::Entry;

/// Most objects that are kept, and bytes of them.
const KEPT: usize = 512;
const KEPT_BYTES: usize = 4 << 20;

/// An object in another version, or why it cannot be had. Who comes while the webhook is asked waits for the same answer.
type Answer = Arc<OnceCell<Result<Arc<Entry>, Status>>>;

/// Objects of one version, newest last.
#[derive(Default)]
pub(crate) struct Converted(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    answers: VecDeque<(Arc<Entry>, Answer)>,
    bytes: usize,
}

impl Recent {
    fn find(&self, entry: &Entry) -> Option<&Answer> {
        let is_same = |known: &Entry| known.revision == entry.revision && known.index.path() == entry.index.path();
        self.answers.iter().rev().find(|(known, _)| is_same(known)).map(|(_, answer)| answer)
    }

    fn keep(&mut self, entry: &Arc<Entry>, answer: Answer) {
        self.bytes += entry.json.len();
        self.answers.push_back((entry.clone(), answer));
        while self.answers.len() > KEPT || self.bytes > KEPT_BYTES && self.answers.len() > 1 {
            let Some((oldest, _)) = self.answers.pop_front() else { return };
            self.bytes -= oldest.json.len();
        }
    }

    fn forget(&mut self, answer: &Answer) {
        let Some(at) = self.answers.iter().position(|(_, known)| Arc::ptr_eq(known, answer)) else { return };
        if let Some((entry, _)) = self.answers.remove(at) {
            self.bytes -= entry.json.len();
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
            recent.keep(entry, Arc::new(OnceCell::new_with(Some(Ok(shown)))));
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
        let shown = answer.get_or_init(|| convert).await.clone();
        if shown.is_err() {
            self.0.lock().forget(&answer);
        }
        shown
    }
}

//! Answers of others that are good for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Answers by question, a bounded number of them.
pub(crate) struct Kept<K, V> {
    most: usize,
    answers: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, answers: Mutex::default() }
    }

    /// The answer, while it is good.
    pub(crate) fn get(&self, question: &K) -> Option<V> {
        let answers = self.answers.lock();
        answers.get(question).filter(|(end, _)| Instant::now() < *end).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer. When there are too many, those that are over go, and if none is, all do.
    pub(crate) fn keep(&self, question: K, answer: V, ttl: Duration) {
        let (now, mut answers) = (Instant::now(), self.answers.lock());
        if answers.len() >= self.most {
            answers.retain(|_, (end, _)| now < *end);
        }
        if answers.len() >= self.most {
            answers.clear();
        }
        answers.insert(question, (now + ttl, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_in_time_and_number() {
        let kept = Kept::new(2);
        kept.keep("a", 1, Duration::from_secs(60));
        kept.keep("b", 2, Duration::ZERO);
        assert_eq!([kept.get(&"a"), kept.get(&"b"), kept.get(&"c")], [Some(1), None, None]);
        kept.keep("c", 3, Duration::from_secs(60));
        assert_eq!([kept.get(&"a"), kept.get(&"c")], [Some(1), Some(3)], "what is over makes room");
        kept.keep("d", 4, Duration::from_secs(60));
        assert_eq!([kept.get(&"a"), kept.get(&"d")], [None, Some(4)]);
    }
}

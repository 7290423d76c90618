//! Answers of others that are good for a while. Anybody can ask, so a question is kept by its digest, and the answers have a bound in bytes, too.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Bytes that all answers may have together, and that one may have: a user can be in thousands of groups, each with a long name.
const ROOM: usize = 32 << 20;
const LARGEST: usize = ROOM / 32;

/// SHA-256 of a question.
pub(crate) type Digest = [u8; 32];

/// What a question is kept by.
pub(crate) fn digest(question: &[u8]) -> Digest {
    let mut key = [0; 32];
    key.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, question).as_ref());
    key
}

/// Answers by question, a bounded number of them and of their bytes.
pub(crate) struct Kept<K, V> {
    most: usize,
    answers: Mutex<Answers<K, V>>,
}

struct Answers<K, V> {
    known: HashMap<K, Answer<V>>,
    /// Of all of them.
    bytes: usize,
}

struct Answer<V> {
    good_until: Instant,
    bytes: usize,
    value: V,
}

impl<K: Eq + Hash, V: Clone> Kept<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, answers: Mutex::new(Answers { known: HashMap::new(), bytes: 0 }) }
    }

    /// The answer, while it is good.
    pub(crate) fn get(&self, question: &K) -> Option<V> {
        let answers = self.answers.lock();
        answers.known.get(question).filter(|answer| Instant::now() < answer.good_until).map(|answer| answer.value.clone())
    }

    /// Keeps an answer of so many bytes. Where there is no room for it, those that are over go, and if that is not enough, all do.
    pub(crate) fn keep(&self, question: K, value: V, bytes: usize, ttl: Duration) {
        if bytes > LARGEST {
            return;
        }
        let (now, mut answers) = (Instant::now(), self.answers.lock());
        answers.forget(&question);
        if !answers.have_room(self.most, bytes) {
            answers.known.retain(|_, answer| now < answer.good_until);
            answers.bytes = answers.known.values().map(|answer| answer.bytes).sum();
        }
        if !answers.have_room(self.most, bytes) {
            answers.known.clear();
            answers.bytes = 0;
        }
        answers.bytes += bytes;
        answers.known.insert(question, Answer { good_until: now + ttl, bytes, value });
    }
}

impl<K: Eq + Hash, V> Answers<K, V> {
    fn have_room(&self, most: usize, bytes: usize) -> bool {
        self.known.len() < most && self.bytes + bytes <= ROOM
    }

    fn forget(&mut self, question: &K) {
        self.bytes -= self.known.remove(question).map_or(0, |answer| answer.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn answers_are_bounded_in_time_number_and_size() {
        let kept = Kept::new(2);
        kept.keep("a", 1, LARGEST, LONG);
        kept.keep("b", 2, 1, Duration::ZERO);
        assert_eq!([kept.get(&"a"), kept.get(&"b"), kept.get(&"c")], [Some(1), None, None]);
        kept.keep("c", 3, 1, LONG);
        assert_eq!([kept.get(&"a"), kept.get(&"c")], [Some(1), Some(3)], "what is over makes room");
        kept.keep("large", 5, LARGEST + 1, LONG);
        assert_eq!([kept.get(&"a"), kept.get(&"large")], [Some(1), None]);
        kept.keep("d", 4, 1, LONG);
        assert_eq!([kept.get(&"a"), kept.get(&"d")], [None, Some(4)]);
    }

    #[test]
    fn all_answers_together_have_a_bound() {
        let (kept, most) = (Kept::new(1000), ROOM / LARGEST);
        for again in 0..2 {
            for question in 0..most {
                kept.keep(question, again, LARGEST, LONG);
            }
        }
        assert!((0..most).all(|question| kept.get(&question) == Some(1)), "one that is asked again takes its place once");
        kept.keep(most, 1, 1, LONG);
        assert_eq!([kept.get(&0), kept.get(&most)], [None, Some(1)]);
        for question in 0..most - 1 {
            kept.keep(question, 2, LARGEST, Duration::ZERO);
        }
        kept.keep(most + 1, 3, LARGEST, LONG);
        assert_eq!([kept.get(&most), kept.get(&(most + 1))], [Some(1), Some(3)], "what is over makes room");
    }
}

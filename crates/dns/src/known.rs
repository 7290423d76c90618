//! Replies that hold until what is known of the cluster changes: programs ask the same questions again and again, and most of the work
//! is reading the question and writing the answer.

use std::collections::HashMap;

use prometheus_client::metrics::counter::Counter;

/// Replies that are kept; with one more all are forgotten.
const MOST: usize = 16_384;
/// Longer questions are not kept: they have options that no other has.
const QUESTION: usize = 160;
/// The bytes of a message's id.
const ID: usize = 2;

/// The replies of one socket, by their questions without the id.
#[derive(Default)]
pub(crate) struct Known {
    generation: u64,
    replies: HashMap<Box<[u8]>, (Vec<u8>, Counter)>,
}

impl Known {
    /// Forgets everything if the state is of another generation.
    pub(crate) fn renew(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.replies.clear();
        }
    }

    /// The reply to a question, with its id. It is counted.
    pub(crate) fn reply(&mut self, question: &[u8]) -> Option<&[u8]> {
        let (id, rest) = question.split_at_checked(ID)?;
        let (reply, count) = self.replies.get_mut(rest)?;
        reply.get_mut(..ID)?.copy_from_slice(id);
        count.inc();
        Some(reply)
    }

    /// Keeps a reply; `count` counts those to come.
    pub(crate) fn keep(&mut self, question: &[u8], reply: &[u8], count: Counter) {
        let Some(rest) = question.get(ID..).filter(|rest| rest.len() <= QUESTION) else { return };
        if self.replies.len() == MOST {
            self.replies.clear();
        }
        self.replies.insert(rest.into(), (reply.to_vec(), count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_hold_for_a_generation() {
        let (mut known, count) = (Known::default(), Counter::default());
        known.keep(b"\x00\x01question", b"\x00\x01reply", count.clone());
        assert_eq!(known.reply(b"\x12\x34question"), Some(&b"\x12\x34reply"[..]));
        for other in [&b"\x00\x01Question"[..], b"\x00"] {
            assert_eq!(known.reply(other), None);
        }
        assert_eq!(count.get(), 1);
        known.renew(0);
        assert!(known.reply(b"\x00\x01question").is_some());
        known.renew(1);
        assert!(known.reply(b"\x00\x01question").is_none());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let mut known = Known::default();
        for number in 0..=MOST {
            known.keep(format!("id{number}").as_bytes(), b"xxreply", Counter::default());
        }
        assert_eq!(known.reply(format!("id{MOST}").as_bytes()), Some(&b"idreply"[..]));
        assert_eq!(known.replies.len(), 1);
        known.keep(&[0; QUESTION + 3], b"xxreply", Counter::default());
        assert_eq!(known.replies.len(), 1);
    }
}

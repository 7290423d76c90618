//! Room for regular expressions that others have let go of.

use client::Key;

use super::Follower;
use crate::patterns;

/// What was looked at.
#[derive(Debug, Default)]
pub(super) struct Room {
    freed: u64,
    /// Those that come next are behind this one.
    after: Option<Key>,
}

impl Follower {
    /// Looks again at what found no room for its regular expressions, if there may be some now.
    pub(super) fn find_room(&mut self) {
        let freed = patterns::freed();
        if self.room.freed == freed && self.room.after.is_none() {
            return;
        }
        self.replan |= self.room.freed != freed;
        self.room.freed = freed;
        let next = self.model.without_room(self.room.after.as_ref());
        self.room.after = next.last().cloned();
        for key in &next {
            if let Some(ingress) = self.ingresses.by_key(key) {
                self.model.read_again(key, &ingress);
            }
        }
        self.publish();
    }
}

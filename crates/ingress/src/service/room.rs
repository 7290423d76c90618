//! Room for regular expressions that others have let go of.

use client::Key;

use super::Follower;
use crate::gateway::Plan;
use crate::patterns;

/// What was looked at.
#[derive(Debug, Default)]
pub(super) struct Room {
    freed: u64,
    /// The same when the last plan had been made, if it has refused a route for want of room.
    refused: Option<u64>,
    /// Those that come next are behind this one.
    after: Option<Key>,
}

impl Room {
    /// A plan was made. What it has let go of itself is no room for the next one; what its rules take the place of is.
    pub(super) fn planned(&mut self, plan: &Plan) {
        self.refused = plan.without_room.then(patterns::freed);
    }
}

impl Follower {
    /// Looks again at what found no room for its regular expressions, if there may be some now.
    pub(super) fn find_room(&mut self) {
        let freed = patterns::freed();
        self.replan |= self.room.refused.is_some_and(|refused| refused != freed);
        if self.room.freed == freed && self.room.after.is_none() {
            return;
        }
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

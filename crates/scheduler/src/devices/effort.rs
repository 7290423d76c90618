//! The work that may be done for a pod: whoever offers or asks for much must not hold up the others.

use std::cell::Cell;

/// How many devices are tried on one node, and on all nodes, before the search is given up.
const TRIES: usize = 100_000;
const TRIES_IN_ALL: usize = 1_000_000;
/// What selectors may cost in all.
const COST: u64 = 100_000_000;

/// What may still be done.
pub(super) struct Effort {
    tries: Cell<usize>,
    cost: Cell<u64>,
}

impl Default for Effort {
    fn default() -> Self {
        Self { tries: Cell::new(TRIES_IN_ALL), cost: Cell::new(COST) }
    }
}

impl Effort {
    /// As much may be done as at the beginning.
    pub(super) fn renew(&self) {
        self.tries.set(TRIES_IN_ALL);
        self.cost.set(COST);
    }

    /// What selectors may still cost.
    pub(super) fn cost(&self) -> u64 {
        self.cost.get()
    }

    pub(super) fn spend_cost(&self, cost: u64) {
        self.cost.set(self.cost.get().saturating_sub(cost));
    }

    /// Whether one more device may be tried, which is the one of this number on its node.
    pub(super) fn spend_try(&self, number: usize) -> bool {
        let left = self.tries.get();
        self.tries.set(left.saturating_sub(1));
        number <= TRIES && left > 0
    }
}

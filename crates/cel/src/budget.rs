//! How much an evaluation may cost.

use crate::error::Error;

/// What an evaluation may cost. Each step costs one, and functions as much as they look at ([`crate::charge`]); upstream counts alike.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// A budget of so much.
    pub fn new(limit: u64) -> Self {
        Self { left: limit }
    }

    /// What is left of it.
    pub fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn spend(&mut self, cost: u64) -> Result<(), Error> {
        self.left = self.left.checked_sub(cost).ok_or(Error::Budget)?;
        Ok(())
    }
}

//! How much an evaluation may cost.

use crate::error::Error;

/// What an evaluation may cost. Each step costs one, and functions as much as they look at ([`crate::charge`]); upstream counts alike.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
    /// How many expressions are evaluated inside of each other.
    depth: u32,
}

/// How many expressions may be evaluated inside of each other: the parser bounds how high one is ([`crate::parse`]), but one that uses definitions
/// has theirs on its stack.
const DEEPEST: u32 = 260;

impl Budget {
    /// A budget of so much.
    pub fn new(limit: u64) -> Self {
        Self { left: limit, depth: 0 }
    }

    /// What is left of it.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Begins the evaluation of an expression, which [`Budget::ascend`] ends.
    pub(crate) fn descend(&mut self) -> Result<(), Error> {
        if self.depth == DEEPEST {
            return Err(Error::Budget);
        }
        self.depth += 1;
        Ok(())
    }

    pub(crate) fn ascend(&mut self) {
        self.depth -= 1;
    }

    pub(crate) fn spend(&mut self, cost: u64) -> Result<(), Error> {
        self.left = self.left.checked_sub(cost).ok_or(Error::Budget)?;
        Ok(())
    }
}

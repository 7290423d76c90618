//! How much of a request is held against the rules of a host.

use std::cell::Cell;

/// Most bytes, counted again for each regular expression that they are held against: some hundredths of a second of a processor.
const MOST: usize = 1 << 20;

/// What one request may cost. All regular expressions of a host together take a time that grows with their number, which those choose who write
/// rules, and with what they are held against, which whoever asks chooses.
#[derive(Debug)]
pub struct Effort {
    left: Cell<usize>,
    is_spent: Cell<bool>,
}

impl Default for Effort {
    fn default() -> Self {
        Self { left: Cell::new(MOST), is_spent: Cell::new(false) }
    }
}

impl Effort {
    /// Whether so many bytes may be looked at. Once they may not, nothing more may be, and what was found is no answer.
    pub fn spend(&self, bytes: usize) -> bool {
        match self.left.get().checked_sub(bytes).filter(|_| !self.is_spent.get()) {
            Some(left) => self.left.set(left),
            None => self.is_spent.set(true),
        }
        !self.is_spent.get()
    }

    /// What was found.
    ///
    /// # Errors
    /// Not everything could be looked at.
    pub fn whole<T>(&self, found: T) -> Result<T, TooLong> {
        if self.is_spent.get() { Err(TooLong) } else { Ok(found) }
    }
}

/// A request has more than may be held against the rules of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request is too long for the regular expressions of its host")]
pub struct TooLong;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_stays_spent() {
        let effort = Effort::default();
        assert!(effort.spend(MOST - 1) && effort.whole(1) == Ok(1));
        assert!(!effort.spend(2) && effort.whole(1) == Err(TooLong));
        assert!(!effort.spend(1));
    }
}

//! Gives the disk back what was deleted.
//!
//! A deletion is a small mark above the file that has the value, and leveled compaction merges levels when they are large: a
//! few megabytes of marks would keep gigabytes of deleted values, for ever if nothing more is written. So the tables are
//! rewritten when they are much larger than what they should hold, which the writer and compaction count. To rewrite a table
//! costs as much as all that it holds, however little of it is waste, so waste is let be until there is as much of it as of what is
//! live: a byte that was deleted then costs about two that are written again. The bound of waste follows the disk, so the old and the new files
//! together are never more than three times the live data and a constant, and never more than twice that and a 64th of the disk.

use super::Shared;
use super::stage::Table;
use crate::Error;

/// Waste below which a table is let be, and the most that is let be in a large one where the disk is small, in bytes.
const WASTE: u64 = 24 << 20;
pub(super) const MOST_WASTE: u64 = 128 << 20;

/// How large a table's files are beside what they hold, when they hold no waste: less than one when it compresses well.
pub(super) struct Sweeper {
    log: f64,
    ephemeral: f64,
}

impl Default for Sweeper {
    fn default() -> Self {
        Self { log: 1.0, ephemeral: 1.0 }
    }
}

/// Runs until the engine is closed.
pub(super) fn run(shared: &Shared, idle: fn()) {
    let mut sweeper = Sweeper::default();
    while shared.waste.wait() {
        let mut again = true;
        while again && !shared.waste.is_closed() {
            again = sweeper.sweep(shared).unwrap_or_else(|error| {
                // The writer meets the same cause and deals with it; the next commits wake us again.
                tracing::warn!(%error, "deleted data was not reclaimed");
                false
            });
        }
        idle();
    }
}

impl Sweeper {
    /// Rewrites every table with too much waste. True when that helped and may help again.
    fn sweep(&mut self, shared: &Shared) -> Result<bool, Error> {
        let (head, tail) = shared.ends();
        let stored = head.bytes.saturating_sub(tail.deleted);
        let mut helped = false;
        for (table, live, ratio) in [(Table::Log, stored, &mut self.log), (Table::Ephemeral, head.ephemeral, &mut self.ephemeral)]
        {
            let before = shared.read(|database| Ok(database.size(table)))?;
            if !is_wasteful(before, live, *ratio, shared.most_waste()) {
                continue;
            }
            // Marks in memory reach the files first.
            shared.read(|database| database.flush(table))?;
            while shared.read(|database| Ok(database.is_flushing(table)))? && shared.waste.pause() {}
            if shared.waste.is_closed() {
                return Ok(false);
            }
            let after = shared.read(|database| {
                database.rewrite(table)?;
                Ok(database.size(table))
            })?;
            *ratio = (after as f64 / live.max(1) as f64).clamp(0.1, 16.0);
            helped |= after < before - before / 8;
            tracing::debug!(?table, live, before, after, "rewrote a table to reclaim space");
        }
        Ok(helped)
    }
}

fn is_wasteful(size: u64, live: u64, ratio: f64, most: Option<u64>) -> bool {
    let expected = (live as f64 * ratio) as u64;
    let spared = match most {
        Some(most) => expected.min(most),
        // What would spare work is better given back.
        None => (expected / 4).min(MOST_WASTE),
    };
    size.saturating_sub(expected) > WASTE + spared
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn check_within(most: Option<u64>, size: u64, live: u64, ratio: f64, expected: bool) {
        assert_eq!(is_wasteful(size * MIB, live * MIB, ratio, most), expected, "{most:?} {size} {live} {ratio}");
    }

    fn check(size: u64, live: u64, ratio: f64, expected: bool) {
        check_within(Some(200 * MIB), size, live, ratio, expected);
    }

    #[test]
    fn waste_is_bounded_in_small_and_large_tables() {
        check(24, 0, 1.0, false);
        check(25, 0, 1.0, true);
        check(100 + 100 + 24, 100, 1.0, false);
        check(100 + 100 + 25, 100, 1.0, true);
        check(4096 + 224, 4096, 1.0, false);
        check(4096 + 225, 4096, 1.0, true);
        check(85, 100, 0.3, true);
        check(30, 100, 1.0, false);
    }

    #[test]
    fn a_disk_without_room_gets_it_back_sooner() {
        check_within(None, 100 + 25 + 24, 100, 1.0, false);
        check_within(None, 100 + 25 + 25, 100, 1.0, true);
        check_within(None, 4096 + 152, 4096, 1.0, false);
        check_within(None, 4096 + 153, 4096, 1.0, true);
    }
}

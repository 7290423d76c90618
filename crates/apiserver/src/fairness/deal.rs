//! Shuffle sharding: each flow has a hand of a few queues, and two flows hardly ever have the same ones. A flow that fills its
//! queues leaves most others at least one that is free.

/// The largest hand. Validation allows no more bits of a hash than 60, which 15 cards of two or more need.
pub(super) const LARGEST_HAND: usize = 16;

/// Deals `hand` different numbers below `deck`, which follow from `entropy` alone.
pub(super) fn deal(entropy: u64, deck: usize, hand: usize) -> impl Iterator<Item = usize> {
    let hand = hand.min(deck).min(LARGEST_HAND);
    // In ascending order: each card counts those that are left.
    let mut taken = [0_usize; LARGEST_HAND];
    let mut rest = entropy;
    (0..hand).map(move |dealt| {
        let left = (deck - dealt) as u64;
        let mut card = (rest % left) as usize;
        rest /= left;
        let mut place = 0;
        while place < dealt && card >= taken[place] {
            card += 1;
            place += 1;
        }
        taken.copy_within(place..dealt, place + 1);
        taken[place] = card;
        card
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn hands(deck: usize, hand: usize) -> impl Iterator<Item = Vec<usize>> {
        // Any constant of an odd multiplier spreads well.
        (0..10_000_u64).map(move |n| deal(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), deck, hand).collect())
    }

    #[test]
    fn cards_differ_and_are_in_the_deck() {
        for (deck, hand) in [(1, 1), (4, 4), (64, 6), (128, 6), (16, 4), (512, 3)] {
            for dealt in hands(deck, hand) {
                let different: HashSet<_> = dealt.iter().filter(|card| **card < deck).collect();
                assert_eq!(different.len(), hand, "{dealt:?}");
            }
        }
    }

    #[test]
    fn every_card_is_dealt_about_as_often() {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        hands(64, 6).flatten().for_each(|card| *counts.entry(card).or_default() += 1);
        let expected = 10_000 * 6 / 64;
        assert_eq!(counts.len(), 64);
        assert!(counts.values().all(|count| count.abs_diff(expected) < expected / 3), "{counts:?}");
    }

    /// KEP-1040: with 128 queues and hands of 6, a flow is squashed by another one with a probability of about 1 in 5 billion.
    #[test]
    fn nobody_else_has_the_same_hand() {
        let different: HashSet<Vec<usize>> = hands(128, 6)
            .map(|mut hand| {
                hand.sort_unstable();
                hand
            })
            .collect();
        assert_eq!(different.len(), 10_000);
    }
}

//! How many seats each priority level has (KEP-1040, "Dispatching" and "Borrowing"): the server's seats are distributed by shares, and
//! what one level does not need is lent to others.

use super::config::LevelConfig;

/// The least target that there is: proportions of nothing are not defined.
const LEAST_TARGET: f64 = 0.001;
const ALMOST: f64 = 1e-7;

/// The limits that follow from the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The level's own seats.
    pub(crate) nominal: u32,
    /// What is left to it when it has lent all that it lends.
    pub(crate) lower: u32,
    /// What it has when it has borrowed all that it may.
    pub(crate) upper: u32,
}

impl Bounds {
    /// Of a level whose shares are a part of `all`, where the server has so many seats.
    pub(crate) fn of(config: &LevelConfig, server: u32, all: u64) -> Self {
        let part = f64::from(server) * f64::from(config.shares) / (all.max(1) as f64);
        let nominal = part.ceil() as u32;
        let percent = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let borrowed = config.borrowing.map_or(server, percent);
        Self { nominal, lower: nominal - percent(config.lendable).min(nominal), upper: nominal.saturating_add(borrowed) }
    }

    /// The limit before any demand is known.
    pub(crate) fn initial(&self) -> u32 {
        self.nominal - (self.nominal - self.lower) / 2
    }

    /// The most seats of one request: a seventh of the level's, and no more than leaves room for a whole hand of them.
    pub(crate) fn widest(&self, hand: usize) -> u32 {
        let part = (f64::from(self.nominal) * 0.15).ceil() as u32;
        part.min(self.nominal / (hand.max(1) as u32)).max(1)
    }
}

/// What a level brings to an adjustment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    /// Whether it is limited at all. Others have what they use.
    pub(crate) exempt: bool,
    pub(crate) bounds: Bounds,
    /// The most seats that it could use in the last period.
    pub(crate) most: u32,
    pub(crate) smoothed: f64,
}

impl Claim {
    /// What no other level gets of its seats.
    fn least(&self) -> u32 {
        let used = if self.exempt { self.most } else { self.most.min(self.bounds.nominal) };
        used.max(self.bounds.lower)
    }

    fn target(&self) -> f64 {
        self.smoothed.max(f64::from(self.least()))
    }
}

/// The outcome of an adjustment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Adjusted {
    /// The limits in the order of the claims. None where they stay what they are.
    pub(crate) limits: Vec<Option<u32>>,
    /// What each strives for.
    pub(crate) targets: Vec<f64>,
    /// The part of its target that each level gets whose bounds allow it.
    pub(crate) fair: f64,
}

/// Distributes the seats of all levels anew.
pub(crate) fn adjust(claims: &[Claim]) -> Adjusted {
    let sum = |of: &dyn Fn(&Claim) -> u32, exempt: bool| -> u64 {
        claims.iter().filter(|claim| claim.exempt == exempt).map(|claim| u64::from(of(claim))).sum()
    };
    let all = sum(&|claim| claim.bounds.nominal, true) + sum(&|claim| claim.bounds.nominal, false);
    let left = all.saturating_sub(sum(&Claim::least, true));
    let (lower, least) = (sum(&|claim| claim.bounds.lower, false), sum(&Claim::least, false));
    let targets = claims.iter().map(|claim| if claim.exempt { 0.0 } else { claim.target() }).collect();
    let limits = |limited: &dyn Fn(&Claim) -> u32| {
        claims.iter().map(|claim| Some(if claim.exempt { claim.least() } else { limited(claim) })).collect()
    };
    if left <= lower {
        return Adjusted { limits: limits(&|claim| claim.bounds.lower), targets, fair: 0.0 };
    }
    if left <= least {
        let part = (left - lower) as f64 / (least - lower) as f64;
        let limited = |claim: &Claim| claim.bounds.lower + (f64::from(claim.least() - claim.bounds.lower) * part).round() as u32;
        return Adjusted { limits: limits(&limited), targets, fair: 0.0 };
    }
    let classes: Vec<Class> = claims.iter().filter(|claim| !claim.exempt).map(Class::of).collect();
    let Some((allocated, fair)) = allocate(left as f64, &classes) else {
        let limits = claims.iter().map(|claim| claim.exempt.then(|| claim.least())).collect();
        return Adjusted { limits, targets, fair: 0.0 };
    };
    let mut allocated = allocated.into_iter().map(|seats| seats.round() as u32);
    let limits = claims.iter().map(|claim| if claim.exempt { Some(claim.least()) } else { allocated.next() }).collect();
    Adjusted { limits, targets, fair }
}

/// A part of a sum, between two bounds.
#[derive(Clone, Copy, Debug)]
struct Class {
    lower: f64,
    upper: f64,
    target: f64,
}

impl Class {
    fn of(claim: &Claim) -> Self {
        let lower = f64::from(claim.least());
        Self { lower, upper: f64::from(claim.bounds.upper).max(lower), target: claim.target().max(LEAST_TARGET) }
    }

    fn at(&self, proportion: f64) -> f64 {
        (self.target * proportion).max(self.lower).min(self.upper)
    }
}

/// Parts that add up to `sum`, each the same proportion of its target where its bounds allow it, and that proportion. None when the bounds
/// allow no such parts.
fn allocate(sum: f64, classes: &[Class]) -> Option<(Vec<f64>, f64)> {
    let sum_at = |proportion: f64| -> f64 { classes.iter().map(|class| class.at(proportion)).sum() };
    // The sum grows with the proportion, and evenly between two bounds.
    let mut turns: Vec<f64> = classes.iter().flat_map(|class| [class.lower / class.target, class.upper / class.target]).collect();
    turns.push(0.0);
    turns.sort_by(f64::total_cmp);
    let above = turns.iter().position(|turn| sum_at(*turn) >= sum - ALMOST)?;
    let (high, low) = (turns[above], turns[above.saturating_sub(1)]);
    let (most, least) = (sum_at(high), sum_at(low));
    if least > sum + ALMOST {
        return None;
    }
    let part = if most > least { (sum - least) / (most - least) } else { 1.0 };
    let fair = low + (high - low) * part.clamp(0.0, 1.0);
    Some((classes.iter().map(|class| class.at(fair)).collect(), fair))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(shares: u32, lendable: u32, borrowing: Option<u32>) -> LevelConfig {
        LevelConfig { shares, lendable, borrowing, ..LevelConfig::default() }
    }

    /// Figures of the KEP's table for 600 seats and upstream's suggested levels.
    #[test]
    fn bounds() {
        let check = |shares: u32, lendable: u32, borrowing: Option<u32>, expected: (u32, u32, u32)| {
            let bounds = Bounds::of(&config(shares, lendable, borrowing), 600, 245);
            assert_eq!((bounds.nominal, bounds.lower, bounds.upper), expected, "{shares} {lendable}");
        };
        check(0, 0, None, (0, 0, 600));
        check(5, 0, None, (13, 13, 613));
        check(30, 33, None, (74, 50, 674));
        check(100, 90, None, (245, 24, 845));
        check(20, 50, Some(0), (49, 24, 49));
        check(20, 100, Some(200), (49, 0, 147));
        assert_eq!(Bounds::of(&config(0, 0, None), 600, 0).nominal, 0);
        assert_eq!(Bounds::of(&config(100, 90, None), 600, 245).initial(), 135);
    }

    #[test]
    fn widths() {
        let check = |nominal: u32, hand: usize, expected: u32| {
            assert_eq!(Bounds { nominal, lower: 0, upper: 0 }.widest(hand), expected, "{nominal} {hand}");
        };
        check(49, 6, 8);
        check(245, 6, 37);
        check(25, 4, 4);
        check(3, 8, 1);
        check(0, 8, 1);
    }

    #[test]
    fn allocations() {
        let check = |sum: f64, classes: &[(f64, f64, f64)], expected: Option<&[f64]>| {
            let classes: Vec<Class> =
                classes.iter().map(|(lower, upper, target)| Class { lower: *lower, upper: *upper, target: *target }).collect();
            let found =
                allocate(sum, &classes).map(|(parts, _)| parts.iter().map(|part| (part * 1e3).round() / 1e3).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), expected, "{sum} {classes:?}");
        };
        check(30.0, &[(0.0, 99.0, 10.0), (0.0, 99.0, 20.0)], Some(&[10.0, 20.0]));
        check(60.0, &[(0.0, 99.0, 10.0), (0.0, 99.0, 20.0)], Some(&[20.0, 40.0]));
        check(60.0, &[(0.0, 99.0, 10.0), (0.0, 30.0, 20.0)], Some(&[30.0, 30.0]));
        check(20.0, &[(9.0, 99.0, 10.0), (0.0, 99.0, 20.0)], Some(&[9.0, 11.0]));
        check(20.0, &[(10.0, 20.0, 10.0), (10.0, 20.0, 10.0)], Some(&[10.0, 10.0]));
        check(40.0, &[(10.0, 20.0, 10.0), (10.0, 20.0, 10.0)], Some(&[20.0, 20.0]));
        check(0.0, &[(0.0, 20.0, 1.0)], Some(&[0.0]));
        check(41.0, &[(10.0, 20.0, 10.0), (10.0, 20.0, 10.0)], None);
        check(19.0, &[(10.0, 20.0, 10.0), (10.0, 20.0, 10.0)], None);
    }

    #[test]
    fn adjustments() {
        let claim = |nominal: u32, lower: u32, most: u32, smoothed: f64| Claim {
            exempt: false,
            bounds: Bounds { nominal, lower, upper: nominal + 600 },
            most,
            smoothed,
        };
        let check = |claims: &[Claim], expected: &[u32]| {
            let found: Vec<u32> = adjust(claims).limits.into_iter().map(Option::unwrap_or_default).collect();
            assert_eq!(found, expected, "{claims:?}");
        };
        // Who wants nothing lends what it lends to who wants more.
        check(&[claim(100, 10, 0, 0.0), claim(100, 50, 300, 300.0)], &[10, 190]);
        check(&[claim(100, 100, 0, 0.0), claim(100, 50, 300, 300.0)], &[100, 100]);
        // Two that want the same get the same, and keep what is theirs.
        check(&[claim(100, 10, 300, 300.0), claim(100, 50, 300, 300.0)], &[100, 100]);
        check(&[claim(100, 10, 60, 30.0), claim(100, 50, 300, 300.0)], &[60, 140]);
        // What exempt requests use is taken from all.
        let exempt = |most: u32| Claim { exempt: true, ..claim(0, 0, most, 0.0) };
        check(&[exempt(0), claim(100, 10, 100, 100.0)], &[0, 100]);
        check(&[exempt(40), claim(100, 10, 100, 100.0)], &[40, 60]);
        check(&[exempt(95), claim(100, 10, 100, 100.0)], &[95, 10]);
    }
}

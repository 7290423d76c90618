//! How many seats a priority level could use: measured all the time, and smoothed for the adjustment of the limits.

use super::Seconds;

/// With one adjustment in ten seconds a peak is half forgotten after five minutes.
const SMOOTHING: f64 = 0.977;

/// The integral of a figure and of its square over time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Integral {
    value: f64,
    since: Seconds,
    elapsed: Seconds,
    sum: f64,
    squares: f64,
    most: f64,
}

/// What an integral has found since it was last read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) elapsed: Seconds,
    pub(crate) average: f64,
    pub(crate) deviation: f64,
    pub(crate) most: f64,
}

impl Integral {
    /// From `now` on the figure is `value`.
    pub(crate) fn set(&mut self, now: Seconds, value: f64) {
        let passed = (now - self.since).max(0.0);
        self.since = self.since.max(now);
        self.elapsed += passed;
        self.sum += self.value * passed;
        self.squares += self.value * self.value * passed;
        self.value = value;
        self.most = self.most.max(value);
    }

    /// Reads it, and begins again.
    pub(crate) fn take(&mut self, now: Seconds) -> Found {
        self.set(now, self.value);
        let found = match self.elapsed {
            elapsed if elapsed > 0.0 => {
                let average = self.sum / elapsed;
                let variance = (self.squares / elapsed - average * average).max(0.0);
                Found { elapsed, average, deviation: variance.sqrt(), most: self.most }
            }
            _ => Found { most: self.most, ..Found::default() },
        };
        *self = Self { value: self.value, since: self.since, most: self.value, ..Self::default() };
        found
    }
}

/// The demand of a level, as its last adjustment found it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Demand {
    pub(crate) average: f64,
    pub(crate) deviation: f64,
    /// The most seats in the last period.
    pub(crate) most: u32,
    /// Follows a rise at once, and a fall slowly.
    pub(crate) smoothed: f64,
}

impl Demand {
    /// Another period is over.
    pub(crate) fn update(&mut self, found: &Found) {
        self.most = found.most.round() as u32;
        if found.elapsed <= 0.0 {
            return;
        }
        (self.average, self.deviation) = (found.average, found.deviation);
        let envelope = found.average + found.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }

    /// So many periods are over in which nobody wanted anything.
    pub(crate) fn rest(&mut self, periods: f64) {
        *self = Self { smoothed: self.smoothed * SMOOTHING.powf(periods.max(0.0)), ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrals() {
        let check = |steps: &[(Seconds, f64)], now: Seconds, expected: Found| {
            let mut integral = Integral::default();
            steps.iter().for_each(|(at, value)| integral.set(*at, *value));
            assert_eq!(integral.take(now), expected, "{steps:?}");
        };
        let found = |elapsed: f64, average: f64, deviation: f64, most: f64| Found { elapsed, average, deviation, most };
        check(&[], 0.0, found(0.0, 0.0, 0.0, 0.0));
        check(&[(0.0, 4.0)], 0.0, found(0.0, 0.0, 0.0, 4.0));
        check(&[(0.0, 4.0)], 2.0, found(2.0, 4.0, 0.0, 4.0));
        check(&[(0.0, 2.0), (1.0, 4.0)], 2.0, found(2.0, 3.0, 1.0, 4.0));
        check(&[(0.0, 9.0), (0.0, 1.0)], 1.0, found(1.0, 1.0, 0.0, 9.0));
        // Clocks of two processors that differ do no harm.
        check(&[(1.0, 1.0), (0.5, 1.0)], 2.0, found(2.0, 0.5, 0.5, 1.0));
        let mut integral = Integral::default();
        integral.set(0.0, 3.0);
        integral.take(1.0);
        assert_eq!(integral.take(3.0), found(2.0, 3.0, 0.0, 3.0));
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let (mut demand, period) =
            (Demand::default(), |average: f64| Found { elapsed: 10.0, average, most: average, ..Found::default() });
        demand.update(&period(100.0));
        assert_eq!((demand.smoothed, demand.most), (100.0, 100));
        let mut rested = demand;
        (0..30).for_each(|_| demand.update(&period(0.0)));
        assert!((45.0..55.0).contains(&demand.smoothed), "{demand:?}");
        rested.rest(30.0);
        assert!((rested.smoothed - demand.smoothed).abs() < 1e-6);
        assert_eq!(rested.most, 0);
    }
}

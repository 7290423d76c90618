//! From the replicas that metrics ask for to those that are set: stabilisation over time, rates and limits. Pure.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Seconds over which the highest recommendation counts when nothing is said
/// (`--horizontal-pod-autoscaler-downscale-stabilization`).
const DOWNSCALE_WINDOW: i32 = 300;
/// Without a behaviour, at most the double is set at once, or this.
const SCALE_UP_LEAST: i32 = 4;
/// Nothing that is older counts anywhere.
const LONGEST: Duration = Duration::from_secs(3600);

/// What an autoscaler has wanted and done, with the times: those of a clock that goes on evenly (`Clock::passed`), so that windows are as
/// long as they are to be when somebody sets the time of day.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    recommendations: Vec<(Duration, i32)>,
    /// Replicas that were added, and taken away.
    ups: Vec<(Duration, i32)>,
    downs: Vec<(Duration, i32)>,
}

/// Reason and message of a condition.
type Why = (&'static str, &'static str);

/// What is set, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Normalized {
    pub(super) replicas: i32,
    /// For the condition AbleToScale.
    pub(super) stabilized: Why,
    /// For the condition ScalingLimited, and whether it holds.
    pub(super) limited: (bool, Why),
}

/// Where an autoscaler is.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    pub(super) at: Duration,
    pub(super) current: i32,
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
}

const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const DOWN_STABILIZED: Why =
    ("ScaleDownStabilized", "recent recommendations were higher than current one, applying the highest recent recommendation");
const UP_STABILIZED: Why =
    ("ScaleUpStabilized", "recent recommendations were lower than current one, applying the lowest recent recommendation");
const IN_RANGE: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Why = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Why = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: Why = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Why = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

impl Memory {
    /// The first size that an autoscaler sees is its first recommendation.
    pub(super) fn begin(&mut self, at: Duration, current: i32) {
        if self.recommendations.is_empty() {
            self.recommendations.push((at, current));
        }
    }

    /// Notes a change of the size.
    pub(super) fn scaled(&mut self, at: Duration, from: i32, to: i32) {
        match to > from {
            true => self.ups.push((at, to - from)),
            false => self.downs.push((at, from - to)),
        }
    }

    /// What is set when metrics ask for `desired`.
    pub(super) fn normalize(&mut self, now: Now<'_>, desired: i32) -> Normalized {
        for list in [&mut self.recommendations, &mut self.ups, &mut self.downs] {
            list.retain(|(at, _)| now.at.saturating_sub(*at) < LONGEST);
        }
        let (stable, reason) = self.stabilize(now, desired);
        self.recommendations.push((now.at, desired));
        let (replicas, why) = match now.behavior {
            None => limit(now, stable),
            Some(behavior) => self.limit_rate(now, behavior, stable),
        };
        let stabilized = if stable == desired { READY } else { reason };
        Normalized { replicas, stabilized, limited: (replicas != stable, why) }
    }

    fn since(list: &[(Duration, i32)], at: Duration, seconds: i32) -> impl Iterator<Item = i32> + '_ {
        let window = Duration::from_secs(seconds.try_into().unwrap_or(0));
        list.iter().filter(move |(then, _)| at.saturating_sub(*then) < window).map(|(_, number)| *number)
    }

    /// The size that the recommendations of the windows agree on, and why it is another than what is desired.
    fn stabilize(&self, now: Now<'_>, desired: i32) -> (i32, Why) {
        let recent = |seconds| Self::since(&self.recommendations, now.at, seconds);
        let Some(behavior) = now.behavior else {
            return (recent(DOWNSCALE_WINDOW).max().unwrap_or(desired).max(desired), DOWN_STABILIZED);
        };
        let window = |rules: &Option<HPAScalingRules>| rules.as_ref().and_then(|rules| rules.stabilization_window_seconds);
        let lowest = recent(window(&behavior.scale_up).unwrap_or(0)).min().unwrap_or(desired).min(desired);
        let down = window(&behavior.scale_down).unwrap_or(DOWNSCALE_WINDOW);
        let highest = recent(down).max().unwrap_or(desired).max(desired);
        let stable = now.current.max(lowest).min(highest);
        (stable, if desired >= now.current { UP_STABILIZED } else { DOWN_STABILIZED })
    }

    fn limit_rate(&self, now: Now<'_>, behavior: &HorizontalPodAutoscalerBehavior, desired: i32) -> (i32, Why) {
        if desired > now.current {
            let rate = self.up_limit(now, behavior.scale_up.as_ref()).max(now.current);
            let (most, why) = if now.max > rate { (rate, UP_LIMIT) } else { (now.max, TOO_MANY) };
            if desired > most {
                return (most, why);
            }
        } else if desired < now.current {
            let rate = self.down_limit(now, behavior.scale_down.as_ref()).min(now.current);
            let (least, why) = if now.min < rate { (rate, DOWN_LIMIT) } else { (now.min, TOO_FEW) };
            if desired < least {
                return (least, why);
            }
        }
        (desired, IN_RANGE)
    }

    /// The size at the beginning of a policy's period.
    fn at_start(&self, now: Now<'_>, policy: &HPAScalingPolicy) -> i32 {
        let change = |list| Self::since(list, now.at, policy.period_seconds).map(i64::from).sum::<i64>();
        let start = i64::from(now.current) - change(&self.ups) + change(&self.downs);
        i32::try_from(start).unwrap_or(if start < 0 { i32::MIN } else { i32::MAX })
    }

    fn up_limit(&self, now: Now<'_>, rules: Option<&HPAScalingRules>) -> i32 {
        let limits = |policy: &HPAScalingPolicy| {
            let start = self.at_start(now, policy);
            match policy.type_.as_str() {
                "Pods" => start.saturating_add(policy.value),
                // Rounded up, or small sets would never grow.
                _ => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            }
        };
        match select_policy(rules) {
            "Disabled" => now.current,
            "Min" => policies(rules).map(limits).min().unwrap_or(i32::MAX),
            _ => policies(rules).map(limits).max().unwrap_or(i32::MIN),
        }
    }

    fn down_limit(&self, now: Now<'_>, rules: Option<&HPAScalingRules>) -> i32 {
        let limits = |policy: &HPAScalingPolicy| {
            let start = self.at_start(now, policy);
            match policy.type_.as_str() {
                "Pods" => start.saturating_sub(policy.value),
                _ => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            }
        };
        // The least change leaves the most.
        match select_policy(rules) {
            "Disabled" => now.current,
            "Min" => policies(rules).map(limits).max().unwrap_or(i32::MIN),
            _ => policies(rules).map(limits).min().unwrap_or(i32::MAX),
        }
    }
}

fn select_policy(rules: Option<&HPAScalingRules>) -> &str {
    rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max")
}

fn policies(rules: Option<&HPAScalingRules>) -> impl Iterator<Item = &HPAScalingPolicy> {
    rules.into_iter().flat_map(|rules| rules.policies.iter().flatten())
}

/// The limits of an autoscaler without a behaviour.
fn limit(now: Now<'_>, desired: i32) -> (i32, Why) {
    let fast = now.current.saturating_mul(2).max(SCALE_UP_LEAST);
    let (most, why) = if now.max > fast { (fast, UP_LIMIT) } else { (now.max, TOO_MANY) };
    match desired {
        desired if desired < now.min => (now.min, TOO_FEW),
        desired if desired > most => (most, why),
        desired => (desired, IN_RANGE),
    }
}

#[cfg(test)]
mod tests;

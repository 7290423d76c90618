//! One look at an autoscaler: what it finds goes into the status and into events.

use std::time::Duration;

use client::events::Type;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controller::Cx;
use crate::meta;

/// The conditions of an autoscaler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    AbleToScale,
    ScalingActive,
    ScalingLimited,
}

impl Condition {
    fn name(self) -> &'static str {
        match self {
            Self::AbleToScale => "AbleToScale",
            Self::ScalingActive => "ScalingActive",
            Self::ScalingLimited => "ScalingLimited",
        }
    }
}

/// What a look is at, and what it has found so far.
pub(super) struct Turn<'a> {
    pub(super) cx: &'a Cx,
    pub(super) scaler: &'a HorizontalPodAutoscaler,
    pub(super) status: HorizontalPodAutoscalerStatus,
    pub(super) now: Timestamp,
    /// The same moment on the clock that nobody sets.
    pub(super) passed: Duration,
}

impl<'a> Turn<'a> {
    pub(super) fn new(cx: &'a Cx, scaler: &'a HorizontalPodAutoscaler) -> Self {
        Self { cx, scaler, status: scaler.status.clone().unwrap_or_default(), now: cx.clock.now(), passed: cx.clock.passed() }
    }

    /// Says whether a condition holds.
    pub(super) fn set(&mut self, condition: Condition, holds: bool, reason: &str, message: impl Into<String>) {
        let conditions = self.status.conditions.get_or_insert_default();
        set(conditions, condition.name(), holds, (reason, message.into()), meta::whole_seconds(self.now));
    }

    /// Says why a condition does not hold, also in an event.
    pub(super) fn fail(&mut self, condition: Condition, (reason, event): (&str, &str), message: impl Into<String>) {
        self.cx.events.about(self.scaler, Type::Warning, reason, event);
        self.set(condition, false, reason, message);
    }
}

fn set(
    conditions: &mut Vec<HorizontalPodAutoscalerCondition>,
    type_: &str,
    holds: bool,
    (reason, message): (&str, String),
    now: Time,
) {
    let status = if holds { "True" } else { "False" };
    let index = conditions.iter().position(|condition| condition.type_ == type_).unwrap_or_else(|| {
        conditions.push(HorizontalPodAutoscalerCondition { type_: type_.to_owned(), ..Default::default() });
        conditions.len() - 1
    });
    let condition = &mut conditions[index];
    if condition.status != status {
        condition.last_transition_time = Some(now);
    }
    condition.status = status.to_owned();
    condition.reason = Some(reason.to_owned());
    condition.message = Some(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut conditions = Vec::new();
        let mut say = |holds, reason: &str, second| {
            let now = Time(Timestamp::from_second(second).unwrap());
            set(&mut conditions, "AbleToScale", holds, (reason, String::new()), now);
            let [condition] = conditions.as_slice() else { panic!("{conditions:?}") };
            (condition.reason.clone().unwrap(), condition.last_transition_time.clone().unwrap().0.as_second())
        };
        assert_eq!(say(true, "A", 1), ("A".to_owned(), 1));
        assert_eq!(say(true, "B", 2), ("B".to_owned(), 1));
        assert_eq!(say(false, "C", 3), ("C".to_owned(), 3));
    }
}

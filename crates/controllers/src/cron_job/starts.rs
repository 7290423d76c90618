//! When a CronJob is due, and what it missed. Pure.

use std::time::Duration;

use apimachinery::schedule::{Schedule, time_zone};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;

/// So many missed starts are worth a warning.
const MANY: i64 = 100;
/// Added to the time of the next look, so that it is never too early.
const DELTA: SignedDuration = SignedDuration::from_millis(100);

/// A schedule in its time zone.
pub(super) struct Timetable {
    schedule: Schedule,
    zone: TimeZone,
}

/// Why there is no timetable. The words are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("invalid timeZone: {0:?}: unknown time zone {0}")]
    Zone(String),
    #[error("unparseable schedule: {0:?} : {1}")]
    Schedule(String, apimachinery::schedule::Error),
}

/// The schedule is due on no day, or all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(super) struct Never;

/// What has become due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Recent {
    /// Nothing before is looked at.
    earliest: Timestamp,
    /// The last time that was due.
    pub(super) last: Option<Timestamp>,
    missed: i64,
}

impl Recent {
    /// Whether so many starts were missed that something must be wrong.
    pub(super) fn missed_many(&self) -> bool {
        self.missed > MANY
    }
}

impl Timetable {
    pub(super) fn of(cron: &CronJob) -> Result<Self, Error> {
        let name = cron.spec.time_zone.as_deref().unwrap_or_default();
        let zone = time_zone(name).ok_or_else(|| Error::Zone(name.to_owned()))?;
        let text = &cron.spec.schedule;
        let schedule = Schedule::parse(text).map_err(|error| Error::Schedule(text.clone(), error))?;
        Ok(Self { schedule, zone })
    }

    /// The time in the zone of the CronJob, as its jobs note it.
    pub(super) fn noted(cron: &CronJob, at: Timestamp) -> String {
        let zone = time_zone(cron.spec.time_zone.as_deref().unwrap_or_default()).unwrap_or(TimeZone::UTC);
        let at = at.to_zoned(zone);
        let end = if at.offset().is_zero() { "Z" } else { "%:z" };
        at.strftime(&format!("%Y-%m-%dT%H:%M:%S{end}")).to_string()
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, &self.zone)
    }

    /// What has become due since the last start and, where `in_time`, is not too late to be started.
    pub(super) fn recent(&self, cron: &CronJob, now: Timestamp, in_time: bool) -> Result<Recent, Never> {
        let created = cron.metadata.creation_timestamp.as_ref();
        let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let mut earliest = last.or(created).map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        if let Some(seconds) = cron.spec.starting_deadline_seconds.filter(|_| in_time) {
            let deadline = now.saturating_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN);
            earliest = earliest.max(deadline);
        }
        let first = self.next(earliest).ok_or(Never)?;
        let second = self.next(first).ok_or(Never)?;
        if now < first {
            return Ok(Recent { earliest, last: None, missed: 0 });
        }
        if now < second {
            return Ok(Recent { earliest, last: Some(first), missed: 0 });
        }
        // Schedules can leave gaps, so the number is an estimate. From shortly before the estimated last time on, every
        // time is looked at.
        let between = second.as_second() - first.as_second();
        if between < 1 {
            return Err(Never);
        }
        let missed = (now.as_second() - first.as_second()) / between + 1;
        let mut at = Timestamp::from_second(first.as_second() + (missed - 2) * between).map_err(|_| Never)?;
        let mut last = None;
        while let Some(next) = self.next(at).filter(|next| *next <= now) {
            last = Some(next);
            at = next;
        }
        Ok(Recent { earliest, last, missed })
    }

    /// How long until the CronJob has to be looked at again.
    pub(super) fn wait(&self, cron: &CronJob, now: Timestamp) -> Option<Duration> {
        let from = match self.recent(cron, now, false) {
            Ok(Recent { last: Some(last), .. }) => last,
            Ok(Recent { earliest, missed: 0, .. }) => earliest,
            _ => now,
        };
        let due = self.next(from)?.checked_add(DELTA).ok()?;
        Some(Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::object;
    use serde_json::{Value, json};

    fn cron(spec: Value, last: Option<&str>) -> CronJob {
        object(
            json!({"metadata": {"creationTimestamp": "2026-01-01T10:00:00Z"}, "spec": spec, "status": {"lastScheduleTime": last}}),
        )
    }

    fn hourly(deadline: Option<i64>) -> Value {
        json!({"schedule": "0 * * * *", "startingDeadlineSeconds": deadline, "jobTemplate": {}})
    }

    #[test]
    fn what_is_due() {
        let check = |spec: Value, last: Option<&str>, now: &str, due: Option<&str>, many: bool, wait: f64| {
            let (cron, now) = (cron(spec, last), now.parse().unwrap());
            let table = Timetable::of(&cron).unwrap();
            let recent = table.recent(&cron, now, true).unwrap();
            assert_eq!((recent.last, recent.missed_many()), (due.map(|due| due.parse().unwrap()), many), "{now}");
            assert_eq!(table.wait(&cron, now), Some(Duration::from_secs_f64(wait)), "{now}");
        };
        check(hourly(None), None, "2026-01-01T10:30:00Z", None, false, 1800.1);
        check(hourly(None), None, "2026-01-01T11:00:00Z", Some("2026-01-01T11:00:00Z"), false, 3600.1);
        check(hourly(None), Some("2026-01-01T11:00:00Z"), "2026-01-01T11:00:10Z", None, false, 3590.1);
        check(hourly(None), None, "2026-01-01T14:20:00Z", Some("2026-01-01T14:00:00Z"), false, 2400.1);
        check(hourly(None), None, "2026-01-20T14:20:00Z", Some("2026-01-20T14:00:00Z"), true, 2400.1);
        check(hourly(Some(60)), None, "2026-01-20T14:20:00Z", None, false, 2400.1);
        check(hourly(Some(3600)), None, "2026-01-20T14:20:00Z", Some("2026-01-20T14:00:00Z"), false, 2400.1);
        let every = json!({"schedule": "@every 1h", "jobTemplate": {}});
        check(every, Some("2026-01-01T10:07:00Z"), "2026-01-01T15:00:00Z", Some("2026-01-01T14:07:00Z"), false, 420.1);
        let work = json!({"schedule": "30 6-16/4 * * 1-5", "jobTemplate": {}});
        check(work, Some("2026-01-02T14:30:00Z"), "2026-01-05T10:31:00Z", Some("2026-01-05T10:30:00Z"), false, 14340.1);
    }

    #[test]
    fn what_is_wrong() {
        let check = |spec: Value, expected: &str| {
            let error = Timetable::of(&cron(spec, None)).err().unwrap();
            assert_eq!(error.to_string(), expected);
        };
        check(
            json!({"schedule": "@often", "jobTemplate": {}}),
            "unparseable schedule: \"@often\" : unrecognized descriptor: @often",
        );
        check(
            json!({"schedule": "@daily", "timeZone": "No/Where", "jobTemplate": {}}),
            "invalid timeZone: \"No/Where\": unknown time zone No/Where",
        );
        let never = cron(json!({"schedule": "59 23 31 2 *", "jobTemplate": {}}), None);
        let table = Timetable::of(&never).unwrap();
        assert_eq!(
            (table.recent(&never, Timestamp::UNIX_EPOCH, true), table.wait(&never, Timestamp::UNIX_EPOCH)),
            (Err(Never), None)
        );
    }

    #[test]
    fn jobs_note_the_time_in_the_zone() {
        let check = |zone: Option<&str>, expected: &str| {
            let cron = cron(json!({"schedule": "@daily", "timeZone": zone, "jobTemplate": {}}), None);
            assert_eq!(Timetable::noted(&cron, "2026-07-01T22:00:00Z".parse().unwrap()), expected);
        };
        check(None, "2026-07-01T22:00:00Z");
        check(Some("Europe/Berlin"), "2026-07-02T00:00:00+02:00");
        check(Some("Asia/Kathmandu"), "2026-07-02T03:45:00+05:45");
    }
}

//! In which order pods go. Pure.

use std::cmp::Reverse;

use super::signal::Signal;

/// A pod that could go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Its UID.
    pub uid: String,
    /// `spec.priority`
    pub priority: i32,
    /// What it has of the resource that is short; none when that is not known.
    pub used: Option<i64>,
    /// What it asked for of it.
    pub request: i64,
}

/// Puts the pods that go first to the front, as upstream: those of which nothing is known, those that have more than they asked for, those
/// with a lower priority, those that have the most above what they asked for. Nobody can ask for process ids: only the priority and
/// the number count.
pub fn rank(signal: Signal, candidates: &mut [Candidate]) {
    let asks = signal != Signal::PidAvailable;
    candidates.sort_by_key(|candidate| {
        let above = candidate.used.map_or(0, |used| used.saturating_sub(if asks { candidate.request } else { 0 }));
        (candidate.used.is_some(), Reverse(asks && above > 0), candidate.priority, Reverse(above))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pods as name, priority, use, request; then the order of the names.
    #[track_caller]
    fn check(signal: Signal, pods: &[(&str, i32, Option<i64>, i64)], expected: &str) {
        let candidate = |&(uid, priority, used, request): &(&str, i32, Option<i64>, i64)| Candidate {
            uid: uid.to_owned(),
            priority,
            used,
            request,
        };
        let mut candidates: Vec<_> = pods.iter().map(candidate).collect();
        rank(signal, &mut candidates);
        let names: Vec<_> = candidates.iter().map(|candidate| candidate.uid.as_str()).collect();
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn use_above_the_request_then_priority_then_use() {
        let memory = Signal::MemoryAvailable;
        check(memory, &[("within", 0, Some(9), 10), ("above", 5, Some(11), 10)], "above within");
        check(memory, &[("high", 5, Some(90), 10), ("low", 1, Some(11), 10)], "low high");
        check(memory, &[("less", 0, Some(50), 40), ("more", 0, Some(31), 10)], "more less");
        check(memory, &[("within", 0, Some(0), 0), ("unknown", 9, None, 0)], "unknown within");
        check(Signal::NodeFsAvailable, &[("a", 0, Some(5), 10), ("b", 0, Some(9), 10)], "b a");
        check(Signal::NodeFsInodesFree, &[("a", 0, Some(5), 0), ("b", 0, Some(9), 0)], "b a");
    }

    #[test]
    fn of_processes_only_priority_and_number_count() {
        check(Signal::PidAvailable, &[("high", 5, Some(90), 0), ("low", 1, Some(1), 0)], "low high");
        check(Signal::PidAvailable, &[("few", 1, Some(3), 0), ("many", 1, Some(4), 0)], "many few");
    }
}

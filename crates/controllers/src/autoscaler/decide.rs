//! What all metrics of an autoscaler together ask for. Pure.

use k8s_openapi::api::autoscaling::v2::MetricStatus;

use super::metrics::{Invalid, Proposal};

/// The highest proposal, and what is known of each metric.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) statuses: Vec<MetricStatus>,
    /// Replicas and the metric that asks for them; or why nothing follows, with the first metric that says nothing.
    pub(super) outcome: Result<(i32, String), (Invalid, String)>,
}

/// Of several metrics the highest counts. One that says nothing does no harm while the others do not ask for less than there is.
pub(super) fn decide(current: i32, proposals: Vec<Result<Proposal, Invalid>>) -> Decision {
    let (all, mut statuses, mut failed, mut invalid) = (proposals.len(), Vec::new(), 0, None);
    let mut highest: Option<(i32, String)> = None;
    for proposal in proposals {
        match proposal {
            Ok(Proposal { replicas, name, status }) => {
                statuses.push(status);
                if highest.as_ref().is_none_or(|(most, _)| replicas > *most) {
                    highest = Some((replicas, name));
                }
            }
            Err(error) => {
                // The statuses stand where their specifications do.
                statuses.push(MetricStatus::default());
                failed += 1;
                invalid.get_or_insert(error);
            }
        }
    }
    let outcome = match (highest, invalid) {
        (Some((replicas, name)), None) => Ok((replicas, name)),
        (Some((replicas, name)), Some(_)) if replicas >= current => Ok((replicas, name)),
        (_, Some(first)) => {
            let about = format!("invalid metrics ({failed} invalid out of {all}), first error is: {}{first}", first.about);
            Err((first, about))
        }
        (None, None) => Ok((current, String::new())),
    };
    Decision { statuses, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proposals by replicas, none for a metric that says nothing; the decision as replicas with the metric's place, or a message.
    #[track_caller]
    fn check(current: i32, proposals: &[Option<i32>], expected: Result<(i32, &str), &str>) {
        let proposal = |(index, replicas): (usize, &Option<i32>)| match replicas {
            Some(replicas) => Ok(Proposal { replicas: *replicas, name: index.to_string(), status: MetricStatus::default() }),
            None => Err(Invalid { reason: "FailedGetPodsMetric", about: "failed: ".to_owned(), message: format!("no {index}") }),
        };
        let decision = decide(current, proposals.iter().enumerate().map(proposal).collect());
        let outcome = decision.outcome.map_err(|(_, message)| message);
        assert_eq!(outcome, expected.map(|(replicas, name)| (replicas, name.to_owned())).map_err(str::to_owned));
    }

    /// Upstream's `TestComputeReplicas`, `TestMissingMetrics` and their like.
    #[test]
    fn the_highest_counts_and_the_unknown_takes_nothing_away() {
        check(3, &[Some(4), Some(7), Some(7)], Ok((7, "1")));
        check(3, &[Some(0)], Ok((0, "0")));
        check(3, &[None, Some(5)], Ok((5, "1")));
        check(3, &[None, Some(3)], Ok((3, "1")));
        check(3, &[Some(2), None], Err("invalid metrics (1 invalid out of 2), first error is: failed: no 1"));
        check(3, &[None, None], Err("invalid metrics (2 invalid out of 2), first error is: failed: no 0"));
    }
}

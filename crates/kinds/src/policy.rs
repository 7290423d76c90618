//! policy/v1

mod pod_disruption_budget;

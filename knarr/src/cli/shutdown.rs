//! What happens to pods when the machine shuts down: options by the names of the fields of upstream's KubeletConfiguration.

use std::time::Duration;

use clap::Args;
use kubelet::shutdown::{Periods, PeriodsError};

use super::duration;

/// Grace periods of a shutdown.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Shutdown {
    /// How long a shutdown of the machine is held back for pods to end; 0 is not at all. It needs systemd's login manager.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    shutdown_grace_period: Duration,
    /// The part of it, at its end, that is for critical pods.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    shutdown_grace_period_critical_pods: Duration,
    /// In the place of both, periods by the lowest priority that each is for: 0=60s,1000=2m,2000000000=10s.
    #[arg(long, value_name = "PRIORITY=DURATION", value_delimiter = ',', value_parser = period)]
    shutdown_grace_period_by_pod_priority: Vec<(i32, Duration)>,
    /// When the program is told to stop, end the pods, rather than leave them running: as at a shutdown of the machine, in its grace
    /// periods, or in 30s where there are none. What has not ended by then is killed, which takes some seconds more. A second signal leaves
    /// what has not ended.
    #[arg(long)]
    drain_on_exit: bool,
}

/// How long pods have where nobody says.
const EXIT: Duration = Duration::from_secs(30);

fn period(text: &str) -> Result<(i32, Duration), String> {
    let form = || format!("{text:?} is not of the form PRIORITY=DURATION, such as 1000=2m");
    let (priority, period) = text.split_once('=').ok_or_else(form)?;
    Ok((priority.parse().map_err(|_| form())?, duration(period)?))
}

impl Shutdown {
    /// How long which pods have.
    pub(crate) fn periods(&self) -> Result<Periods, PeriodsError> {
        let list = &self.shutdown_grace_period_by_pod_priority;
        Periods::new(self.shutdown_grace_period, self.shutdown_grace_period_critical_pods, list)
    }

    /// How long they have when the program stops; none where they stay.
    pub(crate) fn on_exit(&self) -> Result<Option<Periods>, PeriodsError> {
        let periods = self.periods()?;
        let periods = if periods.is_none() { Periods::of_all(EXIT) } else { periods };
        Ok(Some(periods).filter(|_| self.drain_on_exit))
    }
}

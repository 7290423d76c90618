//! Probes: one task per probe of a running container, whose verdicts go to the pod's task.

pub mod grpc;
pub mod http;
mod pace;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::OnFailure;
use client::events::Type;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::pace::Pace;
use crate::context::Context;
use crate::metrics::Probed;
use crate::spec::{Member, Model};

/// Most that is kept of what a command or body says, bytes, as upstream.
pub(crate) const OUTPUT: usize = 10 << 10;

/// What a probe decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Whether the container has started; the others wait for it.
    Startup,
    /// Whether it must be restarted.
    Liveness,
    /// Whether it gets traffic.
    Readiness,
}

impl Kind {
    /// As in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }

    /// As in events and figures.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, member: &Member) -> Option<&Probe> {
        match self {
            Self::Startup => member.spec.startup_probe.as_ref(),
            Self::Liveness => member.spec.liveness_probe.as_ref(),
            Self::Readiness => member.spec.readiness_probe.as_ref(),
        }
    }
}

/// A verdict: so many results of one sort in a row that it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Name of the container.
    pub container: String,
    /// Its runtime identifier; a verdict on an older one is void.
    pub id: String,
    /// Which probe.
    pub kind: Kind,
    /// What it found.
    pub healthy: bool,
}

/// Counts results in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    last: Option<bool>,
    run: i32,
}

impl Tally {
    /// The verdict, once the threshold is reached.
    fn count(&mut self, healthy: bool, probe: &Probe) -> Option<bool> {
        self.run = if self.last == Some(healthy) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(healthy);
        let threshold = if healthy { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        (self.run >= threshold).then_some(healthy)
    }
}

/// A probe of one running container.
#[derive(Clone)]
pub struct Target {
    /// The pod.
    pub model: Model,
    /// The container.
    pub member: Member,
    /// Its runtime identifier.
    pub id: String,
    /// When it started.
    pub started: Timestamp,
    /// The pod's address.
    pub ip: Option<IpAddr>,
    /// Which probe.
    pub kind: Kind,
}

/// The running probes of one pod.
pub struct Probes {
    cx: Arc<Context>,
    verdicts: mpsc::Sender<Verdict>,
    running: HashMap<(String, Kind), CancellationToken>,
    /// By the containers' names.
    figures: HashMap<(String, Kind), Arc<Probed>>,
}

impl Probes {
    /// No probes yet; verdicts go to `verdicts`.
    pub fn new(cx: Arc<Context>, verdicts: mpsc::Sender<Verdict>) -> Self {
        Self { cx, verdicts, running: HashMap::new(), figures: HashMap::new() }
    }

    /// Starts the probes of `targets` that do not run, and ends all others.
    pub fn sync(&mut self, targets: Vec<Target>) {
        let wanted: std::collections::HashSet<_> = targets.iter().map(|t| (t.id.clone(), t.kind)).collect();
        self.running.retain(|key, token| {
            let keep = wanted.contains(key);
            if !keep {
                token.cancel();
            }
            keep
        });
        for target in targets {
            let key = (target.id.clone(), target.kind);
            if self.running.contains_key(&key) {
                continue;
            }
            let token = self.cx.tasks.token().child_token();
            self.running.insert(key, token.clone());
            let title = format!("{} probe of {} in {}", target.kind.name(), target.member.spec.name, target.model.title());
            let of_container = (target.member.spec.name.clone(), target.kind);
            let figures = self.figures.entry(of_container).or_insert_with(|| Arc::new(Probed::of(&target))).clone();
            let task = follow(self.cx.clone(), target, figures, self.verdicts.clone());
            self.cx.tasks.spawn(title, OnFailure::Log, async move {
                token.run_until_cancelled(task).await;
                Ok::<_, std::convert::Infallible>(())
            });
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.running.values().for_each(CancellationToken::cancel);
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
}

/// Probes until the verdict that ends it: a passed startup probe, a failed startup or liveness probe.
async fn follow(cx: Arc<Context>, target: Target, figures: Arc<Probed>, verdicts: mpsc::Sender<Verdict>) {
    let Some(probe) = target.kind.of(&target.member).cloned() else { return };
    let delay = seconds(probe.initial_delay_seconds, 0);
    let age = Duration::try_from(Timestamp::now().duration_since(target.started)).unwrap_or_default();
    tokio::time::sleep(delay.saturating_sub(age)).await;
    let mut pace = Pace::new(seconds(probe.period_seconds, 10).max(Duration::from_secs(1)), probe.exec.is_some());
    let (mut tally, mut ready) = (Tally::default(), false);
    let begin = tokio::time::Instant::now();
    loop {
        let due = pace.next(begin.elapsed(), !ready && may_hurry(target.kind, &probe));
        tokio::time::sleep_until(begin + due.at).await;
        let asked = tokio::time::Instant::now();
        let outcome = once(&cx, &target, &probe).await;
        let unknown = matches!(outcome, Err(Trouble::Unknown(_)));
        figures.count((!unknown).then_some(outcome.is_ok()), asked.elapsed());
        if due.extra && outcome.is_err() {
            continue;
        }
        let healthy = outcome.is_ok();
        tell(&cx, &target, outcome);
        let Some(healthy) = (if unknown { None } else { tally.count(healthy, &probe) }) else { continue };
        if ready && !healthy {
            pace.lost();
        }
        ready = healthy;
        let verdict = Verdict { container: target.member.spec.name.clone(), id: target.id.clone(), kind: target.kind, healthy };
        let last = target.kind == Kind::Startup || (target.kind == Kind::Liveness && !healthy);
        if verdicts.send(verdict).await.is_err() || last {
            return;
        }
    }
}

/// Whether a container may be asked between two probes of the period while somebody waits for a success. Where several in a row are asked for,
/// they are to be that long apart.
fn may_hurry(kind: Kind, probe: &Probe) -> bool {
    kind != Kind::Liveness && probe.success_threshold.unwrap_or(1) <= 1
}

/// Records the event that a result deserves.
fn tell(cx: &Context, target: &Target, outcome: Outcome) {
    let (reason, what) = match outcome {
        Ok(None) => return,
        Ok(Some(output)) => ("ProbeWarning", format!("warning: {output}")),
        Err(Trouble::Failed(output)) => ("Unhealthy", format!("failed: {output}")),
        Err(Trouble::Unknown(error)) => ("Unhealthy", format!("errored and resulted in unknown state: {error}")),
    };
    let message = format!("{} probe {what}", target.kind.title());
    cx.container_event(&target.model, &target.member, Type::Warning, reason, message);
}

/// Why a probe did not pass.
#[derive(Debug)]
enum Trouble {
    /// It found the container unhealthy.
    Failed(String),
    /// It could not find out; this counts for nothing.
    Unknown(String),
}

/// Passed, maybe with a warning.
type Outcome = Result<Option<String>, Trouble>;

async fn once(cx: &Context, target: &Target, probe: &Probe) -> Outcome {
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let host = || target.ip.map(|ip| ip.to_string()).ok_or_else(|| Trouble::Unknown("the pod has no address".to_owned()));
    if let Some(action) = &probe.exec {
        return exec(cx, target, action.command.as_deref().unwrap_or_default(), timeout).await.map(|()| None);
    }
    if let Some(action) = &probe.http_get {
        let get = http::Get::new(action, &target.member.spec, target.ip, http::Purpose::Probe).map_err(Trouble::Unknown)?;
        return match get.send(timeout).await {
            Ok((status, body)) => judge(status, &body),
            // As upstream: it works, and nobody knows how it is.
            Err(http::Error::Body(error)) => Err(Trouble::Unknown(error)),
            Err(error) => Err(Trouble::Failed(error.to_string())),
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let port = http::port(&action.port, &target.member.spec).map_err(Trouble::Unknown)?;
        let host = action.host.clone().filter(|host| !host.is_empty()).map_or_else(host, Ok)?;
        let late = |_| Trouble::Failed(format!("dial tcp {host}:{port}: i/o timeout"));
        let connected = tokio::time::timeout(timeout, http::connect(&host, port)).await.map_err(late)?;
        return connected.map(|_| None).map_err(Trouble::Failed);
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| Trouble::Unknown(format!("invalid port number: {}", action.port)))?;
        let service = action.service.as_deref().unwrap_or_default();
        return grpc::check(&host()?, port, service, timeout).await.map(|()| None).map_err(Trouble::Failed);
    }
    Err(Trouble::Unknown("missing probe handler".to_owned()))
}

/// What an HTTP answer says of the container. A redirect that was not followed, as it leads to another host, is a pass.
fn judge(status: u16, body: &str) -> Outcome {
    match status {
        200..300 => Ok(None),
        300..400 => Ok(Some(format!("Probe terminated redirects, Response body: {body}"))),
        _ => Err(Trouble::Failed(format!("HTTP probe failed with statuscode: {status}"))),
    }
}

async fn exec(cx: &Context, target: &Target, command: &[String], timeout: Duration) -> Result<(), Trouble> {
    match cx.runtime().exec_sync(&target.id, command, timeout, OUTPUT).await {
        Ok(output) if output.exit_code == 0 => Ok(()),
        Ok(output) => {
            let mut text = [output.stdout, output.stderr].concat();
            text.truncate(OUTPUT);
            Err(Trouble::Failed(String::from_utf8_lossy(&text).into_owned()))
        }
        Err(runtime::api::Error::Timeout(_)) => {
            let command = command.join(" ");
            Err(Trouble::Failed(format!("command timed out: {command:?} timed out after {}s", timeout.as_secs())))
        }
        Err(error) => Err(Trouble::Unknown(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let warning = "Probe terminated redirects, Response body: moved";
        assert!(matches!(judge(204, ""), Ok(None)));
        assert!(matches!(judge(302, "moved"), Ok(Some(text)) if text == warning));
        assert!(matches!(judge(404, ""), Err(Trouble::Failed(text)) if text == "HTTP probe failed with statuscode: 404"));
    }

    #[track_caller]
    fn check(results: &[bool], success: i32, failure: i32, verdicts: &[Option<bool>]) {
        let probe = Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Default::default() };
        let mut tally = Tally::default();
        let seen: Vec<_> = results.iter().map(|healthy| tally.count(*healthy, &probe)).collect();
        assert_eq!(seen, verdicts);
    }

    /// Probe v1: "Minimum consecutive successes for the probe to be considered successful after having failed", one in each `periodSeconds`.
    #[test]
    fn several_successes_are_a_period_apart() {
        let check = |kind: Kind, threshold: Option<i32>, hurries: bool| {
            let probe = Probe { success_threshold: threshold, period_seconds: Some(10), ..Default::default() };
            assert_eq!(may_hurry(kind, &probe), hurries, "{kind:?} {threshold:?}");
            let mut pace = Pace::new(Duration::from_secs(10), false);
            let begins: Vec<_> = (0..3).map(|_| pace.next(Duration::ZERO, may_hurry(kind, &probe)).at.as_millis()).collect();
            assert_eq!(begins, if hurries { [0, 5, 10] } else { [0, 10_000, 20_000] });
        };
        check(Kind::Readiness, None, true);
        check(Kind::Readiness, Some(1), true);
        check(Kind::Readiness, Some(3), false);
        check(Kind::Startup, None, true);
        check(Kind::Liveness, None, false);
    }

    #[test]
    fn thresholds() {
        check(&[true], 1, 3, &[Some(true)]);
        check(&[false, false, false, true], 1, 3, &[None, None, Some(false), Some(true)]);
        check(&[true, false, true, true], 2, 1, &[None, Some(false), None, Some(true)]);
    }
}

//! The task that holds the machine's shutdown back until the pods have ended.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use client::events::Type;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use runtime::api::SandboxState;
use tokio::time::{Instant, timeout, timeout_at};

use super::logind::{Logind, News};
use super::periods::Periods;
use crate::context::Context;
use crate::eviction::requests::End;
use crate::pod::state::{Evicted, Rejection};

/// Delay before a bus that is gone is sought again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long a group of pods is waited for beyond its period when the program is to end them: a container that does not react to its stop signal
/// is killed at the end of the period only, sidecars come after the others, and then sandbox and volumes go.
const MARGIN: Duration = Duration::from_secs(10);
/// How long the API has to take the final statuses of pods that have ended.
const TOLD: Duration = Duration::from_secs(5);
/// How long the runtime has to end what is left after all that.
const LEFT: Duration = Duration::from_secs(10);

/// Why no pod is admitted while the machine shuts down.
pub fn rejection() -> Rejection {
    ("NodeShutdown".to_owned(), "Pod was rejected as the node is shutting down.".to_owned())
}

/// Runs until cancelled, or to no purpose: a machine without a bus has nobody who would tell. `node` is what events are about.
pub async fn run(cx: Arc<Context>, node: ObjectReference) -> Result<(), Infallible> {
    let (mut delay, mut is_known) = (RETRY.0, false);
    loop {
        match Logind::connect().await {
            Ok(logind) => {
                (delay, is_known) = (RETRY.0, true);
                Guard { cx: cx.clone(), node: node.clone(), logind, lock: None }.run().await;
                tracing::warn!("the system's bus is gone: it is not known when this machine shuts down");
            }
            Err(error) if error.is_absence() && !is_known => {
                tracing::warn!(
                    "--shutdown-grace-period: this machine has no system bus (D-Bus): pods end with it, and not before"
                );
                return Ok(());
            }
            Err(error) => tracing::warn!(%error, "the system's bus does not answer, trying again"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

/// What is done as long as there is a bus.
struct Guard {
    cx: Arc<Context>,
    node: ObjectReference,
    logind: Logind,
    /// Held as long as the machine must not shut down.
    lock: Option<OwnedFd>,
}

impl Guard {
    /// Runs until the bus is gone.
    async fn run(mut self) {
        self.begin().await;
        let is_late = self.logind.is_shutting_down().await.unwrap_or(false);
        if !is_late && *self.cx.shutdown.borrow() {
            self.cancelled().await;
        }
        let mut news = if is_late { Some(News::ShutsDown(true)) } else { self.logind.next().await };
        while let Some(known) = news {
            news = match known {
                News::ShutsDown(true) => self.shut_down().await,
                News::ShutsDown(false) => {
                    self.cancelled().await;
                    self.logind.next().await
                }
                News::Begun => {
                    self.begin().await;
                    self.logind.next().await
                }
            };
        }
    }

    /// Has the login manager wait for us. What goes wrong is said.
    async fn begin(&mut self) {
        self.hold().await;
        if self.lock.is_none() {
            return;
        }
        let wanted = self.cx.options.shutdown.total();
        match self.logind.allow(wanted).await {
            Ok(delay) if delay < wanted => tracing::warn!(
                "pods have {delay:?} to end when this machine shuts down, and not {wanted:?}: the login manager waits no longer (InhibitDelayMaxSec)"
            ),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "it is not known for how long this machine's shutdown can be held back"),
        }
    }

    async fn hold(&mut self) {
        match self.logind.inhibit().await {
            Ok(lock) => self.lock = Some(lock),
            Err(error) => {
                tracing::warn!(%error, "the login manager does not wait for pods when this machine shuts down");
                self.lock = None;
            }
        }
    }

    /// Ends the pods, and lets the machine shut down then. Gives what was told meanwhile, or happens next.
    async fn shut_down(&mut self) -> Option<News> {
        tracing::warn!("this machine shuts down: pods are ended");
        self.cx.recorder.event(&self.node, Type::Normal, "NodeShutdown", "Shutdown manager detected shutdown event");
        self.cx.shutdown.send_replace(true);
        let cx = self.cx.clone();
        // The login manager waits no longer than the periods.
        let mut ended = std::pin::pin!(end_pods(&cx, &cx.options.shutdown, Duration::ZERO));
        loop {
            tokio::select! {
                _ = &mut ended => break,
                news = self.logind.next() => match news {
                    // Of that it was told already; a login manager that begins again still has our lock.
                    Some(News::ShutsDown(true) | News::Begun) => {}
                    Some(cancelled) => return Some(cancelled),
                    None => {
                        ended.await;
                        return None;
                    }
                },
            }
        }
        self.lock = None;
        tracing::info!("the pods have ended: this machine may shut down");
        self.logind.next().await
    }

    /// The machine does not shut down after all.
    async fn cancelled(&mut self) {
        tracing::info!("this machine does not shut down");
        self.cx.recorder.event(&self.node, Type::Normal, "NodeShutdown", "Shutdown manager detected shutdown cancellation");
        self.cx.shutdown.send_replace(false);
        self.hold().await;
    }
}

/// How long [`drain`] takes at most.
pub fn at_most(periods: &Periods) -> Duration {
    // The manager of pods has the first margin to say which pods there are.
    periods.total() + MARGIN * (periods.count() + 1) + TOLD + LEFT
}

/// Ends all pods in these periods, as before the machine shuts down, and whatever is left of them then. None is admitted any more.
pub async fn drain(cx: &Context, periods: &Periods) {
    cx.shutdown.send_replace(true);
    match timeout(at_most(periods).saturating_sub(TOLD + LEFT), end_pods(cx, periods, MARGIN)).await {
        Ok(ends) => {
            // The process may be over before a status is with the server: the pods would be found without their containers later.
            if timeout(TOLD, join_all(ends.iter().map(|end| end.told.cancelled()))).await.is_err() {
                tracing::warn!("the API has not taken the final status of all pods: some may run again at the next start");
            }
        }
        Err(_) => tracing::warn!("the manager of pods does not answer: pods are ended without it"),
    }
    match timeout(LEFT, stop_sandboxes(cx)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "pods are left running"),
        Err(_) => tracing::warn!("pods are left running: the runtime has not ended them in time"),
    }
}

/// Ends all pods, group by group. Each group is waited for by `margin` longer than its pods have. Returns the ends that have come.
pub(crate) async fn end_pods(cx: &Context, periods: &Periods, margin: Duration) -> Vec<End> {
    let active = cx.evictions.active().await;
    let mut ends = Vec::new();
    for (period, pods) in periods.groups(&active) {
        // All are told, also where there is no time.
        let group = join_all(pods.iter().map(|pod| cx.evictions.evict(pod.uid(), Evicted::for_shutdown(period)))).await;
        let until = Instant::now() + period + margin;
        let _ = timeout_at(until, join_all(group.iter().map(|end| end.settled.cancelled()))).await;
        let (over, left): (Vec<_>, Vec<_>) = pods.iter().zip(group).partition(|(_, end)| end.settled.is_cancelled());
        if !left.is_empty() {
            let titles: Vec<_> = left.iter().map(|(pod, _)| pod.title()).collect();
            tracing::warn!(pods = titles.join(", "), "these pods have not ended in the time that they have at a shutdown");
        }
        ends.extend(over.into_iter().map(|(_, end)| end));
    }
    ends
}

/// Ends the sandboxes that are left, with the containers in them, which have had their time.
async fn stop_sandboxes(cx: &Context) -> Result<(), runtime::api::Error> {
    let runtime = cx.runtime();
    let sandboxes = runtime.sandboxes().await?;
    let left = sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
    let stopped = left.map(async |sandbox| {
        tracing::warn!(pod = format!("{}/{}", sandbox.pod.namespace, sandbox.pod.name), "ending what is left of a pod");
        runtime.stop_sandbox(&sandbox.id).await
    });
    join_all(stopped).await.into_iter().collect()
}

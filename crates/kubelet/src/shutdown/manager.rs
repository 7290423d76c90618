//! The task that holds the machine's shutdown back until the pods have ended.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use client::events::Type;
use k8s_openapi::api::core::v1::ObjectReference;

use super::logind::{Logind, News};
use super::periods::Periods;
use crate::context::Context;
use crate::pod::state::{Evicted, Rejection};

/// Delay before a bus that is gone is sought again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

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
        let mut ended = std::pin::pin!(end_pods(&cx, &cx.options.shutdown));
        loop {
            tokio::select! {
                () = &mut ended => break,
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

/// Ends all pods in these periods, as before the machine shuts down. None is admitted any more.
pub async fn drain(cx: &Context, periods: &Periods) {
    cx.shutdown.send_replace(true);
    end_pods(cx, periods).await;
}

/// Ends all pods, group by group.
async fn end_pods(cx: &Context, periods: &Periods) {
    let active = cx.evictions.active().await;
    for (period, pods) in periods.groups(&active) {
        let mut settled = Vec::new();
        for pod in &pods {
            settled.push(cx.evictions.evict(pod.uid(), Evicted::for_shutdown(period)).await);
        }
        let all = futures::future::join_all(settled.iter().map(|settled| settled.cancelled()));
        if tokio::time::timeout(period, all).await.is_err() {
            let left: Vec<_> =
                pods.iter().zip(&settled).filter(|(_, settled)| !settled.is_cancelled()).map(|(pod, _)| pod.title()).collect();
            tracing::warn!(pods = left.join(", "), "these pods have not ended in the time that they have at a shutdown");
        }
    }
}

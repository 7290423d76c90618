//! A webhook that is sent audit events, many at once, and not while anybody waits.
//!
//! Events wait in a buffer. When it is full, or when the webhook does not answer for long, they are lost, which is counted and said:
//! requests go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use registry::Registry;
use tokio::sync::{Notify, mpsc};

use super::counts;
use crate::file::FileError;
use crate::remote::{self, Limits, Named, Remotes};

/// How often a batch is sent before it is lost, and by how much the pauses between grow.
const ATTEMPTS: u32 = 5;
const GROWTH: f64 = 1.5;
/// What the webhook may take for a batch, and answer.
const LIMITS: Limits = Limits { time: Duration::from_secs(30), bytes: 1 << 20 };
const PLUGIN: &str = "webhook";

/// Which webhook, and how much it is sent at once. The names and defaults of the flags are those of kube-apiserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookOptions {
    /// The kubeconfig that names it (`--audit-webhook-config-file`).
    pub file: PathBuf,
    /// Events that wait (`--audit-webhook-batch-buffer-size`).
    pub buffer: usize,
    /// Events of a batch (`--audit-webhook-batch-max-size`).
    pub batch: usize,
    /// How long a batch waits for more events (`--audit-webhook-batch-max-wait`).
    pub wait: Duration,
    /// The first pause before a batch is sent again (`--audit-webhook-initial-backoff`).
    pub backoff: Duration,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Call(#[from] remote::Error),
    #[error("the webhook answered {0}")]
    Status(http::StatusCode),
}

/// What events are handed to.
#[derive(Clone)]
pub(super) struct Buffer {
    events: mpsc::Sender<String>,
    closed: Arc<Notify>,
    /// Whether the last event found no room, so that it is said once.
    full: Arc<AtomicBool>,
}

impl Buffer {
    /// The buffer, and what empties it.
    pub(super) fn open(
        options: WebhookOptions,
        registry: Arc<Registry>,
        remotes: &Remotes,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), FileError> {
        let named = Named::read(&options.file, remotes)?;
        let (events, receiver) = mpsc::channel(options.buffer.max(1));
        let closed = Arc::new(Notify::new());
        let sending = Sending { named, registry, options, receiver, end: closed.clone() };
        Ok((Self { events, closed, full: Arc::default() }, sending.run()))
    }

    /// Hands an event over, if there is room.
    pub(super) fn tell(&self, event: String) {
        let lost = self.events.try_send(event).is_err();
        if lost {
            counts::lost(PLUGIN, 1);
        }
        if self.full.swap(lost, Ordering::Relaxed) != lost && lost {
            tracing::error!("audit events are lost: the buffer of the webhook is full");
        }
    }

    /// Takes no more; what is there is still sent.
    pub(super) fn close(&self) {
        self.closed.notify_one();
    }
}

struct Sending {
    named: Named,
    registry: Arc<Registry>,
    options: WebhookOptions,
    receiver: mpsc::Receiver<String>,
    end: Arc<Notify>,
}

impl Sending {
    async fn run(mut self) {
        let mut ending = false;
        loop {
            let batch = self.next(&mut ending).await;
            if batch.is_empty() {
                return;
            }
            // Once the server ends, there is no time to wait for a webhook to come back.
            self.send(&batch, if ending { 1 } else { ATTEMPTS }).await;
        }
    }

    /// The next batch: whole, or what there is when the time is over. Empty at the end.
    async fn next(&mut self, ending: &mut bool) -> Vec<String> {
        let mut batch = Vec::new();
        let mut until = std::pin::pin!(tokio::time::sleep(self.options.wait));
        while batch.len() < self.options.batch {
            tokio::select! {
                event = self.receiver.recv() => match event {
                    Some(event) => batch.push(event),
                    None => break,
                },
                () = &mut until => {
                    if !batch.is_empty() {
                        break;
                    }
                    until.as_mut().reset(tokio::time::Instant::now() + self.options.wait);
                }
                () = self.end.notified() => {
                    *ending = true;
                    self.receiver.close();
                }
            }
        }
        batch
    }

    async fn send(&self, batch: &[String], attempts: u32) {
        let body =
            format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{}]}}"#, batch.join(","));
        let mut pause = self.options.backoff;
        for attempt in 1..=attempts {
            let Err(error) = self.post(body.clone()).await else { return };
            if attempt == attempts {
                counts::lost(PLUGIN, batch.len());
                tracing::error!(%error, count = batch.len(), "audit events are lost: the webhook does not take them");
                return;
            }
            tracing::warn!(%error, "the audit webhook does not answer, trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.end.notified() => self.end.notify_one(),
            }
            pause = pause.mul_f64(GROWTH);
        }
    }

    async fn post(&self, body: String) -> Result<(), Failure> {
        let answer = self.named.post(&self.registry, body.into(), LIMITS).await?;
        if answer.status().is_success() { Ok(()) } else { Err(Failure::Status(answer.status())) }
    }
}

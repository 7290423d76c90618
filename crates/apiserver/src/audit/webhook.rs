//! A webhook that is sent audit events, many at once, and not while anybody waits.
//!
//! Events wait in a buffer, which has a bound of their number and one of their bytes. When it is full, or when the webhook does not answer for long, they are lost, which is counted and said:
//! requests go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use registry::Registry;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

use super::counts::Losses;
use super::room::{Room, Waiting};
use crate::file::FileError;
use crate::remote::{self, Limits, Named, Remotes};

/// How often a batch is sent before it is lost, and by how much the pauses between grow.
const ATTEMPTS: u32 = 5;
const GROWTH: f64 = 1.5;
/// Bytes of events after which a batch ends (upstream: `--audit-webhook-truncate-max-batch-size`).
const BATCH_BYTES: usize = 10 << 20;
/// What the webhook may take for a batch, and answer.
const LIMITS: Limits = Limits { time: Duration::from_secs(30), bytes: 1 << 20 };
/// Time for what waits when the server ends. It is what the end leaves after requests have had theirs.
const LAST: Duration = Duration::from_millis(1500);

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
    events: mpsc::Sender<Waiting>,
    room: Room,
    end: CancellationToken,
    losses: Arc<Losses>,
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
        let (end, losses) = (CancellationToken::new(), Arc::new(Losses::new("webhook")));
        let sending = Sending { named, registry, options, receiver, in_hand: 0, end: end.clone(), losses: losses.clone() };
        Ok((Self { events, room: Room::new(), end, losses }, sending.run()))
    }

    /// Hands an event over, if there is room.
    pub(super) fn tell(&self, event: String) {
        match self.room.take(event) {
            Err(_) => self.losses.lost(1, &"there is no room for more"),
            Ok(waiting) => match self.events.try_send(waiting) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => self.losses.lost(1, &"there is no room for more"),
                Err(TrySendError::Closed(_)) => self.losses.lost(1, &"the server ends"),
            },
        }
    }

    /// Takes no more; what is there is still sent.
    pub(super) fn close(&self) {
        self.end.cancel();
    }
}

struct Sending {
    named: Named,
    registry: Arc<Registry>,
    options: WebhookOptions,
    receiver: mpsc::Receiver<Waiting>,
    /// Events of the batch that is being sent.
    in_hand: usize,
    end: CancellationToken,
    losses: Arc<Losses>,
}

impl Sending {
    async fn run(mut self) {
        let end = self.end.clone();
        let late = async {
            end.cancelled().await;
            tokio::time::sleep(LAST).await;
        };
        tokio::select! {
            () = self.work() => {}
            () = late => {}
        }
        self.receiver.close();
        self.losses.lost(self.in_hand + self.receiver.len(), &"the server ends, and the webhook has not taken them");
    }

    async fn work(&mut self) {
        loop {
            let batch = self.next().await;
            if batch.is_empty() {
                return;
            }
            self.in_hand = batch.len();
            self.send(batch).await;
            self.in_hand = 0;
        }
    }

    /// The next batch: whole, or what there is when the time is over. Empty at the end.
    async fn next(&mut self) -> Vec<Waiting> {
        let (mut batch, mut bytes) = (Vec::<Waiting>::new(), 0);
        let mut until = std::pin::pin!(tokio::time::sleep(self.options.wait));
        while batch.len() < self.options.batch && bytes < BATCH_BYTES {
            tokio::select! {
                event = self.receiver.recv() => match event {
                    Some(event) => {
                        bytes += event.len();
                        batch.push(event);
                    }
                    None => break,
                },
                () = &mut until => {
                    if !batch.is_empty() {
                        break;
                    }
                    until.as_mut().reset(tokio::time::Instant::now() + self.options.wait);
                }
                () = self.end.cancelled(), if !self.receiver.is_closed() => self.receiver.close(),
            }
        }
        batch
    }

    /// Sends a batch, whose events take their room until that is over.
    async fn send(&self, batch: Vec<Waiting>) {
        let (events, _rooms): (Vec<String>, Vec<_>) = batch.into_iter().map(Waiting::into_parts).unzip();
        let (count, items) = (events.len(), events.join(","));
        drop(events);
        let body =
            Bytes::from(format!(r#"{{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{{}},"items":[{items}]}}"#));
        drop(items);
        let mut pause = self.options.backoff;
        for attempt in 1.. {
            let Err(error) = self.post(body.clone()).await else { return self.losses.end() };
            // Once the server ends, there is no time to wait for a webhook to come back.
            if attempt == ATTEMPTS || self.end.is_cancelled() {
                return self.losses.lost(count, &error);
            }
            tracing::warn!(%error, "the audit webhook does not answer, trying again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.end.cancelled() => {}
            }
            pause = pause.mul_f64(GROWTH);
        }
    }

    async fn post(&self, body: Bytes) -> Result<(), Failure> {
        let answer = self.named.post(&self.registry, body, LIMITS).await?;
        if answer.status().is_success() { Ok(()) } else { Err(Failure::Status(answer.status())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many events the buffer may have, they have no more memory than they may.
    #[test]
    fn what_waits_is_bounded_by_its_bytes() {
        let (events, receiver) = mpsc::channel(10_000);
        let losses = Arc::new(Losses::new("webhook"));
        let buffer = Buffer { events, room: Room::new(), end: CancellationToken::new(), losses };
        let large = "x".repeat(1 << 20);
        (0..100).for_each(|_| buffer.tell(large.clone()));
        assert_eq!(receiver.len(), 63);
        buffer.tell("small".to_owned());
        assert_eq!(receiver.len(), 64);
    }
}

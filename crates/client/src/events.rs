//! Recording of v1 Events, with the correlation that keeps a loud component from filling the store.
//!
//! As in client-go: the same event again raises `count`; more than ten that differ only by message within ten
//! minutes become one "(combined from similar events)"; one object gets at most 25 events at once and then one
//! every five minutes.

mod correlator;

use codec::Encode;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use crate::Api;
use base::tasks::{OnFailure, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams};
use kube::{Client, Resource};
use tokio::sync::mpsc;

use crate::brief;
use correlator::{Correlator, Decision, Incident};

/// How much of the future is remembered while the API is away.
const QUEUE: usize = 1000;
const ATTEMPTS: u32 = 5;
/// Longest message of an event, bytes: the limit of `note` in events.k8s.io.
const MESSAGE: usize = 1024;

/// Whether an event tells of normal operation or of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Nothing is wrong.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Type::Normal => "Normal",
            Type::Warning => "Warning",
        }
    }
}

/// Records events in the background. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Incident>,
}

impl Recorder {
    /// A recorder for `component` (such as `kubelet`) on `host` (a node's name, or empty), writing with `client`.
    pub fn new(client: Client, component: &str, host: &str, tasks: &Tasks) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let source = EventSource { component: Some(component.to_owned()), host: (!host.is_empty()).then(|| host.to_owned()) };
        let writer = Writer { client, source, correlator: Correlator::default() };
        tasks.spawn_until_cancelled(format!("events of {component}"), OnFailure::Log, writer.run(receiver));
        Self { queue }
    }

    /// Records one event about `object`. Never waits; drops the event when the queue is full.
    pub fn event(&self, object: &ObjectReference, kind: Type, reason: &str, message: impl Into<String>) {
        self.annotated(object, kind, reason, message, BTreeMap::new());
    }

    /// Like [`Recorder::event`], with annotations: what programs read of it. Repetitions keep those of the first.
    pub fn annotated(
        &self,
        object: &ObjectReference,
        kind: Type,
        reason: &str,
        message: impl Into<String>,
        annotations: BTreeMap<String, String>,
    ) {
        let message = bounded(message.into());
        let (object, at) = (object.clone(), Timestamp::now());
        let incident = Incident { object, kind, reason: reason.to_owned(), message, annotations, at };
        if let Err(error) = self.queue.try_send(incident) {
            // Full, or its writer has ended with the program.
            tracing::debug!(%error, reason, "event dropped");
        }
    }

    /// Like [`Recorder::event`], about an API object.
    pub fn about<K: Resource<DynamicType = ()>>(&self, object: &K, kind: Type, reason: &str, message: impl Into<String>) {
        self.event(&object.object_ref(&()), kind, reason, message);
    }
}

/// Cuts a message to what is recorded of it. Messages may hold what a container said, which has no end.
fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE {
        message.truncate(message.floor_char_boundary(MESSAGE));
        message.shrink_to_fit();
    }
    message
}

struct Writer {
    client: Client,
    source: EventSource,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Incident>) -> Result<(), Infallible> {
        while let Some(incident) = queue.recv().await {
            match self.correlator.decide(incident) {
                Decision::Drop => {}
                Decision::Create(name, incident) => self.create(name, incident).await,
                Decision::Repeat { name, count, first, incident } => self.repeat(&name, count, first, incident).await,
            }
        }
        Ok(())
    }

    fn api(&self, incident: &Incident) -> Api<Event> {
        Api::namespaced(self.client.clone(), namespace(&incident.object))
    }

    async fn create(&self, name: String, incident: Incident) {
        let event = self.event(name, 1, incident.at, &incident);
        self.write(&incident, event).await;
    }

    async fn repeat(&self, name: &str, count: i32, first: Timestamp, incident: Incident) {
        let patch = serde_json::json!({
            "count": count,
            "message": incident.message,
            "lastTimestamp": Time(seconds(incident.at)),
        });
        match self.api(&incident).patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                // It has expired: begin again, with what is known.
                let event = self.event(name.to_owned(), count, first, &incident);
                self.write(&incident, event).await;
            }
            Err(error) => tracing::debug!(%error, "event not recorded"),
            Ok(_) => {}
        }
    }

    async fn write(&self, incident: &Incident, event: Event) {
        let (api, Ok(json)) = (self.api(incident), event.to_json()) else { return };
        for attempt in 0..ATTEMPTS {
            match brief::create(&api, json.clone()).await {
                // The namespace ends, or the event is there: no retry helps.
                Ok(_) | Err(kube::Error::Api(_)) => return,
                Err(error) => tracing::debug!(%error, "event not recorded yet"),
            }
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
    }

    fn event(&self, name: String, count: i32, first: Timestamp, incident: &Incident) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: Some(namespace(&incident.object).to_owned()),
                annotations: Some(incident.annotations.clone()).filter(|annotations| !annotations.is_empty()),
                ..Default::default()
            },
            count: Some(count),
            first_timestamp: Some(Time(seconds(first))),
            last_timestamp: Some(Time(seconds(incident.at))),
            involved_object: incident.object.clone(),
            message: Some(incident.message.clone()),
            reason: Some(incident.reason.clone()),
            type_: Some(incident.kind.as_str().to_owned()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: Some(self.source.host.clone().unwrap_or_default()),
            ..Default::default()
        }
    }
}

/// Events about cluster-scoped objects live in `default`.
fn namespace(object: &ObjectReference) -> &str {
    object.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
}

/// `metav1.Time` has whole seconds.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_between_characters() {
        let check = |message: String, length: usize| assert_eq!(bounded(message).len(), length);
        check("short".to_owned(), 5);
        check("x".repeat(MESSAGE), MESSAGE);
        check("x".repeat(16 << 20), MESSAGE);
        check("xx".to_owned() + &"\u{20ac}".repeat(1000), MESSAGE - 2);
    }
}

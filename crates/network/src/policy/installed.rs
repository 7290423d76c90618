//! Policies of the cluster, where users have installed their definitions.

use std::collections::BTreeSet;
use std::pin::Pin;

use client::custom::{self, Change};
use client::events::{Recorder, Type};
use client::{Client, Key};
use futures::stream::{SelectAll, select_all};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::ObjectReference;

use super::cluster::{GROUP, Kind, Object, Read, Unknown};
use super::compile::State;

type Changes = SelectAll<Pin<Box<dyn Stream<Item = (Kind, Change)> + Send>>>;

/// Follows policies of the cluster.
pub(super) struct Installed {
    changes: Changes,
    known: BTreeSet<(Kind, Key)>,
    events: Recorder,
}

impl Installed {
    pub(super) fn start(client: &Client, events: Recorder) -> Self {
        let follow = |kind: Kind| {
            let changes = custom::follow(client.clone(), GROUP, kind.plural(), kind.versions());
            let changes: Pin<Box<dyn Stream<Item = (Kind, Change)> + Send>> = Box::pin(changes.map(move |change| (kind, change)));
            changes
        };
        Self { changes: select_all(Kind::ALL.map(follow)), known: BTreeSet::new(), events }
    }

    /// Takes all that is there.
    pub(super) async fn synced(&mut self, state: &mut State) {
        let mut missing: BTreeSet<Kind> = Kind::ALL.into();
        while !missing.is_empty() {
            let (kind, change) = self.next().await;
            if matches!(change, Change::All(_)) {
                missing.remove(&kind);
            }
            self.take(kind, change, state);
        }
    }

    /// The next change. To be given to [`Installed::take`].
    pub(super) async fn next(&mut self) -> (Kind, Change) {
        match self.changes.next().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    pub(super) fn take(&mut self, kind: Kind, change: Change, state: &mut State) {
        match change {
            Change::Served => (),
            Change::All(objects) => {
                let mut gone: BTreeSet<Key> =
                    self.known.iter().filter(|(of, _)| *of == kind).map(|(_, key)| key.clone()).collect();
                for object in &objects {
                    if let Some(key) = self.set(kind, object, state) {
                        gone.remove(&key);
                    }
                }
                for key in gone {
                    self.forget(kind, key, state);
                }
            }
            Change::Set(object) => drop(self.set(kind, &object, state)),
            Change::Gone(object) => {
                if let Some(object) = read(kind, &object) {
                    self.forget(kind, key(kind, &object), state);
                }
            }
        }
    }

    fn set(&mut self, kind: Kind, object: &[u8], state: &mut State) -> Option<Key> {
        let object = read(kind, object)?;
        let key = key(kind, &object);
        let (spec, unknown) = match object.read(kind) {
            Ok(Read { spec, unknown }) => (Some(spec), unknown),
            Err(unknown) => (None, vec![unknown]),
        };
        for one in unknown {
            self.tell(kind, &object, &one);
        }
        state.set_policy(&key, spec);
        self.known.insert((kind, key.clone()));
        Some(key)
    }

    fn forget(&mut self, kind: Kind, key: Key, state: &mut State) {
        state.set_policy(&key, None);
        self.known.remove(&(kind, key));
    }

    fn tell(&self, kind: Kind, object: &Object, unknown: &Unknown) {
        let about = ObjectReference {
            api_version: Some(object.api_version.clone()),
            kind: Some(kind.name().to_owned()),
            name: object.metadata.name.clone(),
            uid: object.metadata.uid.clone(),
            ..ObjectReference::default()
        };
        self.events.event(&about, Type::Warning, "NotSupported", unknown.to_string());
    }
}

fn read(kind: Kind, object: &[u8]) -> Option<Object> {
    let read = serde_json::from_slice(object);
    read.inspect_err(|error| tracing::error!(kind = kind.name(), %error, "a policy cannot be read; what is in force of it stays"))
        .ok()
}

/// The key by which the policy is compiled: no namespace, the kind in the name.
fn key(kind: Kind, object: &Object) -> Key {
    Key { namespace: None, name: format!("{} {}", kind.name(), object.metadata.name.as_deref().unwrap_or_default()) }
}

/// The policy of a key as what an event is about.
pub(super) fn reference(key: &Key) -> ObjectReference {
    let (kind, name) = key.name.split_once(' ').unwrap_or_default();
    let kind = Kind::ALL.into_iter().find(|one| one.name() == kind);
    ObjectReference {
        api_version: kind.map(|kind| format!("{GROUP}/{}", kind.versions()[0])),
        kind: kind.map(|kind| kind.name().to_owned()),
        name: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

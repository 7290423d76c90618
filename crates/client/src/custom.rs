//! Custom resources that users may install: followed as long as their definition is there, in a version that it serves.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use kube::Client;
use serde::Deserialize;

use crate::watch::{Error, Event, Watch};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// How soon what is not served is asked for again, though the definition says that it is: at first, and when it has not been for long. A change of
/// the definition has it asked for at once.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What happens to the objects of a custom resource. They come as the API sends them.
#[derive(Debug)]
pub enum Change {
    /// Its definition is there, and serves one of the versions; also told when that is another one than before.
    Served,
    /// These are all objects; none when there is no definition, or none of the versions is served.
    All(Vec<Bytes>),
    /// An object was created or changed.
    Set(Bytes),
    /// An object was deleted; its last state.
    Gone(Bytes),
}

type Events = Pin<Box<dyn Stream<Item = Result<Event<Bytes>, Error>> + Send>>;

struct Follow {
    client: Client,
    group: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
    definition: Events,
    /// Whether the definition was in the list that is coming in.
    is_listed: bool,
    objects: Option<Objects>,
}

/// The watch of the objects, in one version.
struct Objects {
    version: &'static str,
    events: Events,
    listed: Vec<Bytes>,
    /// How soon it is asked for again, while it is not served.
    retry: Option<Duration>,
}

/// Follows the objects of a resource in the first of `versions` that is served, for ever. The first [`Change::All`] tells that all is known
/// that was there.
pub fn follow(
    client: Client,
    group: &'static str,
    plural: &'static str,
    versions: &'static [&'static str],
) -> impl Stream<Item = Change> + Send {
    let name = format!("metadata.name={plural}.{group}");
    let definition: Events = Box::pin(Watch::new(client.clone(), DEFINITIONS, &name).encoded());
    let follow = Follow { client, group, plural, versions, definition, is_listed: false, objects: None };
    stream::unfold(follow, |mut follow| async move { Some((follow.next().await?, follow)) })
}

impl Follow {
    async fn next(&mut self) -> Option<Change> {
        loop {
            let objects = &mut self.objects;
            let of_objects = async {
                match objects {
                    Some(objects) => objects.events.next().await,
                    None => std::future::pending().await,
                }
            };
            let change = tokio::select! {
                event = self.definition.next() => self.of_definition(event?),
                event = of_objects => self.of_objects(event?),
            };
            if change.is_some() {
                return change;
            }
        }
    }

    fn of_definition(&mut self, event: Result<Event<Bytes>, Error>) -> Option<Change> {
        match event {
            Ok(Event::Init) => self.is_listed = false,
            Ok(Event::InitApply(object)) => {
                self.is_listed = true;
                return self.defined(&object);
            }
            Ok(Event::Apply(object)) => return self.defined(&object),
            Ok(Event::InitDone(_)) if self.is_listed && self.objects.is_some() => {}
            // Of those listed it is none, also when it went while nobody looked.
            Ok(Event::InitDone(_) | Event::Delete(_)) => return Some(self.none()),
            Err(error) => tracing::debug!(plural = self.plural, %error, "the definition cannot be watched, again later"),
        }
        None
    }

    /// There are no objects.
    fn none(&mut self) -> Change {
        self.objects = None;
        Change::All(Vec::new())
    }

    fn defined(&mut self, definition: &[u8]) -> Option<Change> {
        let definition = read(definition)?;
        if !definition.is_established() {
            return None;
        }
        let Some(version) = definition.best(self.versions) else {
            // Whoever has installed it expects that its objects do something.
            let (group, plural, versions) = (self.group, self.plural, self.versions);
            tracing::warn!(group, plural, ?versions, "no version that is read here is served: its objects are in no force");
            return Some(self.none());
        };
        let events = self.watch(version);
        match self.objects.as_mut().filter(|objects| objects.version == version) {
            Some(objects) if objects.retry.is_some() => objects.events = events,
            Some(_) => {}
            // What is known of another version stays until all of this one is.
            None => {
                self.objects = Some(Objects { version, events, listed: Vec::new(), retry: None });
                return Some(Change::Served);
            }
        }
        None
    }

    fn watch(&self, version: &str) -> Events {
        let path = format!("/apis/{}/{version}/{}", self.group, self.plural);
        Box::pin(Watch::new(self.client.clone(), path, "").encoded())
    }

    fn of_objects(&mut self, event: Result<Event<Bytes>, Error>) -> Option<Change> {
        let objects = self.objects.as_mut()?;
        let pause = objects.retry.take();
        match event {
            Ok(Event::Init) => objects.listed.clear(),
            Ok(Event::InitApply(object)) => objects.listed.push(object),
            Ok(Event::InitDone(_)) => return Some(Change::All(std::mem::take(&mut objects.listed))),
            Ok(Event::Apply(object)) => return Some(Change::Set(object)),
            Ok(Event::Delete(object)) => return Some(Change::Gone(object)),
            // The definition tells when the version is served no more, which may come later than this. Until then the objects stay.
            Err(error) if error.is_missing() => {
                let (version, pause) = (objects.version, pause.unwrap_or(RETRY));
                let soon = stream::once(tokio::time::sleep(pause)).filter_map(|()| std::future::ready(None));
                let events = Box::pin(soon.chain(self.watch(version)));
                self.objects = Some(Objects { version, events, listed: Vec::new(), retry: Some((pause * 2).min(RETRY_MAX)) });
            }
            Err(error) => tracing::debug!(plural = self.plural, %error, "the watch failed and begins again"),
        }
        None
    }
}

fn read(definition: &[u8]) -> Option<Definition> {
    serde_json::from_slice(definition).ok()
}

#[derive(Deserialize)]
struct Definition {
    #[serde(default)]
    spec: Versions,
    #[serde(default)]
    status: Conditions,
}

impl Definition {
    fn is_established(&self) -> bool {
        self.status.conditions.iter().any(|one| one.kind == "Established" && one.status == "True")
    }

    /// The first of `versions` that it serves.
    fn best(&self, versions: &'static [&'static str]) -> Option<&'static str> {
        let served = |version: &&&str| self.spec.versions.iter().any(|one| one.served && one.name == **version);
        versions.iter().find(served).copied()
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Versions {
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version {
    name: String,
    served: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[cfg(test)]
mod tests;

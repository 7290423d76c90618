//! Custom resources that users may install: followed as long as their definition is there.

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use kube::Client;
use serde::Deserialize;

use crate::watch::{Error, Event, Watch};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// What happens to the objects of a custom resource. They come as the API sends them.
#[derive(Debug)]
pub enum Change {
    /// Its definition is there and served.
    Served,
    /// These are all objects; none when there is no definition.
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
    objects: Option<Events>,
    listed: Vec<Bytes>,
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
    let follow = Follow { client, group, plural, versions, definition, objects: None, listed: Vec::new() };
    stream::unfold(follow, |mut follow| async move { Some((follow.next().await?, follow)) })
}

impl Follow {
    async fn next(&mut self) -> Option<Change> {
        loop {
            let objects = &mut self.objects;
            let of_objects = async {
                match objects {
                    Some(objects) => objects.next().await,
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
            Ok(Event::InitApply(object) | Event::Apply(object)) => {
                let definition = read(&object)?;
                if !definition.is_established() || self.objects.is_some() {
                    return None;
                }
                let path = format!("/apis/{}/{}/{}", self.group, definition.best(self.versions), self.plural);
                self.objects = Some(Box::pin(Watch::new(self.client.clone(), path, "").encoded()));
                Some(Change::Served)
            }
            Ok(Event::Delete(_)) => {
                self.objects = None;
                Some(Change::All(Vec::new()))
            }
            Ok(Event::InitDone(_)) if self.objects.is_none() => Some(Change::All(Vec::new())),
            _ => None,
        }
    }

    fn of_objects(&mut self, event: Result<Event<Bytes>, Error>) -> Option<Change> {
        match event {
            Ok(Event::Init) => self.listed.clear(),
            Ok(Event::InitApply(object)) => self.listed.push(object),
            Ok(Event::InitDone(_)) => return Some(Change::All(std::mem::take(&mut self.listed))),
            Ok(Event::Apply(object)) => return Some(Change::Set(object)),
            Ok(Event::Delete(object)) => return Some(Change::Gone(object)),
            // None of the versions is served: there is nothing to read.
            Err(error) if error.is_missing() => return Some(Change::All(Vec::new())),
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

    fn best(&self, versions: &'static [&'static str]) -> &'static str {
        let served = |version: &&&str| self.spec.versions.iter().any(|one| one.served && one.name == **version);
        versions.iter().find(served).or(versions.first()).copied().unwrap_or("v1")
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

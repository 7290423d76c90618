//! CustomResourceDefinitions come into force here: their names are accepted, their kinds are served, and before one goes its objects do
//! (upstream: `apiextensions-apiserver/pkg/controller`). What follows from a definition is decided in `kinds::custom`; this only
//! watches, and does it.

mod cleanup;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Reason, Status, meta, time};
use base::readiness::Gate;
use base::tasks::{OnFailure, Tasks};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use indexmap::IndexSet;
use kinds::custom::{self, AcceptedNames};
use kinds::util::text;
use registry::{Event, ListOptions, Registry, Renewal, Served};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bootstrap::context;
use crate::conversion;
use crate::remote::Remotes;

const GROUP: &str = "apiextensions.k8s.io";
/// Time before a definition that could not be served is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is in force.
pub(crate) struct Definitions {
    registry: Arc<Registry>,
    resource: Arc<Served>,
    /// For webhooks that convert.
    remotes: Arc<Remotes>,
    known: HashMap<String, Known>,
    names: AcceptedNames,
    /// Definitions that want names that they have not got, by their group.
    refused: HashMap<String, BTreeSet<String>>,
    /// What is written of definitions. Nobody waits for it: the next definition is served meanwhile.
    writes: FuturesUnordered<BoxFuture<'static, (String, Result<(), Status>)>>,
}

/// A definition as it was last seen.
#[derive(Default)]
struct Known {
    /// What its kinds were made of; none before they are served.
    served: Option<Made>,
    /// The uid of the definition whose objects are on their way out: the next one of that name has another.
    ending: Option<String>,
}

/// What the kinds of a definition are made of.
#[derive(Clone, Debug, PartialEq)]
struct Made {
    /// Of the definition's specification.
    generation: i64,
    /// The names that it has got, and its uid.
    names: Value,
    /// Whether it goes.
    ending: bool,
}

impl Made {
    fn of(definition: &Value) -> Self {
        Self {
            generation: meta::generation(definition),
            names: json!([definition["status"]["acceptedNames"], meta::uid(definition)]),
            ending: meta::is_deleting(definition),
        }
    }

    /// Whether nothing has happened since but the definition's deletion, which is a generation of its own.
    fn only_ends(&self, before: &Self) -> bool {
        let ends = Self { generation: before.generation + 1, ending: true, names: before.names.clone() };
        !before.ending && *self == ends
    }
}

/// The definitions' own kind.
fn resource(registry: &Registry) -> Result<Arc<Served>, Status> {
    let found = registry.resource(GROUP, "v1", "customresourcedefinitions");
    found.ok_or_else(|| Status::internal("customresourcedefinitions are not served"))
}

/// Whom an event, and those that have come with it, are about, each once; the last revision; and whether the watch has ended.
fn batch(first: Event, watch: &mut (impl Stream<Item = Event> + Unpin)) -> (IndexSet<String>, u64, bool) {
    let (mut changed, mut revision, mut next) = (IndexSet::new(), first.entry.revision, Some(Some(first)));
    while let Some(event) = next {
        let Some(event) = event.filter(|event| event.status.is_none()) else { return (changed, revision, true) };
        revision = event.entry.revision;
        changed.insert(event.entry.name().to_owned());
        next = watch.next().now_or_never();
    }
    (changed, revision, false)
}

/// Tells why a definition could not be brought into force. Its name, if that is to be tried again.
fn told(name: String, result: Result<(), Status>) -> Option<String> {
    match result {
        Ok(()) => None,
        // Changed or gone meanwhile: the watch says what it is now.
        Err(status) if status.is(Reason::Conflict) || status.is(Reason::NotFound) => None,
        Err(error) => {
            tracing::warn!(definition = name, %error, "a definition cannot be brought into force, trying again");
            Some(name)
        }
    }
}

/// Definitions that could not be brought into force.
#[derive(Default)]
struct Failed {
    names: Vec<String>,
    again: Option<Instant>,
}

impl Failed {
    fn add(&mut self, names: impl IntoIterator<Item = String>) {
        self.names.extend(names);
        self.again = (!self.names.is_empty()).then(|| self.again.unwrap_or_else(|| Instant::now() + RETRY));
    }

    /// Waits until they are to be tried again.
    async fn due(&self) {
        match self.again {
            Some(again) => tokio::time::sleep_until(again).await,
            None => std::future::pending().await,
        }
    }
}

fn group_and_plural(definition: &Value) -> (String, String) {
    (text(definition, "/spec/group").to_owned(), text(definition, "/spec/names/plural").to_owned())
}

impl Definitions {
    /// Serves every definition that there is, before anybody asks for its objects.
    pub(crate) async fn start(registry: &Arc<Registry>, remotes: Arc<Remotes>) -> Result<(Self, u64), Status> {
        let resource = resource(registry)?;
        let list = registry.list(&resource, None, &ListOptions::default()).await?;
        let (known, names, refused, writes) = Default::default();
        let mut all = Self { registry: registry.clone(), resource, remotes, known, names, refused, writes };
        for entry in &list.entries {
            all.known.insert(entry.name().to_owned(), Known::default());
            all.note(&entry.value());
        }
        for entry in &list.entries {
            let definition = entry.value();
            if custom::is_established(&definition) {
                // All objects were read by this definition: nothing of them is from before.
                drop(all.serve(&definition).await?);
            }
        }
        Ok((all, list.revision))
    }

    /// Follows the definitions from a revision on.
    pub(crate) async fn run(mut self, mut revision: u64, tasks: Tasks, gate: Gate) -> Result<(), Status> {
        let mut due: VecDeque<String> = self.known.keys().cloned().collect();
        loop {
            let options = ListOptions {
                resource_version: Some(revision.to_string()),
                send_initial_events: Some(false),
                ..ListOptions::default()
            };
            let watch = self.registry.watch(&self.resource, None, &options).await;
            let mut watch = match watch {
                Ok(watch) => watch.into_stream(),
                // The history is gone: everything is looked at again, what has gone meanwhile, too.
                Err(status) if status.is(Reason::Expired) => {
                    let list = self.registry.list(&self.resource, None, &ListOptions::default()).await?;
                    revision = list.revision;
                    due.extend(list.entries.iter().map(|entry| entry.name().to_owned()).chain(self.known.keys().cloned()));
                    continue;
                }
                Err(status) => return Err(status),
            };
            let mut failed = Failed::default();
            failed.add(self.settle(std::mem::take(&mut due), &tasks).await);
            gate.ready();
            loop {
                tokio::select! {
                    event = watch.next() => match event {
                        Some(event) if event.status.is_none() => {
                            let (changed, last, ended) = batch(event, &mut watch);
                            revision = last;
                            failed.add(self.settle(changed.into_iter().collect(), &tasks).await);
                            if ended {
                                break;
                            }
                        }
                        _ => break,
                    },
                    Some((name, result)) = self.writes.next() => failed.add(told(name, result)),
                    () = failed.due() => {
                        let again = std::mem::take(&mut failed).names.into();
                        failed.add(self.settle(again, &tasks).await);
                    }
                }
            }
            due = failed.names.into();
        }
    }

    /// Brings definitions into force, and those that wait for their names. Those that could not be.
    async fn settle(&mut self, mut due: VecDeque<String>, tasks: &Tasks) -> Vec<String> {
        let mut failed = Vec::new();
        while let Some(name) = due.pop_front() {
            match self.reconcile(&name, tasks).await {
                Ok(freed) => due.extend(freed),
                Err(status) => failed.extend(told(name, Err(status))),
            }
        }
        failed
    }

    /// Brings one definition into force. The names of others that may have what they want now.
    async fn reconcile(&mut self, name: &str, tasks: &Tasks) -> Result<Vec<String>, Status> {
        let found = match self.registry.get(&self.resource, "", name, None).await {
            Ok(entry) => Some(entry.value()),
            Err(status) if status.is(Reason::NotFound) => None,
            Err(status) => return Err(status),
        };
        let Some(definition) = found else {
            if self.known.remove(name).is_none() {
                return Ok(Vec::new());
            }
            let (plural, group) = name.split_once('.').unwrap_or_default();
            self.registry.undefine(group, plural).await;
            self.names.remove(name);
            if let Some(refused) = self.refused.get_mut(group) {
                refused.remove(name);
            }
            return Ok(self.refused_of(group));
        };
        let accepted = match meta::is_deleting(&definition) {
            true => definition.clone(),
            false => custom::accept(&definition, &self.names, &time::now()),
        };
        self.known.entry(name.to_owned()).or_default();
        let freed = self.note(&accepted);
        // Served first: who sees that it is established can use it.
        if custom::is_established(&accepted)
            && let Some(renewal) = self.serve(&accepted).await?
        {
            let renewed = async { tokio::task::spawn_blocking(|| renewal.run()).await };
            tasks.spawn_until_cancelled("custom resource renewal", OnFailure::Log, renewed);
        }
        self.end(name, &accepted, tasks);
        let others = if freed { self.refused_of(text(&accepted, "/spec/group")) } else { Vec::new() };
        if accepted != definition {
            self.write(name.to_owned(), accepted);
        }
        Ok(others)
    }

    /// Takes note of the names that a definition has, and of whether it has all. Says whether others may have some now.
    fn note(&mut self, definition: &Value) -> bool {
        let refused = self.refused.entry(text(definition, "/spec/group").to_owned()).or_default();
        match custom::has_its_names(definition) {
            true => refused.remove(meta::name(definition)),
            false => refused.insert(meta::name(definition).to_owned()),
        };
        self.names.set(definition)
    }

    /// The definitions of a group that have not all that they want.
    fn refused_of(&mut self, group: &str) -> Vec<String> {
        let refused: Vec<String> = self.refused.get(group).into_iter().flatten().cloned().collect();
        if refused.is_empty() {
            self.refused.remove(group);
        }
        refused
    }

    /// Writes the status of a definition.
    fn write(&self, name: String, definition: Value) {
        let (registry, resource) = (self.registry.clone(), self.resource.clone());
        self.writes.push(Box::pin(async move {
            let written = registry.update(&context(), &resource, "status", "", &name, definition).await;
            (name, written.map(drop))
        }));
    }

    /// Serves the kinds of a definition, if they are not served as it says already.
    async fn serve(&mut self, definition: &Value) -> Result<Option<Renewal>, Status> {
        let made_of = Made::of(definition);
        let Some(known) = self.known.get_mut(meta::name(definition)) else { return Ok(None) };
        if known.served.as_ref() == Some(&made_of) {
            return Ok(None);
        }
        let mut renewal = None;
        match custom::versions(definition, made_of.ending) {
            Ok(versions) => {
                let (group, plural) = group_and_plural(definition);
                let converter = conversion::of(definition, &self.registry, &self.remotes);
                if known.served.as_ref().is_some_and(|before| made_of.only_ends(before)) {
                    // Who watches its objects sees them go.
                    self.registry.refine(&group, &plural, versions, converter).await.map_err(Status::internal)?;
                } else {
                    renewal = self.registry.define(&group, &plural, versions, converter).await.map_err(Status::internal)?;
                }
            }
            Err(error) => tracing::warn!(definition = meta::name(definition), %error, "a definition cannot be served"),
        }
        known.served = Some(made_of);
        Ok(renewal)
    }

    /// Starts to delete the objects of a definition that is deleted.
    fn end(&mut self, name: &str, definition: &Value, tasks: &Tasks) {
        let Some(known) = self.known.get_mut(name) else { return };
        if !meta::is_deleting(definition)
            || !custom::is_kept(definition)
            || known.ending.as_deref() == Some(meta::uid(definition))
        {
            return;
        }
        known.ending = Some(meta::uid(definition).to_owned());
        let cleanup = cleanup::run(self.registry.clone(), self.resource.clone(), definition.clone());
        tasks.spawn_until_cancelled("custom resource clean-up", OnFailure::Log, cleanup);
    }
}

#[cfg(test)]
mod tests;

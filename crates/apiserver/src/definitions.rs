//! CustomResourceDefinitions come into force here: their names are accepted, their kinds are served, and before one goes its objects do
//! (upstream: `apiextensions-apiserver/pkg/controller`). What follows from a definition is decided in `kinds::custom`; this only
//! watches, and does it.

mod cleanup;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Reason, Status, meta, time};
use base::readiness::Gate;
use base::tasks::{OnFailure, Tasks};
use futures::StreamExt;
use kinds::custom;
use kinds::util::text;
use registry::{ListOptions, Registry, Served};
use serde_json::{Value, json};

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
}

/// A definition as it was last seen.
struct Known {
    /// What others need of it: its name, group and accepted names.
    names: Value,
    /// It wants names that it has not got.
    refused: bool,
    /// What its kinds were made of; none before they are served.
    served: Option<Value>,
    /// Its objects are on their way out.
    ending: bool,
}

impl Known {
    fn new(names: Value) -> Self {
        Self { names, refused: true, served: None, ending: false }
    }
}

/// The definitions' own kind.
fn resource(registry: &Registry) -> Result<Arc<Served>, Status> {
    let found = registry.resource(GROUP, "v1", "customresourcedefinitions");
    found.ok_or_else(|| Status::internal("customresourcedefinitions are not served"))
}

/// What others need of a definition.
fn names(definition: &Value) -> Value {
    json!({
        "metadata": {"name": meta::name(definition)}, "spec": {"group": text(definition, "/spec/group")},
        "status": {"acceptedNames": definition.pointer("/status/acceptedNames")},
    })
}

fn group_and_plural(definition: &Value) -> (String, String) {
    (text(definition, "/spec/group").to_owned(), text(definition, "/spec/names/plural").to_owned())
}

impl Definitions {
    /// Serves every definition that there is, before anybody asks for its objects.
    pub(crate) async fn start(registry: &Arc<Registry>, remotes: Arc<Remotes>) -> Result<(Self, u64), Status> {
        let resource = resource(registry)?;
        let list = registry.list(&resource, None, &ListOptions::default()).await?;
        let mut all = Self { registry: registry.clone(), resource, remotes, known: HashMap::new() };
        for entry in &list.entries {
            all.known.insert(entry.name().to_owned(), Known::new(names(&entry.value())));
        }
        for entry in &list.entries {
            let definition = entry.value();
            if custom::is_accepted(&definition) {
                all.serve(&definition).await?;
            }
        }
        Ok((all, list.revision))
    }

    /// Follows the definitions from a revision on.
    pub(crate) async fn run(mut self, mut revision: u64, tasks: Tasks, gate: Gate) -> Result<(), Status> {
        let mut due: Vec<String> = self.known.keys().cloned().collect();
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
            let mut failed = self.settle(std::mem::take(&mut due), &tasks).await;
            gate.ready();
            loop {
                let retry = async {
                    match failed.is_empty() {
                        true => std::future::pending().await,
                        false => tokio::time::sleep(RETRY).await,
                    }
                };
                tokio::select! {
                    event = watch.next() => match event {
                        Some(event) if event.status.is_none() => {
                            revision = event.entry.revision;
                            failed.extend(self.settle(vec![event.entry.name().to_owned()], &tasks).await);
                        }
                        _ => break,
                    },
                    () = retry => failed = self.settle(std::mem::take(&mut failed), &tasks).await,
                }
            }
            due = failed;
        }
    }

    /// Brings definitions into force, and those that wait for their names. Those that could not be.
    async fn settle(&mut self, mut due: Vec<String>, tasks: &Tasks) -> Vec<String> {
        let mut failed = Vec::new();
        while let Some(name) = due.pop() {
            match self.reconcile(&name, tasks).await {
                Ok(freed) => due.extend(freed),
                // Changed or gone meanwhile: the watch says what it is now.
                Err(status) if status.is(Reason::Conflict) || status.is(Reason::NotFound) => {}
                Err(error) => {
                    tracing::warn!(definition = name, %error, "a definition cannot be brought into force, trying again");
                    failed.push(name);
                }
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
            let Some(gone) = self.known.remove(name) else { return Ok(Vec::new()) };
            let (plural, group) = name.split_once('.').unwrap_or_default();
            self.registry.undefine(group, plural).await;
            return Ok(self.others_of(&gone.names, name));
        };
        let accepted = match meta::is_deleting(&definition) {
            true => definition.clone(),
            false => {
                let others = self.known.values().map(|known| &known.names);
                custom::accept(&definition, others, &time::now())
            }
        };
        let names = names(&accepted);
        let known = self.known.entry(name.to_owned()).or_insert_with(|| Known::new(Value::Null));
        known.refused = !custom::has_its_names(&accepted);
        let freed = std::mem::replace(&mut known.names, names.clone()) != names;
        // Served first: who sees that it is established can use it.
        if custom::is_accepted(&accepted) {
            self.serve(&accepted).await?;
        }
        if accepted != definition {
            self.registry.update(&context(), &self.resource, "status", "", name, accepted.clone()).await?;
        }
        self.end(name, &accepted, tasks);
        Ok(if freed { self.others_of(&names, name) } else { Vec::new() })
    }

    /// The others of a group.
    fn others_of(&self, names: &Value, name: &str) -> Vec<String> {
        let group = text(names, "/spec/group");
        let same = self.known.iter().filter(|(other, known)| *other != name && text(&known.names, "/spec/group") == group);
        // Those that have all that they want are left alone.
        same.filter(|(_, known)| known.refused).map(|(other, _)| other.clone()).collect()
    }

    /// Serves the kinds of a definition, if they are not served as it says already.
    async fn serve(&mut self, definition: &Value) -> Result<(), Status> {
        let ending = meta::is_deleting(definition);
        let made_of = json!([definition["spec"], definition["status"]["acceptedNames"], meta::uid(definition), ending]);
        let Some(known) = self.known.get_mut(meta::name(definition)) else { return Ok(()) };
        if known.served.as_ref() == Some(&made_of) {
            return Ok(());
        }
        match custom::versions(definition, ending) {
            Ok(versions) => {
                let (group, plural) = group_and_plural(definition);
                let converter = conversion::of(definition, &self.registry, &self.remotes);
                self.registry.define(&group, &plural, versions, converter).await.map_err(Status::internal)?;
            }
            Err(error) => tracing::warn!(definition = meta::name(definition), %error, "a definition cannot be served"),
        }
        known.served = Some(made_of);
        Ok(())
    }

    /// Starts to delete the objects of a definition that is deleted.
    fn end(&mut self, name: &str, definition: &Value, tasks: &Tasks) {
        let Some(known) = self.known.get_mut(name) else { return };
        if !meta::is_deleting(definition) || !custom::is_kept(definition) || std::mem::replace(&mut known.ending, true) {
            return;
        }
        let cleanup = cleanup::run(self.registry.clone(), self.resource.clone(), definition.clone());
        tasks.spawn_until_cancelled("custom resource clean-up", OnFailure::Log, cleanup);
    }
}

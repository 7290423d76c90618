//! APIServices come into force: their servers are looked at, and what they serve becomes part of the catalog.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Reason, Status, fields, meta, time};
use base::readiness::Gate;
use futures::future::{BoxFuture, join_all};
use futures::stream::{self, BoxStream, FuturesUnordered, SelectAll};
use futures::{FutureExt, Stream, StreamExt};
use kinds::util::text;
use registry::{DeleteOptions, ListOptions, Registry, Remote, Served};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::probe::{self, Found};
use super::{Servers, configuration, local};
use crate::bootstrap::{self, context};
use crate::metrics;
use crate::remote::ca_bundle;

const GROUP: &str = "apiregistration.k8s.io";
/// A server that answers is asked again after this time (upstream's resync).
const AGAIN: Duration = Duration::from_secs(30);
/// One that does not is asked after a time that doubles from this up to [`AGAIN`].
const RETRY: Duration = Duration::from_secs(1);

/// What is known of other API servers.
pub(crate) struct Aggregation {
    registry: Arc<Registry>,
    servers: Arc<Servers>,
    /// Whose client certificates are good here, in PEM.
    clients: String,
    known: HashMap<String, Known>,
    /// Names of the APIServices that metrics tell of.
    measured: BTreeSet<String>,
    /// The APIServices of the program have been made.
    started: bool,
}

/// An APIService with a service.
struct Known {
    /// What the APIService says.
    spec: Arc<Remote>,
    /// The same with what its server told last.
    remote: Arc<Remote>,
    found: Option<Found>,
    /// When its server is to be asked; none while it is asked and nothing of it has changed.
    due: Option<Instant>,
    asked: bool,
    document_asked: bool,
    failures: u32,
}

impl Known {
    fn new(spec: Remote) -> Self {
        let spec = Arc::new(spec);
        let (remote, due) = (spec.clone(), Some(Instant::now()));
        Self { spec, remote, found: None, due, asked: false, document_asked: false, failures: 0 }
    }

    /// Its server is to be asked at this time at the latest.
    fn ask_by(&mut self, time: Instant) {
        self.due = Some(self.due.map_or(time, |due| due.min(time)));
    }
}

/// What servers are asked. Each is waited for alone, so one that does not answer keeps nobody else from being known.
type Questions = FuturesUnordered<BoxFuture<'static, (Arc<Remote>, Answer)>>;

/// What a server has answered.
enum Answer {
    Resources(Found, Option<Value>),
    OpenApi(Option<Value>),
}

/// What a change leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Everything is brought into force as it is now.
    Settle,
    /// Servers that are due are asked; nothing else has changed.
    Ask,
    /// All is followed anew.
    Follow,
}

/// What has happened.
enum Change {
    /// To an APIService, or to what this server tells the others.
    Own,
    /// To a service, by namespace and name, or its endpoints.
    Service(String, String),
    /// A watch has fallen behind.
    Ended,
}

impl Aggregation {
    /// Nothing is known yet.
    pub(crate) fn new(registry: Arc<Registry>, servers: Arc<Servers>, clients: String) -> Self {
        Self { registry, servers, clients, known: HashMap::new(), measured: BTreeSet::new(), started: false }
    }

    /// Follows APIServices until the registry ends. `available` says that their paths lead where they should, `registered` that those of
    /// this server are there, and what other servers need to know of it.
    pub(crate) async fn run(mut self, available: Gate, registered: Gate) -> Result<(), Status> {
        let mut generations = self.registry.generations();
        // Their paths lead where they should from the first request on.
        let all = self.all().await?;
        self.take_in(&all);
        self.publish().await;
        available.ready();
        let mut questions = Questions::new();
        loop {
            let with_services = !self.known.is_empty();
            let mut changes = self.changes(with_services).await?;
            self.known.values_mut().for_each(|known| known.due = Some(Instant::now()));
            let (mut since, mut again, mut work) = (0, None, Work::Settle);
            loop {
                if work == Work::Settle {
                    since = self.registry.catalog().versions_since();
                    again = match self.settle().await {
                        Ok(()) => {
                            registered.ready();
                            None
                        }
                        Err(error) => {
                            tracing::warn!(%error, "APIServices cannot be brought into force, trying again");
                            Some(Instant::now() + bootstrap::RETRY)
                        }
                    };
                }
                if self.known.is_empty() == with_services {
                    // Services are followed where there is one to follow.
                    break;
                }
                self.ask(&questions);
                let next = self.known.values().filter(|known| !known.asked).filter_map(|known| known.due).chain(again).min();
                let timer = async {
                    match next {
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                work = tokio::select! {
                    change = changes.next() => note(&mut self.known, change, &mut changes),
                    () = other_versions(&self.registry, &mut generations, since) => Work::Settle,
                    () = self.servers.doubted.notified() => {
                        self.doubt();
                        Work::Ask
                    }
                    Some(answer) = questions.next() => {
                        self.take_answers(answer, &mut questions);
                        Work::Settle
                    }
                    () = timer => match again {
                        Some(due) if due <= Instant::now() => Work::Settle,
                        _ => Work::Ask,
                    },
                };
                if work == Work::Follow {
                    break;
                }
            }
        }
    }

    fn resource(&self, group: &str, plural: &str) -> Result<Arc<Served>, Status> {
        self.registry.resource(group, "v1", plural).ok_or_else(|| Status::internal(format!("{plural} are not served")))
    }

    /// What happens from now on.
    async fn changes(&self, with_services: bool) -> Result<SelectAll<BoxStream<'static, Change>>, Status> {
        let mut all = SelectAll::new();
        let of_services = [("", "services"), ("discovery.k8s.io", "endpointslices")];
        let services = of_services.into_iter().filter(|_| with_services);
        for (group, plural) in std::iter::once((GROUP, "apiservices")).chain(services) {
            let options = ListOptions { send_initial_events: Some(false), ..ListOptions::default() };
            let watch = self.registry.watch(&self.resource(group, plural)?, None, &options).await?.into_stream();
            let change = move |event: registry::Event| match (event.status.is_some(), plural) {
                (true, _) => Change::Ended,
                (_, "apiservices") => Change::Own,
                (_, "services") => Change::Service(event.entry.namespace().to_owned(), event.entry.name().to_owned()),
                _ => {
                    let slice = event.entry.value();
                    let service = meta::label(&slice, "kubernetes.io/service-name").unwrap_or_default();
                    Change::Service(event.entry.namespace().to_owned(), service.to_owned())
                }
            };
            all.push(watch.map(change).chain(stream::once(async { Change::Ended })).boxed());
        }
        // What others need to know comes back when somebody deletes it.
        let fields = fields::Selector::parse(&format!("metadata.name={}", configuration::NAME)).ok();
        let options = ListOptions { fields, send_initial_events: Some(false), ..ListOptions::default() };
        let maps = self.resource("", "configmaps")?;
        let watch = self.registry.watch(&maps, Some(configuration::NAMESPACE), &options).await?.into_stream();
        let change = |event: registry::Event| if event.status.is_some() { Change::Ended } else { Change::Own };
        all.push(watch.map(change).chain(stream::once(async { Change::Ended })).boxed());
        Ok(all)
    }

    /// Some server could not be reached though it is said to be available: all are asked, but none twice within a second.
    fn doubt(&mut self) {
        let soonest = Instant::now() + RETRY;
        self.known.values_mut().filter(|known| known.remote.available).for_each(|known| known.ask_by(soonest));
    }

    /// Every APIService, by name.
    async fn all(&self) -> Result<BTreeMap<String, Value>, Status> {
        let resource = self.resource(GROUP, "apiservices")?;
        let list = self.registry.list(&resource, None, &ListOptions::default()).await?;
        Ok(list.entries.iter().map(|entry| (entry.name().to_owned(), entry.value())).collect())
    }

    /// Brings everything into force as it is now.
    async fn settle(&mut self) -> Result<(), Status> {
        configuration::publish(&self.registry, &self.clients, &self.servers.front_proxy_authority).await?;
        let resource = self.resource(GROUP, "apiservices")?;
        let all = self.all().await?;
        let kept = self.keep_local(&resource, &all).await;
        self.take_in(&all);
        // Known before it is asked: its paths lead nowhere else meanwhile.
        self.publish().await;
        self.measured.iter().filter(|name| !all.contains_key(*name)).for_each(|name| metrics::aggregation::gone(name));
        self.measured = all.keys().cloned().collect();
        let local = Found::local();
        for (name, object) in all.iter().filter(|(_, object)| remote(object).is_none()) {
            if let Err(error) = tell(&self.registry, &resource, object, &local).await {
                tracing::debug!(name, %error, "the condition of an APIService cannot be written, trying again when it changes");
            }
        }
        for (name, known) in &mut self.known {
            let (Some(found), Some(object)) = (&known.found, all.get(name)) else { continue };
            if let Err(error) = tell(&self.registry, &resource, object, found).await {
                tracing::debug!(name, %error, "the condition of an APIService cannot be written, trying again");
                known.ask_by(Instant::now() + RETRY);
            }
        }
        kept
    }

    /// Keeps the APIServices of what is served here (upstream: the table in `autoregister_controller.go`): those of custom resources
    /// always, those of the program when it starts. What nobody has marked as kept is its owner's.
    async fn keep_local(&mut self, resource: &Arc<Served>, all: &BTreeMap<String, Value>) -> Result<(), Status> {
        let wanted = local::wanted(&self.registry.catalog());
        let kept = |object: &Value| match meta::label(object, local::MANAGED) {
            Some("true") => true,
            Some("onstart") => !self.started,
            _ => false,
        };
        let missing = wanted.iter().filter(|(name, object)| !all.contains_key(*name) && kept(object));
        let created = join_all(missing.map(|(_, object)| self.create(resource, object.clone()))).await;
        let changed = all.iter().filter(|(_, object)| kept(object)).filter_map(|(name, object)| {
            let wanted = wanted.get(name).filter(|wanted| wanted["spec"] != object["spec"])?;
            Some(self.put_back(resource, name, object.clone(), wanted["spec"].clone()))
        });
        let changed = join_all(changed).await;
        let gone = all.iter().filter(|(name, object)| kept(object) && !wanted.contains_key(*name));
        let registry = &self.registry;
        let deleted = join_all(gone.map(|(name, _)| async move {
            registry.delete(&context(), resource, "", name, DeleteOptions::default()).await.map(drop)
        }))
        .await;
        created.into_iter().chain(changed).chain(deleted).collect::<Result<(), Status>>()?;
        self.started = true;
        Ok(())
    }

    async fn create(&self, resource: &Served, mut object: Value) -> Result<(), Status> {
        resource.decode(&context(), "", &mut object)?;
        self.registry.create(&context(), resource, "", None, object).await.map(drop)
    }

    async fn put_back(&self, resource: &Served, name: &str, mut object: Value, spec: Value) -> Result<(), Status> {
        object["spec"] = spec;
        self.registry.update(&context(), resource, "", "", name, object).await.map(drop)
    }

    /// Notes which APIServices have a service. What has changed is asked at once.
    fn take_in(&mut self, all: &BTreeMap<String, Value>) {
        self.known.retain(|name, _| all.get(name).is_some_and(|object| remote(object).is_some()));
        for (name, object) in all {
            let Some(new) = remote(object) else { continue };
            if self.known.get(name).is_none_or(|known| *known.spec != new) {
                self.known.insert(name.clone(), Known::new(new));
            }
        }
    }

    async fn publish(&self) {
        let mut remotes: Vec<Arc<Remote>> = self.known.values().map(|known| known.remote.clone()).collect();
        remotes.sort_by(|a, b| (&a.group, &a.version).cmp(&(&b.group, &b.version)));
        self.servers.keep(&remotes);
        self.registry.set_remotes(remotes).await;
    }

    /// Asks the servers that are due, and for their documents those that have none yet.
    fn ask(&mut self, questions: &Questions) {
        let now = Instant::now();
        for known in self.known.values_mut() {
            let (registry, servers, spec) = (self.registry.clone(), self.servers.clone(), known.spec.clone());
            if !known.asked && known.due.is_some_and(|due| due <= now) {
                (known.asked, known.due) = (true, None);
                questions.push(Box::pin(async move {
                    let (found, list) = probe::resources(&registry, &servers, &spec).await;
                    (spec, Answer::Resources(found, list))
                }));
            }
        }
    }

    fn ask_for_document(&self, spec: Arc<Remote>, questions: &Questions) {
        let (registry, servers) = (self.registry.clone(), self.servers.clone());
        questions.push(Box::pin(async move {
            let document = probe::openapi(&registry, &servers, &spec).await;
            (spec, Answer::OpenApi(document))
        }));
    }

    /// Takes note of an answer and of those that have come with it.
    fn take_answers(&mut self, first: (Arc<Remote>, Answer), questions: &mut Questions) {
        let mut next = Some(first);
        while let Some((spec, answer)) = next {
            let name = format!("{}.{}", spec.version, spec.group);
            // Of one that is another by now it says nothing.
            if let Some(known) = self.known.get_mut(&name).filter(|known| Arc::ptr_eq(&known.spec, &spec))
                && known.take(answer)
            {
                self.ask_for_document(spec, questions);
            }
            next = questions.next().now_or_never().flatten();
        }
    }
}

/// Takes note of a change and of those that have come with it. Services of nobody change all the time: what they lead to is nothing.
fn note(known: &mut HashMap<String, Known>, first: Option<Change>, changes: &mut (impl Stream<Item = Change> + Unpin)) -> Work {
    let (mut next, mut work) = (first, Work::Ask);
    loop {
        match next {
            None | Some(Change::Ended) => return Work::Follow,
            Some(Change::Own) => work = Work::Settle,
            Some(Change::Service(namespace, name)) => {
                let of = |known: &&mut Known| known.remote.namespace == namespace && known.remote.service == name;
                known.values_mut().filter(of).for_each(|known| known.due = Some(Instant::now()));
            }
        }
        match changes.next().now_or_never() {
            Some(change) => next = change,
            None => return work,
        }
    }
}

/// Waits until other group versions are served here than at that generation.
async fn other_versions(registry: &Registry, generations: &mut watch::Receiver<u64>, since: u64) {
    while registry.catalog().versions_since() == since {
        if generations.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Known {
    /// Takes note of an answer. Says whether the server is to be asked for its document.
    fn take(&mut self, answer: Answer) -> bool {
        let mut remote = (*self.remote).clone();
        let asks = match answer {
            Answer::OpenApi(document) => {
                self.document_asked = false;
                remote.openapi = document.map(Arc::new).or(remote.openapi);
                false
            }
            Answer::Resources(found, list) => {
                self.asked = false;
                self.failures = if found.available { 0 } else { self.failures.saturating_add(1) };
                self.ask_by(Instant::now() + pause(self.failures));
                (remote.available, remote.current) = (found.available, list.is_some());
                // The very same as before stays the same object.
                let new = list.filter(|list| remote.resources.as_deref() != Some(list)).map(Arc::new);
                let is_new = new.is_some() || !self.remote.available || remote.openapi.is_none();
                remote.resources = new.or(remote.resources);
                self.found = Some(found);
                remote.available && is_new && !self.document_asked
            }
        };
        self.remote = Arc::new(remote);
        self.document_asked |= asks;
        asks
    }
}

/// The time after which a server is asked again that has failed so many times.
fn pause(failures: u32) -> Duration {
    if failures == 0 { AGAIN } else { (RETRY * 2u32.saturating_pow(failures.min(6) - 1)).min(AGAIN) }
}

/// The API of an APIService that has a service.
fn remote(object: &Value) -> Option<Remote> {
    let spec = &object["spec"];
    let service = spec.get("service").filter(|service| service.is_object())?;
    Some(Remote {
        group: text(spec, "/group").to_owned(),
        version: text(spec, "/version").to_owned(),
        namespace: text(service, "/namespace").to_owned(),
        service: text(service, "/name").to_owned(),
        port: service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
        ca_bundle: ca_bundle(spec).ok().flatten(),
        unverified: spec["insecureSkipTLSVerify"] == true,
        group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
        version_priority: spec["versionPriority"].as_i64().unwrap_or_default(),
        ..Remote::default()
    })
}

/// Writes the condition `Available`, if it does not stand there.
async fn tell(registry: &Registry, resource: &Served, object: &Value, found: &Found) -> Result<(), Status> {
    let name = meta::name(object).to_owned();
    metrics::aggregation::found(&name, found.available);
    let Some(object) = with_condition(object, found, &time::now()) else { return Ok(()) };
    if !found.available {
        metrics::aggregation::lost(&name, found.reason);
    }
    match registry.update(&context(), resource, "status", "", &name, object).await {
        Err(status) if status.is(Reason::NotFound) => Ok(()),
        other => other.map(drop),
    }
}

/// The object with the condition; None when it has it.
fn with_condition(object: &Value, found: &Found, now: &str) -> Option<Value> {
    let status = if found.available { "True" } else { "False" };
    let mut conditions = object.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let at = conditions.iter().position(|condition| condition["type"] == "Available");
    let old = at.map(|at| conditions[at].clone()).unwrap_or_default();
    if old["status"] == status && old["reason"] == found.reason && old["message"] == found.message.as_str() {
        return None;
    }
    let since = if old["status"] == status { old["lastTransitionTime"].clone() } else { now.into() };
    let new = json!({"type": "Available", "status": status, "reason": found.reason, "message": found.message, "lastTransitionTime": since});
    match at {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
    let mut object = object.clone();
    object["status"]["conditions"] = conditions.into();
    Some(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn conditions() {
        let found = |available: bool, message: &str| Found { available, reason: "R", message: message.to_owned() };
        let condition = |status: &str, message: &str, since: &str| json!([{"type": "Available", "status": status, "reason": "R", "message": message, "lastTransitionTime": since}]);
        let check = |old: Value, found: Found, expected: Option<Value>| {
            let object = json!({"metadata": {"name": "v1.a"}, "status": {"conditions": old}});
            let new = with_condition(&object, &found, "now").map(|object| object["status"]["conditions"].clone());
            assert_eq!(new, expected);
        };
        check(json!([]), found(true, "m"), Some(condition("True", "m", "now")));
        check(condition("True", "m", "then"), found(true, "m"), None);
        check(condition("False", "m", "then"), found(false, "n"), Some(condition("False", "n", "then")));
        check(condition("False", "m", "then"), found(true, "m"), Some(condition("True", "m", "now")));
    }

    #[test]
    fn answers() {
        let list = |name: &str| Some(json!({"resources": [{"name": name, "kind": "A"}]}));
        let found = |available: bool| Found { available, reason: "R", message: String::new() };
        let mut known = Known::new(Remote::default());
        (known.asked, known.due) = (true, None);
        assert!(known.take(Answer::Resources(found(true), list("a"))), "a new server is asked for its document");
        assert!(known.remote.available && known.remote.current && !known.asked && known.due > Some(Instant::now()));
        assert!(!known.take(Answer::Resources(found(true), list("a"))), "which it is asked for once at a time");
        assert!(!known.take(Answer::OpenApi(None)));
        assert!(known.take(Answer::Resources(found(true), list("a"))), "and again when it had none");
        known.take(Answer::OpenApi(Some(json!({}))));
        assert!(!known.take(Answer::Resources(found(true), list("a"))));
        let before = known.remote.resources.clone();
        assert!(!known.take(Answer::Resources(found(true), None)), "garbage");
        assert!(known.remote.available && !known.remote.current && known.remote.resources == before);
        assert!(!known.take(Answer::Resources(found(false), None)));
        assert!(!known.remote.available && known.failures == 1);
        assert!(known.take(Answer::Resources(found(true), list("b"))) && known.failures == 0);
        // A change while it is asked is not forgotten.
        let now = Instant::now();
        (known.asked, known.due) = (true, Some(now));
        known.take(Answer::Resources(found(true), list("b")));
        assert_eq!(known.due, Some(now));
    }

    /// The services of a cluster change all the time. Only changes of APIServices change anything here, and a service's only concern its own server.
    #[tokio::test]
    async fn services_of_nobody_make_no_work() {
        let service = |name: &str| Change::Service("n".to_owned(), name.to_owned());
        let check = |all: Vec<Change>, expected: Work, asked: &[&str]| {
            let one = |name: &str| Remote { namespace: "n".to_owned(), service: name.to_owned(), ..Remote::default() };
            let mut known: HashMap<String, Known> = ["a", "b"].map(|name| (name.to_owned(), Known::new(one(name)))).into();
            known.values_mut().for_each(|known| known.due = None);
            let mut rest = stream::iter(all).chain(stream::pending()).boxed();
            let first = rest.next().now_or_never().flatten();
            assert_eq!(note(&mut known, first, &mut rest), expected);
            let mut due: Vec<&str> =
                known.iter().filter(|(_, known)| known.due.is_some()).map(|(name, _)| name.as_str()).collect();
            due.sort_unstable();
            assert_eq!(due, asked);
        };
        check(vec![service("web"), service("db")], Work::Ask, &[]);
        check(vec![service("web"), service("b")], Work::Ask, &["b"]);
        check(vec![service("a"), Change::Own, service("web")], Work::Settle, &["a"]);
        check(vec![Change::Own, Change::Ended], Work::Follow, &[]);
    }

    #[test]
    fn pauses() {
        let seconds: Vec<u64> = (0..=8).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(seconds, [30, 1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn apis_of_services() {
        let object = json!({"spec": {"group": "g", "version": "v1", "service": {"namespace": "n", "name": "s"}}});
        let found = remote(&object).unwrap();
        assert_eq!((found.service.as_str(), found.port, found.available), ("s", 443, false));
        assert!(remote(&json!({"spec": {"group": "g", "version": "v1"}})).is_none());
    }
}

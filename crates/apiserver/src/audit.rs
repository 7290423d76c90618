//! The audit log: who asked for what, and what came of it (documentation, "Auditing").
//!
//! The [`policy`] says how much is told of a request and when; the [`log`] takes events as lines of JSON, a [`webhook`] many at once. A [`Record`] begins when it is
//! known who asks, also when nobody good does, and ends with the answer; that of a watch or a connection when it ends.

mod answer;
mod counts;
mod log;
mod policy;
mod room;
#[cfg(test)]
mod tests;
mod webhook;

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::{Reason, Status, meta};
use base::budgets::connections::Place;
use futures::future::OptionFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use jiff::Timestamp;
use parking_lot::Mutex;
use registry::{Annotations, Registry, User};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::authn::impersonate::modes::Mode;
use crate::body::Body;
use crate::metrics::load::Ongoing;
use crate::remote::Remotes;
use crate::route::{Route, Target};

use answer::Answer;
use log::Log;
pub use log::LogOptions;
use policy::PolicyError;
use policy::{Asked, Decision, Level, Policy, Stage};
use webhook::Buffer;
pub use webhook::WebhookOptions;

/// Bytes of a body that are told at most; of a larger one nothing is.
const MAX_BODY: usize = 3 << 20;

/// Of requests that take longer it is told what took the time (upstream: `writeLatencyToAnnotation`).
const SLOW: Duration = Duration::from_millis(500);

/// What is told, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditOptions {
    /// The file of the policy.
    pub policy: PathBuf,
    /// The log.
    pub log: Option<LogOptions>,
    /// Who is sent it.
    pub webhook: Option<WebhookOptions>,
}

/// Who tells events.
#[derive(Clone)]
struct Backends {
    log: Option<Log>,
    webhook: Option<Buffer>,
}

impl Backends {
    /// Hands an event over, and waits for room in the log.
    async fn tell(&self, event: String) {
        counts::told();
        self.webhook.iter().for_each(|webhook| webhook.tell(event.clone()));
        if let Some(log) = &self.log {
            log.tell(event).await;
        }
    }

    /// The same from where nobody can wait.
    fn tell_now(&self, event: String) {
        counts::told();
        self.webhook.iter().for_each(|webhook| webhook.tell(event.clone()));
        self.log.iter().for_each(|log| log.tell_now(event.clone()));
    }
}

/// What audits.
pub(crate) struct Audit {
    policy: Policy,
    backends: Backends,
}

/// Why nothing can be audited.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy cannot be used.
    #[error("policy {path}: {source}", path = path.display())]
    Policy {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: PolicyError,
    },
    /// The log cannot be written.
    #[error("log {path}: {source}", path = path.display())]
    Log {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The webhook is not named as it must be.
    #[error(transparent)]
    Webhook(#[from] crate::file::FileError),
}

impl Audit {
    /// Reads the policy and opens what is told. The second value tells it.
    pub(crate) fn open(
        options: &AuditOptions,
        registry: &Arc<Registry>,
        remotes: &Remotes,
    ) -> Result<(Self, impl Future<Output = ()> + Send + use<>), Error> {
        let text = std::fs::read_to_string(&options.policy).map_err(PolicyError::Read);
        let policy = text.and_then(|text| Policy::parse(&text));
        let policy = policy.map_err(|source| Error::Policy { path: options.policy.clone(), source })?;
        let log = options.log.clone().map(|log| {
            let path = log.path.clone();
            Log::open(log).map_err(|source| Error::Log { path, source })
        });
        let log = log.transpose()?;
        let webhook = options.webhook.clone().map(|options| Buffer::open(options, registry.clone(), remotes)).transpose()?;
        let ((log, write), (webhook, send)) = (log.unzip(), webhook.unzip());
        let tell = async move {
            tokio::join!(OptionFuture::from(write), OptionFuture::from(send));
        };
        Ok((Self { policy, backends: Backends { log, webhook } }, tell))
    }

    /// Takes no more; what is there is still told.
    pub(crate) fn close(&self) {
        self.backends.log.iter().for_each(Log::close);
        self.backends.webhook.iter().for_each(Buffer::close);
    }

    /// Begins the record of a request, which `lasts` if it has two answers to tell: its beginning and its end. None when nothing is told of it.
    pub(crate) async fn begin(
        &self,
        parts: &Parts,
        route: &Route<'_>,
        path: &str,
        (verb, lasts): (&str, bool),
        (user, annotations): (Option<&User>, &Annotations),
        started: Instant,
    ) -> Option<Arc<Record>> {
        let asked = Asked { user, verb, path, ..Asked::default() };
        let asked = match route {
            Route::Other => asked,
            Route::Resource(target) => Asked {
                is_resource: true,
                group: target.group,
                resource: target.plural,
                subresource: target.sub,
                namespace: target.scope(),
                name: target.name,
                ..asked
            },
        };
        let decision = self.policy.decide(&asked);
        if decision.level == Level::None {
            return None;
        }
        let target = match route {
            Route::Resource(target) => Some(target),
            Route::Other => None,
        };
        if decision.level >= Level::Request {
            annotations.want_details();
        }
        let mut event = event(parts, target, verb, user, decision.level);
        event["requestReceivedTimestamp"] = micro_time(Timestamp::now() - started.elapsed()).into();
        let record = Record {
            backends: self.backends.clone(),
            decision,
            event: Mutex::new(event),
            annotations: annotations.clone(),
            started,
            left: Mutex::new(if lasts { &Stage::ANSWER } else { &Stage::ANSWER[1..] }),
        };
        record.tell(Stage::RequestReceived).await;
        Some(Arc::new(record))
    }
}

/// By what a request is known in the audit log, to the one who asks, and to those who are asked in its turn (`Audit-ID`).
pub(crate) const ID: HeaderName = HeaderName::from_static("audit-id");

/// Characters of an ID at most.
const LONGEST_ID: usize = 255;

/// Gives a request its ID, unless it has brought a good one (`WithAuditInit`): it goes to the log, back and on to other servers.
pub(crate) fn name(headers: &mut HeaderMap) {
    if headers.get(ID).is_some_and(|id| is_id(id.as_bytes())) {
        return;
    }
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    let own = HeaderValue::from_str(text).unwrap_or_else(|_| unreachable!("digits and hyphens"));
    headers.insert(ID, own);
}

/// Letters, digits and hyphens, as UUIDs are made of.
fn is_id(text: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&text.len()) && text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

fn event(parts: &Parts, target: Option<&Target<'_>>, verb: &str, user: Option<&User>, level: Level) -> Value {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level.as_str(), "auditID": header(ID.as_str()).unwrap_or_default(),
        "requestURI": parts.uri.path_and_query().map_or("/", |path| path.as_str()), "verb": verb,
        "user": user.map(named).unwrap_or_else(|| json!({})), "sourceIPs": sources(parts),
    });
    if let Some(agent) = header("user-agent") {
        event["userAgent"] = agent.into();
    }
    if let Some(target) = target {
        let all = [
            ("resource", target.plural),
            ("namespace", target.scope()),
            ("name", target.name),
            ("apiGroup", target.group),
            ("apiVersion", target.version),
            ("subresource", target.sub),
        ];
        let said: Map<String, Value> =
            all.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.to_owned(), text.into())).collect();
        event["objectRef"] = said.into();
    }
    event
}

/// A user as the authentication API shows it.
fn named(user: &User) -> Value {
    let mut out = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        out["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

/// Whom the request has passed, and who sent it here.
fn sources(parts: &Parts) -> Vec<String> {
    let forwarded = parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut all: Vec<String> =
        forwarded.split(',').filter_map(|one| one.trim().parse::<IpAddr>().ok()).map(|ip| ip.to_string()).collect();
    // Components of this process come without a connection.
    all.extend(parts.extensions.get::<Arc<Place>>().map(|place| place.peer().to_canonical().to_string()));
    all
}

/// `metav1.MicroTime`.
fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// One request, as it is told.
pub(crate) struct Record {
    backends: Backends,
    decision: Decision,
    event: Mutex<Value>,
    /// What is said of it on its way.
    annotations: Annotations,
    /// When the request came.
    started: Instant,
    /// The stages that are still to be told.
    left: Mutex<&'static [Stage]>,
}

impl Record {
    /// Adds an annotation.
    pub(crate) fn annotate(&self, key: &str, value: &str) {
        self.event.lock()["annotations"][key] = value.into();
    }

    /// Tells which object it is where the path does not: that of a creation stands in its body.
    pub(crate) fn concerns(&self, object: &Value) {
        let mut event = self.event.lock();
        let Some(said) = event.get_mut("objectRef").and_then(Value::as_object_mut) else { return };
        for field in ["namespace", "name", "uid", "resourceVersion"] {
            if let Some(text) = object["metadata"][field].as_str().filter(|text| !text.is_empty()) {
                said.entry(field).or_insert_with(|| text.into());
            }
        }
    }

    /// Tells who is impersonated, and by which verb where that is a constrained one.
    pub(crate) fn impersonates(&self, user: &User, mode: Mode) {
        let mut event = self.event.lock();
        event["impersonatedUser"] = named(user);
        if mode != Mode::Legacy {
            event["authenticationMetadata"] = json!({"impersonationConstraint": mode.verb()});
        }
    }

    /// What the body of the request is, once it is decoded.
    pub(crate) fn asked(&self, object: &Value) {
        if self.decision.level >= Level::Request {
            self.event.lock()["requestObject"] = self.shown(object.clone());
        }
    }

    /// What the body of the request is, if it is told and there is such a thing.
    pub(crate) fn asked_text(&self, json: &[u8]) {
        if self.decision.level >= Level::Request
            && let Ok(object) = serde_json::from_slice(json)
        {
            self.event.lock()["requestObject"] = self.shown(object);
        }
    }

    /// The answer is there. That of a request that lasts has only begun.
    pub(crate) async fn answered(self: &Arc<Self>, response: &mut Response<Body>, ongoing: Option<&Arc<Ongoing>>) {
        let (code, wanted) = (response.status().as_u16(), self.decision.level == Level::RequestResponse);
        let answer = if wanted || code >= 400 { answer::read(response, ongoing.is_some()).await } else { Answer::None };
        {
            let mut event = self.event.lock();
            event["responseStatus"] = json!({"metadata": {}, "code": code});
            match answer {
                Answer::Object(status) if code >= 400 && status["kind"] == "Status" => event["responseStatus"] = status,
                Answer::Object(object) if wanted => event["responseObject"] = self.shown(object),
                // In upstream's words: it cuts what is too large for a webhook.
                Answer::TooLarge if wanted => event["annotations"]["audit.k8s.io/truncated"] = "true".into(),
                _ => {}
            }
        }
        if let Some(ongoing) = ongoing {
            ongoing.keep(self.clone());
        }
        // What is told now is told even if nobody waits for it.
        let left = *self.left.lock();
        if let Some((stage, left)) = left.split_first() {
            *self.left.lock() = left;
            self.tell(*stage).await;
        }
    }

    /// What was to be done has panicked.
    pub(crate) fn panicked(&self, why: &str) {
        let status = Status::new(500, Reason::InternalError, format!("APIServer panic'd: {why}"));
        self.event.lock()["responseStatus"] = status.to_value();
        *self.left.lock() = &[];
        self.tell_now(Stage::Panic);
    }

    fn shown(&self, mut object: Value) -> Value {
        if self.decision.without_managed_fields {
            meta::remove(&mut object, "managedFields");
            let each = |object: &mut Value, key: &str, remove: fn(&mut Value)| {
                object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().for_each(remove);
            };
            // Of a list, and of a table.
            each(&mut object, "items", |item| _ = meta::remove(item, "managedFields"));
            each(&mut object, "rows", |row| _ = row.get_mut("object").map(|object| meta::remove(object, "managedFields")));
        }
        object
    }

    fn text(&self, stage: Stage) -> String {
        let mut event = self.event.lock().clone();
        for (key, value) in self.annotations.all() {
            event["annotations"][key] = value.into();
        }
        let took = self.started.elapsed();
        if stage == Stage::ResponseComplete && took > SLOW {
            for (layer, time) in self.annotations.latencies().chain([("total", took)]) {
                let nanos = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
                event["annotations"][format!("apiserver.latency.k8s.io/{layer}")] = schema::format_duration(nanos).into();
            }
        }
        event["stage"] = stage.as_str().into();
        event["stageTimestamp"] = micro_time(Timestamp::now()).into();
        event.to_string()
    }

    async fn tell(&self, stage: Stage) {
        if self.decision.tells(stage) {
            self.backends.tell(self.text(stage)).await;
        }
    }

    fn tell_now(&self, stage: Stage) {
        if self.decision.tells(stage) {
            self.backends.tell_now(self.text(stage));
        }
    }
}

impl Drop for Record {
    /// A request that lasts has ended, or one whose client has gone before it had an answer: it is told in upstream's words that nobody was answered.
    fn drop(&mut self) {
        let left = *self.left.get_mut();
        if !left.is_empty() {
            let event = self.event.get_mut();
            if event.get("responseStatus").is_none() {
                event["responseStatus"] =
                    json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200});
            }
        }
        left.iter().for_each(|stage| self.tell_now(*stage));
    }
}

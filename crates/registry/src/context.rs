//! Who asks, and how the request wants to be treated.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use apimachinery::Status;
use apimachinery::yaml::UNMARSHAL_ERRORS;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::latencies::{Latencies, Layer};

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Unique identifier, may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What happens to unknown and duplicate fields (`fieldValidation`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped in silence.
    Ignore,
    /// Dropped, with a warning each.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// Collects warnings for the response's `Warning` headers. Cheap to clone, bounded.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Most warnings of one response.
    const LIMIT: usize = 100;

    /// Adds a warning, once.
    pub fn push(&self, text: impl Into<String>) {
        let (mut list, text) = (self.0.lock(), text.into());
        if list.len() < Self::LIMIT && !list.contains(&text) {
            list.push(text);
        }
    }

    /// All warnings so far.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Collects what admission has to say to the audit: keys and values. Cheap to clone, bounded.
#[derive(Clone, Debug, Default)]
pub struct Annotations(Arc<Collected>);

#[derive(Debug, Default)]
struct Collected {
    all: Mutex<BTreeMap<String, String>>,
    wants_details: AtomicBool,
    latencies: Latencies,
}

impl Annotations {
    /// Most annotations of one request.
    const LIMIT: usize = 200;

    /// Adds an annotation. The first value of a key stays, as upstream.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut map = self.0.all.lock();
        if map.len() < Self::LIMIT {
            map.entry(key.into()).or_insert_with(|| value.into());
        }
    }

    /// All annotations so far.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.0.all.lock().clone()
    }

    /// Notes that a part of the work on the request took so long.
    pub fn took(&self, layer: Layer, time: Duration) {
        self.0.latencies.add(layer, time);
    }

    /// How long each part took that there was, by upstream's name.
    pub fn latencies(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.0.latencies.all()
    }

    /// What says as much as the request itself is wanted, too: the audit tells what requests hold.
    pub fn want_details(&self) {
        self.0.wants_details.store(true, Ordering::Relaxed);
    }

    /// Adds such an annotation where it is wanted.
    pub fn add_detail(&self, key: impl Into<String>, value: impl FnOnce() -> String) {
        if self.0.wants_details.load(Ordering::Relaxed) {
            self.add(key, value());
        }
    }
}

/// The circumstances of a write.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Who.
    pub user: Arc<User>,
    /// Field manager: the parameter, or the user agent up to its first slash.
    pub manager: String,
    /// Do everything but the write.
    pub dry_run: bool,
    /// Server-side apply takes over fields of other managers.
    pub force: bool,
    /// Treatment of unknown fields.
    pub field_validation: FieldValidation,
    /// Warnings for the client.
    pub warnings: Warnings,
    /// Annotations for the audit.
    pub annotations: Annotations,
    /// Asked when an update or an apply finds that the object does not exist, and not before.
    pub may_create: Option<MayCreate>,
}

/// Whether the user may create the object: none, or why not. Authorizers may be other servers, which are to be asked of what is done
/// alone (upstream: `withAuthorization`).
#[derive(Clone)]
pub struct MayCreate(Arc<Ask>);

type Ask = dyn Fn() -> BoxFuture<'static, Result<(), Status>> + Send + Sync;

impl MayCreate {
    /// `ask` asks the authorizers.
    pub fn new(ask: impl Fn() -> BoxFuture<'static, Result<(), Status>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    pub(crate) async fn ask(&self) -> Result<(), Status> {
        self.0().await
    }
}

impl fmt::Debug for MayCreate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MayCreate")
    }
}

/// Fields that are unknown or occur twice, of a request that is strict about them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("strict decoding error: {}", .0.join(", "))]
pub(crate) struct StrictDecodingError(Vec<String>);

impl Context {
    /// Has unknown and duplicate fields treated as the request wants it: refused, told by warnings, or not mentioned.
    pub(crate) fn strictly(&self, problems: Vec<String>) -> Result<(), StrictDecodingError> {
        match self.field_validation {
            FieldValidation::Strict if !problems.is_empty() => return Err(StrictDecodingError(problems)),
            FieldValidation::Warn => self.warn_of(&problems),
            FieldValidation::Strict | FieldValidation::Ignore => {}
        }
        Ok(())
    }

    /// Warns of what is wrong with a body: once for each line of what YAML's reader tells (upstream: `parseYAMLWarnings`).
    pub fn warn_of(&self, problems: &[String]) {
        for problem in problems {
            let lines = problem.strip_prefix(UNMARSHAL_ERRORS).unwrap_or(problem).trim_start().lines();
            lines.for_each(|line| self.warnings.push(line.trim()));
        }
    }
}

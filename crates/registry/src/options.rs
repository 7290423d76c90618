//! Options and results of the verbs (`metav1.ListOptions`, `DeleteOptions`, patch types).

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{fields, labels};
use bytes::Bytes;
use serde_json::Value;

use crate::Entry;

/// What to list or watch, and from where.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Label selector.
    pub labels: Option<labels::Selector>,
    /// Field selector.
    pub fields: Option<fields::Selector>,
    /// Most items, 0 for all.
    pub limit: i64,
    /// Where the page before ended.
    pub continue_token: Option<String>,
    /// Resource version, its meaning depends on the verb and `resource_version_match`.
    pub resource_version: Option<String>,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<String>,
    /// The watcher understands bookmarks.
    pub allow_bookmarks: bool,
    /// Start the watch with the present state.
    pub send_initial_events: Option<bool>,
    /// End the watch after this time.
    pub timeout: Option<Duration>,
}

/// A page of objects.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Objects in key order.
    pub entries: Vec<Arc<Entry>>,
    /// The revision that the list shows.
    pub revision: u64,
    /// Where the next page starts, none at the end.
    pub continue_token: Option<String>,
    /// How many more there are, none when a selector makes that unknown.
    pub remaining: Option<i64>,
}

/// A patch and its type; the first three as the JSON text that was sent.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Bytes),
    /// RFC 7386.
    Merge(Bytes),
    /// Strategic merge patch.
    Strategic(Bytes),
    /// Server-side apply.
    Apply(Value),
}

impl Patch {
    /// The media types of patches that every kind takes.
    pub const ANY: &'static [&'static str] =
        &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
    /// Those of built-in kinds: only their types say how lists are merged strategically.
    pub const BUILTIN: &'static [&'static str] = &[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];
}

/// The result of an update or patch.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as stored.
    pub entry: Arc<Entry>,
    /// Whether it was created.
    pub created: bool,
    /// The body to answer with, for subresources of another kind.
    pub object: Option<Value>,
}

/// The result of a deletion.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; its last state.
    Now(Arc<Entry>),
    /// It goes when its grace period is over or its finalizers are done; its present state.
    Later(Arc<Entry>),
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds, 0 for at once.
    pub grace_seconds: Option<i64>,
    /// Precondition: this very object.
    pub uid: Option<String>,
    /// Precondition: this very version.
    pub resource_version: Option<String>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation: Option<String>,
    /// The older form of propagation.
    pub orphan_dependents: Option<bool>,
}

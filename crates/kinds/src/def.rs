//! What is constant about a kind.

use std::borrow::Cow;

use apimachinery::names;
use serde::{Serialize, Serializer};

use crate::sub::{Behaviour, ScalePaths, Sub};
use crate::verb::VerbSet;

/// `(group, version, kind)`.
pub type GroupVersionKindRef<'a> = (&'a str, &'a str, &'a str);

/// A name that is part of the program, or one that somebody gave a kind of their own.
pub type Name = Cow<'static, str>;

/// A list of names.
#[derive(Clone, Debug)]
pub enum Names {
    /// Of a built-in kind.
    Fixed(&'static [&'static str]),
    /// Of a custom resource.
    Given(Vec<String>),
}

impl Names {
    /// The names in their order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (fixed, given): (&[&str], &[String]) = match self {
            Self::Fixed(names) => (names, &[]),
            Self::Given(names) => (&[], names),
        };
        fixed.iter().copied().chain(given.iter().map(String::as_str))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Whether this is one of them.
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|one| one == name)
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Sets a field of a constant. What was there is part of the program: there is nothing to give back, and a constant could not.
const fn set<T>(field: &mut T, value: T) {
    std::mem::forget(std::mem::replace(field, value));
}

/// What names of a kind look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, the usual one.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// Anything that is one path segment (RBAC).
    PathSegment,
    /// An IP address in its canonical form.
    IpAddress,
}

impl NameRule {
    /// What is wrong with `name`; `prefix` when it is a generateName.
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        match self {
            Self::Subdomain => names::name_is_subdomain(name, prefix),
            Self::Label => names::name_is_label(name, prefix),
            Self::PathSegment => names::name_is_path_segment(name, prefix),
            Self::IpAddress => names::name_is_ip(name, prefix),
        }
    }
}

/// What becomes of new finalizers without a domain, whose names another controller may have chosen, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnqualifiedFinalizers {
    /// They are refused (upstream: the rules of `pkg/apis/core/validation`).
    Refused,
    /// They are kept, with a warning (custom resources).
    Told,
    /// They are kept (upstream: kinds whose rules are those of `apimachinery` alone).
    Kept,
}

/// What becomes of the dependents of an object that is deleted without a word about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependents {
    /// The garbage collector deletes them.
    Go,
    /// They stay, without owner (ReplicationControllers, for clients that are older than garbage collection).
    Stay,
    /// There never are any; propagation policies mean nothing (Events).
    None,
}

/// What of the metadata, beside what only the server sets, a write of the status leaves as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusKeeps {
    /// Older kinds: labels, annotations and finalizers may change.
    Nothing,
    /// The labels.
    Labels,
    /// All of it.
    Metadata,
}

/// What the objects of a kind are computed of when somebody reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Computed {
    /// What nodes or pods use (`metrics.k8s.io`).
    Usage,
    /// Whether the parts of the control plane work (ComponentStatus).
    Health,
}

/// Constant facts of a kind. Built by [`KindDef::new`] and the chained setters.
#[derive(Clone, Debug)]
pub struct KindDef {
    /// API group, empty for the core group.
    pub group: Name,
    /// API version.
    pub version: Name,
    /// Kind.
    pub kind: Name,
    /// Kind of a list of these.
    pub list_kind: Option<Name>,
    /// Resource name in paths.
    pub plural: Name,
    /// Lower-case kind.
    pub singular: Name,
    /// Short names for the command line.
    pub short_names: Names,
    /// Categories, such as `all`.
    pub categories: Names,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// False for review kinds, which are answered and never kept, and for those whose objects are computed.
    pub stored: bool,
    /// Its objects are computed when somebody reads them, of this.
    pub computed: Option<Computed>,
    /// Resource and sub-resource of the same group that stand for this one: what is posted to the collection is posted to the
    /// object that it names.
    pub posted_to: Option<(&'static str, &'static str)>,
    /// API verbs that it takes.
    pub verbs: VerbSet,
    /// It takes no new objects, because its definition goes.
    pub closing: bool,
    /// Kept outside history (Events, Leases).
    pub ephemeral: bool,
    /// Objects go by themselves after the time for which events are kept.
    pub expires: bool,
    /// `metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    /// It counts changes of these maps of the metadata, too.
    pub generation_of: &'static [&'static str],
    /// Pointer of the number by which the rows of a table are in order, before names.
    pub rows_by: Option<&'static str>,
    /// What of the metadata stays as it is when the status is updated.
    pub status_keeps: StatusKeeps,
    /// PUT of a missing object creates it.
    pub create_on_update: bool,
    /// An update must name the version that it is meant for.
    pub versioned: bool,
    /// What the rules of a status look at besides metadata and status, as paths; none where that may be anything.
    pub status_reads: Option<&'static [&'static str]>,
    /// A creator may set the status (Nodes: kubelets register themselves).
    pub status_on_create: bool,
    /// An object may have no status at all (custom resources).
    pub status_is_optional: bool,
    /// Rule for names.
    pub name: NameRule,
    /// A new object that comes without a name gets its uid for one.
    pub named_by_uid: bool,
    /// What becomes of new finalizers without a domain.
    pub unqualified_finalizers: UnqualifiedFinalizers,
    /// Default propagation of deletions.
    pub dependents: Dependents,
    /// What somebody is told who deletes an object and says nothing of its dependents.
    pub silent_deletion: Option<&'static str>,
    /// A deletion answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// Where its size stands, if it has one.
    pub scale: ScalePaths,
    /// Sub-resources.
    pub subresources: Cow<'static, [Sub]>,
    /// What everybody who uses the API is told, if it is deprecated.
    pub deprecated: Option<Name>,
    /// What a creator is told where an object is kept and nothing acts on it.
    pub without_effect: Option<&'static str>,
}

impl KindDef {
    /// A namespaced, stored kind without sub-resources. `singular` is the kind in lower case.
    pub const fn new(
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        plural: &'static str,
        singular: &'static str,
    ) -> Self {
        Self {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            list_kind: None,
            plural: Cow::Borrowed(plural),
            singular: Cow::Borrowed(singular),
            short_names: Names::Fixed(&[]),
            categories: Names::Fixed(&[]),
            namespaced: true,
            stored: true,
            computed: None,
            posted_to: None,
            verbs: VerbSet::ALL,
            closing: false,
            ephemeral: false,
            expires: false,
            generation: false,
            generation_of: &[],
            rows_by: None,
            status_keeps: StatusKeeps::Nothing,
            create_on_update: false,
            versioned: false,
            status_reads: None,
            status_on_create: false,
            status_is_optional: false,
            name: NameRule::Subdomain,
            named_by_uid: false,
            unqualified_finalizers: UnqualifiedFinalizers::Refused,
            dependents: Dependents::Go,
            silent_deletion: None,
            returns_deleted: false,
            scale: ScalePaths::BUILTIN,
            subresources: Cow::Borrowed(&[]),
            deprecated: None,
            without_effect: None,
        }
    }

    /// A namespaced, stored kind whose names are set later.
    pub const fn unnamed() -> Self {
        Self::new("", "", "", "", "")
    }

    /// [`KindDef::new`] with the names that the API's type has.
    pub const fn of<K: k8s_openapi::Resource>(singular: &'static str) -> Self {
        Self::new(K::GROUP, K::VERSION, K::KIND, K::URL_PATH_SEGMENT, singular)
    }

    /// The same kind in another group.
    pub const fn group(mut self, group: &'static str) -> Self {
        set(&mut self.group, Cow::Borrowed(group));
        self
    }

    /// The same kind in another version.
    pub const fn version(mut self, version: &'static str) -> Self {
        set(&mut self.version, Cow::Borrowed(version));
        self
    }

    /// Sets the short names.
    pub const fn short(mut self, names: &'static [&'static str]) -> Self {
        set(&mut self.short_names, Names::Fixed(names));
        self
    }

    /// Member of the category `all`.
    pub const fn in_all(mut self) -> Self {
        set(&mut self.categories, Names::Fixed(&["all"]));
        self
    }

    /// Member of these categories.
    pub const fn categories(mut self, names: &'static [&'static str]) -> Self {
        set(&mut self.categories, Names::Fixed(names));
        self
    }

    /// The API is deprecated. The text is upstream's (`endpoints/deprecation`): since when, and what to use instead.
    pub const fn deprecated(mut self, warning: &'static str) -> Self {
        set(&mut self.deprecated, Some(Cow::Borrowed(warning)));
        self
    }

    /// Objects are kept, and nothing acts on them. The creator is told, so that nobody trusts in what does not happen.
    pub const fn without_effect(mut self, warning: &'static str) -> Self {
        self.without_effect = Some(warning);
        self
    }

    /// Cluster scoped.
    pub const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    /// Answered, never kept; only `create` is served.
    pub const fn review(mut self) -> Self {
        self.stored = false;
        self.verbs = VerbSet::CREATE;
        self
    }

    /// Computed when it is read; only `get` and `list` are served.
    pub const fn computed(mut self, of: Computed) -> Self {
        self.stored = false;
        self.computed = Some(of);
        self.verbs = VerbSet::READ;
        self
    }

    /// Another form of a post to the sub-resource of a resource.
    pub const fn posted_to(mut self, resource: &'static str, sub: &'static str) -> Self {
        self.posted_to = Some((resource, sub));
        self.review()
    }

    /// Kept outside history.
    pub const fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// Kept outside history, and not for long.
    pub const fn expiring(mut self) -> Self {
        self.expires = true;
        self.ephemeral()
    }

    /// Updates of the status leave labels alone.
    pub const fn status_keeps_labels(mut self) -> Self {
        self.status_keeps = StatusKeeps::Labels;
        self
    }

    /// Updates of the status leave all metadata alone (upstream: `ResetObjectMetaForStatus`).
    pub const fn status_keeps_metadata(mut self) -> Self {
        self.status_keeps = StatusKeeps::Metadata;
        self
    }

    /// The rules of a status look, besides metadata and status, at these paths and the selectable fields alone, and its defaults add
    /// nothing: a write of it need not decode the rest.
    pub const fn status_reads(mut self, paths: &'static [&'static str]) -> Self {
        self.status_reads = Some(paths);
        self
    }

    /// Counts generations.
    pub const fn generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// Counts generations, of these maps of the metadata too (upstream: `deploymentStrategy.PrepareForUpdate`,
    /// `endpointSliceStrategy.PrepareForUpdate`).
    pub const fn generation_of(mut self, maps: &'static [&'static str]) -> Self {
        self.generation_of = maps;
        self.generation()
    }

    /// The rows of tables are in the order of this number.
    pub const fn rows_by(mut self, pointer: &'static str) -> Self {
        self.rows_by = Some(pointer);
        self
    }

    /// Updates name a version.
    pub const fn versioned(mut self) -> Self {
        self.versioned = true;
        self
    }

    /// PUT creates.
    pub const fn create_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    /// A creator may set the status.
    pub const fn status_on_create(mut self) -> Self {
        self.status_on_create = true;
        self
    }

    /// Sets the rule for names.
    pub const fn name(mut self, rule: NameRule) -> Self {
        self.name = rule;
        self
    }

    /// A new object that comes without a name gets its uid for one.
    pub const fn named_by_uid(mut self) -> Self {
        self.named_by_uid = true;
        self
    }

    /// Sets what becomes of new finalizers without a domain.
    pub const fn unqualified_finalizers(mut self, rule: UnqualifiedFinalizers) -> Self {
        self.unqualified_finalizers = rule;
        self
    }

    /// Sets what a deletion does with dependents.
    pub const fn dependents(mut self, dependents: Dependents) -> Self {
        self.dependents = dependents;
        self
    }

    /// Sets what is told of dependents that were not thought of.
    pub const fn silent_deletion(mut self, warning: &'static str) -> Self {
        self.silent_deletion = Some(warning);
        self
    }

    /// Sets the sub-resources.
    pub const fn subresources(mut self, subresources: &'static [Sub]) -> Self {
        set(&mut self.subresources, Cow::Borrowed(subresources));
        self
    }

    /// The verbs that discovery tells of: of a kind that goes, those by which its objects do (upstream:
    /// `customresource_discovery_controller.go`).
    pub const fn offered(&self) -> VerbSet {
        if self.closing { VerbSet::CLOSING } else { self.verbs }
    }

    /// Sets the verbs.
    pub const fn verbs(mut self, verbs: VerbSet) -> Self {
        self.verbs = verbs;
        self
    }

    /// A deletion answers with the object.
    pub const fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        apimachinery::gvk::api_version(&self.group, &self.version)
    }

    /// Whether users have defined it.
    pub fn is_custom(&self) -> bool {
        matches!(self.plural, Cow::Owned(_))
    }

    /// Group, version and resource as labels of metrics. Custom resources share one: users would make series without end.
    pub fn label(&self) -> GroupVersionKindRef<'static> {
        match (&self.group, &self.version, &self.plural) {
            (Cow::Borrowed(group), Cow::Borrowed(version), Cow::Borrowed(plural)) => (group, version, plural),
            _ => ("", "", "customresources"),
        }
    }

    /// The kind of a list of these.
    pub fn list_kind(&self) -> Name {
        self.list_kind.clone().unwrap_or_else(|| format!("{}List", self.kind).into())
    }

    /// The sub-resource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Sub> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// The kind of a sub-resource's body.
    pub fn body_kind(&self, sub: Option<&Sub>) -> GroupVersionKindRef<'_> {
        sub.and_then(|sub| sub.kind).unwrap_or_else(|| self.own_kind())
    }

    /// Group, version and kind.
    pub fn own_kind(&self) -> GroupVersionKindRef<'_> {
        (&self.group, &self.version, &self.kind)
    }

    /// Whether it has a status that only its sub-resource writes.
    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|sub| matches!(sub.behaviour, Behaviour::Status))
    }

    /// Where its size stands, if it has one.
    pub fn scale(&self) -> Option<&ScalePaths> {
        self.subresources.iter().any(|sub| matches!(sub.behaviour, Behaviour::Scale)).then_some(&self.scale)
    }
}

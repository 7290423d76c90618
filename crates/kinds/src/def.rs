//! What is constant about a kind.

use apimachinery::names;

use crate::sub::{Behaviour, ScalePaths, Sub};
use crate::verb::VerbSet;

/// `(group, version, kind)`.
pub type GroupVersionKindRef = (&'static str, &'static str, &'static str);

/// What names of a kind look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, the usual one.
    Subdomain,
    /// RFC 1123 label.
    Label,
    /// RFC 1035 label (Services).
    Label1035,
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
            Self::Label1035 => names::name_is_1035_label(name, prefix),
            Self::PathSegment => names::name_is_path_segment(name, prefix),
            Self::IpAddress => names::name_is_ip(name, prefix),
        }
    }
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

/// Constant facts of a kind. Built by [`KindDef::new`] and the chained setters.
#[derive(Clone, Copy, Debug)]
pub struct KindDef {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Resource name in paths.
    pub plural: &'static str,
    /// Lower-case kind.
    pub singular: &'static str,
    /// Short names for the command line.
    pub short_names: &'static [&'static str],
    /// Categories, such as `all`.
    pub categories: &'static [&'static str],
    /// Lives in a namespace.
    pub namespaced: bool,
    /// False for review kinds, which are answered and never kept.
    pub stored: bool,
    /// Resource and sub-resource of the same group that stand for this one: what is posted to the collection is posted to the
    /// object that it names.
    pub posted_to: Option<(&'static str, &'static str)>,
    /// API verbs that it takes.
    pub verbs: VerbSet,
    /// Kept outside history (Events, Leases).
    pub ephemeral: bool,
    /// Seconds after which an object goes by itself.
    pub ttl_seconds: Option<u64>,
    /// `metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    /// Labels stay as they are when the status is updated.
    pub status_keeps_labels: bool,
    /// PUT of a missing object creates it.
    pub create_on_update: bool,
    /// An update must name the version that it is meant for.
    pub versioned: bool,
    /// A creator may set the status (Nodes: kubelets register themselves).
    pub status_on_create: bool,
    /// Rule for names.
    pub name: NameRule,
    /// Default propagation of deletions.
    pub dependents: Dependents,
    /// What somebody is told who deletes an object and says nothing of its dependents.
    pub silent_deletion: Option<&'static str>,
    /// A deletion answers with the object instead of a Status.
    pub returns_deleted: bool,
    /// Sub-resources.
    pub subresources: &'static [Sub],
    /// What everybody who uses the API is told, if it is deprecated.
    pub deprecated: Option<&'static str>,
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
            group,
            version,
            kind,
            plural,
            singular,
            short_names: &[],
            categories: &[],
            namespaced: true,
            stored: true,
            posted_to: None,
            verbs: VerbSet::ALL,
            ephemeral: false,
            ttl_seconds: None,
            generation: false,
            status_keeps_labels: false,
            create_on_update: false,
            versioned: false,
            status_on_create: false,
            name: NameRule::Subdomain,
            dependents: Dependents::Go,
            silent_deletion: None,
            returns_deleted: false,
            subresources: &[],
            deprecated: None,
            without_effect: None,
        }
    }

    /// [`KindDef::new`] with the names that the API's type has.
    pub const fn of<K: k8s_openapi::Resource>(singular: &'static str) -> Self {
        Self::new(K::GROUP, K::VERSION, K::KIND, K::URL_PATH_SEGMENT, singular)
    }

    /// Sets the short names.
    pub const fn short(mut self, names: &'static [&'static str]) -> Self {
        self.short_names = names;
        self
    }

    /// Member of the category `all`.
    pub const fn in_all(mut self) -> Self {
        self.categories = &["all"];
        self
    }

    /// Member of these categories.
    pub const fn categories(mut self, names: &'static [&'static str]) -> Self {
        self.categories = names;
        self
    }

    /// The API is deprecated. The text is upstream's (`endpoints/deprecation`): since when, and what to use instead.
    pub const fn deprecated(mut self, warning: &'static str) -> Self {
        self.deprecated = Some(warning);
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

    /// Another form of a post to the sub-resource of a resource.
    pub const fn posted_to(mut self, resource: &'static str, sub: &'static str) -> Self {
        self.posted_to = Some((resource, sub));
        self.review()
    }

    /// Kept outside history; objects go after `ttl_seconds` when given.
    pub const fn ephemeral(mut self, ttl_seconds: Option<u64>) -> Self {
        self.ephemeral = true;
        self.ttl_seconds = ttl_seconds;
        self
    }

    /// Updates of the status leave labels alone.
    pub const fn status_keeps_labels(mut self) -> Self {
        self.status_keeps_labels = true;
        self
    }

    /// Counts generations.
    pub const fn generation(mut self) -> Self {
        self.generation = true;
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
        self.subresources = subresources;
        self
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
        apimachinery::gvk::api_version(self.group, self.version)
    }

    /// The kind of a list of these.
    pub fn list_kind(&self) -> String {
        format!("{}List", self.kind)
    }

    /// The sub-resource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Sub> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// The kind of a sub-resource's body.
    pub fn body_kind(&self, sub: Option<&Sub>) -> GroupVersionKindRef {
        sub.and_then(|sub| sub.kind).unwrap_or((self.group, self.version, self.kind))
    }

    /// Whether it has a status that only its sub-resource writes.
    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|sub| matches!(sub.behaviour, Behaviour::Status))
    }

    /// Where its size stands, if it has one.
    pub fn scale(&self) -> Option<&'static ScalePaths> {
        self.subresources.iter().find_map(|sub| match &sub.behaviour {
            Behaviour::Scale(paths) => Some(paths),
            _ => None,
        })
    }
}

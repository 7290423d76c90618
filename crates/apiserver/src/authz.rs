//! Who may do what: the Node authorizer, RBAC and webhooks, in the order that is configured. The first that has an opinion decides.

mod aggregation;
mod cluster_roles;
pub mod configuration;
mod controller_roles;
mod coverage;
mod escalation;
mod follow;
mod index;
mod node;
mod policy;
mod reconcile;
mod rules;
mod selecting;
mod tables;
#[cfg(test)]
mod upstream;
mod webhook;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apimachinery::{GroupResource, Status};
use arc_swap::ArcSwap;
use base::directory;
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use registry::{Registry, User};

pub use escalation::EscalationCheck;
pub use index::{Grant, Index};
pub use policy::Policy;
pub use reconcile::run;
pub(crate) use reconcile::{again, start};
pub use rules::Rule;
pub use selecting::Selecting;
pub(crate) use selecting::validate as validate_selectors;

use crate::authn::{MASTERS, node_identity};
use crate::file::{self, FileError};
use crate::metrics::reload::{self, File};
use crate::remote::Remotes;
use configuration::{Mode, Options};
use follow::Followed;
use webhook::Webhook;

/// Why the configuration of authorization cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The flags are wrong.
    #[error("{0}")]
    Flags(configuration::Invalid),
    /// The changed file has other authorizers than webhooks that were not there before, or has them no more.
    #[error("{}: Node and RBAC authorizers can be neither added nor removed while the server runs", .0.display())]
    Modes(PathBuf),
}

/// A request as authorization sees it.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// API verb, or the HTTP method in lower case for paths.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Resource.
    pub resource: &'a str,
    /// Subresource.
    pub subresource: &'a str,
    /// Namespace, empty for all or none.
    pub namespace: &'a str,
    /// Object, empty for all.
    pub name: &'a str,
    /// Path, when it names no resource.
    pub path: &'a str,
    /// Whether it is about a resource.
    pub is_resource: bool,
    /// What the selectors of a list, a watch or a deletion of a collection restrict it to.
    pub selecting: Option<&'a Selecting>,
}

impl<'a> Attributes<'a> {
    /// Nothing yet.
    pub fn new(user: &'a User) -> Self {
        Self {
            user,
            verb: "",
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            is_resource: false,
            selecting: None,
        }
    }

    /// The value that a field selector demands of a field, empty when it demands none.
    pub fn selected(&self, field: &str) -> &'a str {
        self.selecting.and_then(|selecting| selecting.exact(field)).unwrap_or_default()
    }

    /// Upstream's 403.
    pub fn forbidden(&self, reason: &str) -> Status {
        let mut why = self.message();
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        let gr = if self.is_resource { GroupResource::new(self.group, self.resource) } else { GroupResource::default() };
        Status::forbidden(&gr, self.name, why)
    }

    /// The 403 of a decision. Where no reason is given, what went wrong is one.
    pub(crate) fn refused(&self, decision: &Decision<'_>) -> Status {
        self.forbidden(&decision.why())
    }

    fn message(&self) -> String {
        let user = apimachinery::text::quote(&self.user.name);
        if !self.is_resource {
            return format!("User {user} cannot {} path {}", self.verb, apimachinery::text::quote(self.path));
        }
        let resource = match self.subresource {
            "" => self.resource.to_owned(),
            sub => format!("{}/{sub}", self.resource),
        };
        let scope = match self.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {}", apimachinery::text::quote(namespace)),
        };
        format!("User {user} cannot {} resource \"{resource}\" in API group \"{}\" {scope}", self.verb, self.group)
    }
}

/// Why somebody may or may not, in the words of the authorizers, which may say nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation<'a> {
    /// What was said, maybe nothing.
    Said(String),
    /// A binding. Nearly every request is allowed by one, and it is told of few: they make a text of it.
    Grant(Grant<'a>),
}

impl Default for Explanation<'_> {
    fn default() -> Self {
        Self::Said(String::new())
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Said(text) => f.write_str(text),
            Self::Grant(grant) => write!(f, "RBAC: allowed by {grant}"),
        }
    }
}

/// What the authorizers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision<'a> {
    /// The user may.
    pub allowed: bool,
    /// The user may not, whatever others say. Neither is said where nobody has an opinion, which comes to the same.
    pub denied: bool,
    /// Why.
    pub reason: Explanation<'a>,
    /// What went wrong meanwhile.
    pub error: Option<String>,
}

impl Decision<'_> {
    /// The reason, or what went wrong where none is given; may be empty.
    pub(crate) fn why(&self) -> String {
        match (self.reason.to_string(), &self.error) {
            (reason, Some(error)) if reason.is_empty() => error.clone(),
            (reason, _) => reason,
        }
    }
}

/// What one of them thinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Verdict {
    Allow,
    Deny,
    /// The next one is asked.
    #[default]
    None,
}

/// What one of them says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Opinion<'a> {
    verdict: Verdict,
    reason: Explanation<'a>,
    error: Option<String>,
}

impl Opinion<'_> {
    fn of(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: Explanation::Said(reason.into()), error: None }
    }
}

/// One of the authorizers.
enum Step {
    Node,
    Rbac,
    Webhook(Box<Webhook>),
}

/// The authorizers, in their order. Members of `system:masters` are asked nothing.
pub struct Authorizer {
    rules: RwLock<Followed>,
    steps: ArcSwap<Vec<Step>>,
    /// The file, and what it was at the start.
    file: Option<(PathBuf, String)>,
}

impl Default for Authorizer {
    fn default() -> Self {
        Self::of(vec![Step::Node, Step::Rbac], None)
    }
}

impl Authorizer {
    /// Those that are configured.
    pub(crate) fn new(options: &Options, remotes: &Remotes) -> Result<Self, Error> {
        let Some(path) = &options.file else {
            return Ok(Self::of(steps(options.modes().map_err(Error::Flags)?, remotes)?, None));
        };
        let text = file::read(path)?;
        Ok(Self::of(read(path, &text, remotes)?, Some((path.clone(), text))))
    }

    fn of(steps: Vec<Step>, file: Option<(PathBuf, String)>) -> Self {
        Self { rules: RwLock::default(), steps: ArcSwap::from_pointee(steps), file }
    }

    /// Takes in the file whenever it changes.
    pub(crate) async fn follow(&self, remotes: &Remotes) -> Result<(), std::convert::Infallible> {
        let Some((path, text)) = &self.file else { return Ok(()) };
        let mut file = directory::File::new(path, text.clone());
        loop {
            let changed = self.changed(path, &file.changed().await, remotes);
            reload::reloaded(File::Authorization, changed.is_ok());
            match changed {
                Ok(()) => tracing::info!(path = %path.display(), "the authorization configuration has changed and is in force"),
                Err(error) => {
                    tracing::error!(%error, "the changed authorization configuration is not used; the one before stays in force");
                }
            }
        }
    }

    fn changed(&self, path: &Path, text: &str, remotes: &Remotes) -> Result<(), Error> {
        let next = read(path, text, remotes)?;
        if own(&next) != own(&self.steps.load()) {
            return Err(Error::Modes(path.to_owned()));
        }
        self.steps.store(Arc::new(next));
        Ok(())
    }

    /// Whether an answer may have to be waited for.
    pub(crate) fn waits(&self) -> bool {
        self.steps.load().iter().any(|step| matches!(step, Step::Webhook(_)))
    }

    /// The rules as they are now. Who has them holds up who writes the next ones.
    pub fn index(&self, registry: &Registry) -> MappedRwLockReadGuard<'_, Index> {
        let mut rules = self.rules.read();
        if !rules.is_current(registry) {
            drop(rules);
            let mut changing = self.rules.write();
            // Of many who come after a change, one does the work.
            if !changing.is_current(registry) {
                changing.follow(registry);
            }
            rules = RwLockWriteGuard::downgrade(changing);
        }
        RwLockReadGuard::map(rules, |followed| &followed.index)
    }

    /// The rules that a user has in a namespace (empty: in the cluster), those of a role together.
    pub fn rules_of(&self, registry: &Registry, user: &User, namespace: &str) -> Vec<Arc<[Rule]>> {
        self.index(registry).rules(user, namespace).cloned().collect()
    }

    /// Whether the request is allowed.
    pub async fn allows(&self, registry: &Registry, attributes: &Attributes<'_>) -> bool {
        self.authorize(registry, attributes).await.allowed
    }

    /// Allowed, or the 403.
    pub async fn decide(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.authorize(registry, attributes).await;
        if decision.allowed { Ok(()) } else { Err(attributes.refused(&decision)) }
    }

    /// What the authorizers say: the first that has an opinion, and why the others have none where nobody has one.
    pub async fn authorize<'a>(&self, registry: &Registry, attributes: &Attributes<'a>) -> Decision<'a> {
        if is_master(attributes.user) {
            return Decision { allowed: true, ..Decision::default() };
        }
        let (mut reasons, mut errors) = (Vec::new(), Vec::new());
        let steps = self.steps.load_full();
        for step in steps.iter() {
            let Opinion { verdict, reason, error } = match step {
                Step::Node => node::opinion(registry, attributes).await,
                Step::Rbac => self.by_rules(registry, attributes),
                Step::Webhook(webhook) => Box::pin(webhook.opinion(registry, attributes)).await,
            };
            if verdict != Verdict::None {
                return Decision { allowed: verdict == Verdict::Allow, denied: verdict == Verdict::Deny, reason, error };
            }
            reasons.extend(Some(reason.to_string()).filter(|reason| !reason.is_empty()));
            errors.extend(error);
        }
        Decision { reason: Explanation::Said(reasons.join("\n")), error: aggregate(&errors), ..Decision::default() }
    }

    /// Why the rules of a user, as [`Self::rules_of`] has them, may not be all that the user may do.
    pub fn unlisted(&self, registry: &Registry, user: &User, namespace: &str) -> Unlisted {
        let mut unlisted = Unlisted::default();
        for step in self.steps.load().iter() {
            let who = match step {
                Step::Node if node_identity(user).is_some() => "node",
                Step::Webhook(_) => "webhook",
                Step::Node => continue,
                Step::Rbac => {
                    unlisted.errors.extend(aggregate(&self.index(registry).missing(user, namespace)));
                    continue;
                }
            };
            unlisted.incomplete = true;
            unlisted.errors.push(format!("{who} authorizer does not support user rule resolution"));
        }
        unlisted
    }

    fn by_rules<'a>(&self, registry: &Registry, attributes: &Attributes<'a>) -> Opinion<'a> {
        let index = self.index(registry);
        if let Some(grant) = index.grant(attributes) {
            return Opinion { verdict: Verdict::Allow, reason: Explanation::Grant(grant), error: None };
        }
        let missing = index.missing(attributes.user, if attributes.is_resource { attributes.namespace } else { "" });
        Opinion::of(Verdict::None, if missing.is_empty() { String::new() } else { format!("RBAC: {}", missing.join(", ")) })
    }
}

/// What is not among the rules of a user.
#[derive(Debug, Default)]
pub struct Unlisted {
    /// There may be more that the user may do.
    pub incomplete: bool,
    /// Why, and what else went wrong.
    pub errors: Vec<String>,
}

impl Unlisted {
    /// All of it as one text.
    pub fn error(&self) -> Option<String> {
        aggregate(&self.errors)
    }
}

/// Whether nobody is asked what the user may do.
pub(crate) fn is_master(user: &User) -> bool {
    user.groups.iter().any(|group| group == MASTERS)
}

/// Several errors as Go's clients know them.
fn aggregate(errors: &[String]) -> Option<String> {
    match errors {
        [] => None,
        [one] => Some(one.clone()),
        all => Some(format!("[{}]", all.join(", "))),
    }
}

/// The authorizers of a file.
fn read(path: &Path, text: &str, remotes: &Remotes) -> Result<Vec<Step>, Error> {
    let modes = configuration::parse(text).map_err(|source| FileError::new(path, source))?;
    steps(modes, remotes)
}

fn steps(modes: Vec<Mode>, remotes: &Remotes) -> Result<Vec<Step>, Error> {
    let step = |mode| -> Result<Step, Error> {
        Ok(match mode {
            Mode::Node => Step::Node,
            Mode::Rbac => Step::Rbac,
            Mode::Webhook(options) => Step::Webhook(Box::new(Webhook::new(*options, remotes)?)),
        })
    };
    modes.into_iter().map(step).collect()
}

/// Whether there are the authorizers Node and RBAC.
fn own(steps: &[Step]) -> [bool; 2] {
    [steps.iter().any(|step| matches!(step, Step::Node)), steps.iter().any(|step| matches!(step, Step::Rbac))]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Who is refused is told the reason, or what went wrong.
    #[test]
    fn errors_are_reasons_where_there_are_none() {
        let user = crate::authn::user("jane", Vec::new());
        let attributes = Attributes { verb: "get", path: "/x", ..Attributes::new(&user) };
        let check = |reason: &str, error: Option<&str>, expected: &str| {
            let decision =
                Decision { reason: Explanation::Said(reason.into()), error: error.map(str::to_owned), ..Decision::default() };
            let message = attributes.refused(&decision).message;
            assert!(message.ends_with(&format!("User \"jane\" cannot get path \"/x\"{expected}")), "{message}");
        };
        check("", None, "");
        check("r", None, ": r");
        check("r", Some("e"), ": r");
        check("", Some("e"), ": e");
    }

    /// Kubernetes' documentation, "Configuring the API Server using an authorization config file": a reload must not add or remove Node or RBAC
    /// authorizers; they can be reordered.
    #[test]
    fn a_changed_file_keeps_node_and_rbac() {
        let file = |authorizers: &str| {
            format!("{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: [{authorizers}]}}")
        };
        let (node, rbac) = ("{type: Node, name: node}", "{type: RBAC, name: rbac}");
        let path = Path::new("/a");
        let (tasks, _failures) = base::tasks::Tasks::root();
        let remotes = Remotes::new(tasks, Arc::default());
        let authorizer = Authorizer::of(read(path, &file(&format!("{node}, {rbac}")), &remotes).unwrap(), None);
        let change =
            |authorizers: &str| authorizer.changed(path, &file(authorizers), &remotes).map_err(|error| error.to_string());
        assert!(change(&format!("{rbac}, {node}")).is_ok() && matches!(authorizer.steps.load()[0], Step::Rbac));
        assert!(change(rbac).unwrap_err().contains("neither added nor removed"));
        assert!(change("{type: ABAC, name: a}").unwrap_err().contains("authorizers[0].type"));
        assert!(matches!(authorizer.steps.load()[..], [Step::Rbac, Step::Node]), "what was in force stays");
    }
}

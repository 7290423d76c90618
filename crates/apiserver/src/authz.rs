//! Who may do what: the Node authorizer and RBAC, as upstream combines them.

mod cluster_roles;
mod controller_roles;
mod coverage;
mod escalation;
mod index;
mod node;
mod policy;
mod reconcile;
mod rules;
mod tables;

use std::sync::Arc;

use apimachinery::{GroupResource, Status};
use parking_lot::RwLock;
use registry::{Registry, User};

pub use escalation::EscalationCheck;
pub use index::Index;
pub(crate) use node::identity as node_identity;
pub use policy::Policy;
pub use reconcile::run;
pub(crate) use reconcile::start;
pub use rules::Rule;

use crate::authn::MASTERS;

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
    /// The node that a field selector restricts pods to.
    pub node_name: &'a str,
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
            node_name: "",
        }
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

/// The authorizers.
pub struct Authorizer {
    index: RwLock<Arc<Index>>,
}

impl Default for Authorizer {
    fn default() -> Self {
        Self { index: RwLock::new(Arc::new(Index::default())) }
    }
}

impl Authorizer {
    /// The rules as they are now.
    pub fn index(&self) -> Arc<Index> {
        self.index.read().clone()
    }

    pub(crate) fn replace(&self, index: Index) {
        *self.index.write() = Arc::new(index);
    }

    /// Whether the request is allowed.
    pub async fn allows(&self, registry: &Registry, attributes: &Attributes<'_>) -> bool {
        self.decide(registry, attributes).await.is_ok()
    }

    /// Allowed, or the 403.
    pub async fn decide(&self, registry: &Registry, attributes: &Attributes<'_>) -> Result<(), Status> {
        if attributes.user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let mut reason = String::new();
        match node::decide(registry, attributes).await {
            node::Decision::Allow => return Ok(()),
            node::Decision::NoOpinion(why) => reason.push_str(&why),
        }
        let index = self.index();
        if index.allows(attributes) {
            return Ok(());
        }
        let missing = index.missing(attributes.user, if attributes.is_resource { attributes.namespace } else { "" });
        if !missing.is_empty() {
            reason = format!("RBAC: {}", missing.join(", "));
        }
        Err(attributes.forbidden(&reason))
    }
}

//! What the handlers of requests are given: what all of them need, and the one request.

use std::any::Any;
use std::sync::Arc;

use base::readiness::Readiness;
use base::tasks::Tasks;
use http::request::Parts;
use registry::{Annotations, Registry, Served, User, Warnings};

use crate::aggregation::Servers;
use crate::audit::{Audit, Record};
use crate::authn::{Authenticator, TokenKeys};
use crate::authz::Authorizer;
use crate::discovery::Discovery;
use crate::metrics::load::Ongoing;
use crate::negotiate::Accept;
use crate::openapi::OpenApi;
use crate::proxy::client::KubeletClient;
use crate::route::Target;
use crate::stages::{Budgets, InProcess};
use crate::tunnels::Tunnels;
use crate::usage::known::Usages;
use crate::version::Build;

/// What requests need.
pub(crate) struct Inner {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) readiness: Readiness,
    pub(crate) kubelets: KubeletClient,
    /// Ways to nodes.
    pub(crate) tunnels: Arc<Tunnels>,
    /// The servers of other APIs.
    pub(crate) servers: Arc<Servers>,
    pub(crate) keys: Arc<TokenKeys>,
    pub(crate) build: Build,
    pub(crate) zpages: base::zpages::Pages,
    pub(crate) public_address: String,
    /// Where the keys of ServiceAccount tokens are, for others.
    pub(crate) jwks_uri: String,
    pub(crate) tasks: Tasks,
    pub(crate) budgets: Budgets,
    /// What nodes and pods use.
    pub(crate) usages: Usages,
    /// None when nothing is audited.
    pub(crate) audit: Option<Audit>,
}

/// One request, understood.
pub(crate) struct Call<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) accept: Accept,
    pub(crate) user: Arc<User>,
    pub(crate) warnings: Warnings,
    /// What there is to say of it to the audit.
    pub(crate) annotations: Annotations,
    /// What holds it counts as under way.
    pub(crate) ongoing: Option<Arc<Ongoing>>,
    /// What is told of it to the audit log.
    pub(crate) record: Option<Arc<Record>>,
}

impl Call<'_> {
    /// Whose budgets the request is of; none for components of this process.
    pub(crate) fn counted(&self) -> Option<&str> {
        let own = self.parts.extensions.get::<InProcess>().is_some();
        (!own).then_some(self.user.name.as_str())
    }

    /// Keeps something as long as the request lasts.
    pub(crate) fn keep(&self, guard: impl Any + Send) {
        if let Some(ongoing) = &self.ongoing {
            ongoing.keep(guard);
        }
    }
}

/// A request on a resource that exists.
pub(crate) struct On<'a> {
    pub(crate) call: Call<'a>,
    pub(crate) target: Target<'a>,
    pub(crate) resource: &'a Arc<Served>,
}

//! Who may have policies read parameters. A policy can show what it reads in its messages, and write it into objects: whoever writes a policy, or
//! binds one, must be able to read that himself (upstream: `registry/admissionregistration/validatingadmissionpolicy/authz.go` and its kin).

use std::sync::Arc;

use apimachinery::field::{Error, Errors, Path};
use apimachinery::gvk::GroupVersion;
use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};
use serde_json::Value;

use super::params;
use crate::admission::{find, text};
use crate::authn::MASTERS;
use crate::authz::{Attributes, Authorizer};

const GROUP: &str = "admissionregistration.k8s.io";
/// The kinds of bindings, and what they bind.
const BINDINGS: [(&str, &str); 2] = [
    ("validatingadmissionpolicybindings", "validatingadmissionpolicies"),
    ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"),
];

pub(in crate::admission) struct ParameterAccess(pub(in crate::admission) Arc<Authorizer>);

#[async_trait]
impl Admission for ParameterAccess {
    fn name(&self) -> &'static str {
        "PolicyParameterAccess"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        let plural = &*a.resource.def.plural;
        let names_parameters = BINDINGS.iter().any(|(bindings, policies)| plural == *bindings || plural == *policies);
        let writes = matches!(a.operation, Operation::Create | Operation::Update);
        writes && a.subresource.is_empty() && a.resource.def.group == GROUP && names_parameters
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(object) = a.object().filter(|_| !a.user.groups.iter().any(|group| group == MASTERS)) else { return Ok(()) };
        let bound = BINDINGS.iter().find(|(bindings, _)| a.resource.def.plural == *bindings);
        let refused = match bound {
            Some((_, policies)) => self.refuse_binding(a, object, policies).await,
            None => self.refuse_policy(a, object).await,
        };
        let Some((field, why)) = refused else { return Ok(()) };
        let errors = Errors::from(vec![Error::forbidden(&Path::new("spec").child(field), why)]);
        Err(Status::invalid(GROUP, &a.resource.def.kind, meta::name(object), &errors))
    }
}

impl ParameterAccess {
    /// Who writes a policy reads all parameters of its kind.
    async fn refuse_policy(&self, a: &Request<'_>, policy: &Value) -> Option<(&'static str, String)> {
        let kind = &policy["spec"]["paramKind"];
        if !kind.is_object() || a.old.is_some_and(|old| old["spec"]["paramKind"] == *kind) {
            return None;
        }
        if self.allows(a, kind, ("get", "*", "*")).await {
            return None;
        }
        let (user, version, kind) = (&a.user.name, text(kind, "/apiVersion"), text(kind, "/kind"));
        let what = format!("all objects of the referenced paramKind (kind={kind}, apiVersion={version})");
        Some(("paramKind", format!("user {user:?} must have \"get\" permission on {what}")))
    }

    /// Who binds a policy reads the parameters that the binding names.
    async fn refuse_binding(&self, a: &Request<'_>, binding: &Value, policies: &str) -> Option<(&'static str, String)> {
        let reference = &binding["spec"]["paramRef"];
        let same = |field: &str| a.old.is_some_and(|old| old["spec"][field] == binding["spec"][field]);
        if !reference.is_object() || same("paramRef") && same("policyName") {
            return None;
        }
        let policy = find(a, GROUP, policies, "", text(binding, "/spec/policyName")).await.unwrap_or_default();
        let name = text(reference, "/name");
        let verb = if name.is_empty() { "list" } else { "get" };
        if self.allows(a, &policy["spec"]["paramKind"], (verb, text(reference, "/namespace"), name)).await {
            return None;
        }
        let user = &a.user.name;
        Some(("paramRef", format!("user {user:?} does not have \"{verb}\" permission on the object referenced by paramRef")))
    }

    /// Whether the user may read parameters of a kind. Of one that nobody knows they need to read everything that it could be.
    async fn allows(&self, a: &Request<'_>, kind: &Value, (verb, namespace, name): (&str, &str, &str)) -> bool {
        let (api_version, kind) = (text(kind, "/apiVersion"), text(kind, "/kind"));
        let known = GroupVersion::parse(api_version).ok().filter(|known| !known.version.is_empty());
        let (group, version) = known.as_ref().map_or(("*", "*"), |known| (known.group.as_str(), known.version.as_str()));
        let served = params::find(a, api_version, kind);
        let resource = served.as_ref().map_or("*", |served| &*served.def.plural);
        let base = Attributes::new(a.user);
        let asked = Attributes { verb, group, version, resource, namespace, name, is_resource: true, ..base };
        self.0.allows(a.registry, &asked).await
    }
}

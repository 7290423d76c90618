//! MutatingAdmissionPolicy: changes objects by configurations that are laid over them, and by JSON patches.

use std::sync::Arc;

use apimachinery::status::Cause;
use apimachinery::{Reason, Status};
use async_trait::async_trait;
use registry::{Admission, Registry, Request};
use serde_json::Value;

use super::definition::{Mutation, Policy};
use super::evaluation::Sight;
use super::{Invocation, Policies, patch};
use crate::admission::criteria::Match;
use crate::admission::forbidden;
use crate::authz::Authorizer;

/// The plugin.
pub(in crate::admission) struct MutatingAdmissionPolicy {
    policies: Policies,
    authorizer: Arc<Authorizer>,
}

impl MutatingAdmissionPolicy {
    const NAME: &str = "MutatingAdmissionPolicy";

    pub(in crate::admission) fn new(authorizer: Arc<Authorizer>) -> Self {
        let policies = Policies::new("mutatingadmissionpolicies", "mutatingadmissionpolicybindings");
        Self { policies, authorizer }
    }

    /// Whether the match conditions of a policy hold.
    async fn holds(&self, invocation: &Invocation, a: &Request<'_>) -> Result<bool, Stop> {
        let sight = Sight::new(&invocation.policy, a, invocation.version.served(a), &self.authorizer).await;
        let sight = sight.map_err(Stop::Status)?;
        sight.settle(|| sight.holds(&invocation.policy, invocation.param.as_ref())).await.map_err(Stop::Denied)
    }

    /// The object after one mutation, none when it changes nothing.
    async fn mutated(&self, invocation: &Invocation, mutation: &Mutation, a: &Request<'_>) -> Result<Option<Value>, Stop> {
        let (policy, version) = (&*invocation.policy, invocation.version.served(a));
        let sight = Sight::new(policy, a, version, &self.authorizer).await.map_err(Stop::Status)?;
        let Some(object) = sight.object() else { return Ok(None) };
        let mutated = || {
            let mut evaluation = sight.evaluation(policy, invocation.param.as_ref())?;
            let (Mutation::Apply(expression) | Mutation::JsonPatch(expression)) = mutation;
            let made = evaluation.evaluate(expression).map_err(|failure| failure.to_string())?;
            match mutation {
                Mutation::Apply(_) => {
                    let schema = version.body_schema(a.subresource).ok_or_else(|| "there is no schema".to_owned())?;
                    patch::apply(schema.types(), object, &made).map(Some)
                }
                Mutation::JsonPatch(_) => patch::json_patch(object, &made),
            }
        };
        sight.settle(mutated).await.map_err(Stop::Denied)
    }

    /// Evaluates a policy; whether it has changed the object.
    async fn run(&self, invocation: &Invocation, a: &mut Request<'_>) -> Result<bool, Stop> {
        let mut changed = false;
        for mutation in &invocation.policy.mutations {
            let Some(object) = self.mutated(invocation, mutation, a).await? else { continue };
            let replaced = match &invocation.version {
                Match::Asked => a.replace(a.resource, object).await,
                Match::Other(served) => a.replace(served, object).await,
            };
            changed |= replaced.map_err(|status| Stop::Denied(status.message))?;
        }
        Ok(changed)
    }
}

/// Why a policy does not get on.
enum Stop {
    /// Its failure policy says what comes of it.
    Denied(String),
    /// Nothing that a policy could be meant to allow.
    Status(Status),
}

#[async_trait]
impl Admission for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        self.policies.handles(a)
    }

    fn sees_all(&self, registry: &Registry) -> bool {
        self.policies.sees_all(registry)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        let (invocations, misfits) = self.policies.met_by(a).await;
        let mut refused: Vec<String> = misfits
            .into_iter()
            .map(|misfit| denied(&misfit.policy, misfit.binding.as_ref().map(|binding| &*binding.name), &misfit.why))
            .collect();
        let again = a.is_reinvoked();
        if again {
            let object = a.object().cloned();
            a.invoked(Self::NAME).begin_again(object.as_ref());
        }
        for invocation in &invocations {
            let key = invocation.key();
            let outcome = match self.holds(invocation, a).await {
                Ok(true) if again && !a.invoked(Self::NAME).is_due(&key) => continue,
                Ok(true) => self.run(invocation, a).await,
                Ok(false) => continue,
                Err(stop) => Err(stop),
            };
            match outcome {
                Ok(true) => {
                    a.invoked(Self::NAME).changed();
                    a.reinvoke();
                }
                Ok(false) => {}
                Err(Stop::Status(status)) => return Err(status),
                Err(Stop::Denied(_)) if invocation.policy.fails_open => continue,
                Err(Stop::Denied(why)) => refused.push(denied(&invocation.policy, Some(&invocation.binding.name), &why)),
            }
            if invocation.policy.is_reinvocable {
                a.invoked(Self::NAME).called(&key);
            }
        }
        if !invocations.is_empty() && !again {
            let object = a.object().cloned();
            a.invoked(Self::NAME).leave(object.as_ref());
        }
        if refused.is_empty() { Ok(()) } else { Err(refusal(a, refused)) }
    }
}

fn denied(policy: &Policy, binding: Option<&str>, why: &str) -> String {
    match binding {
        Some(binding) => format!("policy '{}' with binding '{binding}' denied request: {why}", policy.name),
        None => format!("policy \"{}\" denied request: {why}", policy.name),
    }
}

/// The answer to a request that is refused: the message of the first refusal, and all as causes.
fn refusal(a: &Request<'_>, messages: Vec<String>) -> Status {
    let mut status = forbidden(a, "admission request denied by policy");
    status.reason = Reason::Invalid;
    status.message = messages.first().cloned().unwrap_or_default();
    let causes = messages.into_iter().map(|message| Cause { message, ..Cause::default() });
    status.details.get_or_insert_default().causes.extend(causes);
    status
}

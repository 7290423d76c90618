//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: rules in CEL that refuse and change objects (KEP-3488, KEP-3962).
//!
//! A policy says what it looks at; bindings put it in force, for all that it matches or less, each with its parameters. Policies and
//! bindings are compiled once for each change ([`super::current`]). Which policies, bindings and parameters a request meets is found
//! out here for both kinds; what they then do stands in [`validating`] and [`mutating`].

mod access;
mod declared;
mod definition;
mod evaluation;
mod mutating;
mod params;
mod patch;
pub(crate) mod status;
mod validating;

use std::sync::Arc;

use registry::{Registry, Request};
use serde_json::Value;

pub(super) use access::ParameterAccess;
pub(super) use mutating::MutatingAdmissionPolicy;
pub(super) use validating::ValidatingAdmissionPolicy;

use super::criteria::Match;
use super::current::{Current, is_exempt};
use definition::{Binding, Policy};

/// The policies of a kind with their bindings.
struct Policies {
    policies: Current<Policy>,
    bindings: Current<Binding>,
}

/// A policy that is to be evaluated.
struct Invocation {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    /// The version of the object that it speaks of.
    version: Match,
    param: Option<Value>,
}

impl Invocation {
    /// The only one with this policy, binding and parameter.
    fn key(&self) -> String {
        let param = self.param.as_ref().map(apimachinery::meta::key).unwrap_or_default();
        format!("{}/{}/{param}", self.policy.name, self.binding.name)
    }
}

/// A policy, or a binding, that cannot be evaluated.
struct Misfit {
    policy: Arc<Policy>,
    binding: Option<Arc<Binding>>,
    why: String,
}

impl Policies {
    fn new(policies: &'static str, bindings: &'static str) -> Self {
        Self { policies: Current::new(policies, Policy::new), bindings: Current::new(bindings, Binding::new) }
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        !is_exempt(a) && self.sees_all(a.registry)
    }

    /// A policy without a binding does nothing.
    fn sees_all(&self, registry: &Registry) -> bool {
        !self.bindings.get(registry).is_empty() && !self.policies.get(registry).is_empty()
    }

    /// What a request meets, and what cannot be evaluated and whose failure matters.
    async fn met_by(&self, a: &Request<'_>) -> (Vec<Invocation>, Vec<Misfit>) {
        let (mut invocations, mut misfits) = (Vec::new(), Vec::new());
        let bindings = self.bindings.get(a.registry);
        let policies = self.policies.get(a.registry);
        for item in policies.iter() {
            let policy = &item.value;
            let misfit =
                |why: String| Misfit { policy: policy.clone(), binding: None, why: format!("failed to configure policy: {why}") };
            let version = match matches(&policy.criteria, a) {
                Ok(Some(version)) => version,
                Ok(None) => continue,
                Err(why) => {
                    misfits.push(misfit(why));
                    continue;
                }
            };
            for binding in bindings.iter().map(|item| &item.value).filter(|binding| binding.policy == policy.name) {
                match bound(policy, binding, a).await {
                    Ok(params) => invocations.extend(params.into_iter().map(|param| Invocation {
                        policy: policy.clone(),
                        binding: binding.clone(),
                        version: version.clone(),
                        param,
                    })),
                    Err(why) => misfits.push(Misfit {
                        policy: policy.clone(),
                        binding: Some(binding.clone()),
                        why: format!("failed to configure binding: {why}"),
                    }),
                }
            }
        }
        misfits.retain(|misfit| !misfit.policy.fails_open);
        (invocations, misfits)
    }
}

fn matches(criteria: &Result<super::criteria::Criteria, String>, a: &Request<'_>) -> Result<Option<Match>, String> {
    criteria.as_ref().map_err(String::clone)?.matches(a).map_err(|status| status.message)
}

/// The parameters with which a binding puts a policy in force for a request: none of them when it does not.
async fn bound(policy: &Policy, binding: &Binding, a: &Request<'_>) -> Result<Vec<Option<Value>>, String> {
    if let Some(criteria) = &binding.criteria
        && matches(criteria, a)?.is_none()
    {
        return Ok(Vec::new());
    }
    params::collect(policy, binding, a).await
}

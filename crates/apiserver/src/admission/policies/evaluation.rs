//! What the expressions of a policy see of a request.

use std::borrow::Cow;
use std::sync::Arc;

use apimachinery::Status;
use cel::{Budget, Definitions, Environment, Question};
use registry::{Request, Served};
use serde_json::Value;

use super::definition::{Policy, VARIABLES};
use crate::admission::attributes::Attributes;
use crate::admission::authority::{Authority, question};
use crate::admission::conditions::{Expression, Failure, value};
use crate::admission::criteria::{is_namespace, namespace_object};
use crate::authz::Authorizer;

/// What all expressions of a policy may cost for one object (upstream: `RuntimeCELCostBudget`).
const BUDGET: u64 = 10_000_000;

/// What a policy sees.
pub(super) struct Sight<'r> {
    object: Option<Cow<'r, Value>>,
    old: Option<Cow<'r, Value>>,
    request: Value,
    namespace: Option<Value>,
    question: Arc<Question>,
    authority: Authority<'r>,
}

impl<'r> Sight<'r> {
    /// Of a request, as a version of its resource. What the policy does not speak of is not looked up.
    pub(super) async fn new(
        policy: &Policy,
        a: &'r Request<'_>,
        version: &Served,
        authorizer: &'r Authorizer,
    ) -> Result<Self, Status> {
        let (object, old) = a.seen_as(version).await?;
        let in_namespace = policy.uses_namespace && !a.namespace.is_empty() && !is_namespace(a);
        Ok(Self {
            object,
            old,
            request: if policy.uses_request { Attributes::new(a, version).to_value() } else { Value::Null },
            namespace: if in_namespace { Some(namespace_object(a)?) } else { None },
            question: question(a),
            authority: Authority::new(authorizer, a),
        })
    }

    /// The object, for patches.
    pub(super) fn object(&self) -> Option<&Value> {
        self.object.as_deref()
    }

    fn variables<'v>(&'v self, param: Option<&'v Value>) -> [(&'static str, cel::Value<'v>); 7] {
        [
            ("object", value(self.object.as_deref())),
            ("oldObject", value(self.old.as_deref())),
            ("request", value(Some(&self.request))),
            ("params", value(param)),
            ("namespaceObject", value(self.namespace.as_ref())),
            ("authorizer", cel::Value::Question(self.question.clone())),
            (VARIABLES, cel::Value::Null),
        ]
    }

    /// What an evaluation comes to, once the authorizers have answered all that it asks. It may be done several times.
    pub(super) async fn settle<T>(&self, evaluate: impl FnMut() -> T) -> T {
        self.authority.settle(evaluate).await
    }

    /// Whether the match conditions hold.
    pub(super) fn holds(&self, policy: &Policy, param: Option<&Value>) -> Result<bool, String> {
        if policy.conditions.is_empty() {
            return Ok(true);
        }
        policy.conditions.hold(&self.variables(param), &self.authority)
    }

    /// Evaluates expressions of a policy one after another, which share their budget and what the policy's variables are.
    pub(super) fn evaluation<'v>(&'v self, policy: &'v Policy, param: Option<&'v Value>) -> Result<Evaluation<'v>, String> {
        let variables = policy.variables.as_ref().map_err(String::clone)?;
        Ok(Evaluation {
            variables: self.variables(param),
            definitions: Definitions::new(VARIABLES, variables),
            authority: &self.authority,
            budget: Budget::new(BUDGET),
        })
    }
}

/// An evaluation under way.
pub(super) struct Evaluation<'v> {
    variables: [(&'static str, cel::Value<'v>); 7],
    definitions: Definitions<'v>,
    authority: &'v Authority<'v>,
    budget: Budget,
}

impl<'v> Evaluation<'v> {
    pub(super) fn evaluate(&mut self, expression: &'v Expression) -> Result<cel::Value<'v>, Failure> {
        let given = Environment {
            variables: &self.variables,
            definitions: Some(&mut self.definitions),
            authorizer: Some(self.authority),
        };
        expression.evaluate(given, &mut self.budget)
    }
}

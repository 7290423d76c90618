//! ValidatingAdmissionPolicy: refuses, warns, and tells the audit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apimachinery::status::Cause;
use apimachinery::{Reason, Status};
use async_trait::async_trait;
use registry::{Admission, Registry, Request};
use serde_json::{Value, json};

use super::definition::{Binding, Policy, Validation};
use super::evaluation::{Evaluation, Sight};
use super::{Invocation, Policies};
use crate::admission::forbidden;
use crate::authz::Authorizer;
use crate::metrics::admission as metrics;

/// Most of a message that an expression makes, and of an annotation.
const MAX_MESSAGE: usize = 5 * 1024;
const MAX_ANNOTATION: usize = 10 * 1024;

/// The plugin.
pub(in crate::admission) struct ValidatingAdmissionPolicy {
    policies: Policies,
    authorizer: Arc<Authorizer>,
}

impl ValidatingAdmissionPolicy {
    pub(in crate::admission) fn new(authorizer: Arc<Authorizer>) -> Self {
        let policies = Policies::new("validatingadmissionpolicies", "validatingadmissionpolicybindings");
        Self { policies, authorizer }
    }
}

/// Something that a policy has against a request.
struct Denial {
    /// The number of the rule.
    index: usize,
    message: String,
    reason: Option<String>,
    /// It could not be evaluated.
    failed: bool,
}

/// What a policy says of a request with one parameter.
#[derive(Default)]
struct Verdict {
    denials: Vec<Denial>,
    annotations: Vec<(String, String)>,
    /// Annotations that could not be made: they refuse, whatever the binding says.
    failures: Vec<String>,
}

/// The first thing that refuses the request: who says it, and what.
type Refusal = (String, Option<String>);

#[async_trait]
impl Admission for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        self.policies.handles(a)
    }

    fn sees_all(&self, registry: &Registry) -> bool {
        self.policies.sees_all(registry)
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let (invocations, misfits) = self.policies.met_by(a).await;
        let mut refused: Option<Refusal> =
            misfits.first().map(|misfit| (denied(&misfit.policy, misfit.binding.as_deref(), &misfit.why), None));
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for invocation in &invocations {
            let Invocation { policy, binding, .. } = invocation;
            let begun = Instant::now();
            let verdict = judge(invocation, a, &self.authorizer).await?;
            let took = begun.elapsed();
            for denial in verdict.denials {
                if let Some(refusal) = act(a, policy, binding, denial, took) {
                    refused.get_or_insert(refusal);
                }
            }
            for why in verdict.failures {
                refused.get_or_insert((denied(policy, Some(binding), &why), None));
            }
            for (key, value) in verdict.annotations {
                let values = annotations.entry(format!("{}/{key}", policy.name)).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
        for (key, values) in annotations {
            a.context().annotations.add(key, values.join(", "));
        }
        refused.map_or(Ok(()), |(message, reason)| Err(refusal(a, message, reason.as_deref())))
    }
}

fn denied(policy: &Policy, binding: Option<&Binding>, why: &str) -> String {
    match binding {
        Some(binding) => {
            format!("ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {why}", policy.name, binding.name)
        }
        None => format!("ValidatingAdmissionPolicy '{}' denied request: {why}", policy.name),
    }
}

/// Does what the binding wants done of a denial; what refuses the request, if that is wanted.
fn act(a: &Request<'_>, policy: &Policy, binding: &Binding, denial: Denial, took: Duration) -> Option<Refusal> {
    let mut refused = None;
    for action in &binding.actions {
        let label = ["deny", "warn", "audit"].into_iter().find(|label| label.eq_ignore_ascii_case(action));
        if let Some(label) = label {
            metrics::checked(&policy.name, &binding.name, denial.failed, label, took);
        }
        match action.as_str() {
            "Deny" => refused = Some((denied(policy, Some(binding), &denial.message), denial.reason.clone())),
            "Warn" => a.context().warnings.push(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, denial.message
            )),
            "Audit" => {
                let failure = json!([{"message": denial.message, "policy": policy.name, "binding": binding.name,
                    "expressionIndex": denial.index, "validationActions": binding.actions}]);
                a.context().annotations.add("validation.policy.admission.k8s.io/validation_failure", failure.to_string());
            }
            _ => {}
        }
    }
    refused
}

/// The answer to a request that is refused: the reason of the policy with the code that belongs to it.
fn refusal(a: &Request<'_>, message: String, reason: Option<&str>) -> Status {
    let reason = Reason::from(reason.filter(|reason| !reason.is_empty()).unwrap_or("Invalid"));
    let mut status = forbidden(a, &message);
    status.code = match reason {
        Reason::Forbidden => 403,
        Reason::Unauthorized => 401,
        Reason::RequestEntityTooLarge => 413,
        _ => 422,
    };
    status.reason = reason;
    status.details.get_or_insert_default().causes.push(Cause { message, ..Cause::default() });
    status
}

/// Evaluates a policy.
async fn judge(invocation: &Invocation, a: &Request<'_>, authorizer: &Authorizer) -> Result<Verdict, Status> {
    let (policy, param) = (&*invocation.policy, invocation.param.as_ref());
    let sight = Sight::new(policy, a, invocation.version.served(a), authorizer).await?;
    Ok(sight.settle(|| verdict(policy, param, &sight)).await)
}

fn verdict(policy: &Policy, param: Option<&Value>, sight: &Sight<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let failed =
        |index: usize, why: String| (!policy.fails_open).then_some(Denial { index, message: why, reason: None, failed: true });
    match sight.holds(policy, param) {
        Ok(true) => {}
        Ok(false) => return verdict,
        Err(why) => {
            verdict.denials.extend(failed(0, why));
            return verdict;
        }
    }
    let mut evaluation = match sight.evaluation(policy, param) {
        Ok(evaluation) => evaluation,
        Err(why) => {
            verdict.denials.extend(failed(0, why));
            return verdict;
        }
    };
    for (index, validation) in policy.validations.iter().enumerate() {
        match evaluation.evaluate(&validation.expression) {
            Ok(cel::Value::Bool(true)) => {}
            Ok(_) => {
                let message = message(&mut evaluation, validation);
                verdict.denials.push(Denial { index, message, reason: validation.reason.clone(), failed: false });
            }
            Err(failure) => verdict.denials.extend(failed(index, failure.to_string())),
        }
    }
    annotate(policy, &mut evaluation, &mut verdict);
    verdict
}

/// What is told of a rule that does not hold: what its expression for that says in one line, its message, or the rule.
fn message<'v>(evaluation: &mut Evaluation<'v>, validation: &'v Validation) -> String {
    let made = validation.message_expression.as_ref().and_then(|expression| {
        let made = evaluation.evaluate(expression).ok()?;
        made.as_text().map(|text| text.trim().to_owned())
    });
    let made = made.filter(|text| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n'));
    made.unwrap_or_else(|| match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.expression.source),
        message => message.to_owned(),
    })
}

fn annotate<'v>(policy: &'v Policy, evaluation: &mut Evaluation<'v>, verdict: &mut Verdict) {
    for (key, expression) in &policy.annotations {
        match evaluation.evaluate(expression) {
            Ok(cel::Value::Null) => {}
            Ok(value) => match value.as_text().map(str::trim) {
                Some("") => {}
                Some(text) => {
                    let mut text = text.to_owned();
                    text.truncate(text.floor_char_boundary(MAX_ANNOTATION));
                    verdict.annotations.push((key.clone(), text));
                }
                None => verdict.failures.push(format!(
                    "valueExpression '{}' resulted in unsupported return type. Return type must be either string or null.",
                    expression.source
                )),
            },
            Err(failure) if !policy.fails_open => verdict.failures.push(failure.to_string()),
            Err(_) => {}
        }
    }
}

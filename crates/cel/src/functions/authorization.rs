//! The functions that put questions of who may do what together.

use std::sync::Arc;

use super::{Function, method};
use crate::authorization::{Authorize, Decision, Question};
use crate::error::Error;
use crate::value::Value;

/// The function that asks.
pub(crate) const CHECK: &str = "check";
/// What an answer costs.
pub(crate) const COST: u64 = 350_000;

type Change = fn(&mut Question, &[String]);

/// A change of the question by texts.
fn ask<'a>(arguments: &[Value<'a>], good: fn(&Question) -> bool, change: Change) -> Result<Value<'a>, Error> {
    let [Value::Question(question), texts @ ..] = arguments else { return Err(Error::NoOverload) };
    let text = |value: &Value<'a>| value.as_text().map(str::to_owned);
    let texts: Option<Vec<String>> = texts.iter().map(text).collect();
    let (Some(texts), true) = (texts, good(question)) else { return Err(Error::NoOverload) };
    let mut question = Question::clone(question);
    change(&mut question, &texts);
    Ok(Value::Question(Arc::new(question)))
}

fn decision<'v>(arguments: &'v [Value<'_>]) -> Result<&'v Decision, Error> {
    match arguments {
        [Value::Decision(decision)] => Ok(decision),
        _ => Err(Error::NoOverload),
    }
}

fn is_new(question: &Question) -> bool {
    question.path.is_none() && question.group.is_none()
}

fn is_group(question: &Question) -> bool {
    question.group.is_some() && question.resource.is_empty()
}

fn is_resource(question: &Question) -> bool {
    question.group.is_some() && !question.resource.is_empty()
}

pub(super) const FUNCTIONS: &[Function] = &[
    method("serviceAccount", 3, |a| {
        ask(a, is_new, |question, texts| question.service_account = Some((texts[0].clone(), texts[1].clone())))
    }),
    method("path", 2, |a| ask(a, is_new, |question, texts| question.path = Some(texts[0].clone()))),
    method("group", 2, |a| ask(a, is_new, |question, texts| question.group = Some(texts[0].clone()))),
    method("resource", 2, |a| ask(a, is_group, |question, texts| question.resource.clone_from(&texts[0]))),
    method("subresource", 2, |a| ask(a, is_resource, |question, texts| question.subresource.clone_from(&texts[0]))),
    method("namespace", 2, |a| ask(a, is_resource, |question, texts| question.namespace.clone_from(&texts[0]))),
    method("name", 2, |a| ask(a, is_resource, |question, texts| question.name.clone_from(&texts[0]))),
    method("fieldSelector", 2, |a| ask(a, is_resource, |question, texts| question.fields.clone_from(&texts[0]))),
    method("labelSelector", 2, |a| ask(a, is_resource, |question, texts| question.labels.clone_from(&texts[0]))),
    // The scope knows who answers: see `check`.
    method(CHECK, 2, |_| Err(Error::NoOverload)),
    method("allowed", 1, |a| decision(a).map(|decision| Value::Bool(decision.allowed))),
    method("reason", 1, |a| decision(a).map(|decision| Value::text(decision.reason.clone()))),
    method("errored", 1, |a| decision(a).map(|decision| Value::Bool(decision.error.is_some()))),
    method("error", 1, |a| decision(a).map(|decision| Value::text(decision.error.clone().unwrap_or_default()))),
];

/// Asks.
pub(crate) fn check<'a>(authorizer: Option<&dyn Authorize>, arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match (authorizer, arguments) {
        (Some(authorizer), [Value::Question(question), Value::Text(verb)])
            if question.path.is_some() || is_resource(question) =>
        {
            Ok(Value::Decision(Arc::new(authorizer.check(question, verb))))
        }
        _ => Err(Error::NoOverload),
    }
}

//! Who answers `authorizer...check(...)` of an expression: the authorizers of the API server, about the user of the request.
//!
//! Expressions do not wait, and a webhook that authorizes has to be waited for. So what is asked is written down, asked when the
//! expressions have been evaluated, and then they are evaluated again, until nothing is asked that has no answer yet. Answers are good for the one
//! evaluation, as upstream's (`NewCachedAuthorizer`).

use std::sync::Arc;

use cel::{Authorize, Decision, Question};
use futures::FutureExt as _;
use parking_lot::Mutex;
use registry::{Registry, Request, User};

use super::criteria::namespace_name;
use super::current::name;
use crate::authz::{self, Attributes, Authorizer, Selecting};

/// Answers about the user of a request.
pub(super) struct Authority<'a> {
    authorizer: &'a Authorizer,
    registry: &'a Registry,
    user: &'a User,
    asked: Mutex<Vec<Asked>>,
}

/// What somebody has to be waited for to answer.
struct Asked {
    question: Question,
    verb: String,
    answer: Option<Decision>,
}

impl<'a> Authority<'a> {
    pub(super) fn new(authorizer: &'a Authorizer, a: &Request<'a>) -> Self {
        Self { authorizer, registry: a.registry, user: a.user, asked: Mutex::default() }
    }

    /// What an evaluation comes to that asks this authority, once all that it asks is answered. It may be done several times.
    pub(super) async fn settle<T>(&self, mut evaluate: impl FnMut() -> T) -> T {
        loop {
            let outcome = evaluate();
            let open: Vec<(Question, String)> = {
                let asked = self.asked.lock();
                let open = asked.iter().filter(|asked| asked.answer.is_none());
                open.map(|asked| (asked.question.clone(), asked.verb.clone())).collect()
            };
            if open.is_empty() {
                return outcome;
            }
            drop(outcome);
            for (question, verb) in open {
                let answer = self.decide(&question, &verb).await;
                let mut asked = self.asked.lock();
                let known = asked.iter_mut().find(|asked| asked.question == question && asked.verb == verb);
                known.into_iter().for_each(|asked| asked.answer = Some(answer.clone()));
            }
        }
    }

    async fn decide(&self, question: &Question, verb: &str) -> Decision {
        let account = question.service_account.as_ref().map(|(namespace, name)| User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: [
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ]
            .into(),
            ..User::default()
        });
        let selecting = Selecting::of_texts(&question.fields, &question.labels);
        let attributes = Attributes {
            verb,
            group: question.group.as_deref().unwrap_or_default(),
            version: "*",
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: question.path.as_deref().unwrap_or_default(),
            is_resource: question.path.is_none(),
            selecting: Some(&selecting),
            ..Attributes::new(account.as_ref().unwrap_or(self.user))
        };
        let authz::Decision { allowed, reason, error, .. } = self.authorizer.authorize(self.registry, &attributes).await;
        Decision { allowed, reason: reason.to_string(), error }
    }
}

/// `authorizer`, before anything is asked.
pub(super) fn question(a: &Request<'_>) -> Arc<Question> {
    let about = Question {
        group: Some(a.resource.def.group.to_string()),
        resource: a.resource.def.plural.to_string(),
        subresource: a.subresource.to_owned(),
        namespace: namespace_name(a).to_owned(),
        name: name(a).to_owned(),
        ..Question::default()
    };
    Arc::new(Question { about_request: Some(Arc::new(about)), ..Question::default() })
}

impl Authorize for Authority<'_> {
    fn check(&self, question: &Question, verb: &str) -> Decision {
        // What only looks at what is at hand answers at once.
        if !self.authorizer.waits()
            && let Some(decision) = self.decide(question, verb).now_or_never()
        {
            return decision;
        }
        let mut asked = self.asked.lock();
        let known = asked.iter().find(|asked| asked.question == *question && asked.verb == verb);
        if let Some(answer) = known.and_then(|asked| asked.answer.clone()) {
            return answer;
        }
        if known.is_none() {
            asked.push(Asked { question: question.clone(), verb: verb.to_owned(), answer: None });
        }
        Decision { error: Some("the authorizer has no answer yet".to_owned()), ..Decision::default() }
    }
}

//! Who answers `authorizer...check(...)` of an expression: the authorizers of the API server, about the user of the request.

use std::sync::Arc;

use cel::{Authorize, Decision, Question};
use futures::FutureExt as _;
use registry::{Registry, Request, User};

use super::criteria::namespace_name;
use super::current::name;
use crate::authz::{Attributes, Authorizer};

/// Answers about the user of a request.
pub(super) struct Authority<'a> {
    authorizer: &'a Authorizer,
    registry: &'a Registry,
    user: &'a User,
}

impl<'a> Authority<'a> {
    pub(super) fn new(authorizer: &'a Authorizer, a: &Request<'a>) -> Self {
        Self { authorizer, registry: a.registry, user: a.user }
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
            ..Attributes::new(account.as_ref().unwrap_or(self.user))
        };
        // All that it looks at is at hand, so that it answers at once.
        match self.authorizer.decide(self.registry, &attributes).now_or_never() {
            Some(Ok(())) => Decision { allowed: true, ..Decision::default() },
            Some(Err(status)) => Decision { reason: status.message, ..Decision::default() },
            None => Decision { error: Some("the authorizer has no answer yet".to_owned()), ..Decision::default() },
        }
    }
}

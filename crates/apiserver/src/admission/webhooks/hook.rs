//! A webhook of a configuration, ready to be called.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, meta};
use registry::Request;
use serde_json::Value;

use crate::admission::attributes::Attributes;
use crate::admission::authority::{Authority, question};
use crate::admission::conditions::{self, Conditions};
use crate::admission::criteria::{Criteria, Match};
use crate::authz::Authorizer;
use crate::remote::{Endpoint, Remotes, Target};

/// When a configuration says nothing, which is an old one.
const TIMEOUT_SECONDS: u64 = 10;

/// A webhook.
pub(super) struct Hook {
    pub(super) configuration: String,
    pub(super) name: String,
    /// It is the only one with this key.
    pub(super) key: String,
    /// Whom to call, or why nobody can be.
    pub(super) endpoint: Result<Arc<Endpoint>, String>,
    criteria: Result<Criteria, String>,
    conditions: Conditions,
    /// A failed call does not matter.
    pub(super) fails_open: bool,
    pub(super) timeout: Duration,
    /// It can be called in a dry run.
    pub(super) bears_dry_run: bool,
    /// It is called again when the object changes after it.
    pub(super) is_reinvocable: bool,
    /// Of AdmissionReview, the first that it and this server know.
    pub(super) version: &'static str,
}

impl Hook {
    /// Those of a configuration, in its order.
    pub(super) fn all(configuration: &str, object: &Value, remotes: &Remotes) -> Vec<Self> {
        let hooks = object["webhooks"].as_array().into_iter().flatten().enumerate();
        let uid = meta::uid(object);
        hooks.map(|(index, hook)| Self::new(configuration, &format!("{uid}/{index}"), hook, remotes)).collect()
    }

    fn new(configuration: &str, key: &str, hook: &Value, remotes: &Remotes) -> Self {
        let target = Target::of_client_config(&hook["clientConfig"]);
        let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten();
        let known = |version: &Value| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        };
        Self {
            configuration: configuration.to_owned(),
            name: hook["name"].as_str().unwrap_or_default().to_owned(),
            key: key.to_owned(),
            endpoint: target.map(|target| remotes.endpoint(&target)).map_err(|error| error.to_string()),
            criteria: Criteria::of_webhook(hook),
            conditions: Conditions::new(&hook["matchConditions"], &conditions::REQUEST),
            fails_open: hook["failurePolicy"] == "Ignore",
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(TIMEOUT_SECONDS)),
            bears_dry_run: matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            is_reinvocable: hook["reinvocationPolicy"] == "IfNeeded",
            version: versions.into_iter().find_map(known).unwrap_or("v1"),
        }
    }

    /// The version in which it wants to see the request, none when the request does not concern it.
    pub(super) async fn matches(&self, a: &Request<'_>, authorizer: &Authorizer) -> Result<Option<Match>, Status> {
        let criteria = self.criteria.as_ref().map_err(Status::internal)?;
        let Some(found) = criteria.matches(a)? else { return Ok(None) };
        if self.conditions.is_empty() {
            return Ok(Some(found));
        }
        let version = found.served(a);
        let (object, old) = a.seen_as(version).await?;
        let request = Attributes::new(a, version).to_value();
        let (question, authority) = (question(a), Authority::new(authorizer, a));
        let held = authority.settle(|| {
            let variables = [
                ("object", conditions::value(object.as_deref())),
                ("oldObject", conditions::value(old.as_deref())),
                ("request", conditions::value(Some(&request))),
                ("authorizer", cel::Value::Question(question.clone())),
            ];
            self.conditions.hold(&variables, &authority)
        });
        match held.await {
            Ok(true) => Ok(Some(found.clone())),
            Ok(false) => Ok(None),
            Err(_) if self.fails_open => Ok(None),
            Err(why) => Err(Status::forbidden(&a.resource.group_resource, a.name, why)),
        }
    }
}

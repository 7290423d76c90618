//! A webhook that is asked who may do what: it is sent a SubjectAccessReview (`authorization.k8s.io`).

use std::time::Duration;

use cel::Budget;
use registry::Registry;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::configuration::WebhookOptions;
use super::{Attributes, Opinion, Selecting, Verdict};
use crate::file::FileError;
use crate::kept::{Digest, Kept, digest};
use crate::remote::{self, Limits, Named, Remotes};

/// Answers that are remembered, and how large one may be.
const REMEMBERED: usize = 8192;
const ANSWER: usize = 1 << 20;
/// What match conditions of a question may cost.
const BUDGET: u64 = 2_500_000;

/// Why the webhook has no opinion that counts.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("expression '{0}' must evaluate to bool")]
    NoBool(String),
    #[error("expression '{0}' resulted in error: {1}")]
    Condition(String, cel::Error),
    #[error(transparent)]
    Call(#[from] remote::Error),
    #[error("its answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

/// What it says. A field of another type is no answer, and not the same as a field that is not there: a sloppy "no" would let in.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    allowed: Option<bool>,
    denied: Option<bool>,
    reason: Option<String>,
}

pub(super) struct Webhook {
    named: Named,
    options: WebhookOptions,
    /// By the whole question.
    answers: Kept<Digest, Opinion<'static>>,
}

impl Webhook {
    pub(super) fn new(options: WebhookOptions, remotes: &Remotes) -> Result<Self, FileError> {
        Ok(Self { named: Named::read(&options.file, remotes)?, options, answers: Kept::new(REMEMBERED) })
    }

    /// What the webhook thinks, or its failure policy where it does not answer.
    pub(super) async fn opinion(&self, registry: &Registry, attributes: &Attributes<'_>) -> Opinion<'static> {
        let question = whole(attributes);
        match self.concerns(&question) {
            Ok(true) => {}
            Ok(false) => return Opinion::default(),
            Err(failure) => return self.failed(&failure),
        }
        let text = question.to_string();
        let key = digest(text.as_bytes());
        if let Some(known) = self.answers.get(&key) {
            return known;
        }
        let review = json!({"apiVersion": format!("authorization.k8s.io/{}", self.options.version), "kind": "SubjectAccessReview",
            "spec": spec(&question, &self.options.version)});
        let limits = Limits { time: self.options.timeout, bytes: ANSWER };
        let answer = match self.named.review(registry, &review, limits).await {
            Ok(answer) => answer,
            Err(error) => return self.failed(&error.into()),
        };
        match opinion(&answer["status"]) {
            Err(error) => self.failed(&error.into()),
            Ok(opinion) => {
                if let Some(why) = &opinion.error {
                    tracing::warn!(webhook = self.options.name, %why, "the authorization webhook has given no good answer");
                }
                if let Some(ttl) = self.good_for(&opinion) {
                    let bytes = answer["status"].to_string().len();
                    self.answers.keep(key, opinion.clone(), bytes, ttl);
                }
                opinion
            }
        }
    }

    fn good_for(&self, opinion: &Opinion<'_>) -> Option<Duration> {
        if opinion.verdict == Verdict::Allow { self.options.authorized } else { self.options.unauthorized }
    }

    fn failed(&self, why: &Failure) -> Opinion<'static> {
        tracing::warn!(webhook = self.options.name, %why, "the authorization webhook has not answered");
        let verdict = if self.options.denies_on_failure { Verdict::Deny } else { Verdict::None };
        Opinion { error: Some(why.to_string()), ..Opinion::of(verdict, "") }
    }

    /// Whether all conditions hold. One that does not is enough to say no; otherwise one that says nothing is a failure.
    fn concerns(&self, question: &Value) -> Result<bool, Failure> {
        let (mut budget, mut failure) = (Budget::new(BUDGET), None);
        for (source, program) in &self.options.conditions {
            match program.evaluate(&[("request", cel::Value::of(question, None))], &mut budget) {
                Ok(cel::Value::Bool(false)) => return Ok(false),
                Ok(cel::Value::Bool(true)) => {}
                Ok(_) => failure = Some(Failure::NoBool(source.clone())),
                Err(error) => failure = Some(Failure::Condition(source.clone(), error)),
            }
        }
        failure.map_or(Ok(true), Err)
    }
}

/// The question with all its fields, also empty ones, as match conditions see it.
fn whole(attributes: &Attributes<'_>) -> Value {
    let user = attributes.user;
    let mut question = json!({"user": user.name, "groups": user.groups, "uid": user.uid, "extra": user.extra});
    let (field, about) = match attributes.is_resource {
        true => (
            "resourceAttributes",
            json!({"namespace": attributes.namespace, "verb": attributes.verb, "group": attributes.group,
                "version": attributes.version, "resource": attributes.resource, "subresource": attributes.subresource,
                "name": attributes.name}),
        ),
        false => ("nonResourceAttributes", json!({"path": attributes.path, "verb": attributes.verb})),
    };
    question[field] = about;
    let selecting = attributes.selecting.filter(|_| attributes.is_resource);
    for (name, selector) in selecting.into_iter().flat_map(Selecting::to_attributes) {
        question[field][name] = selector;
    }
    question
}

/// The question as it is sent. The groups had another name once.
fn spec(question: &Value, version: &str) -> Value {
    fn given(value: &Value) -> Option<Value> {
        match value {
            Value::Object(fields) => {
                let fields: Map<_, _> = fields.iter().filter_map(|(key, value)| Some((key.clone(), given(value)?))).collect();
                (!fields.is_empty()).then_some(Value::Object(fields))
            }
            Value::String(text) if text.is_empty() => None,
            Value::Array(items) if items.is_empty() => None,
            other => Some(other.clone()),
        }
    }
    let mut spec = given(question).unwrap_or_default();
    if let (true, Some(fields)) = (version == "v1beta1", spec.as_object_mut())
        && let Some(groups) = fields.remove("groups")
    {
        fields.insert("group".to_owned(), groups);
    }
    spec
}

fn opinion(status: &Value) -> Result<Opinion<'static>, serde_json::Error> {
    // What is a list would be taken for the fields in their order.
    let status =
        if status.is_array() { Err(serde::de::Error::custom("status is a list")) } else { Option::<Status>::deserialize(status) };
    let Status { allowed, denied, reason } = status?.unwrap_or_default();
    let said = |verdict| Opinion::of(verdict, reason.as_deref().unwrap_or_default());
    Ok(match (allowed == Some(true), denied == Some(true)) {
        (true, false) => said(Verdict::Allow),
        (false, true) => said(Verdict::Deny),
        (false, false) => said(Verdict::None),
        // Both at once is nothing that can be meant.
        (true, true) => {
            let why = "webhook subject access review returned both allow and deny response";
            Opinion { error: Some(why.to_owned()), ..said(Verdict::Deny) }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::User;

    #[test]
    fn questions_and_answers() {
        let user = User { name: "jane".into(), groups: vec!["dev".into()], ..User::default() };
        let pods = Attributes {
            verb: "get",
            version: "v1",
            resource: "pods",
            namespace: "n",
            is_resource: true,
            ..Attributes::new(&user)
        };
        assert_eq!(
            spec(&whole(&pods), "v1"),
            json!({"user": "jane", "groups": ["dev"], "resourceAttributes": {"namespace": "n", "verb": "get", "version": "v1", "resource": "pods"}})
        );
        // KEP-4601: webhooks "ensure rawSelector and requirements are not both set", and are told the latter.
        let selecting = Selecting::of_texts("spec.nodeName=a", "app in (x)");
        let selector = |key: &str, value: &str| json!({"requirements": [{"key": key, "operator": "In", "values": [value]}]});
        let sent = spec(&whole(&Attributes { selecting: Some(&selecting), ..pods }), "v1");
        let about = &sent["resourceAttributes"];
        assert_eq!((&about["fieldSelector"], &about["labelSelector"]), (&selector("spec.nodeName", "a"), &selector("app", "x")));
        let path = Attributes { verb: "get", path: "/metrics", ..Attributes::new(&user) };
        assert_eq!(
            spec(&whole(&path), "v1beta1"),
            json!({"user": "jane", "group": ["dev"], "nonResourceAttributes": {"path": "/metrics", "verb": "get"}})
        );
        let check = |status: Value, expected: Opinion<'_>| assert_eq!(opinion(&status).unwrap(), expected, "{status}");
        check(json!({"allowed": true, "reason": "r"}), Opinion::of(Verdict::Allow, "r"));
        check(json!({"allowed": false, "reason": "r"}), Opinion::of(Verdict::None, "r"));
        check(json!({"allowed": false, "denied": true, "reason": "r"}), Opinion::of(Verdict::Deny, "r"));
        check(json!(null), Opinion::default());
        let both = "webhook subject access review returned both allow and deny response".to_owned();
        let contradiction = json!({"allowed": true, "denied": true, "reason": "r"});
        check(contradiction, Opinion { error: Some(both), ..Opinion::of(Verdict::Deny, "r") });
        check(json!({"allowed": null, "denied": true, "reason": null, "evaluationError": "e"}), Opinion::of(Verdict::Deny, ""));
    }

    /// Go's decoder refuses what is of another type, and the failure policy decides.
    #[test]
    fn answers_of_other_types_are_none() {
        let check = |status: Value| assert!(opinion(&status).is_err(), "{status}");
        check(json!({"denied": "true"}));
        check(json!({"denied": 1}));
        check(json!({"allowed": "false"}));
        check(json!({"denied": true, "reason": {}}));
        check(json!([{"denied": true}]));
        check(json!([false, true, ""]));
        check(json!("denied"));
    }
}

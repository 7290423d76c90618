//! Kinds that are answered and never kept: who am I, who is this token, may I, what may I.

use apimachinery::Status;
use http::{Response, StatusCode};
use registry::{Annotations, User};
use serde_json::{Map, Value, json};

use crate::authz::{Attributes, Rule};
use crate::body::{Body, RequestBody};
use crate::call::{Inner, On};
use crate::respond;

impl Inner {
    pub(crate) async fn review(&self, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        let cx = on.context("CreateOptions", false)?;
        let mut review = on.read(&cx, body).await?;
        let status = match &*on.resource.def.kind {
            "TokenReview" => self.token_review(&on.call.annotations, &review).await?,
            "SelfSubjectReview" => json!({"userInfo": user_info(&on.call.user)}),
            "SelfSubjectRulesReview" => self.rules_review(&on.call.user, &review)?,
            "SelfSubjectAccessReview" => self.access_review(&on.call.user, &review).await?,
            "LocalSubjectAccessReview" => {
                if review.pointer("/spec/resourceAttributes/namespace").and_then(Value::as_str).unwrap_or_default()
                    != on.target.namespace
                {
                    return Err(Status::bad_request(format!(
                        "spec.resourceAttributes.namespace must match namespace: {}",
                        on.target.namespace
                    )));
                }
                self.access_review(&reviewed_user(&review)?, &review).await?
            }
            "SubjectAccessReview" => self.access_review(&reviewed_user(&review)?, &review).await?,
            _ => return Err(Status::method_not_allowed()),
        };
        review["status"] = status;
        if review.get("metadata").is_none_or(Value::is_null) {
            review["metadata"] = json!({});
        }
        Ok(respond::value(on.call.accept, StatusCode::CREATED, None, review, ""))
    }

    async fn token_review(&self, annotations: &Annotations, review: &Value) -> Result<Value, Status> {
        let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences: Vec<String> = texts(review.pointer("/spec/audiences"));
        Ok(match self.authenticator.review(token, &audiences, annotations).await {
            Ok(reviewed) => {
                let mut status = json!({"authenticated": true, "user": user_info(&reviewed.user)});
                if !audiences.is_empty() {
                    status["audiences"] = reviewed.audiences.into();
                }
                status
            }
            Err(error) => json!({"authenticated": false, "user": {}, "error": error.to_string()}),
        })
    }

    async fn access_review(&self, user: &User, review: &Value) -> Result<Value, Status> {
        let spec = &review["spec"];
        let base = Attributes::new(user);
        let attributes = match (spec.get("resourceAttributes"), spec.get("nonResourceAttributes")) {
            (Some(about), None) => {
                let text = |key: &str| about.get(key).and_then(Value::as_str).unwrap_or_default();
                Attributes {
                    verb: text("verb"),
                    group: text("group"),
                    version: text("version"),
                    resource: text("resource"),
                    subresource: text("subresource"),
                    namespace: text("namespace"),
                    name: text("name"),
                    is_resource: true,
                    ..base
                }
            }
            (None, Some(about)) => {
                let text = |key: &str| about.get(key).and_then(Value::as_str).unwrap_or_default();
                Attributes { verb: text("verb"), path: text("path"), ..base }
            }
            _ => return Err(Status::bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")),
        };
        Ok(match self.authorizer.allows(&self.registry, &attributes).await {
            true => json!({"allowed": true, "reason": "RBAC: allowed"}),
            false => json!({"allowed": false}),
        })
    }

    fn rules_review(&self, user: &User, review: &Value) -> Result<Value, Status> {
        let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let all = if user.groups.iter().any(|group| group == crate::authn::MASTERS) {
            vec![Rule::of("*", "*", "*"), Rule::paths("*", "*")]
        } else {
            self.authorizer.rules_of(&self.registry, user, namespace).iter().flat_map(|rules| rules.iter().cloned()).collect()
        };
        let (paths, resources): (Vec<Rule>, Vec<Rule>) = all.into_iter().partition(|rule| !rule.paths.is_empty());
        let shown = |rules: Vec<Rule>| rules.iter().map(Rule::to_value).collect::<Vec<Value>>();
        Ok(json!({"resourceRules": shown(resources), "nonResourceRules": shown(paths), "incomplete": false}))
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn reviewed_user(review: &Value) -> Result<User, Status> {
    let spec = &review["spec"];
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, groups) = (text("user"), texts(spec.get("groups")));
    if name.is_empty() && groups.is_empty() {
        return Err(Status::bad_request("at least one of user or group must be specified"));
    }
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    Ok(User { name, uid: text("uid"), groups, extra: extra.map(|(key, values)| (key.clone(), texts(Some(values)))).collect() })
}

fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), user.uid.as_str().into());
    }
    info.insert("groups".into(), json!(user.groups));
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    info.into()
}

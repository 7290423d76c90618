//! Kinds that are answered and never kept: who am I, who is this token, may I, what may I.

use apimachinery::Status;
use apimachinery::field::{Error, Errors, Path};
use http::{Response, StatusCode};
use registry::{Annotations, User};
use serde_json::{Map, Value, json};

use crate::authz::{Attributes, Decision, Rule, Selecting, Unlisted, is_master, validate_selectors};
use crate::body::{Body, RequestBody};
use crate::call::{Inner, On};
use crate::respond;

impl Inner {
    pub(crate) async fn review(&self, on: &On<'_>, body: RequestBody) -> Result<Response<Body>, Status> {
        let cx = on.context("CreateOptions", false)?;
        let mut review = on.read(&cx, body).await?;
        registry::settle_posted(&mut review, on.target.namespace)?;
        let status = match &*on.resource.def.kind {
            "TokenReview" => self.token_review(&on.call.annotations, &review).await?,
            "SelfSubjectReview" => json!({"userInfo": user_info(&on.call.user)}),
            "SelfSubjectRulesReview" => self.rules_review(&on.call.user, &review)?,
            kind @ ("SelfSubjectAccessReview" | "LocalSubjectAccessReview" | "SubjectAccessReview") => {
                validate(kind, &review, on.target.namespace)?;
                match kind {
                    "SelfSubjectAccessReview" => self.access_review(&on.call.user, &review).await,
                    _ => self.access_review(&reviewed_user(&review), &review).await,
                }
            }
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
                json!({"authenticated": true, "user": user_info(&reviewed.user), "audiences": reviewed.audiences})
            }
            Err(error) => json!({"authenticated": false, "user": {}, "error": error.to_string()}),
        })
    }

    async fn access_review(&self, user: &User, review: &Value) -> Value {
        let spec = &review["spec"];
        let base = Attributes::new(user);
        let resource = spec.get("resourceAttributes").filter(|about| !about.is_null());
        let about = resource.or_else(|| spec.get("nonResourceAttributes")).unwrap_or(&Value::Null);
        let text = |key: &str| about.get(key).and_then(Value::as_str).unwrap_or_default();
        let (selecting, version) = (Selecting::of_attributes(about), text("version"));
        let attributes = match resource {
            Some(_) => Attributes {
                verb: text("verb"),
                group: text("group"),
                version: if version.is_empty() { "*" } else { version },
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
                is_resource: true,
                selecting: Some(&selecting),
                ..base
            },
            None => Attributes { verb: text("verb"), path: text("path"), ..base },
        };
        let Decision { allowed, denied, reason, error } = self.authorizer.authorize(&self.registry, &attributes).await;
        let mut status = json!({"allowed": allowed});
        if denied {
            status["denied"] = true.into();
        }
        let reason = reason.to_string();
        if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        let errors: Vec<String> = error.into_iter().chain(selecting.problems()).collect();
        if !errors.is_empty() {
            status["evaluationError"] = errors.join("; ").into();
        }
        status
    }

    fn rules_review(&self, user: &User, review: &Value) -> Result<Value, Status> {
        let namespace = review.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (all, unlisted) = if is_master(user) {
            (vec![Rule::of("*", "*", "*"), Rule::paths("*", "*")], Unlisted::default())
        } else {
            let rules = self.authorizer.rules_of(&self.registry, user, namespace);
            let unlisted = self.authorizer.unlisted(&self.registry, user, namespace);
            (rules.iter().flat_map(|rules| rules.iter().cloned()).collect(), unlisted)
        };
        let (paths, resources): (Vec<Rule>, Vec<Rule>) = all.into_iter().partition(|rule| !rule.paths.is_empty());
        let shown = |rules: Vec<Rule>| rules.iter().map(Rule::to_value).collect::<Vec<Value>>();
        let mut status =
            json!({"resourceRules": shown(resources), "nonResourceRules": shown(paths), "incomplete": unlisted.incomplete});
        if let Some(error) = unlisted.error() {
            status["evaluationError"] = error.into();
        }
        Ok(status)
    }
}

/// What is wrong with an access review, in upstream's words.
fn validate(kind: &str, review: &Value, namespace: &str) -> Result<(), Status> {
    let (mut errors, path) = (Errors::new(), Path::new("spec"));
    let spec = &review["spec"];
    let given = |key: &str| spec.get(key).filter(|about| !about.is_null());
    let (resource, other) = (given("resourceAttributes"), given("nonResourceAttributes"));
    match (resource, other) {
        (Some(_), Some(other)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            errors.push(Error::invalid(&path.child("nonResourceAttributes"), other.clone(), why));
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(Error::invalid(&path.child("resourceAttributes"), Value::Null, why));
        }
        _ => {}
    }
    if let Some(about) = resource {
        validate_selectors(about, &path.child("resourceAttributes"), &mut errors);
    }
    let names = |key: &str| {
        spec.get(key).is_some_and(|value| !matches!(value, Value::Null) && *value != json!("") && *value != json!([]))
    };
    if kind != "SelfSubjectAccessReview" && !names("user") && !names("groups") {
        errors.push(Error::invalid(&path.child("user"), "", "at least one of user or group must be specified"));
    }
    validate_metadata(kind, &review["metadata"], &mut errors);
    if kind == "LocalSubjectAccessReview" {
        let own = resource.and_then(|about| about["namespace"].as_str()).unwrap_or_default();
        if resource.is_some() && own != namespace {
            let path = path.child("resourceAttributes").child("namespace");
            errors.push(Error::invalid(&path, own, "must match metadata.namespace"));
        }
        if let Some(other) = other {
            errors.push(Error::invalid(
                &path.child("nonResourceAttributes"),
                other.clone(),
                "disallowed on this kind of request",
            ));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("authorization.k8s.io", kind, "", &errors)) }
}

/// An access review is no object that is kept: its metadata says nothing, or where it is.
fn validate_metadata(kind: &str, metadata: &Value, errors: &mut Errors) {
    let (local, why) = match kind {
        "LocalSubjectAccessReview" => (true, "must be empty except for namespace"),
        _ => (false, "must be empty"),
    };
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Bool(_) => false,
    };
    let says = |(key, value): (&String, &Value)| key != "managedFields" && !(local && key == "namespace") && !is_empty(value);
    if metadata.as_object().into_iter().flatten().any(says) {
        errors.push(Error::invalid(&Path::new("metadata"), metadata.clone(), why));
    }
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn reviewed_user(review: &Value) -> User {
    let spec = &review["spec"];
    let text = |key: &str| spec.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, groups) = (text("user"), texts(spec.get("groups")));
    let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
    User { name, uid: text("uid"), groups, extra: extra.map(|(key, values)| (key.clone(), texts(Some(values)))).collect() }
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

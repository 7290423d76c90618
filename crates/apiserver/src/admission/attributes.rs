//! What webhooks and expressions are told of a request besides its objects: the `request` of an AdmissionReview.

use std::collections::BTreeMap;

use registry::{Context, DeleteOptions, FieldValidation, How, Operation, Request, Served};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::criteria::namespace_name;
use super::current::name;

#[derive(Debug, Serialize)]
struct Kind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

#[derive(Debug, Serialize)]
struct Resource<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a str,
}

#[derive(Debug, Serialize)]
struct UserInfo<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

/// Of a request, as a version of its resource.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attributes<'a> {
    kind: Kind<'a>,
    resource: Resource<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_resource: &'a str,
    request_kind: Kind<'a>,
    request_resource: Resource<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    operation: &'static str,
    user_info: UserInfo<'a>,
    dry_run: bool,
    options: Value,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(a: &'a Request<'_>, version: &'a Served) -> Self {
        let kind = |served: &'a Served| {
            let (group, version, kind) = served.def.body_kind(served.def.subresource(a.subresource));
            Kind { group, version, kind }
        };
        let resource = |served: &'a Served| Resource {
            group: &served.def.group,
            version: &served.def.version,
            resource: &served.def.plural,
        };
        let user = a.user;
        Self {
            kind: kind(version),
            resource: resource(version),
            sub_resource: a.subresource,
            request_kind: kind(a.resource),
            request_resource: resource(a.resource),
            request_sub_resource: a.subresource,
            name: name(a),
            namespace: namespace_name(a),
            operation: a.operation.as_str(),
            user_info: UserInfo { username: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra },
            dry_run: a.dry_run,
            options: options(a),
        }
    }

    /// As an expression sees it.
    pub(super) fn to_value(&self) -> Value {
        // Texts and numbers under texts as keys: nothing of it can fail.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// The options of the operation.
fn options(a: &Request<'_>) -> Value {
    let kind = match (a.operation, a.how()) {
        // What a connection is asked for is its object.
        (Operation::Connect, _) => return Value::Null,
        (Operation::Create, _) => "CreateOptions",
        (Operation::Delete, _) => "DeleteOptions",
        (Operation::Update, how) if how.is_patch() => "PatchOptions",
        (Operation::Update, _) => "UpdateOptions",
    };
    let mut options = Map::from_iter([text("kind", kind), text("apiVersion", "meta.k8s.io/v1")]);
    if a.dry_run {
        options.insert("dryRun".to_owned(), json!(["All"]));
    }
    match a.how() {
        How::Delete(given) => options.extend(delete_options(given)),
        How::Plain | How::Patch | How::Apply => options.extend(write_options(a.context())),
    }
    options.into()
}

fn text(key: &str, value: &str) -> (String, Value) {
    (key.to_owned(), value.into())
}

fn write_options(cx: &Context) -> Map<String, Value> {
    let validation = match cx.field_validation {
        FieldValidation::Strict => Some(text("fieldValidation", "Strict")),
        FieldValidation::Ignore => Some(text("fieldValidation", "Ignore")),
        FieldValidation::Warn => None,
    };
    let manager = (!cx.manager.is_empty()).then(|| text("fieldManager", &cx.manager));
    let force = cx.force.then(|| ("force".to_owned(), true.into()));
    [validation, manager, force].into_iter().flatten().collect()
}

fn delete_options(options: &DeleteOptions) -> Map<String, Value> {
    let given = |(key, value): (&str, &Option<String>)| value.as_deref().map(|value| text(key, value));
    let preconditions: Map<String, Value> =
        [("uid", &options.uid), ("resourceVersion", &options.resource_version)].into_iter().filter_map(given).collect();
    let preconditions = (!preconditions.is_empty()).then(|| ("preconditions".to_owned(), preconditions.into()));
    let seconds = options.grace_seconds.map(|seconds| ("gracePeriodSeconds".to_owned(), seconds.into()));
    let orphan = options.orphan_dependents.map(|orphan| ("orphanDependents".to_owned(), orphan.into()));
    let policy = given(("propagationPolicy", &options.propagation));
    [preconditions, seconds, orphan, policy].into_iter().flatten().collect()
}

//! What extensions cost: custom resources beside built-in ones of the same size, rules of their schemas, policies and a webhook on every
//! write, a thousand definitions, and the end of one with very many objects.

pub mod definitions;
pub mod webhook;

use std::time::Duration;

use anyhow::Result;
use http::Method;
use serde_json::{Value, json};

use self::definitions::{define, objects, thing};
use super::load::{Ask, Until, once};
use super::ratios::Side;
use super::{CLIENTS, MAPS, config_map};
use crate::api::Endpoint;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
/// Rules of a schema, each of which looks at two fields.
const RULES: u32 = 100;

/// CPU time of an operation on custom resources, and on built-in ones of the same size.
pub struct Compared {
    /// What is done.
    pub name: &'static str,
    /// With custom resources.
    pub custom: Duration,
    /// With ConfigMaps.
    pub built_in: Duration,
}

/// Creates and reads custom resources and ConfigMaps of 2 KB. The first definition is made here.
///
/// # Errors
/// When the server refuses.
pub async fn compare(endpoint: &Endpoint, pid: i32, time: Duration) -> Result<[Compared; 2]> {
    define(endpoint, 0, Value::Null).await?;
    let (side, until) = (Side { endpoint, pid }, Until::Time(time));
    let custom = side.cost(CLIENTS, until, |number| Ask::post(objects(0), thing(0, number))).await?;
    let built_in = side.cost(CLIENTS, until, |number| Ask::post(MAPS, config_map("extension", number))).await?;
    let create = Compared { name: "durable create", custom, built_in };
    let custom = side.cost(CLIENTS, until, |number| Ask::get(format!("{}/thing-{}", objects(0), number % 1000))).await?;
    let built_in = side.cost(CLIENTS, until, |number| Ask::get(format!("{MAPS}/extension-{}", number % 1000))).await?;
    Ok([create, Compared { name: "get", custom, built_in }])
}

/// CPU time of one rule in CEL, of the hundred of a definition that look at two fields. The definitions 1 and 2 are made here.
///
/// # Errors
/// When the server refuses.
pub async fn rule(endpoint: &Endpoint, pid: i32, time: Duration) -> Result<Duration> {
    let rules = (0..RULES).map(|number| json!({"rule": format!("self.f0.size() + {number} < 1000 && self.d.startsWith('x')")}));
    define(endpoint, 1, Value::Null).await?;
    define(endpoint, 2, rules.collect()).await?;
    let (side, until) = (Side { endpoint, pid }, Until::Time(time));
    let write = |kind: u64| move |number: u64| Ask::post(format!("{}?dryRun=All", objects(kind)), thing(kind, number));
    let without = side.cost(CLIENTS, until, write(1)).await?;
    let with = side.cost(CLIENTS, until, write(2)).await?;
    Ok(with.saturating_sub(without) / RULES)
}

/// CPU time that ten validating policies take of each write: a match condition, a variable and two validations each, all of which hold. They go
/// again, for they refuse what others write.
///
/// # Errors
/// When the server refuses.
pub async fn policies(endpoint: &Endpoint, pid: i32, time: Duration) -> Result<Duration> {
    let (side, until) = (Side { endpoint, pid }, Until::Time(time));
    // Nothing is stored: what differs is what admission does.
    let write = |number: u64| Ask::post(format!("{MAPS}?dryRun=All"), config_map("ruled", number));
    let without = side.cost(CLIENTS, until, write).await?;
    for number in 0..10 {
        let name = format!("policy-{number}");
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]},
                ]},
                "matchConditions": [{"name": "not-system", "expression": "!request.userInfo.username.startsWith('system:node:')"}],
                "variables": [{"name": "size", "expression": "object.data.d.size()"}],
                "validations": [
                    {"expression": format!("variables.size < {}", 100_000 + number)},
                    {"expression": "object.metadata.name.startsWith('ruled') && !has(object.immutable)"},
                ],
            },
        });
        once(endpoint, Ask::post(POLICIES, policy.to_string())).await?;
        let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
        once(endpoint, Ask::post(BINDINGS, binding.to_string())).await?;
    }
    let with = side.cost(CLIENTS, until, write).await?;
    for (number, path) in (0..10).flat_map(|number| [BINDINGS, POLICIES].map(|path| (number, path))) {
        once(endpoint, Ask { method: Method::DELETE, ..Ask::get(format!("{path}/policy-{number}")) }).await?;
    }
    Ok(with.saturating_sub(without))
}

//! What extensions cost: custom resources beside built-in ones of the same size, policies on every write, and a thousand definitions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::load::{Ask, Until, once, run};
use super::ratios::Side;
use super::{CLIENTS, MAPS, config_map, usage};
use crate::api::Endpoint;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// Kinds of each group of definitions.
const KINDS: u64 = 10;
/// Fields of each definition beside the one that is filled.
const FIELDS: u64 = 20;
/// How long a definition may take until it is served.
const PATIENCE: Duration = Duration::from_secs(60);

fn group(number: u64) -> String {
    format!("g{}.bench.example", number / KINDS)
}

/// Where objects of a definition are.
fn objects(number: u64) -> String {
    format!("/apis/{}/v1/namespaces/default/things{number}", group(number))
}

fn definition(number: u64) -> Bytes {
    let (group, plural, kind) = (group(number), format!("things{number}"), format!("Thing{number}"));
    let mut fields: Map<String, Value> = (0..FIELDS)
        .map(|field| (format!("f{field}"), json!({"type": "string", "maxLength": 64, "description": "A field."})))
        .collect();
    fields.insert("d".to_owned(), json!({"type": "string"}));
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]},
    });
    Bytes::from(definition.to_string())
}

/// An object of as many bytes as [`config_map`]'s.
fn thing(number: u64) -> Bytes {
    let object = json!({"apiVersion": format!("{}/v1", group(0)), "kind": "Thing0", "metadata": {"name": format!("thing-{number}")},
        "spec": {"d": "x".repeat(2048)}});
    Bytes::from(object.to_string())
}

/// Makes a definition; how long it takes until its objects are served.
async fn define(endpoint: &Endpoint, number: u64) -> Result<Duration> {
    let start = Instant::now();
    once(endpoint, Ask::post(DEFINITIONS, definition(number))).await?;
    served(endpoint, number).await?;
    Ok(start.elapsed())
}

/// Asks until the objects of a definition are served.
async fn served(endpoint: &Endpoint, number: u64) -> Result<()> {
    let start = Instant::now();
    while once(endpoint, Ask::get(objects(number))).await.is_err() {
        if start.elapsed() > PATIENCE {
            bail!("the objects of definition {number} are not served");
        }
    }
    Ok(())
}

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
    define(endpoint, 0).await?;
    let (side, until) = (Side { endpoint, pid }, Until::Time(time));
    let custom = side.cost(CLIENTS, until, |number| Ask::post(objects(0), thing(number))).await?;
    let built_in = side.cost(CLIENTS, until, |number| Ask::post(MAPS, config_map("extension", number))).await?;
    let create = Compared { name: "durable create", custom, built_in };
    let custom = side.cost(CLIENTS, until, |number| Ask::get(format!("{}/thing-{}", objects(0), number % 1000))).await?;
    let built_in = side.cost(CLIENTS, until, |number| Ask::get(format!("{MAPS}/extension-{}", number % 1000))).await?;
    Ok([create, Compared { name: "get", custom, built_in }])
}

/// CPU time that ten validating policies take of each write: a match condition, a variable and two validations each, all of which hold.
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
    Ok(with.saturating_sub(without))
}

/// What many definitions take.
pub struct Many {
    /// Bytes of memory beyond what the server had before.
    pub memory: u64,
    /// From the creation of one more until its objects are served.
    pub served: Duration,
    /// Aggregated discovery after that.
    pub discovery: Duration,
    /// The index of OpenAPI v3, and the document of the changed group.
    pub openapi: Duration,
}

/// Makes definitions up to so many, and looks at documents after one more, five times: the slowest of each.
///
/// # Errors
/// When the server refuses, or does not serve one.
pub async fn definitions(endpoint: &Endpoint, pid: i32, count: u64) -> Result<Many> {
    let before = usage::forget_peak(pid)?;
    // One client: each definition changes what is served.
    run(endpoint, 1, Until::Count(count), |number| Ask::post(DEFINITIONS, definition(1 + number))).await?;
    served(endpoint, count).await?;
    let memory = usage::forget_peak(pid)?.saturating_sub(before);
    let mut many = Many { memory, served: Duration::ZERO, discovery: Duration::ZERO, openapi: Duration::ZERO };
    for number in count + 1..=count + 5 {
        many.served = many.served.max(define(endpoint, number).await?);
        let start = Instant::now();
        once(endpoint, Ask { accept: DISCOVERY, ..Ask::get("/apis") }).await?;
        many.discovery = many.discovery.max(start.elapsed());
        let start = Instant::now();
        once(endpoint, Ask::get("/openapi/v3")).await?;
        once(endpoint, Ask::get(format!("/openapi/v3/apis/{}/v1", group(number)))).await?;
        many.openapi = many.openapi.max(start.elapsed());
    }
    Ok(many)
}

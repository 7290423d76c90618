//! The status of ValidatingAdmissionPolicies: what the types of the objects that a policy matches say of its expressions (upstream:
//! `validatingadmissionpolicystatus`, `validating/typechecking.go`). Warnings change nothing of what a policy does.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Status, meta};
use base::readiness::Gate;
use cel::{Program, Type};
use futures::StreamExt;
use kinds::expressions::{self, Composed};
use registry::{Catalog, ListOptions, Registry, Served};
use serde_json::{Value, json};

use super::declared::declaration;

const POLICIES: (&str, &str, &str) = ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
/// How many kinds of a rule are looked at.
const MAX_KINDS: usize = 10;

/// Follows policies until the registry ends.
pub(crate) async fn run(registry: Arc<Registry>, gate: Gate) -> Result<(), Status> {
    loop {
        let resource = registry.resource(POLICIES.0, POLICIES.1, POLICIES.2);
        // Where there are no policies there is nothing to say of them.
        let Some(resource) = resource else { return Ok(()) };
        let options = ListOptions { resource_version: Some(registry.revision().to_string()), ..ListOptions::default() };
        let mut changes = registry.watch(&resource, None, &options).await?.into_stream();
        let list = registry.list(&resource, None, &ListOptions::default()).await?;
        for entry in &list.entries {
            tell(&registry, &resource, &entry.value()).await;
        }
        gate.ready();
        while let Some(event) = changes.next().await {
            // Fallen behind: all over again.
            if event.status.is_some() {
                break;
            }
            tell(&registry, &resource, &event.entry.value()).await;
        }
    }
}

/// Writes what is to be said of a policy, if that has not been said of this generation.
async fn tell(registry: &Registry, resource: &Arc<Served>, policy: &Value) {
    let generation = &policy["metadata"]["generation"];
    if meta::is_deleting(policy) || policy["status"]["observedGeneration"] == *generation {
        return;
    }
    let mut told = policy.clone();
    let warnings = warnings(&registry.catalog(), policy);
    told["status"]["observedGeneration"] = generation.clone();
    told["status"]["typeChecking"] = match warnings.is_empty() {
        true => json!({}),
        false => json!({"expressionWarnings": warnings}),
    };
    let name = meta::name(policy);
    let cx = crate::bootstrap::context();
    match registry.update(&cx, resource, "status", "", name, told).await {
        // What has been changed or deleted meanwhile comes with its own event.
        Err(status) if !matches!(status.code, 404 | 409) => {
            tracing::warn!(policy = name, %status, "cannot write what is to be said of the types of a policy");
        }
        _ => {}
    }
}

/// What the types say of the expressions of validations and of their messages.
fn warnings(catalog: &Catalog, policy: &Value) -> Vec<Value> {
    let spec = &policy["spec"];
    let params = params(catalog, &spec["paramKind"]);
    let kinds: Vec<Matched> =
        matched(catalog, spec).into_values().map(|served| Matched::new(served, params.as_ref(), spec)).collect();
    let mut warnings = Vec::new();
    for (index, validation) in spec["validations"].as_array().into_iter().flatten().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(expression) = validation[field].as_str().filter(|text| !text.is_empty()) else { continue };
            let found: Vec<String> = kinds.iter().filter_map(|kind| kind.warning(expression)).collect();
            if !found.is_empty() {
                warnings.push(json!({"fieldRef": format!("spec.validations[{index}].{field}"), "warning": found.join("\n")}));
            }
        }
    }
    warnings
}

/// A kind that a policy matches.
struct Matched {
    /// As upstream writes it.
    name: String,
    /// What expressions may speak of where they speak of objects of the kind.
    variables: Vec<(&'static str, Type)>,
    composed: Composed,
}

impl Matched {
    fn new(served: &Arc<Served>, params: Option<&Type>, spec: &Value) -> Self {
        let (group, version, kind) = served.def.own_kind();
        let object = declaration(served).map_or(Type::Dyn, |declared| declared.ty());
        let mut variables = expressions::variables(&["object", "oldObject", "request", "namespaceObject", "authorizer"]);
        let objects = variables.iter_mut().filter(|(name, _)| matches!(*name, "object" | "oldObject"));
        objects.for_each(|(_, ty)| *ty = object.clone());
        variables.extend(params.map(|params| ("params", params.clone())));
        let mut composed = Composed::default();
        for variable in spec["variables"].as_array().into_iter().flatten() {
            let Some(name) = variable["name"].as_str() else { continue };
            let ty = typed(variable["expression"].as_str().unwrap_or_default(), &variables, &composed).unwrap_or(Type::Dyn);
            composed.add(name, ty);
        }
        Self { name: format!("{group}/{version}, Kind={kind}"), variables, composed }
    }

    /// What is wrong with an expression.
    fn warning(&self, expression: &str) -> Option<String> {
        let error = typed(expression, &self.variables, &self.composed).err()?;
        Some(format!("{}: {error}\n", self.name))
    }
}

fn typed(expression: &str, variables: &[(&str, Type)], composed: &Composed) -> Result<Type, cel::CompileError> {
    let mut all = variables.to_vec();
    all.push(("variables", composed.ty()));
    let names: Vec<&str> = all.iter().map(|(name, _)| *name).filter(|name| !name.contains('.')).collect();
    let program = Program::compile(expression, &names)?;
    program.check(expression, &all).map(|checked| checked.ty())
}

/// The kinds that a policy matches, in their order: those that it names itself.
fn matched<'c>(catalog: &'c Catalog, spec: &Value) -> BTreeMap<(&'c str, &'c str, &'c str), &'c Arc<Served>> {
    let mut all = BTreeMap::new();
    for rule in spec["matchConstraints"]["resourceRules"].as_array().into_iter().flatten() {
        let texts = |field: &str| {
            let list = rule[field].as_array().into_iter().flatten();
            let mut texts: Vec<&str> = list.filter_map(Value::as_str).collect();
            texts.sort_unstable();
            texts
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups.iter().chain(&versions).any(|name| name.contains('*')) {
            continue;
        }
        let mut left = MAX_KINDS;
        for group in &groups {
            for version in &versions {
                for resource in texts("resources").into_iter().filter(|name| !name.contains(['*', '/'])) {
                    let Some(served) = catalog.get(group, version, resource).filter(|_| left > 0) else { continue };
                    all.insert(served.def.own_kind(), served);
                    left -= 1;
                }
            }
        }
    }
    all
}

/// The type of parameters, where a policy has some.
fn params(catalog: &Catalog, kind: &Value) -> Option<Type> {
    let (api_version, kind) = (kind["apiVersion"].as_str()?, kind["kind"].as_str()?);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let served = catalog.iter().find(|served| served.def.own_kind() == (group, version, kind));
    Some(served.and_then(|served| declaration(served)).map_or(Type::Dyn, |declared| declared.ty()))
}

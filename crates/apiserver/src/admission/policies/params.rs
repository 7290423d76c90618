//! The parameters of a policy's bindings.

use std::sync::Arc;

use apimachinery::gvk;
use registry::{Request, Served};
use serde_json::Value;

use super::definition::{Binding, ParamRef, Policy};

/// The parameters that a binding names: each is one evaluation of the policy. A policy without parameters is evaluated once.
pub(super) fn collect(policy: &Policy, binding: &Binding, a: &Request<'_>) -> Result<Vec<Option<Value>>, String> {
    let (Some((api_version, kind)), Some(reference)) = (&policy.param_kind, &binding.param_ref) else { return Ok(vec![None]) };
    let served = find(a, api_version, kind).ok_or_else(|| format!("paramKind kind `{api_version}, Kind={kind}` not known"))?;
    let namespace = namespace(&served, reference, a)?;
    let found: Vec<Value> = match &reference.selector {
        None => a.registry.peek(&served, namespace, &reference.name).into_iter().collect(),
        Some(selector) => {
            let selector = selector.as_ref().map_err(String::clone)?;
            a.registry.peek_labelled(&served, namespace, selector).iter().map(|entry| entry.value()).collect()
        }
    };
    if found.is_empty() && reference.must_exist {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.into_iter().map(Some).collect())
}

/// Where parameters are looked for: in a namespace that the binding names, or in that of the request.
fn namespace<'a>(served: &Served, reference: &'a ParamRef, a: &'a Request<'_>) -> Result<&'a str, String> {
    match (served.def.namespaced, reference.namespace.as_str(), a.namespace) {
        (false, "", _) => Ok(""),
        (false, ..) => Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()),
        (true, "", "") => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned())
        }
        (true, "", own) => Ok(own),
        (true, named, _) => Ok(named),
    }
}

fn find(a: &Request<'_>, api_version: &str, kind: &str) -> Option<Arc<Served>> {
    let is_it = |served: &&Arc<Served>| {
        served.def.stored && served.def.kind == kind && gvk::api_version(&served.def.group, &served.def.version) == api_version
    };
    a.registry.catalog().iter().find(is_it).cloned()
}

//! The parameters of a policy's bindings.

use std::sync::Arc;

use apimachinery::gvk;
use registry::{Request, Served};
use serde_json::Value;

use super::definition::{Binding, ParamRef, Policy};

/// The parameters that a binding names: each is one evaluation of the policy. A policy without parameters is evaluated once.
pub(super) async fn collect(policy: &Policy, binding: &Binding, a: &Request<'_>) -> Result<Vec<Option<Value>>, String> {
    let (Some((api_version, kind)), Some(reference)) = (&policy.param_kind, &binding.param_ref) else { return Ok(vec![None]) };
    let served = find(a, api_version, kind).ok_or_else(|| format!("paramKind kind `{api_version}, Kind={kind}` not known"))?;
    let namespace = namespace(&served, reference, a)?;
    let found = match &reference.selector {
        None => a.registry.known(&served, namespace, &reference.name).await.map(Vec::from_iter),
        Some(selector) => {
            let selector = selector.as_ref().map_err(String::clone)?;
            a.registry.known_labelled(&served, namespace, selector).await
        }
    };
    let found = found.map_err(|status| status.message)?;
    if found.is_empty() && reference.must_exist {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found.iter().map(|entry| Some(entry.value())).collect())
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

/// A kind of parameters, by its name.
pub(super) fn find(a: &Request<'_>, api_version: &str, kind: &str) -> Option<Arc<Served>> {
    let is_it = |served: &&Arc<Served>| {
        served.def.stored && served.def.kind == kind && gvk::api_version(&served.def.group, &served.def.version) == api_version
    };
    a.registry.catalog().iter().find(is_it).cloned()
}

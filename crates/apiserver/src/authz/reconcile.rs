//! Keeps the default policy present and the aggregated roles written out.

use std::convert::Infallible;
use std::sync::Arc;

use apimachinery::{Status, meta};
use base::readiness::Gate;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream::SelectAll;
use registry::{ListOptions, Registry, Served};
use serde_json::Value;

use super::coverage::Held;
use super::follow::KINDS;
use super::{Authorizer, Policy, Rule};
use crate::bootstrap::{RETRY, context};

const GROUP: &str = "rbac.authorization.k8s.io";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Creates the default policy that is missing and completes the one that is there, as far as that is taken. The error is one of what was refused.
pub(crate) async fn start(registry: &Registry, authorizer: &Authorizer) -> Result<(), Status> {
    let done = policy(registry).await;
    write_aggregated(registry, authorizer).await;
    done
}

/// Tries again until all of the default policy is there.
pub(crate) async fn again(registry: Arc<Registry>, gate: Gate) -> Result<(), Infallible> {
    loop {
        tokio::time::sleep(RETRY).await;
        // Their roles come after the namespaces, which are put back meanwhile.
        let namespaces = namespaces(&registry).await;
        match namespaces.and(policy(&registry).await) {
            Ok(()) => break,
            Err(error) => {
                gate.not_ready(error.message.clone());
                tracing::warn!(%error, "the default roles cannot be written, trying again");
            }
        }
    }
    gate.ready();
    Ok(())
}

async fn namespaces(registry: &Registry) -> Result<(), Status> {
    let served = registry.resource("", "v1", "namespaces").ok_or_else(|| Status::internal("namespaces are not served"))?;
    for name in ["kube-system", "kube-public"] {
        registry.get(&served, "", name, None).await?;
    }
    Ok(())
}

/// All objects at once: the store writes what comes together with one disk synchronisation.
async fn policy(registry: &Registry) -> Result<(), Status> {
    let objects = Policy::new().objects.into_iter();
    let writes = objects.map(|(plural, namespace, wanted)| ensure(registry, plural, namespace, wanted));
    join_all(writes).await.into_iter().collect()
}

async fn ensure(registry: &Registry, plural: &str, namespace: &str, wanted: Value) -> Result<(), Status> {
    let resource = &resource(registry, plural)?;
    match registry.get(resource, namespace, meta::name(&wanted), None).await {
        Ok(entry) => complete(registry, resource, namespace, entry.value(), &wanted).await,
        Err(status) if status.code == 404 => {
            // Namespaces of roles come from elsewhere; the role follows when the others are tried again, or at the next start.
            match registry.create(&context(), resource, namespace, None, wanted).await {
                Err(status) if !matches!(status.code, 404 | 409) => Err(status),
                _ => Ok(()),
            }
        }
        Err(status) => Err(status),
    }
}

/// Follows all changes until the registry ends. The index follows by itself when somebody looks at it; here it does so before somebody has to wait
/// for it.
pub async fn run(registry: Arc<Registry>, authorizer: Arc<Authorizer>, gate: Gate) -> Result<(), Status> {
    loop {
        gate.not_ready("roles and bindings are not followed yet");
        let mut changes = SelectAll::new();
        for plural in KINDS {
            let version = Some(registry.revision().to_string());
            let options = ListOptions { resource_version: version, ..ListOptions::default() };
            changes.push(registry.watch(&resource(&registry, plural)?, None, &options).await?.into_stream());
        }
        write_aggregated(&registry, &authorizer).await;
        gate.ready();
        let mut changes = changes.ready_chunks(1024);
        while let Some(events) = changes.next().await {
            if events.iter().any(|event| event.status.is_some()) {
                break;
            }
            write_aggregated(&registry, &authorizer).await;
        }
    }
}

fn resource(registry: &Registry, plural: &str) -> Result<Arc<Served>, Status> {
    registry.resource(GROUP, "v1", plural).ok_or_else(|| Status::internal(format!("{plural} are not served")))
}

/// What aggregated roles allow is computed; writing it out is for those who read the role.
async fn write_aggregated(registry: &Registry, authorizer: &Authorizer) {
    let unwritten = authorizer.index(registry).cluster_roles.unwritten();
    join_all(unwritten.iter().map(|(name, rules)| async move {
        match write_rules(registry, name, rules).await {
            // A newer version comes with its own event.
            Err(status) if status.code != 409 && status.code != 404 => {
                tracing::warn!(%name, %status, "cannot write the rules of an aggregated role")
            }
            _ => {}
        }
    }))
    .await;
}

async fn write_rules(registry: &Registry, name: &str, rules: &[Rule]) -> Result<(), Status> {
    let resource = resource(registry, "clusterroles")?;
    let mut role = registry.get(&resource, "", name, None).await?.value();
    role["rules"] = rules.iter().map(Rule::to_value).collect();
    registry.update(&context(), &resource, "", "", name, role).await.map(drop)
}

/// Adds the default rules, subjects and labels that an object lacks; what was added to it stays.
async fn complete(
    registry: &Registry,
    resource: &Served,
    namespace: &str,
    mut found: Value,
    wanted: &Value,
) -> Result<(), Status> {
    if meta::annotation(&found, AUTO_UPDATE) == Some("false") || !merge(&mut found, wanted) {
        return Ok(());
    }
    let name = meta::name(&found).to_owned();
    registry.update(&context(), resource, "", namespace, &name, found).await.map(drop)
}

fn merge(found: &mut Value, wanted: &Value) -> bool {
    let mut changed = false;
    if wanted.get("aggregationRule").is_none() {
        let have = Rule::read_all(found);
        let held = Held::new(&have);
        let covered = |rule: &Rule| held.lacking(std::slice::from_ref(rule)) == Ok(Vec::new());
        let lacking: Vec<Value> = Rule::read_all(wanted).iter().filter(|rule| !covered(rule)).map(Rule::to_value).collect();
        changed |= append(found, "rules", lacking);
    }
    let subjects = |object: &Value| object.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
    let have = subjects(found);
    let same = |a: &Value, b: &Value| ["kind", "name", "namespace"].iter().all(|key| a.get(*key) == b.get(*key));
    let lacking = subjects(wanted).into_iter().filter(|subject| !have.iter().any(|other| same(other, subject))).collect();
    changed |= append(found, "subjects", lacking);
    for (key, value) in meta::labels(wanted).into_iter().flatten() {
        if meta::label(found, key) != value.as_str() {
            meta::set_label(found, key, value.as_str().unwrap_or_default());
            changed = true;
        }
    }
    changed
}

fn append(object: &mut Value, key: &str, items: Vec<Value>) -> bool {
    if items.is_empty() {
        return false;
    }
    match object.get_mut(key).and_then(Value::as_array_mut) {
        Some(list) => list.extend(items),
        None => object[key] = items.into(),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging_keeps_additions() {
        let rule = |verb: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": ["pods"]});
        let wanted = json!({"metadata": {"name": "r", "labels": {"a": "b"}}, "rules": [rule("get"), rule("list")]});
        let mut found = json!({"metadata": {"name": "r"}, "rules": [rule("get"), rule("delete")]});
        assert!(merge(&mut found, &wanted));
        assert_eq!(found["rules"], json!([rule("get"), rule("delete"), rule("list")]));
        assert!(!merge(&mut found, &wanted));
    }
}

//! ServiceAccount: every pod has one, with its token, the cluster's CA and the namespace mounted (KEP-542). Mirror pods have none
//! and refer to no secrets; pods of an account that asks for it use no other secrets than its own.

mod secrets;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Status, meta};
use async_trait::async_trait;
use pods::references::References;
use registry::{Admission, Entry, Operation, Request};
use serde_json::{Value, json};

use super::{creates_pod, forbidden, is, list_mut, text};

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The account of pods that name none.
const DEFAULT: &str = "default";
/// How long a pod waits for it to be made.
const PATIENCE: Duration = Duration::from_millis(1500);
const VOLUME: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
/// An hour and a few seconds, by which kubelets recognise tokens of this volume.
const SECONDS: i64 = 3607;

pub(super) struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        creates_pod(a) || adds_containers(a)
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if adds_containers(a) {
            return Ok(());
        }
        let Some(mut pod) = a.object_mut().map(Value::take) else { return Ok(()) };
        let result = admit(a, &mut pod).await;
        if let Some(object) = a.object_mut() {
            *object = pod;
        }
        result.map_err(|why| forbidden(a, why))
    }

    async fn validate(&self, a: &Request<'_>) -> Result<(), Status> {
        let Some(pod) = a.object() else { return Ok(()) };
        validate(a, pod).await.map_err(|why| forbidden(a, why))
    }
}

/// Whether the request gives a pod containers that it had not.
fn adds_containers(a: &Request<'_>) -> bool {
    is(a, "", "pods") && a.subresource == "ephemeralcontainers" && a.operation == Operation::Update
}

/// What another plugin may have changed since.
async fn validate(a: &Request<'_>, pod: &Value) -> Result<(), String> {
    let adds = adds_containers(a);
    if !adds && meta::annotation(pod, MIRROR).is_some() {
        return mirror(pod);
    }
    let name = text(pod, "/spec/serviceAccountName");
    if name.is_empty() {
        return Err(format!("no service account specified for pod {}/{}", a.namespace, meta::name(pod)));
    }
    let account = account(a, name).await.ok_or_else(|| missing(a, name))?;
    match secrets::enforced(&account) {
        None => Ok(()),
        Some(account) if adds => secrets::check_ephemeral(pod, &account),
        Some(account) => secrets::check_pod(pod, &account),
    }
}

/// What a mirror pod may not have: a node makes it, for a file that no API server has seen.
fn mirror(pod: &Value) -> Result<(), String> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts".into());
    }
    if !References::of_value(pod.clone()).secrets.is_empty() {
        return Err("a mirror pod may not reference secrets".into());
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    if sources.any(|source| source["serviceAccountToken"].is_object()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections".into());
    }
    Ok(())
}

fn missing(a: &Request<'_>, name: &str) -> String {
    format!("error looking up service account {}/{name}: serviceaccount \"{name}\" not found", a.namespace)
}

async fn admit(a: &Request<'_>, pod: &mut Value) -> Result<(), String> {
    // Before other rules say what is wrong with it, as upstream.
    if meta::annotation(pod, MIRROR).is_some() {
        return mirror(pod);
    }
    if text(pod, "/spec/serviceAccountName").is_empty() {
        pod["spec"]["serviceAccountName"] = DEFAULT.into();
    }
    let name = text(pod, "/spec/serviceAccountName").to_owned();
    pod["spec"]["serviceAccount"] = name.as_str().into();
    let account = account(a, &name).await.ok_or_else(|| missing(a, &name))?;
    complete(pod, &account.value(), &apimachinery::names::random_suffix(5));
    Ok(())
}

/// The account of that name. Who creates a namespace and at once a pod in it is quicker than the controller that makes the default
/// account: that one is waited for (upstream asks ten times, 100 to 200 ms apart).
async fn account(a: &Request<'_>, name: &str) -> Option<Arc<Entry>> {
    let accounts = a.registry.resource("", "v1", "serviceaccounts")?;
    match a.registry.get(&accounts, a.namespace, name, None).await {
        Err(_) if name == DEFAULT => a.registry.appears(&accounts, a.namespace, name, PATIENCE).await,
        found => found.ok(),
    }
}

/// Mounts the token and copies the pull secrets.
fn complete(pod: &mut Value, account: &Value, suffix: &str) {
    let wants = |object: &Value, key: &str| object.get(key).and_then(Value::as_bool);
    let automount = wants(&pod["spec"], "automountServiceAccountToken").or(wants(account, "automountServiceAccountToken"));
    if automount.unwrap_or(true) {
        mount(&mut pod["spec"], suffix);
    }
    let has_secrets = pod["spec"].get("imagePullSecrets").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if let (false, Some(secrets)) = (has_secrets, account.get("imagePullSecrets").filter(|secrets| secrets.is_array())) {
        pod["spec"]["imagePullSecrets"] = secrets.clone();
    }
}

fn mount(spec: &mut Value, suffix: &str) {
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let present = volumes.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(VOLUME)).map(str::to_owned);
    let name = present.clone().unwrap_or_else(|| format!("{VOLUME}{suffix}"));
    let mut mounted = false;
    for kind in ["initContainers", "containers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(mounts) = list_mut(container, "volumeMounts") else { continue };
            if mounts.iter().any(|mount| mount["mountPath"].as_str().is_some_and(|path| path.trim_end_matches('/') == MOUNT)) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT}));
            mounted = true;
        }
    }
    if let (true, None, Some(volumes)) = (mounted, present, list_mut(spec, "volumes")) {
        volumes.push(volume(&name));
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: Value, account: Value, mounted: bool) -> Value {
        let mut pod = json!({"spec": spec});
        complete(&mut pod, &account, "abcde");
        let volumes = pod["spec"]["volumes"].as_array().map_or(0, Vec::len);
        assert_eq!(volumes == 1, mounted, "{pod}");
        pod
    }

    #[test]
    fn tokens_are_mounted_where_wanted() {
        let spec = || json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
        let pod = check(spec(), json!({"imagePullSecrets": [{"name": "s"}]}), true);
        assert_eq!(
            pod["spec"]["containers"][0]["volumeMounts"][0],
            json!({"name": "kube-api-access-abcde", "readOnly": true, "mountPath": MOUNT})
        );
        assert_eq!(pod["spec"]["initContainers"][0]["volumeMounts"][0]["mountPath"], MOUNT);
        assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "s"}]));
        check(spec(), json!({"automountServiceAccountToken": false}), false);
        let mut wanted = spec();
        wanted["automountServiceAccountToken"] = true.into();
        check(wanted, json!({"automountServiceAccountToken": false}), true);
        let own = json!({"containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": MOUNT}]}]});
        check(own, json!({}), false);
    }
}

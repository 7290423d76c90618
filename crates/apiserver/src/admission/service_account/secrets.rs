//! Which secrets pods of an account may use: where its annotation asks for it, only those that it names. API page of
//! ServiceAccount, `secrets`: "Pods are only limited to this list if this service account has a
//! "kubernetes.io/enforce-mountable-secrets" annotation set to "true"."

use apimachinery::{meta, text};
use memchr::memmem;
use registry::Entry;
use serde_json::Value;

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Lists of containers with what upstream's messages call one of them.
const CONTAINERS: [(&str, &str); 2] = [("initContainers", "init container"), ("containers", "container")];
const EPHEMERAL: [(&str, &str); 1] = [("ephemeralContainers", "ephemeral container")];

/// The account, if its pods are limited to the secrets that it names. Each new pod asks, and few accounts have the annotation: one whose
/// encoded form lacks the word is not decoded.
pub(super) fn enforced(account: &Entry) -> Option<Value> {
    memmem::find(&account.json, ENFORCE.as_bytes()).map(|_| account.value()).filter(is_enforced)
}

fn is_enforced(account: &Value) -> bool {
    meta::annotation(account, ENFORCE).and_then(text::parse_bool) == Some(true)
}

/// The first secret of a new pod that its account does not name.
pub(super) fn check_pod(pod: &Value, account: &Value) -> Result<(), String> {
    let spec = &pod["spec"];
    let own = meta::name(account);
    for volume in items(spec, "volumes") {
        if let Some(name) = volume["secret"].as_object().map(|secret| secret.get("secretName").and_then(Value::as_str)) {
            let name = name.unwrap_or_default();
            refuse_unless(names(account, "secrets", name), || format!("volume with secret.secretName=\"{name}\""), own)?;
        }
        // Upstream looks at no projected volume, which shows secrets as well.
        for name in items(&volume["projected"], "sources").filter_map(|source| source["secret"]["name"].as_str()) {
            refuse_unless(names(account, "secrets", name), || format!("volume with projected secret.name=\"{name}\""), own)?;
        }
    }
    check_variables(pod, account, &CONTAINERS)?;
    for (index, name) in items(spec, "imagePullSecrets").map(name_of).enumerate() {
        if !names(account, "imagePullSecrets", name) {
            let why = format!("because service account {own} does not reference that imagePullSecret");
            return Err(format!("imagePullSecrets[{index}].name=\"{name}\" is not allowed {why}"));
        }
    }
    Ok(())
}

/// The first secret of ephemeral containers that the account does not name. What the pod had before is not looked at again.
pub(super) fn check_ephemeral(pod: &Value, account: &Value) -> Result<(), String> {
    check_variables(pod, account, &EPHEMERAL)
}

fn check_variables(pod: &Value, account: &Value, lists: &[(&str, &str)]) -> Result<(), String> {
    let own = meta::name(account);
    for (list, kind) in lists {
        for container in items(&pod["spec"], list) {
            let of = name_of(container);
            for variable in items(container, "env") {
                let Some(name) = reference(&variable["valueFrom"]["secretKeyRef"]) else { continue };
                let what = || format!("{kind} {of} with envVar {} referencing secret.secretName=\"{name}\"", name_of(variable));
                refuse_unless(names(account, "secrets", name), what, own)?;
            }
            for name in items(container, "envFrom").filter_map(|source| reference(&source["secretRef"])) {
                let what = || format!("{kind} {of} with envFrom referencing secret.secretName=\"{name}\"");
                refuse_unless(names(account, "secrets", name), what, own)?;
            }
        }
    }
    Ok(())
}

fn refuse_unless(allowed: bool, what: impl FnOnce() -> String, account: &str) -> Result<(), String> {
    let why = || format!("{} is not allowed because service account {account} does not reference that secret", what());
    if allowed { Ok(()) } else { Err(why()) }
}

fn items<'a>(object: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    object.get(list).and_then(Value::as_array).into_iter().flatten()
}

fn name_of(object: &Value) -> &str {
    object["name"].as_str().unwrap_or_default()
}

/// The name of a reference that is there.
fn reference(object: &Value) -> Option<&str> {
    object.is_object().then(|| name_of(object))
}

fn names(account: &Value, list: &str, name: &str) -> bool {
    items(account, list).any(|one| name_of(one) == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(enforced: &str) -> Value {
        json!({"metadata": {"name": "a", "annotations": {ENFORCE: enforced}}, "secrets": [{"name": "own"}],
            "imagePullSecrets": [{"name": "pull"}]})
    }

    #[test]
    fn whose_pods_are_limited() {
        let check = |value: &str, expected: bool| assert_eq!(is_enforced(&account(value)), expected, "{value}");
        check("true", true);
        check("1", true);
        check("false", false);
        check("yes", false);
        assert!(!is_enforced(&json!({"metadata": {"name": "a"}})));
    }

    /// CVE-2023-2728 and CVE-2024-3177: every place that names a secret counts.
    #[test]
    fn every_place_of_secrets() {
        type Check = fn(&Value, &Value) -> Result<(), String>;
        let check_by = |by: Check, spec: &dyn Fn(&str) -> Value, what: &str| {
            let pod = |name: &str| json!({"spec": spec(name)});
            assert_eq!(by(&pod("own"), &account("true")), Ok(()), "{what}");
            let why = "is not allowed because service account a does not reference that secret";
            assert_eq!(by(&pod("other"), &account("true")), Err(format!("{what} {why}")));
        };
        let check = |spec: &dyn Fn(&str) -> Value, what: &str| check_by(check_pod, spec, what);
        check(&|name| json!({"volumes": [{"secret": {"secretName": name}}]}), "volume with secret.secretName=\"other\"");
        check(
            &|name| json!({"volumes": [{"projected": {"sources": [{"secret": {"name": name}}]}}]}),
            "volume with projected secret.name=\"other\"",
        );
        let lists = CONTAINERS.map(|list| (list, check_pod as Check)).into_iter();
        for ((list, kind), by) in lists.chain(EPHEMERAL.map(|list| (list, check_ephemeral as Check))) {
            check_by(
                by,
                &|name| json!({list: [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]}]}),
                &format!("{kind} c with envVar E referencing secret.secretName=\"other\""),
            );
            check_by(
                by,
                &|name| json!({list: [{"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}, {"secretRef": {"name": name}}]}]}),
                &format!("{kind} c with envFrom referencing secret.secretName=\"other\""),
            );
        }
    }

    #[test]
    fn what_a_pod_had_stays() {
        let variables = json!([{"secretRef": {"name": "other"}}]);
        let pod = json!({"spec": {"containers": [{"name": "c", "envFrom": variables}], "ephemeralContainers": [{"name": "e"}]}});
        assert_eq!(check_ephemeral(&pod, &account("true")), Ok(()));
    }

    #[test]
    fn secrets_of_images() {
        let pod = |name: &str| json!({"spec": {"imagePullSecrets": [{"name": "pull"}, {"name": name}]}});
        assert_eq!(check_pod(&pod("pull"), &account("true")), Ok(()));
        let why =
            "imagePullSecrets[1].name=\"own\" is not allowed because service account a does not reference that imagePullSecret";
        assert_eq!(check_pod(&pod("own"), &account("true")), Err(why.to_owned()));
    }
}

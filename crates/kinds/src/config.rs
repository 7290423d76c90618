//! ConfigMap, Secret, ServiceAccount, PriorityClass, RuntimeClass: configuration without behaviour.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::columns::Column;
use crate::def::KindDef;
use crate::pod;
use crate::rules;
use crate::sub::{Action, Sub};
use crate::typed::Kind;
use crate::util::{set_default, text};

/// Most bytes that a ConfigMap or Secret may hold.
const MAX_BYTES: usize = 1024 * 1024;

/// Keys must be file names, and all values together stay within the limit.
fn validate_data(parts: &[(&str, Vec<(&String, usize)>)], whole: &Path, errors: &mut Errors) {
    let mut total = 0;
    for (field, entries) in parts {
        for (key, size) in entries {
            errors.invalid_each(&Path::new(field).key(key), key, names::config_map_key(key));
            total += size;
        }
    }
    if total > MAX_BYTES {
        errors.push(Error::too_long(whole, MAX_BYTES));
    }
}

fn sizes<V>(data: &Option<BTreeMap<String, V>>, size: fn(&V) -> usize) -> Vec<(&String, usize)> {
    data.iter().flatten().map(|(key, value)| (key, size(value))).collect()
}

/// An immutable object keeps its data, and stays immutable.
fn validate_immutable(was: Option<bool>, is: Option<bool>, same: &[(&str, bool)], errors: &mut Errors) {
    if was != Some(true) {
        return;
    }
    if is != Some(true) {
        errors.push(Error::forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set"));
    }
    for (field, same) in same {
        if !same {
            errors.push(Error::forbidden(&Path::new(field), "field is immutable when `immutable` is set"));
        }
    }
}

impl Kind for ConfigMap {
    const DEF: KindDef = KindDef::new("", "v1", "ConfigMap", "configmaps", "configmap").short(&["cm"]);

    fn validate(&self, errors: &mut Errors) {
        let (text, binary) = (sizes(&self.data, String::len), sizes(&self.binary_data, |bytes: &ByteString| bytes.0.len()));
        if let Some((key, _)) =
            text.iter().find(|(key, _)| self.binary_data.as_ref().is_some_and(|other| other.contains_key(*key)))
        {
            let detail = "duplicate of key present in binaryData";
            errors.push(Error::invalid(&Path::new("data").key(key), key.as_str(), detail));
        }
        validate_data(&[("data", text), ("binaryData", binary)], &Path::root(), errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let same = [("data", self.data == old.data), ("binaryData", self.binary_data == old.binary_data)];
        validate_immutable(old.immutable, self.immutable, &same, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[Column::integer("Data", "Data contains the configuration data.", |map, _| {
                (map.data.as_ref().map_or(0, BTreeMap::len) + map.binary_data.as_ref().map_or(0, BTreeMap::len)).into()
            })]
        }
    }
}

/// The data keys that a typed secret must have.
const SECRET_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
];

/// The annotation that says whose token a secret holds.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// Credentials for registries are a JSON object; what they say is not repeated in an error.
fn validate_docker(data: Option<&ByteString>, key: &str, errors: &mut Errors) {
    let parsed = data.map(|bytes| serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes.0));
    if let Some(Err(_)) = parsed {
        let path = Path::new("data").key(key);
        errors.push(Error::invalid(&path, "<secret contents redacted>", "must be a JSON object"));
    }
}

impl Kind for Secret {
    const DEF: KindDef = KindDef::new("", "v1", "Secret", "secrets", "secret");
    const SELECTABLE: &'static [&'static str] = &["type"];

    fn field(object: &Value, _name: &'static str) -> String {
        text(object, "/type").to_owned()
    }

    fn apply_defaults(object: &mut Value) {
        set_default(object, "type", "Opaque");
        merge_string_data(object);
    }

    fn validate(&self, errors: &mut Errors) {
        validate_data(&[("data", sizes(&self.data, |bytes: &ByteString| bytes.0.len()))], &Path::new("data"), errors);
        let has = |key: &str| self.data.as_ref().is_some_and(|data| data.contains_key(key));
        let kind = self.type_.as_deref().unwrap_or_default();
        for key in SECRET_KEYS.iter().filter(|(name, _)| *name == kind).flat_map(|(_, keys)| *keys) {
            if !has(key) {
                errors.push(Error::required(&Path::new("data").key(key), ""));
            } else if key.starts_with(".docker") {
                validate_docker(self.data.as_ref().and_then(|data| data.get(*key)), key, errors);
            }
        }
        if kind == "kubernetes.io/basic-auth" && !has("username") && !has("password") {
            errors.push(Error::required(&Path::new("data[username]"), ""));
            errors.push(Error::required(&Path::new("data[password]"), ""));
        }
        let account = self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ACCOUNT_NAME));
        if kind == "kubernetes.io/service-account-token" && account.is_none_or(String::is_empty) {
            errors.push(Error::required(&Path::new("metadata.annotations").key(ACCOUNT_NAME), ""));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.type_ != old.type_ {
            errors.push(Error::invalid(&Path::new("type"), self.type_.clone(), "field is immutable"));
        }
        validate_immutable(old.immutable, self.immutable, &[("data", self.data == old.data)], errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::new("Type", "Used to facilitate programmatic handling of secret data.", |secret, _| {
                    secret.type_.clone().into()
                }),
                Column::integer("Data", "Data contains the secret data.", |secret, _| {
                    secret.data.as_ref().map_or(0, BTreeMap::len).into()
                }),
            ]
        }
    }
}

/// `stringData` is a write-only way to give `data` without encoding it.
fn merge_string_data(object: &mut Value) {
    use base64::Engine as _;
    let Some(Value::Object(plain)) = object.as_object_mut().and_then(|secret| secret.remove("stringData")) else { return };
    let data = crate::util::child_object(object, "data");
    for (key, value) in plain {
        data[key] = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}

impl Kind for ServiceAccount {
    const DEF: KindDef = KindDef::new("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount")
        .short(&["sa"])
        .returns_deleted()
        .subresources(&[Sub::action("token", ("authentication.k8s.io", "v1", "TokenRequest"), Action::IssueToken)]);
}

impl Kind for PriorityClass {
    const DEF: KindDef =
        KindDef::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", "priorityclass").short(&["pc"]).cluster();

    fn apply_defaults(object: &mut Value) {
        set_default(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, errors: &mut Errors) {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if name.starts_with("system-") && !["system-node-critical", "system-cluster-critical"].contains(&name) {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. error: only system priority classes can have the prefix";
            errors.push(Error::forbidden(&Path::new("metadata").child("name"), detail));
        } else if !name.starts_with("system-") && self.value.unwrap_or(0) > 1_000_000_000 {
            errors.push(Error::forbidden(&Path::new("value"), "maximum allowed value of a user defined priority is 1000000000"));
        }
        if let Some(policy) =
            self.preemption_policy.as_deref().filter(|policy| !["PreemptLowerPriority", "Never"].contains(policy))
        {
            errors.push(Error::not_supported(&Path::new("preemptionPolicy"), policy, &["Never", "PreemptLowerPriority"]));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.value != old.value {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        if self.preemption_policy != old.preemption_policy {
            errors.push(Error::invalid(&Path::new("preemptionPolicy"), self.preemption_policy.clone(), "field is immutable"));
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[
                Column::NAME,
                Column::integer("Value", "value represents the integer value of this priority class.", |class, _| {
                    class.value.into()
                }),
                Column::new("Global-Default", "Whether pods without a class get this one.", |class, _| {
                    class.global_default.unwrap_or(false).into()
                }),
                Column::AGE,
                Column::new("PreemptionPolicy", "Whether pods of this class preempt others.", |class, _| {
                    class.preemption_policy.clone().into()
                }),
            ]
        }
    }
}

impl Kind for RuntimeClass {
    const DEF: KindDef = KindDef::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", "runtimeclass")
        .returns_deleted()
        .cluster()
        .create_on_update()
        .versioned();

    fn validate(&self, errors: &mut Errors) {
        errors.invalid_each(&Path::new("handler"), &self.handler, names::dns1123_label(&self.handler));
        if let Some(amounts) = self.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref()) {
            pod::validate_overhead(amounts, &Path::new("overhead.podFixed"), errors);
        }
        let Some(scheduling) = &self.scheduling else { return };
        let (path, given) = (Path::new("scheduling"), rules::list(&scheduling.tolerations));
        rules::labels(&path.child("nodeSelector"), scheduling.node_selector.as_ref(), errors);
        let path = path.child("tolerations");
        pod::tolerations(given, &path, errors);
        let keys = given.iter().map(|one| (&one.key, &one.operator, &one.value, &one.effect, one.toleration_seconds));
        for index in rules::repeated(keys) {
            errors.push(Error::duplicate(&path.index(index), serde_json::json!(given[index])));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.handler != old.handler {
            errors.push(Error::invalid(&Path::new("handler"), self.handler.as_str(), "field is immutable"));
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[Column::new("Handler", "Name of the runtime configuration on the nodes.", |class, _| class.handler.clone().into())] }
    }
}

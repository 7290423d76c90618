//! Secret.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value;
use std::collections::BTreeMap;

use super::data::{sizes, validate_data, validate_immutable};
use crate::columns::Column;
use crate::def::KindDef;
use crate::typed::Kind;
use crate::util::{set_default, text};

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

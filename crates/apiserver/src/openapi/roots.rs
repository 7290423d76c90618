//! The operations that are on no objects: discovery, the version, the keys of tokens.

use schema::TypeId;
use serde_json::{Map, Value, json};

use super::operation::{Operation, Writes, camel};
use super::paths;
use super::resource::Paths;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const INFO: &str = "io.k8s.apimachinery.pkg.version.Info";
const JSON: &[&str] = &["application/json"];
const MEDIA: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// Keys of documents that exist whatever is served.
pub(super) const KEYS: [&str; 5] = [".well-known/openid-configuration", "api", "apis", "openid/v1/jwks", "version"];

/// A key of each kind.
pub(super) const EACH: [&str; 5] = ["api", "apis", "apis/group", "apis/group/version", "version"];

/// The types of the table that the operations under these keys need.
pub(super) fn types<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<TypeId> {
    let all = keys.into_iter().flat_map(operations).collect();
    paths::types(&all)
}

/// The operations of a document that names no group version, or those of discovery of one that does.
pub(super) fn operations(key: &str) -> Paths {
    let object = |kind: &str| Writes::Object(format!("{META}.{kind}"));
    let discovery = |name: &str, description: &str, writes| get(key, name, description, MEDIA, writes);
    let (path, operation) = match key {
        "version" => {
            let description = "get the version information for this server";
            (format!("/{key}/"), get(key, "CodeVersion", description, JSON, Writes::Object(INFO.into())))
        }
        ".well-known/openid-configuration" => {
            let description = "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'";
            (format!("/{key}"), get(key, "ServiceAccountIssuerOpenIDConfiguration", description, JSON, Writes::Text))
        }
        "openid/v1/jwks" => {
            let description = "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)";
            let media = &["application/jwk-set+json"];
            (format!("/{key}"), get(key, "ServiceAccountIssuerOpenIDKeyset", description, media, Writes::Text))
        }
        "api" => (format!("/{key}/"), discovery("APIVersions", "get available API versions", object("APIVersions"))),
        "apis" => (format!("/{key}/"), discovery("APIVersions", "get available API versions", object("APIGroupList"))),
        group if group.starts_with("apis/") && group.matches('/').count() == 1 => {
            (format!("/{key}/"), discovery("APIGroup", "get information of a group", object("APIGroup")))
        }
        _ => (format!("/{key}/"), discovery("APIResources", "get available resources", object("APIResourceList"))),
    };
    vec![(path, vec![operation])]
}

fn get(key: &str, name: &str, description: &str, produces: &[&'static str], writes: Writes) -> Operation {
    // `/api` is `/apis/core`, so to speak.
    let named = if key == "api" { "apis/core".to_owned() } else { key.replace("api/", "apis/core/") };
    let parts: Vec<&str> = named.split('/').collect();
    let (id, tag) = match parts.as_slice() {
        ["apis", group, version @ ..] => {
            let group = group.trim_end_matches(".k8s.io");
            let version: Vec<(String, String)> =
                version.iter().map(|version| (camel(version, true), format!("_{}", camel(version, false)))).collect();
            let (ids, tags): (Vec<String>, Vec<String>) = version.into_iter().unzip();
            (format!("{}{}", camel(group, true), ids.concat()), format!("{}{}", camel(group, false), tags.concat()))
        }
        [first, ..] => (String::new(), camel(first, false)),
        [] => Default::default(),
    };
    Operation {
        method: "get",
        id: format!("get{id}{name}"),
        tag,
        description: description.into(),
        parameters: Vec::new(),
        consumes: if produces == MEDIA { MEDIA } else { JSON },
        produces: produces.to_vec(),
        reads: None,
        writes,
        codes: &[200],
        action: None,
        is_custom: false,
    }
}

/// Definitions of types that are no part of any API object.
pub(super) fn definitions() -> Map<String, Value> {
    let described = [
        ("emulationMajor", "The major version of the API that is emulated."),
        ("emulationMinor", "The minor version of the API that is emulated."),
        ("minCompatibilityMajor", "The major version of the oldest API that the server can work with."),
        ("minCompatibilityMinor", "The minor version of the oldest API that the server can work with."),
    ];
    let required =
        ["major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
    let mut properties: Map<String, Value> =
        required.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    properties.extend(described.map(|(name, text)| (name.to_owned(), json!({"type": "string", "description": text}))));
    let info = json!({
        "description": "What was built, and which versions of the API it speaks.", "type": "object",
        "properties": properties, "required": required,
    });
    Map::from_iter([(INFO.to_owned(), info)])
}

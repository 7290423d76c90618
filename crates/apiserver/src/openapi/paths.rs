//! The paths half of the documents: one entry per path, one operation per verb, derived from the resources.

use kinds::{Behaviour, Connect, KindDef, Verb};
use registry::{Catalog, Served};
use schema::{Schema, TypeId};
use serde_json::{Map, Value, json};

use super::prefix;

/// Which specification.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// One operation: HTTP method, action, kind of the body.
struct Operation {
    method: &'static str,
    action: &'static str,
    verb: Verb,
}

const fn operation(method: &'static str, action: &'static str, verb: Verb) -> Operation {
    Operation { method, action, verb }
}

const COLLECTION: [Operation; 3] = [
    operation("get", "list", Verb::List),
    operation("post", "post", Verb::Create),
    operation("delete", "deletecollection", Verb::DeleteCollection),
];
const ITEM: [Operation; 4] = [
    operation("get", "get", Verb::Get),
    operation("put", "put", Verb::Update),
    operation("patch", "patch", Verb::Patch),
    operation("delete", "delete", Verb::Delete),
];
const CONNECT: [Operation; 2] = [operation("get", "connect", Verb::Get), operation("post", "connect", Verb::Create)];

/// The paths of one group version.
pub(super) fn v3(catalog: &Catalog, path: &str) -> Map<String, Value> {
    let mut out = Map::new();
    for resource in catalog.iter().filter(|r| prefix(r.def.group, r.def.version) == path) {
        add(&mut out, resource, Dialect::V3);
    }
    out
}

/// The paths of all.
pub(super) fn v2(catalog: &Catalog) -> Map<String, Value> {
    let mut out = Map::new();
    for resource in catalog.iter() {
        add(&mut out, resource, Dialect::V2);
    }
    out
}

fn add(out: &mut Map<String, Value>, resource: &Served, dialect: Dialect) {
    let def = resource.def;
    let base = format!("/{}", prefix(def.group, def.version));
    let own =
        if def.namespaced { format!("{base}/namespaces/{{namespace}}/{}", def.plural) } else { format!("{base}/{}", def.plural) };
    let kind = (def.group, def.version, def.kind);
    let collection: &[Operation] = if def.stored { &COLLECTION } else { &COLLECTION[1..2] };
    out.insert(own.clone(), path_item(resource, kind, collection, &[], dialect, None));
    if !def.stored {
        return;
    }
    if def.namespaced {
        out.insert(format!("{base}/{}", def.plural), path_item(resource, kind, &COLLECTION[..1], &[], dialect, None));
    }
    out.insert(format!("{own}/{{name}}"), path_item(resource, kind, &ITEM, &["name"], dialect, None));
    for sub in def.subresources {
        let connects = matches!(sub.behaviour, Behaviour::Connect(connect) if connect != Connect::Log);
        let all = if connects { CONNECT.as_slice() } else { ITEM.as_slice() };
        let post = [operation("post", "post", Verb::Create)];
        let all = if matches!(sub.behaviour, Behaviour::Action(_)) { post.as_slice() } else { all };
        let served: Vec<&Operation> = all.iter().filter(|operation| sub.verbs.contains(operation.verb)).collect();
        let item = operations(resource, def.body_kind(Some(sub)), served, &["name"], dialect, Some(sub.name));
        out.insert(format!("{own}/{{name}}/{}", sub.name), item);
    }
}

fn path_item(
    resource: &Served,
    kind: kinds::GroupVersionKindRef,
    all: &[Operation],
    names: &[&str],
    dialect: Dialect,
    sub: Option<&str>,
) -> Value {
    operations(resource, kind, all.iter().collect(), names, dialect, sub)
}

fn operations(
    resource: &Served,
    kind: kinds::GroupVersionKindRef,
    all: Vec<&Operation>,
    names: &[&str],
    dialect: Dialect,
    sub: Option<&str>,
) -> Value {
    let def = resource.def;
    let mut item = Map::new();
    for one in all {
        item.insert(one.method.into(), describe(def, kind, one, dialect, sub));
    }
    let mut parameters: Vec<Value> = names.iter().map(|name| parameter("path", name, "string", dialect)).collect();
    if def.namespaced {
        parameters.push(parameter("path", "namespace", "string", dialect));
    }
    parameters.push(parameter("query", "pretty", "string", dialect));
    item.insert("parameters".into(), parameters.into());
    item.into()
}

fn parameter(place: &str, name: &str, kind: &str, dialect: Dialect) -> Value {
    let mut out = json!({"name": name, "in": place});
    if place == "path" {
        out["required"] = true.into();
    }
    match dialect {
        Dialect::V2 => {
            out["type"] = kind.into();
            out["uniqueItems"] = true.into();
        }
        Dialect::V3 => out["schema"] = json!({"type": kind, "uniqueItems": true}),
    }
    out
}

/// Query parameters of an action; `kubectl` asks for those of PATCH to know what the server can do.
fn query_parameters(action: &str) -> &'static [(&'static str, &'static str)] {
    match action {
        "list" | "deletecollection" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        "post" | "put" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
        "patch" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")],
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        _ => &[],
    }
}

/// kubectl looks up a kind that it finds in no document among the custom resources, if the second version of the document
/// says that Namespaces take `fieldValidation`. There are no custom resources: without that it says that it does not know the kind.
fn promises_custom_resources(def: &KindDef, one: &Operation, name: &str, dialect: Dialect) -> bool {
    dialect == Dialect::V2 && def.kind == "Namespace" && one.action == "patch" && name == "fieldValidation"
}

fn describe(def: &KindDef, kind: kinds::GroupVersionKindRef, one: &Operation, dialect: Dialect, sub: Option<&str>) -> Value {
    let offered = query_parameters(one.action).iter().filter(|(name, _)| !promises_custom_resources(def, one, name, dialect));
    let mut parameters: Vec<Value> = offered.map(|(name, kind)| parameter("query", name, kind, dialect)).collect();
    let answer = match one.action {
        "list" => type_name(def.group, def.version, &def.list_kind()),
        "delete" | "deletecollection" => Schema::builtin().named("io.k8s.apimachinery.pkg.apis.meta.v1.Status").map(name_of),
        _ => type_name(kind.0, kind.1, kind.2),
    };
    let mut out = json!({
        "operationId": operation_id(def, one, sub), "tags": [tag(def)], "x-kubernetes-action": one.action,
        "x-kubernetes-group-version-kind": {"group": kind.0, "version": kind.1, "kind": kind.2},
        "description": format!("{} {}", one.action, sub.map_or(def.kind.to_owned(), |sub| format!("{sub} of {}", def.kind))),
    });
    let body = match one.action {
        "post" | "put" => type_name(kind.0, kind.1, kind.2),
        "delete" | "deletecollection" => {
            Schema::builtin().named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions").map(name_of)
        }
        "patch" => Some("io.k8s.apimachinery.pkg.apis.meta.v1.Patch"),
        _ => None,
    };
    let media: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
    match dialect {
        Dialect::V2 => {
            out["consumes"] = if one.action == "patch" { json!(PATCHES) } else { json!(["*/*"]) };
            out["produces"] = json!(media);
            if let Some(body) = body.filter(|_| one.action != "patch") {
                parameters.push(
                    json!({"in": "body", "name": "body", "required": true, "schema": {"$ref": format!("#/definitions/{body}")}}),
                );
            }
            let schema = answer.map(|name| json!({"$ref": format!("#/definitions/{name}")})).unwrap_or(json!({"type": "string"}));
            out["responses"] = json!({"200": {"description": "OK", "schema": schema}, "401": {"description": "Unauthorized"}});
        }
        Dialect::V3 => {
            if let Some(body) = body.filter(|_| one.action != "patch") {
                let schema = json!({"schema": {"$ref": format!("#/components/schemas/{body}")}});
                out["requestBody"] = json!({"content": {"*/*": schema}});
            }
            if one.action == "patch" {
                let content: Map<String, Value> =
                    PATCHES.iter().map(|kind| ((*kind).to_owned(), json!({"schema": {"type": "object"}}))).collect();
                out["requestBody"] = json!({"content": content, "required": true});
            }
            let schema =
                answer.map(|name| json!({"$ref": format!("#/components/schemas/{name}")})).unwrap_or(json!({"type": "string"}));
            let content: Map<String, Value> = media.iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect();
            out["responses"] = json!({"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}});
        }
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    out
}

const PATCHES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

fn name_of(id: TypeId) -> &'static str {
    Schema::builtin().get(id).name
}

fn type_name(group: &str, version: &str, kind: &str) -> Option<&'static str> {
    Schema::builtin().kind(group, version, kind).map(name_of)
}

/// `core_v1`, `apps_v1`.
fn tag(def: &KindDef) -> String {
    let group = if def.group.is_empty() { "core" } else { def.group.split('.').next().unwrap_or_default() };
    format!("{group}_{}", def.version)
}

/// Such as `readCoreV1NamespacedPod`.
fn operation_id(def: &KindDef, one: &Operation, sub: Option<&str>) -> String {
    let capital = |text: &str| {
        let mut chars = text.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
    };
    let verb = match one.action {
        "get" => "read",
        "post" => "create",
        "put" => "replace",
        "deletecollection" => "deleteCollection",
        "connect" if one.method == "get" => "connectGet",
        "connect" => "connectPost",
        other => other,
    };
    let group = if def.group.is_empty() { "core" } else { def.group.split('.').next().unwrap_or_default() };
    let scope = if def.namespaced { "Namespaced" } else { "" };
    format!("{verb}{}{}{scope}{}{}", capital(group), capital(def.version), def.kind, sub.map(capital).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(def: &KindDef, dialect: Dialect, expected: &[&str]) -> Value {
        let patch = describe(def, (def.group, def.version, def.kind), &ITEM[2], dialect, None);
        let parameters = patch["parameters"].as_array().into_iter().flatten();
        assert_eq!(parameters.filter_map(|p| p["name"].as_str()).collect::<Vec<_>>(), expected);
        patch
    }

    #[test]
    fn a_patch_says_what_the_server_can_do() {
        static DEPLOYMENT: KindDef = KindDef::new("apps", "v1", "Deployment", "deployments", "deployment");
        static NAMESPACE: KindDef = KindDef::new("", "v1", "Namespace", "namespaces", "namespace").cluster();
        let all = ["dryRun", "fieldManager", "fieldValidation", "force"];
        for dialect in [Dialect::V2, Dialect::V3] {
            let patch = check(&DEPLOYMENT, dialect, &all);
            assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
            assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        }
        check(&NAMESPACE, Dialect::V3, &all);
        check(&NAMESPACE, Dialect::V2, &["dryRun", "fieldManager", "force"]);
    }
}

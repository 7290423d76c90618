#![allow(clippy::unwrap_used)]
use std::collections::{BTreeMap, BTreeSet};

use schema::openapi::Docs;

use super::operation::{Operation, Place};
use super::{prefix, resource, roots};

/// What upstream's official client knows of an operation, without its tag: name, codes, query parameters, body.
type Known = (String, String, String, bool);

/// By method and path, the tag and the rest.
fn upstream() -> BTreeMap<String, (String, Known)> {
    let mut sets = BTreeMap::new();
    let mut all = BTreeMap::new();
    for line in include_str!("testdata/operations.txt").lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [number] => drop(sets.insert(*number, "")),
            [number, names] => drop(sets.insert(*number, *names)),
            [method, path, tag, name, codes, set, body @ ..] => {
                let known = ((*name).into(), (*codes).into(), sets[set].into(), !body.is_empty());
                all.insert(format!("{method} {path}"), ((*tag).to_owned(), known));
            }
            _ => panic!("{line}"),
        }
    }
    all
}

/// A name as generators of Python clients write it.
fn snake(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    for (at, c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| chars[at]);
        let starts = c.is_ascii_uppercase()
            && before.is_some_and(|before| {
                let small = before.is_ascii_lowercase() || before.is_ascii_digit();
                small || before.is_ascii_uppercase() && chars.get(at + 1).is_some_and(char::is_ascii_lowercase)
            });
        if starts {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn ours(path: &str, one: &Operation) -> (String, (String, Known)) {
    let query: BTreeSet<&str> = one.parameters.iter().filter(|it| it.place == Place::Query).map(|it| it.name.as_str()).collect();
    let codes: Vec<String> = one.codes.iter().map(u16::to_string).collect();
    let tag = snake(&one.tag).replace("__", "_");
    // The name of the tag is in the id, and not in the client's method.
    let name = snake(&one.id).replacen(&format!("_{tag}_"), "_", 1);
    let name = name.strip_suffix(&format!("_{tag}")).map(str::to_owned).unwrap_or(name);
    let known = (name, codes.join(","), query.into_iter().collect::<Vec<_>>().join(","), one.reads.is_some());
    (format!("{} {path}", one.method.to_uppercase()), (tag, known))
}

/// All operations that are offered are upstream's, with its names, parameters and codes.
#[test]
fn operations_are_upstreams() {
    let (docs, upstream) = (Docs::builtin(), upstream());
    // What is computed is the API of another program, of which the client knows nothing.
    let kinds = kinds::KINDS.iter().map(|strategy| strategy.def()).filter(|def| def.computed != Some(kinds::Computed::Usage));
    let offered = kinds.flat_map(|def| resource::operations(def, &docs));
    let roots = roots::KEYS.into_iter().chain(["api/v1", "apis/apps", "apis/apps/v1", "apis/rbac.authorization.k8s.io/v1"]);
    let mut all = BTreeMap::new();
    for (path, operations) in offered.chain(roots.flat_map(roots::operations)) {
        assert!(
            operations
                .iter()
                .all(|one| !one.description.is_empty() && one.parameters.iter().all(|it| !it.description.is_empty()))
        );
        all.extend(operations.iter().map(|one| ours(&path, one)).filter(|(key, _)| !key.contains("/watch/")));
    }
    let wrong: Vec<String> = all
        .iter()
        .filter(|(key, one)| upstream.get(*key) != Some(one))
        .map(|(key, one)| format!("{key}\n  ours     {one:?}\n  upstream {:?}", upstream.get(key)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // And what upstream offers for the collections and objects of a kind is offered.
    for def in kinds::KINDS.iter().map(|strategy| strategy.def()) {
        let (base, named) = (format!("/{}/", prefix(&def.group, &def.version)), format!("{}/{{name}}", def.plural));
        let missing: Vec<&String> = upstream
            .keys()
            .filter(|key| {
                key.contains(&base) && (key.ends_with(&format!("/{}", def.plural)) || key.ends_with(&format!("/{named}")))
            })
            .filter(|key| !all.contains_key(*key))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[test]
fn ids_are_unique() {
    let docs = Docs::builtin();
    let mut seen = BTreeMap::new();
    for def in kinds::KINDS.iter().map(|strategy| strategy.def()) {
        for (path, operations) in resource::operations(def, &docs) {
            for one in operations {
                let other = seen.insert(one.id.clone(), path.clone());
                assert_eq!(other, None, "{} of {path}", one.id);
            }
        }
    }
}

/// Upstream's ids where the client's names say too little.
#[test]
fn ids() {
    let docs = Docs::builtin();
    let check = |kind: &str, path: &str, method: &str, expected: (&str, &str, &str)| {
        let def = kinds::KINDS.iter().map(|strategy| strategy.def()).find(|def| def.kind == kind).unwrap();
        let all = resource::operations(def, &docs);
        let (_, operations) = all.iter().find(|(known, _)| known == path).unwrap_or_else(|| panic!("{path}"));
        let one = operations.iter().find(|one| one.method == method).unwrap();
        let (action, (_, _, kind)) = one.action.clone().unwrap();
        assert_eq!((one.id.as_str(), action, kind.as_str()), expected);
    };
    let pods = "/api/v1/namespaces/{namespace}/pods";
    check("Pod", pods, "delete", ("deleteCoreV1CollectionNamespacedPod", "deletecollection", "Pod"));
    check("Pod", "/api/v1/pods", "get", ("listCoreV1PodForAllNamespaces", "list", "Pod"));
    check("Pod", "/api/v1/watch/pods", "get", ("watchCoreV1PodListForAllNamespaces", "watchlist", "Pod"));
    let watch = "/api/v1/watch/namespaces/{namespace}/pods/{name}";
    check("Pod", watch, "get", ("watchCoreV1NamespacedPod", "watch", "Pod"));
    check("Pod", &format!("{pods}/{{name}}/exec"), "get", ("connectCoreV1GetNamespacedPodExec", "connect", "PodExecOptions"));
    let proxy = format!("{pods}/{{name}}/proxy/{{path}}");
    check("Pod", &proxy, "head", ("connectCoreV1HeadNamespacedPodProxyWithPath", "connect", "PodProxyOptions"));
    check("Pod", &format!("{pods}/{{name}}/eviction"), "post", ("createCoreV1NamespacedPodEviction", "post", "Eviction"));
    let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}";
    check("ClusterRole", roles, "patch", ("patchRbacAuthorizationV1ClusterRole", "patch", "ClusterRole"));
}

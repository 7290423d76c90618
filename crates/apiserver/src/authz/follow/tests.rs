#![allow(clippy::unwrap_used)]
use std::time::{Duration, Instant};

use futures::future::join_all;
use registry::DeleteOptions;
use serde_json::{Value, json};

use super::*;
use crate::authz::index::tests::allows;
use crate::authz::{Attributes, Authorizer};
use crate::bootstrap::context;
use crate::testing::open;

fn named(kind: &str, name: &str, rest: Value) -> Value {
    let mut object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": name}});
    object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    object
}

async fn create(registry: &Registry, plural: &str, namespace: &str, object: Value) {
    let resource = registry.resource(GROUP, "v1", plural).unwrap();
    registry.create(&context(), &resource, namespace, None, object).await.unwrap();
}

fn rules(resource: &str) -> Value {
    json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": [resource]}]})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    let role = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    let subjects = json!([{"apiGroup": GROUP, "kind": "User", "name": user}]);
    named("RoleBinding", name, json!({"roleRef": role, "subjects": subjects}))
}

fn may(registry: &Registry, authorizer: &Authorizer, user: &str, resource: &str) -> bool {
    let user = crate::authn::user(user, Vec::new());
    let asked = Attributes { verb: "get", namespace: "n", resource, is_resource: true, ..Attributes::new(&user) };
    allows(&authorizer.index(registry), &asked)
}

/// What has been written is in force when it is answered, without anybody who follows: also what was deleted.
#[tokio::test]
async fn what_is_written_is_in_force() {
    let (opened, authorizer) = (open().await, Authorizer::default());
    let registry = &opened.registry;
    let may = |user: &str, resource: &str| may(registry, &authorizer, user, resource);
    assert!(!may("jane", "pods"));
    create(registry, "roles", "n", named("Role", "r", rules("pods"))).await;
    create(registry, "rolebindings", "n", binding("b", "Role", "r", "jane")).await;
    assert!(may("jane", "pods") && !may("joe", "pods") && !may("jane", "secrets"));
    let resource = |plural: &str| registry.resource(GROUP, "v1", plural).unwrap();
    let change = named("Role", "r", rules("secrets"));
    let patch = registry::Patch::Merge(json!({"rules": change["rules"]}).to_string().into());
    registry.patch(&context(), &resource("roles"), "", "n", "r", patch).await.unwrap();
    assert!(!may("jane", "pods") && may("jane", "secrets"));
    registry.delete(&context(), &resource("rolebindings"), "n", "b", DeleteOptions::default()).await.unwrap();
    assert!(!may("jane", "secrets"));
    // More changes than a ring keeps: what has changed is found among all.
    create(registry, "clusterroles", "", named("ClusterRole", "c", rules("nodes"))).await;
    for round in 0..3 {
        let many = (0..3_000).map(|at| {
            let object = binding(&format!("b{round}-{at}"), "ClusterRole", "c", &format!("u{round}-{at}"));
            create(registry, "rolebindings", "n", object)
        });
        join_all(many).await;
    }
    assert!(may("u0-0", "nodes") && may("u2-2999", "nodes") && !may("u3-0", "nodes"));
}

/// Measures a change among many bindings, and what all of them at once cost, as each change once did: run it with `--run-ignored all --no-capture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn changes_among_many_bindings() {
    let (opened, authorizer) = (open().await, Authorizer::default());
    let registry = &opened.registry;
    for at in 0..100 {
        create(registry, "roles", "n", named("Role", &format!("r{at}"), rules("pods"))).await;
    }
    for count in [5_000, 10_000] {
        for some in (count - 5_000..count).collect::<Vec<_>>().chunks(500) {
            let made = some.iter().map(|at| {
                create(
                    registry,
                    "rolebindings",
                    "n",
                    binding(&format!("b{at}"), "Role", &format!("r{}", at % 100), &format!("u{at}")),
                )
            });
            join_all(made).await;
        }
        assert!(may(registry, &authorizer, "u7", "pods"));
        let all = Instant::now();
        let mut values = Vec::new();
        for plural in KINDS {
            let served = registry.resource(GROUP, "v1", plural).unwrap();
            values.push(registry.peek_all(&served).0.iter().map(|entry| entry.value()).collect::<Vec<Value>>());
        }
        let mut values = values.into_iter();
        let mut next = || values.next().unwrap();
        let whole = index(&Objects { cluster_roles: next(), roles: next(), cluster_bindings: next(), bindings: next() });
        let all = all.elapsed();
        drop(whole);
        let mut times = Vec::new();
        for at in 0..200 {
            create(registry, "rolebindings", "n", binding(&format!("new{count}-{at}"), "Role", "r1", "jane")).await;
            let begin = Instant::now();
            assert!(may(registry, &authorizer, "jane", "pods"));
            times.push(begin.elapsed());
        }
        let mean = times.iter().sum::<Duration>() / 200;
        eprintln!("{count} bindings: all at once {all:?}; a change and a decision {mean:?}, at most {:?}", times.iter().max());
    }
}

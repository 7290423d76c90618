//! Upstream's default roles and bindings (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`), as tables.

use serde_json::{Map, Value, json};

use super::Rule;
use super::cluster_roles::{BINDINGS, NAMESPACE_BINDINGS, NAMESPACE_ROLES, ROLES};
use super::controller_roles::CONTROLLERS;
use super::tables::{Line, Role};

/// All default objects.
pub struct Policy {
    /// `(plural, namespace, object)` in the order to create them.
    pub objects: Vec<(&'static str, &'static str, Value)>,
}

impl Policy {
    /// The tables as objects.
    pub fn new() -> Self {
        let mut objects: Vec<_> = ROLES.iter().map(|role| ("clusterroles", "", cluster_role(role))).collect();
        for (name, lines) in CONTROLLERS {
            let full = format!("system:controller:{name}");
            objects.push(("clusterroles", "", role("ClusterRole", &full, "", lines)));
            let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": "kube-system"}]);
            objects.push(("clusterrolebindings", "", binding("ClusterRoleBinding", &full, "", "ClusterRole", &full, subjects)));
        }
        for (name, role, subjects) in BINDINGS {
            objects.push((
                "clusterrolebindings",
                "",
                binding("ClusterRoleBinding", name, "", "ClusterRole", role, people(subjects)),
            ));
        }
        for (namespace, name, lines, subjects) in NAMESPACE_ROLES {
            if !lines.is_empty() {
                objects.push(("roles", namespace, role("Role", name, namespace, lines)));
            }
            if !subjects.is_empty() {
                objects.push((
                    "rolebindings",
                    namespace,
                    binding("RoleBinding", name, namespace, "Role", name, people(subjects)),
                ));
            }
        }
        for (namespace, name, role, subjects) in NAMESPACE_BINDINGS {
            objects.push(("rolebindings", namespace, binding("RoleBinding", name, namespace, "Role", role, people(subjects))));
        }
        Self { objects }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

fn rule((verbs, groups, resources): &Line) -> Value {
    match *resources {
        "*URL" => Rule::paths(verbs, "*").to_value(),
        paths if paths.starts_with('/') => Rule::paths(verbs, paths).to_value(),
        resources => {
            let (resources, names) = resources.split_once(" @ ").unwrap_or((resources, ""));
            let names = names.split_whitespace().map(str::to_owned).collect();
            Rule { names, ..Rule::of(verbs, groups, resources) }.to_value()
        }
    }
}

fn own_metadata(name: &str, namespace: &str) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.into());
    if !namespace.is_empty() {
        metadata.insert("namespace".into(), namespace.into());
    }
    metadata.insert("labels".into(), json!({"kubernetes.io/bootstrapping": "rbac-defaults"}));
    metadata.insert("annotations".into(), json!({"rbac.authorization.kubernetes.io/autoupdate": "true"}));
    metadata
}

fn role(kind: &str, name: &str, namespace: &str, lines: &[Line]) -> Value {
    let rules: Vec<Value> = lines.iter().map(rule).collect();
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": own_metadata(name, namespace), "rules": rules})
}

fn cluster_role(table: &Role) -> Value {
    let mut object = role("ClusterRole", table.name, "", table.lines);
    for target in table.into {
        object["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{target}")] = "true".into();
    }
    if let Some(name) = table.aggregates {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{name}");
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    }
    object
}

/// Subjects such as `g:system:masters u:system:kube-proxy s:kube-system/name`.
fn people(text: &str) -> Value {
    let one = |item: &str| {
        let (kind, name) = item.split_once(':').unwrap_or(("u", item));
        match (kind, name.split_once('/')) {
            ("s", Some((namespace, name))) => json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}),
            ("g", _) => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": name}),
            _ => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}),
        }
    };
    text.split_whitespace().map(one).collect()
}

fn binding(kind: &str, name: &str, namespace: &str, role_kind: &str, role: &str, subjects: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": own_metadata(name, namespace),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}, "subjects": subjects,
    })
}

#[cfg(test)]
mod tests {
    use super::super::follow::{self, Objects};
    use super::*;
    use crate::authz::Attributes;
    use crate::authz::index::tests::allows;

    /// A table's lines are literals: what they name stands elsewhere.
    #[test]
    fn the_cleaner_of_tokens_reads_the_map_that_the_server_writes() {
        let name = "system:controller:legacy-service-account-token-cleaner";
        let policy = Policy::new();
        let role =
            policy.objects.iter().find(|(plural, _, object)| *plural == "clusterroles" && object["metadata"]["name"] == name);
        let rule = role
            .and_then(|(_, _, role)| role["rules"].as_array()?.iter().find(|rule| rule["resources"] == json!(["configmaps"])));
        assert_eq!(rule.map(|rule| &rule["resourceNames"]), Some(&json!([pods::legacy_tokens::TRACKING])));
    }

    #[test]
    fn default_powers() {
        let policy = Policy::new();
        let of = |plural: &str| policy.objects.iter().filter(|o| o.0 == plural).map(|o| o.2.clone()).collect::<Vec<_>>();
        let mut objects = Objects {
            cluster_roles: of("clusterroles"),
            roles: of("roles"),
            cluster_bindings: of("clusterrolebindings"),
            bindings: of("rolebindings"),
        };
        for name in ["admin", "edit", "view"] {
            objects.bindings.push(binding("RoleBinding", name, "n", "ClusterRole", name, people(name)));
        }
        let index = follow::index(&objects);
        for binding in objects.cluster_bindings.iter().chain(&objects.bindings) {
            assert!(index.referenced(apimachinery::meta::namespace(binding), &binding["roleRef"]).is_some(), "{binding}");
        }
        let check = |user: &registry::User, verb, group, resource: &str, namespace, expected| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let a = Attributes { verb, group, resource, subresource, namespace, is_resource: true, ..Attributes::new(user) };
            assert_eq!(allows(&index, &a), expected, "{a:?}");
        };
        let user = |name: &str| crate::authn::user(name, Vec::new());
        check(&user("view"), "get", "apps", "deployments", "n", true);
        check(&user("view"), "get", "", "secrets", "n", false);
        check(&user("view"), "create", "", "pods", "n", false);
        check(&user("edit"), "create", "", "pods/exec", "n", true);
        check(&user("edit"), "get", "", "pods", "n", true);
        check(&user("edit"), "create", "rbac.authorization.k8s.io", "roles", "n", false);
        check(&user("admin"), "create", "rbac.authorization.k8s.io", "roles", "n", true);
        check(&user("admin"), "get", "", "secrets", "other", false);
        check(&user("system:kube-scheduler"), "create", "", "pods/binding", "n", true);
        // KEP-5004: claims in place of extended resources are the scheduler's.
        for verb in ["create", "delete", "patch"] {
            check(&user("system:kube-scheduler"), verb, "resource.k8s.io", "resourceclaims", "n", true);
        }
        let named = |user: &str, resource: &str, group: &str, namespace: &str, name: &str| {
            let user = crate::authn::user(user, Vec::new());
            let a = Attributes { verb: "update", group, resource, namespace, name, is_resource: true, ..Attributes::new(&user) };
            allows(&index, &a)
        };
        // Its own lease, and not those by which nodes show that they live.
        for component in ["kube-scheduler", "kube-controller-manager"] {
            let user = format!("system:{component}");
            assert!(named(&user, "leases", "coordination.k8s.io", "kube-system", component));
            assert!(!named(&user, "leases", "coordination.k8s.io", "kube-node-lease", "n1"));
            assert!(!named(&user, "configmaps", "", "kube-system", component));
            assert!(!named(&user, "configmaps", "", "kube-system", "kube-root-ca.crt"));
        }
        check(
            &crate::authn::service_account("kube-system", "deployment-controller"),
            "update",
            "apps",
            "deployments/status",
            "n",
            true,
        );
        check(&crate::authn::service_account("kube-system", "default"), "list", "", "pods", "n", false);
        let masters = crate::authn::user("root", vec!["system:masters".into()]);
        check(&masters, "escalate", "rbac.authorization.k8s.io", "clusterroles", "", true);
        let anonymous = user(crate::authn::ANONYMOUS);
        let path = |path| allows(&index, &Attributes { verb: "get", path, ..Attributes::new(&anonymous) });
        assert!(path("/version") && path("/livez") && path("/readyz") && path("/healthz"));
        // What single checks say is for who is known.
        assert!(!path("/metrics") && !path("/api") && !path("/livez/etcd") && !path("/readyz/etcd"));
        // Upstream's names, to which people bind their own accounts.
        let has = |plural: &str, name: &str| {
            policy.objects.iter().any(|one| one.0 == plural && apimachinery::meta::name(&one.2) == name)
        };
        for signer in ["legacy-unknown", "kubelet-serving", "kube-apiserver-client", "kube-apiserver-client-kubelet"] {
            assert!(has("clusterroles", &format!("system:certificates.k8s.io:{signer}-approver")), "{signer}");
        }
        assert!(has("rolebindings", "system::extension-apiserver-authentication-reader"));
    }
}

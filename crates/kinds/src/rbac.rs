//! Roles and their bindings (upstream: `pkg/apis/rbac/validation`).

use apimachinery::field::{Error, Errors, Path};
use apimachinery::labels::validate_label_selector;
use apimachinery::names::{self, path_segment_name};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use serde_json::{Value, json};

use crate::columns::Column;
use crate::def::{KindDef, NameRule};
use crate::typed::Kind;
use crate::util::{child_object, each, text};

const GROUP: &str = "rbac.authorization.k8s.io";

const fn def(kind: &'static str, plural: &'static str, singular: &'static str) -> KindDef {
    KindDef::new(GROUP, "v1", kind, plural, singular).name(NameRule::PathSegment).create_on_update()
}

impl Kind for Role {
    const DEF: KindDef = def("Role", "roles", "role");

    fn validate(&self, errors: &mut Errors) {
        validate_rules(self.rules.as_deref(), true, errors);
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[Column::NAME, Column::CREATED] }
    }
}

impl Kind for ClusterRole {
    const DEF: KindDef = def("ClusterRole", "clusterroles", "clusterrole").cluster();

    fn validate(&self, errors: &mut Errors) {
        validate_rules(self.rules.as_deref(), false, errors);
        let Some(aggregation) = &self.aggregation_rule else { return };
        let path = Path::new("aggregationRule").child("clusterRoleSelectors");
        let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
        if selectors.is_empty() {
            errors.push(Error::required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil"));
        }
        for (index, selector) in selectors.iter().enumerate() {
            validate_label_selector(selector, &path.index(index), errors);
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const { &[Column::NAME, Column::CREATED] }
    }
}

/// The two kinds of bindings differ in which roles they may name.
macro_rules! binding {
    ($kind:ty, $def:expr, $roles:expr, $namespaced:expr) => {
        impl Kind for $kind {
            const DEF: KindDef = $def;

            fn apply_defaults(object: &mut Value) {
                default_groups(object);
            }

            fn validate(&self, errors: &mut Errors) {
                validate_role(&self.role_ref, $roles, errors);
                for (index, subject) in self.subjects.iter().flatten().enumerate() {
                    validate_subject(subject, $namespaced, &Path::new("subjects").index(index), errors);
                }
            }

            fn validate_update(&self, old: &Self, errors: &mut Errors) {
                if self.role_ref != old.role_ref {
                    let RoleRef { api_group, kind, name } = &self.role_ref;
                    let value = json!({"APIGroup": api_group, "Kind": kind, "Name": name});
                    errors.push(Error::invalid(&Path::new("roleRef"), value, "cannot change roleRef"));
                }
            }

            fn columns() -> &'static [Column<Self>] {
                const {
                    &[
                        Column::new("Role", "The role whose rules are granted.", |binding, _| {
                            format!("{}/{}", binding.role_ref.kind, binding.role_ref.name).into()
                        }),
                        Column::wide("Users", "Users in the roleBinding", |binding, _| subjects(&binding.subjects, "User")),
                        Column::wide("Groups", "Groups in the roleBinding", |binding, _| subjects(&binding.subjects, "Group")),
                        Column::wide("ServiceAccounts", "ServiceAccounts in the roleBinding", |binding, _| {
                            subjects(&binding.subjects, "ServiceAccount")
                        }),
                    ]
                }
            }
        }
    };
}

binding!(RoleBinding, def("RoleBinding", "rolebindings", "rolebinding"), &["Role", "ClusterRole"], true);
binding!(
    ClusterRoleBinding,
    def("ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding").cluster(),
    &["ClusterRole"],
    false
);

fn default_groups(object: &mut Value) {
    if object.get("roleRef").is_some_and(|role| text(role, "/apiGroup").is_empty()) {
        child_object(object, "roleRef")["apiGroup"] = GROUP.into();
    }
    for subject in each(object, "subjects") {
        if matches!(text(subject, "/kind"), "User" | "Group") && text(subject, "/apiGroup").is_empty() {
            subject["apiGroup"] = GROUP.into();
        }
    }
}

fn validate_rules(rules: Option<&[PolicyRule]>, namespaced: bool, errors: &mut Errors) {
    for (index, rule) in rules.unwrap_or_default().iter().enumerate() {
        validate_rule(rule, namespaced, &Path::new("rules").index(index), errors);
    }
}

fn validate_rule(rule: &PolicyRule, namespaced: bool, path: &Path, errors: &mut Errors) {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if rule.verbs.is_empty() {
        errors.push(Error::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if some(&rule.non_resource_urls) {
        let path = path.child("nonResourceURLs");
        let mut refuse = |detail: &str| errors.push(Error::invalid(&path, json!(rule.non_resource_urls), detail));
        if namespaced {
            refuse("namespaced rules cannot apply to non-resource URLs");
        }
        if some(&rule.api_groups) || some(&rule.resources) || some(&rule.resource_names) {
            refuse("rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if !some(&rule.api_groups) {
        errors.push(Error::required(&path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if !some(&rule.resources) {
        errors.push(Error::required(&path.child("resources"), "resource rules must supply at least one resource"));
    }
}

fn validate_role(role: &RoleRef, kinds: &[&str], errors: &mut Errors) {
    let path = Path::new("roleRef");
    let group = role.api_group.as_deref().unwrap_or_default();
    if group != GROUP {
        errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP]));
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.push(Error::not_supported(&path.child("kind"), role.kind.as_str(), kinds));
    }
    if role.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    } else {
        errors.invalid_each(&path.child("name"), &role.name, path_segment_name(&role.name));
    }
}

fn validate_subject(subject: &Subject, namespaced: bool, path: &Path, errors: &mut Errors) {
    if subject.name.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                errors.invalid_each(&path.child("name"), &subject.name, names::dns1123_subdomain(&subject.name));
            }
            if !group.is_empty() {
                errors.push(Error::not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if !namespaced && subject.namespace.as_deref().unwrap_or_default().is_empty() {
                errors.push(Error::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" if group == GROUP => {}
        "User" | "Group" => errors.push(Error::not_supported(&path.child("apiGroup"), group, &[GROUP])),
        other => errors.push(Error::not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"])),
    }
}

/// Names of the subjects of one kind; service accounts with their namespace.
fn subjects(all: &Option<Vec<Subject>>, kind: &str) -> Value {
    let of_kind = all.iter().flatten().filter(|subject| subject.kind == kind);
    let names = of_kind.map(|subject| match (kind, &subject.namespace) {
        ("ServiceAccount", Some(namespace)) => format!("{namespace}/{}", subject.name),
        _ => subject.name.clone(),
    });
    names.collect::<Vec<_>>().join(", ").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KINDS;

    #[track_caller]
    fn check(object: Value, expected: &[&str]) {
        let strategy = KINDS.iter().find(|strategy| object["kind"] == *strategy.def().kind);
        let mut object = object;
        let errors = strategy.map(|strategy| {
            strategy.apply_defaults(&mut object);
            strategy.validate(&object, &mut Vec::new())
        });
        let found: Vec<String> = errors.unwrap_or_default().0.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn rules_name_verbs_and_something() {
        let role = |kind: &str, rule: Value| json!({"kind": kind, "metadata": {"name": "r"}, "rules": [rule]});
        let resources = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]});
        let urls = json!({"nonResourceURLs": ["/x"], "verbs": ["get"]});
        check(role("Role", resources.clone()), &[]);
        check(role("ClusterRole", urls.clone()), &[]);
        check(
            role("Role", urls),
            &[r#"rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs"#],
        );
        let both = json!({"nonResourceURLs": ["/x"], "resources": ["pods"], "verbs": ["get"]});
        check(
            role("ClusterRole", both),
            &[
                r#"rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs"#,
            ],
        );
        check(
            role("Role", json!({"verbs": []})),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        );
        check(
            json!({"kind": "ClusterRole", "aggregationRule": {}}),
            &[
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
            ],
        );
    }

    #[test]
    fn bindings_name_a_role_and_whom() {
        let binding = |kind: &str, role: &str, subject: Value| json!({"kind": kind, "roleRef": {"kind": role, "name": "r"}, "subjects": [subject]});
        let account = json!({"kind": "ServiceAccount", "name": "a"});
        check(binding("RoleBinding", "Role", json!({"kind": "User", "name": "bob"})), &[]);
        check(binding("RoleBinding", "ClusterRole", account.clone()), &[]);
        check(
            binding("ClusterRoleBinding", "Role", account),
            &[
                r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#,
                "subjects[0].namespace: Required value",
            ],
        );
        check(
            binding("RoleBinding", "Role", json!({"kind": "Robot", "name": ""})),
            &[
                "subjects[0].name: Required value",
                r#"subjects[0].kind: Unsupported value: "Robot": supported values: "ServiceAccount", "User", "Group""#,
            ],
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let binding = |role: &str| json!({"roleRef": {"apiGroup": GROUP, "kind": "Role", "name": role}});
        let strategy = KINDS.iter().find(|strategy| strategy.def().kind == "RoleBinding");
        let errors = strategy.map(|strategy| strategy.validate_update(&binding("new"), &binding("old"), &mut Vec::new()));
        let found: Vec<String> = errors.unwrap_or_default().0.iter().map(ToString::to_string).collect();
        let expected =
            format!(r#"roleRef: Invalid value: {{"APIGroup":"{GROUP}","Kind":"Role","Name":"new"}}: cannot change roleRef"#);
        assert_eq!(found, [expected]);
    }
}

//! Kinds without rules of their own: one line each.

use k8s_openapi::api::{apps, authentication, authorization, coordination, rbac};

use crate::def::{KindDef, NameRule};
use crate::typed::Kind;

/// Declares kinds that are nothing but their definition.
macro_rules! plain {
    ($($kind:ty = $def:expr;)+) => { $(impl Kind for $kind { const DEF: KindDef = $def; })+ };
}

const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

plain! {
    apps::v1::ControllerRevision = KindDef::new("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision");
    authentication::v1::TokenReview = KindDef::new(AUTHN, "v1", "TokenReview", "tokenreviews", "tokenreview").cluster().review();
    authentication::v1::SelfSubjectReview = KindDef::new(AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview").cluster().review();
    authorization::v1::SubjectAccessReview = KindDef::new(AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview").cluster().review();
    authorization::v1::SelfSubjectAccessReview = KindDef::new(AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview").cluster().review();
    authorization::v1::LocalSubjectAccessReview = KindDef::new(AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview").review();
    authorization::v1::SelfSubjectRulesReview = KindDef::new(AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview").cluster().review();
    coordination::v1::Lease = KindDef::new("coordination.k8s.io", "v1", "Lease", "leases", "lease").ephemeral(None).create_on_update();
    rbac::v1::Role = KindDef::new(RBAC, "v1", "Role", "roles", "role").name(NameRule::PathSegment).create_on_update();
    rbac::v1::RoleBinding = KindDef::new(RBAC, "v1", "RoleBinding", "rolebindings", "rolebinding").name(NameRule::PathSegment).create_on_update();
    rbac::v1::ClusterRole = KindDef::new(RBAC, "v1", "ClusterRole", "clusterroles", "clusterrole").cluster().name(NameRule::PathSegment).create_on_update();
    rbac::v1::ClusterRoleBinding = KindDef::new(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding").cluster().name(NameRule::PathSegment).create_on_update();
}

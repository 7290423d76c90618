//! Kinds without rules of their own: one line each.

use k8s_openapi::api::{authentication, authorization, core};

use crate::def::KindDef;
use crate::typed::Kind;

/// Declares kinds that are nothing but their definition.
macro_rules! plain {
    ($($kind:ty = $def:expr;)+) => { $(impl Kind for $kind { const DEF: KindDef = $def; })+ };
}

const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";

plain! {
    core::v1::Binding = KindDef::new("", "v1", "Binding", "bindings", "binding").posted_to("pods", "binding");
    authentication::v1::TokenReview = KindDef::new(AUTHN, "v1", "TokenReview", "tokenreviews", "tokenreview").cluster().review();
    authentication::v1::SelfSubjectReview = KindDef::new(AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview").cluster().review();
    authorization::v1::SubjectAccessReview = KindDef::new(AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview").cluster().review();
    authorization::v1::SelfSubjectAccessReview = KindDef::new(AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview").cluster().review();
    authorization::v1::LocalSubjectAccessReview = KindDef::new(AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview").review();
    authorization::v1::SelfSubjectRulesReview = KindDef::new(AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview").cluster().review();
}

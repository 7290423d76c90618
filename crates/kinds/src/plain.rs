//! Kinds without rules of their own: one line each.

use jiff::Timestamp;
use k8s_openapi::api::{apps, authentication, authorization, coordination};
use serde_json::Value;

use crate::columns::Column;
use crate::def::KindDef;
use crate::typed::Kind;
use crate::util::or_none;

/// Declares kinds that are nothing but their definition and, behind an arrow, their columns.
macro_rules! plain {
    ($($kind:ty = $def:expr $(=> $columns:expr)?;)+) => {
        $(impl Kind for $kind {
            const DEF: KindDef = $def;
            $(fn columns() -> &'static [Column<Self>] { const { &$columns } })?
        })+
    };
}

const AUTHN: &str = "authentication.k8s.io";
const AUTHZ: &str = "authorization.k8s.io";

plain! {
    apps::v1::ControllerRevision = KindDef::new("apps", "v1", "ControllerRevision", "controllerrevisions", "controllerrevision")
        => [Column::new("Controller", "Controller of the object", revision_owner), Column::integer("Revision", "Revision indicates the revision of the state represented by Data.", |revision, _| revision.revision.into())];
    authentication::v1::TokenReview = KindDef::new(AUTHN, "v1", "TokenReview", "tokenreviews", "tokenreview").cluster().review();
    authentication::v1::SelfSubjectReview = KindDef::new(AUTHN, "v1", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview").cluster().review();
    authorization::v1::SubjectAccessReview = KindDef::new(AUTHZ, "v1", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview").cluster().review();
    authorization::v1::SelfSubjectAccessReview = KindDef::new(AUTHZ, "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview").cluster().review();
    authorization::v1::LocalSubjectAccessReview = KindDef::new(AUTHZ, "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", "localsubjectaccessreview").review();
    authorization::v1::SelfSubjectRulesReview = KindDef::new(AUTHZ, "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview").cluster().review();
    coordination::v1::Lease = KindDef::new("coordination.k8s.io", "v1", "Lease", "leases", "lease").ephemeral(None).create_on_update()
        => [Column::new("Holder", "holderIdentity contains the identity of the holder of a current lease.", holder)];
}

fn holder(lease: &coordination::v1::Lease, _: Timestamp) -> Value {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default().into()
}

/// The controller of a revision, as `statefulset.apps/web`.
fn revision_owner(revision: &apps::v1::ControllerRevision, _: Timestamp) -> Value {
    let owner = revision.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    or_none(owner.map_or_else(String::new, |owner| {
        let kind = owner.kind.to_lowercase();
        match owner.api_version.split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", owner.name),
            None => format!("{kind}/{}", owner.name),
        }
    }))
}

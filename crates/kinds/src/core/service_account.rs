//! ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::def::KindDef;
use crate::sub::{Action, Sub};
use crate::typed::Kind;

impl Kind for ServiceAccount {
    const DEF: KindDef = KindDef::new("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount")
        .short(&["sa"])
        .returns_deleted()
        .subresources(&[Sub::action("token", ("authentication.k8s.io", "v1", "TokenRequest"), Action::IssueToken)]);
}

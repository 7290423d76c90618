//! ServiceAccount.

use apimachinery::field::Path;
use k8s_openapi::api::core::v1::ServiceAccount;

use crate::def::KindDef;
use crate::sub::{Action, Sub};
use crate::typed::Kind;

impl Kind for ServiceAccount {
    const DEF: KindDef = KindDef::new("", "v1", "ServiceAccount", "serviceaccounts", "serviceaccount")
        .short(&["sa"])
        .returns_deleted()
        .subresources(&[Sub::action("token", ("authentication.k8s.io", "v1", "TokenRequest"), Action::IssueToken)]);

    fn warnings(&self) -> Vec<String> {
        let text = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        let told = || format!("{}: {text}", Path::new("metadata.annotations").key(MOUNTABLE_SECRETS));
        limits_secrets(self).then(told).into_iter().collect()
    }

    /// Whoever leaves it as it is has been told.
    fn warnings_on_update(&self, old: &Self) -> Vec<String> {
        if limits_secrets(old) { Vec::new() } else { self.warnings() }
    }
}

const MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

fn limits_secrets(account: &ServiceAccount) -> bool {
    account.metadata.annotations.as_ref().is_some_and(|notes| notes.contains_key(MOUNTABLE_SECRETS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::check_warnings;
    use serde_json::{Value, json};

    /// Upstream's `TestWarningsOnCreate` and `TestWarningsOnUpdate`.
    #[test]
    fn warnings() {
        let (plain, noted) = (json!({}), json!({"metadata": {"annotations": {MOUNTABLE_SECRETS: "true"}}}));
        let told = "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
        check_warnings::<ServiceAccount>(plain.clone(), &[]);
        check_warnings::<ServiceAccount>(noted.clone(), &[told]);
        let of = |object: &Value| serde_json::from_value::<ServiceAccount>(object.clone()).unwrap_or_default();
        assert_eq!(of(&noted).warnings_on_update(&of(&plain)), [told]);
        assert!(of(&noted).warnings_on_update(&of(&noted)).is_empty());
    }
}

//! Lease.

use apimachinery::field::{Error, Errors, Path};
use k8s_openapi::api::coordination::v1::Lease;

use crate::columns::Column;
use crate::def::{KindDef, UnqualifiedFinalizers};
use crate::rules::{self, NEGATIVE, text};
use crate::typed::Kind;

impl Kind for Lease {
    const DEF: KindDef = KindDef::new("coordination.k8s.io", "v1", "Lease", "leases", "lease")
        .ephemeral()
        .create_on_update()
        .versioned()
        .unqualified_finalizers(UnqualifiedFinalizers::Kept);

    fn validate(&self, errors: &mut Errors) {
        let (Some(spec), path) = (&self.spec, Path::new("spec")) else { return };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            errors.push(Error::invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
        }
        if let Some(transitions) = spec.lease_transitions.filter(|transitions| *transitions < 0) {
            errors.push(Error::invalid(&path.child("leaseTransitions"), transitions, NEGATIVE));
        }
        let strategy = text(&spec.strategy);
        if strategy.contains('/') {
            rules::qualified_name(&path.child("strategy.strategy"), strategy, errors);
        } else {
            let strategy = spec.strategy.as_deref();
            rules::supported(&path.child("strategy.strategy"), strategy, &["OldestEmulationVersion"], errors);
        }
        if !text(&spec.preferred_holder).is_empty() && strategy.is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errors.push(Error::forbidden(&path.child("preferredHolder"), detail));
        }
    }

    fn columns() -> &'static [Column<Self>] {
        const {
            &[Column::new("Holder", "holderIdentity contains the identity of the holder of a current lease.", |lease, _| {
                lease.spec.as_ref().map(|spec| text(&spec.holder_identity)).unwrap_or_default().into()
            })]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, check_update};
    use serde_json::json;

    #[test]
    fn leases() {
        check::<Lease>(json!({"spec": {"leaseDurationSeconds": 15, "leaseTransitions": 0}}), &[]);
        check::<Lease>(
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1, "strategy": "Mine"}}),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
        // The gate of strategies is off: they are only where they have been.
        let coordinated = json!({"spec": {"strategy": "OldestEmulationVersion", "preferredHolder": "a"}});
        check_update::<Lease>(
            coordinated.clone(),
            json!({"spec": {"preferredHolder": "b"}}),
            &["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
        );
        check_update::<Lease>(
            coordinated,
            json!({"spec": {"strategy": "Mine"}}),
            &["spec.strategy.strategy: Unsupported value: \"Mine\": supported values: \"OldestEmulationVersion\""],
        );
    }
}

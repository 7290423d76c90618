//! `admissionregistration.k8s.io`: webhooks and policies (upstream: `pkg/apis/admissionregistration`).
//!
//! Expressions have to compile, and to speak of what is there.

pub mod expressions;
mod matching;
mod mutating_admission_policy;
mod mutating_admission_policy_binding;
mod mutating_webhook_configuration;
mod policy;
#[cfg(test)]
mod tests;
mod validating_admission_policy;
mod validating_admission_policy_binding;
mod validating_webhook_configuration;
mod webhook;

use crate::def::{KindDef, UnqualifiedFinalizers};

const GROUP: &str = "admissionregistration.k8s.io";

/// What all kinds of the group have in common.
const fn def(kind: &'static str, plural: &'static str, singular: &'static str) -> KindDef {
    KindDef::new(GROUP, "v1", kind, plural, singular)
        .cluster()
        .generation()
        .versioned()
        .unqualified_finalizers(UnqualifiedFinalizers::Kept)
        .categories(&["api-extensions"])
}

//! The annotations of an Ingress: one list of those that have an effect, one of those that have none and why.
//!
//! Names and meanings are ingress-nginx's, whose users keep their manifests. Nothing is ignored in silence: what has no effect becomes a
//! [`Problem`], which people see as an event. An annotation that guards an application and cannot be followed closes it.

mod list;
mod value;

use std::collections::BTreeMap;

use crate::policy::Policy;
pub use list::{ANNOTATIONS, WITHOUT_EFFECT};
pub use value::Wrong;

/// What the names of all annotations begin with.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Reason of an event: there is no room for a regular expression.
pub const NO_ROOM: &str = "TooManyPatterns";

/// One annotation.
pub struct Annotation {
    /// Name behind [`PREFIX`].
    pub name: &'static str,
    /// Requests are refused when its value cannot be understood.
    pub guards: bool,
    /// The name that has taken its place: this one counts only where that is not there or empty.
    pub newer: Option<&'static str>,
    apply: fn(&mut Policy, &str) -> Result<(), Wrong>,
}

/// One annotation that is known and does nothing here.
pub struct WithoutEffect {
    /// Name behind [`PREFIX`].
    pub name: &'static str,
    /// Requests are refused, because the application counts on it.
    pub guards: bool,
    /// Why.
    pub why: &'static str,
}

/// What of an Ingress does not work, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the event.
    pub reason: &'static str,
    /// What and why.
    pub message: String,
}

impl Problem {
    /// A problem with a reason.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What annotations of an Ingress in this namespace mean.
pub fn parse(annotations: &BTreeMap<String, String>, namespace: &str) -> (Policy, Vec<Problem>) {
    let (mut policy, mut problems) = (Policy { namespace: namespace.to_owned(), ..Policy::default() }, Vec::new());
    for (name, value) in annotations {
        let Some(short) = name.strip_prefix(PREFIX) else { continue };
        if let Some(annotation) = ANNOTATIONS.iter().find(|annotation| annotation.name == short) {
            let newer = annotation.newer.map(|newer| format!("{PREFIX}{newer}"));
            if let Some(newer) = newer.filter(|newer| annotations.get(newer).is_some_and(|value| !value.trim().is_empty())) {
                problems.push(Problem::new("UnsupportedAnnotation", format!("{name} has no effect: {newer} counts")));
            } else if let Err(wrong) = (annotation.apply)(&mut policy, value.trim()) {
                policy.closed |= annotation.guards;
                let reason = if wrong == Wrong::NoRoom { NO_ROOM } else { "InvalidAnnotation" };
                let end = if annotation.guards { "requests are refused until it is right" } else { "it has no effect" };
                problems.push(Problem::new(reason, format!("{name}: {wrong}; {end}")));
            }
        } else if let Some(known) = WITHOUT_EFFECT.iter().find(|known| known.name == short) {
            policy.closed |= known.guards;
            let end = if known.guards { "not supported, so that requests are refused" } else { "has no effect" };
            problems.push(Problem::new("UnsupportedAnnotation", format!("{name} {end}: {}", known.why)));
        } else {
            problems.push(Problem::new("UnsupportedAnnotation", format!("{name} has no effect: it is not known")));
        }
    }
    (policy, problems)
}

#[cfg(test)]
mod tests;

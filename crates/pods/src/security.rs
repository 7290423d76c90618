//! The Pod Security Standards (Kubernetes documentation, "Pod Security Standards"): what the levels baseline and restricted ask of a
//! pod, in each version of the standards.
//!
//! A [`Rule`] is a level in a version, as a namespace's labels name it ([`policy`]). [`Rule::violations`] looks the checks up in one
//! table ([`checks::CHECKS`]); each check is a function with the first version in which it holds.

mod baseline;
mod checks;
pub mod policy;
mod profiles;
#[cfg(test)]
mod published;
mod restricted;
mod subject;
#[cfg(test)]
mod tests;

use std::fmt;

pub use policy::Policy;
pub use subject::Subject;

/// How much is asked of pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    #[default]
    Privileged,
    /// What prevents known privilege escalations.
    Baseline,
    /// Current practice of hardening pods.
    Restricted,
}

impl Level {
    /// Its name in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// A version of the standards. They are those of Kubernetes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// The newest that is known.
    #[default]
    Latest,
    /// v1 with this minor version.
    Minor(u32),
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// A level in a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// How much is asked.
    pub level: Level,
    /// In which version of the standards.
    pub version: Version,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.as_str(), self.version)
    }
}

/// What a pod does that a check forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is forbidden, for lists of many pods.
    pub reason: &'static str,
    /// Where the pod does it.
    pub detail: String,
}

impl Rule {
    /// What a pod does against the rule, in the order of upstream's checks.
    pub fn violations(self, pod: &Subject) -> Vec<Violation> {
        checks::of(self).filter_map(|check| check(pod)).collect()
    }
}

/// The violations as a refusal tells them.
pub fn details(violations: &[Violation]) -> String {
    let each = violations.iter().map(|violation| format!("{} ({})", violation.reason, violation.detail));
    each.collect::<Vec<_>>().join(", ")
}

/// The violations in short, as a list of many pods tells them.
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ")
}

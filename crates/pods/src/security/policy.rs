//! What a namespace asks of its pods, by its labels (Kubernetes documentation, "Pod Security Admission").

use apimachinery::field::{Error, Errors, Path};

use super::{Level, Rule, Version};

/// What the labels of policies begin with.
pub const PREFIX: &str = "pod-security.kubernetes.io/";

/// The three rules of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: Rule,
    /// Violations are noted in the audit log.
    pub audit: Rule,
    /// Violations are told to the client.
    pub warn: Rule,
}

impl Policy {
    /// Reads labels. Wrong ones are told, and a policy follows all the same: a wrong level is the strictest one for what is enforced,
    /// and the mildest for what is only told; a wrong version is the latest.
    pub fn of<'a>(label: impl Fn(&str) -> Option<&'a str>) -> (Self, Errors) {
        Self::default().with(label)
    }

    /// The same, where what no label says is as it is here.
    pub fn with<'a>(self, label: impl Fn(&str) -> Option<&'a str>) -> (Self, Errors) {
        let (mut policy, mut errors) = (self, Errors::new());
        let modes = [
            ("enforce", &mut policy.enforce, Level::Restricted),
            ("audit", &mut policy.audit, Level::Privileged),
            ("warn", &mut policy.warn, Level::Privileged),
        ];
        for (mode, rule, otherwise) in modes {
            let key = format!("{PREFIX}{mode}");
            if let Some(value) = label(&key) {
                rule.level = level(value).unwrap_or_else(|| {
                    errors.push(wrong(&key, value, "must be one of privileged, baseline, restricted"));
                    otherwise
                });
            }
            let key = format!("{key}-version");
            if let Some(value) = label(&key) {
                rule.version = version(value).unwrap_or_else(|| {
                    errors.push(wrong(&key, value, "must be \"latest\" or \"v1.x\""));
                    Version::Latest
                });
            }
        }
        (policy, errors)
    }
}

fn wrong(key: &str, value: &str, detail: &str) -> Error {
    Error::invalid(&Path::new("metadata").child("labels").key(key), value, detail)
}

/// A level by its name.
pub fn level(name: &str) -> Option<Level> {
    [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|level| level.as_str() == name)
}

/// A version by its name.
pub fn version(name: &str) -> Option<Version> {
    if name == "latest" {
        return Some(Version::Latest);
    }
    let minor = name.strip_prefix("v1.")?;
    let canonical = minor.bytes().all(|byte| byte.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    if canonical { minor.parse().ok().map(Version::Minor) } else { None }
}

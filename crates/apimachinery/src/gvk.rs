//! Names of API types: group, version, kind and resource.

use std::fmt;

/// A group and a version, written `apps/v1`, or `v1` in the legacy group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersion {
    /// Empty for the legacy group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
}

/// A string that is not `group/version` or `version`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected GroupVersion string: {0}")]
pub struct InvalidGroupVersion(pub String);

impl GroupVersion {
    /// From its parts.
    pub fn new(group: impl Into<String>, version: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into() }
    }

    /// Parses an `apiVersion`. The empty string is the empty group and version, as upstream.
    pub fn parse(api_version: &str) -> Result<Self, InvalidGroupVersion> {
        match split_api_version(api_version) {
            Some((group, version)) => Ok(Self::new(group, version)),
            None => Err(InvalidGroupVersion(api_version.to_owned())),
        }
    }

    /// Adds a kind.
    pub fn with_kind(self, kind: impl Into<String>) -> GroupVersionKind {
        GroupVersionKind { group: self.group, version: self.version, kind: kind.into() }
    }
}

/// Splits an `apiVersion` into group and version without allocating; `None` with more than one slash.
pub fn split_api_version(api_version: &str) -> Option<(&str, &str)> {
    match api_version.split_once('/') {
        None => Some(("", api_version)),
        Some((_, version)) if version.contains('/') => None,
        Some(parts) => Some(parts),
    }
}

/// Joins group and version into an `apiVersion`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

/// A kind in a group and version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionKind {
    /// Empty for the legacy group.
    pub group: String,
    /// Such as `v1`.
    pub version: String,
    /// Such as `Deployment`.
    pub kind: String,
}

impl GroupVersionKind {
    /// From its parts.
    pub fn new(group: impl Into<String>, version: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// From `apiVersion` and `kind`; a malformed `apiVersion` leaves group and version empty, as upstream.
    pub fn from_api_version(api_version: &str, kind: &str) -> Self {
        GroupVersion::parse(api_version).unwrap_or_default().with_kind(kind)
    }

    /// Of an object, from its own `apiVersion` and `kind`.
    pub fn of(object: &serde_json::Value) -> Self {
        Self::from_api_version(crate::meta::api_version(object), crate::meta::kind(object))
    }

    /// `group/version`, or `version` in the legacy group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Upstream's text of a GroupKind: `Deployment.apps`, `Pod`.
    pub fn group_kind(&self) -> String {
        join(&self.kind, &self.group)
    }
}

impl fmt::Display for GroupVersionKind {
    /// As upstream: `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// A resource in a group, written `deployments.apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// Empty for the legacy group.
    pub group: String,
    /// Plural, such as `deployments`.
    pub resource: String,
}

impl GroupResource {
    /// From its parts.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }

    /// Parses `deployments.apps`: everything after the first dot is the group.
    pub fn parse(s: &str) -> Self {
        match s.split_once('.') {
            Some((resource, group)) => Self::new(group, resource),
            None => Self::new("", s),
        }
    }

    /// Whether neither part is set.
    pub fn is_empty(&self) -> bool {
        self.group.is_empty() && self.resource.is_empty()
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.resource) } else { write!(f, "{}.{}", self.resource, self.group) }
    }
}

fn join(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_versions() {
        let check = |input: &str, expected: Option<(&str, &str)>| {
            assert_eq!(GroupVersion::parse(input).ok(), expected.map(|(g, v)| GroupVersion::new(g, v)), "{input}");
        };
        check("v1", Some(("", "v1")));
        check("apps/v1", Some(("apps", "v1")));
        check("", Some(("", "")));
        check("a/b/c", None);
    }

    #[test]
    fn texts() {
        assert_eq!(GroupResource::new("apps", "deployments").to_string(), "deployments.apps");
        assert_eq!(GroupResource::parse("roles.rbac.authorization.k8s.io").group, "rbac.authorization.k8s.io");
        assert_eq!(GroupVersionKind::from_api_version("v1", "Pod").to_string(), "/v1, Kind=Pod");
        assert_eq!(GroupVersionKind::new("apps", "v1", "Deployment").group_kind(), "Deployment.apps");
        assert_eq!(api_version("", "v1"), "v1");
    }
}

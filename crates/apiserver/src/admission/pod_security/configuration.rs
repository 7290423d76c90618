//! `PodSecurityConfiguration` of `pod-security.admission.config.k8s.io/v1`, checked as upstream does.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use pods::security::{Policy, Rule, policy};
use serde::Deserialize;
use serde_json::Value;

/// What holds where no label says otherwise, and whom none of it concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(super) defaults: Policy,
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

/// Why the configuration is wrong.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("it is not a PodSecurityConfiguration of pod-security.admission.config.k8s.io/v1")]
    Kind,
    #[error("{0}")]
    Decode(String),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Fields(Errors),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Configuration {
    /// Reads the configuration of the plugin.
    pub(crate) fn parse(value: Value) -> Result<Self, Invalid> {
        let versions = ["v1", "v1beta1", "v1alpha1"].map(|version| format!("pod-security.admission.config.k8s.io/{version}"));
        let known = value["apiVersion"].as_str().is_some_and(|version| versions.iter().any(|one| one == version));
        if value["kind"] != "PodSecurityConfiguration" || !known {
            return Err(Invalid::Kind);
        }
        let File { defaults, exemptions, .. } =
            serde_json::from_value(value).map_err(|error| Invalid::Decode(error.to_string()))?;
        let mut errors = Errors::new();
        let path = Path::new("defaults");
        let mut rule = |mode: &str, level: &str, version: &str| rule(level, version, &path.child(mode), &mut errors);
        let defaults = Policy {
            enforce: rule("enforce", &defaults.enforce, &defaults.enforce_version),
            audit: rule("audit", &defaults.audit, &defaults.audit_version),
            warn: rule("warn", &defaults.warn, &defaults.warn_version),
        };
        let path = Path::new("exemptions");
        let subdomain = |name: &str| names::dns1123_subdomain(name);
        check(&exemptions.namespaces, &path.child("namespaces"), subdomain, &mut errors);
        check(&exemptions.runtime_classes, &path.child("runtimeClasses"), subdomain, &mut errors);
        let empty = |name: &str| if name.is_empty() { vec!["username must not be empty".to_owned()] } else { Vec::new() };
        check(&exemptions.usernames, &path.child("usernames"), empty, &mut errors);
        if !errors.is_empty() {
            return Err(Invalid::Fields(errors));
        }
        let Exemptions { usernames, namespaces, runtime_classes } = exemptions;
        Ok(Self { defaults, usernames, namespaces, runtime_classes })
    }

    /// Why none of it concerns a request in a namespace by a user.
    pub(super) fn exempts(&self, namespace: &str, user: &str) -> Option<&'static str> {
        let has = |list: &[String], name: &str| list.iter().any(|one| one == name);
        if has(&self.namespaces, namespace) { Some("namespace") } else { has(&self.usernames, user).then_some("user") }
    }

    /// Whether none of it concerns pods of a RuntimeClass.
    pub(super) fn exempts_class(&self, name: &str) -> bool {
        self.runtime_classes.iter().any(|one| one == name)
    }
}

/// What is left out is privileged, and the latest.
fn rule(level: &str, version: &str, path: &Path, errors: &mut Errors) -> Rule {
    let mut rule = Rule::default();
    if !level.is_empty() {
        match policy::level(level) {
            Some(level) => rule.level = level,
            None => errors.push(Error::invalid(path, level, "must be one of privileged, baseline, restricted")),
        }
    }
    if !version.is_empty() {
        match policy::version(version) {
            Some(version) => rule.version = version,
            None => {
                let path = Path::new(&format!("{path}-version"));
                errors.push(Error::invalid(&path, version, "must be \"latest\" or \"v1.x\""));
            }
        }
    }
    rule
}

fn check(all: &[String], path: &Path, wrong: impl Fn(&str) -> Vec<String>, errors: &mut Errors) {
    for (at, name) in all.iter().enumerate() {
        for why in wrong(name) {
            errors.push(Error::invalid(&path.index(at), name.as_str(), why));
        }
        if all[..at].contains(name) {
            errors.push(Error::duplicate(&path.index(at), name.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn parse(rest: Value) -> Result<Configuration, Invalid> {
        let mut whole = json!({"apiVersion": "pod-security.admission.config.k8s.io/v1", "kind": "PodSecurityConfiguration"});
        whole.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        Configuration::parse(whole)
    }

    #[test]
    fn defaults_and_exemptions() {
        let found = parse(json!({"defaults": {"enforce": "baseline", "enforce-version": "v1.25", "warn": "restricted"},
            "exemptions": {"namespaces": ["kube-system"], "usernames": ["root"], "runtimeClasses": ["kata"]}}));
        let found = found.unwrap();
        let shown = [found.defaults.enforce, found.defaults.audit, found.defaults.warn].map(|rule| rule.to_string());
        assert_eq!(shown, ["baseline:v1.25", "privileged:latest", "restricted:latest"]);
        assert_eq!(found.exempts("kube-system", "root"), Some("namespace"));
        assert_eq!((found.exempts("n", "root"), found.exempts("n", "jane")), (Some("user"), None));
        assert!(found.exempts_class("kata") && !found.exempts_class(""));
        let labelled = found.defaults.with(|key| (key == "pod-security.kubernetes.io/enforce").then_some("privileged"));
        assert_eq!(labelled.0.enforce.to_string(), "privileged:v1.25");
        assert_eq!(parse(json!({})), Ok(Configuration::default()));
    }

    #[test]
    fn configurations_that_are_wrong() {
        let check = |rest: Value, expected: &str| {
            let why = parse(rest.clone()).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(why.contains(expected), "{rest}: {why}");
        };
        check(
            json!({"defaults": {"enforce": "strict"}}),
            "defaults.enforce: Invalid value: \"strict\": must be one of privileged",
        );
        check(json!({"defaults": {"warn-version": "1.25"}}), "defaults.warn-version: Invalid value: \"1.25\"");
        check(json!({"exemptions": {"namespaces": ["A"]}}), "exemptions.namespaces[0]: Invalid value: \"A\"");
        check(json!({"exemptions": {"usernames": ["", "a", "a"]}}), "exemptions.usernames[0]: Invalid value: \"\"");
        check(json!({"exemptions": {"usernames": ["a", "a"]}}), "exemptions.usernames[1]: Duplicate value: \"a\"");
        check(json!({"exemption": {}}), "unknown field `exemption`");
        assert!(Configuration::parse(json!({"kind": "Pod"})).is_err());
    }
}

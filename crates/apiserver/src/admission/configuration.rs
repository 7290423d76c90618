//! The file of `--admission-control-config-file`: an AdmissionConfiguration with what plugins are told.

use std::path::Path;

use apimachinery::yaml;
use serde_json::Value;

use super::{
    EVENT_RATE, POD_NODE_SELECTOR, POD_TOLERATION_RESTRICTION, event_rate, node_selector, pod_security, resource_quota,
    toleration_restriction,
};
use crate::file::{self, FileError};

/// Plugins that are told something where they are enabled.
const OF_OPTIONAL: [&str; 3] = [EVENT_RATE, POD_NODE_SELECTOR, POD_TOLERATION_RESTRICTION];

/// What plugins are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    pub(super) pod_security: pod_security::Configuration,
    /// Limits of Events.
    pub(super) event_rate: Option<Vec<event_rate::Limit>>,
    pub(super) node_selector: node_selector::Configuration,
    pub(super) tolerations: toleration_restriction::Configuration,
    /// What nobody may have without a quota.
    pub(super) limited: Vec<resource_quota::Limited>,
    /// Plugins that are to work, besides those that always do.
    pub(super) enabled: Vec<String>,
}

/// Why admission cannot work as it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A name.
    #[error("there is no admission plugin {0:?}; those that can be enabled are {all}", all = super::OPTIONAL.join(", "))]
    Unknown(String),
    /// A name that upstream knows.
    #[error("the admission plugin {0} cannot be enabled: {1}")]
    LeftOut(&'static str, &'static str),
    /// Limits are missing.
    #[error("EventRateLimit has no limits: --admission-control-config-file names them")]
    Unlimited,
}

impl Configuration {
    /// Reads the file, if there is one, and those that it names. `enabled` are plugins that are to work.
    pub(crate) fn read(path: Option<&Path>, enabled: &[String]) -> Result<Self, Error> {
        let mut configuration = match path {
            Some(path) => Self::of_file(path, enabled)?,
            None => Self::default(),
        };
        enabled.clone_into(&mut configuration.enabled);
        if configuration.event_rate.is_none() && enabled.iter().any(|name| name == EVENT_RATE) {
            return Err(Error::Unlimited);
        }
        Ok(configuration)
    }

    fn of_file(path: &Path, enabled: &[String]) -> Result<Self, FileError> {
        let wrong = |why: String| FileError::new(path, why);
        let file = parse(path)?;
        let known = ["v1", "v1alpha1"].iter().any(|version| file["apiVersion"] == format!("apiserver.config.k8s.io/{version}"));
        if file["kind"] != "AdmissionConfiguration" || !known {
            return Err(wrong("it is not an AdmissionConfiguration of apiserver.config.k8s.io/v1".to_owned()));
        }
        let mut configuration = Self::default();
        for plugin in file["plugins"].as_array().into_iter().flatten() {
            let name = plugin["name"].as_str().unwrap_or_default();
            let own = match plugin["path"].as_str().filter(|path| !path.is_empty()) {
                Some(other) => parse(&path.parent().unwrap_or(Path::new("")).join(other))?,
                None => plugin["configuration"].clone(),
            };
            let of_plugin = |why: &dyn std::fmt::Display| wrong(format!("plugin {name}: {why}"));
            if OF_OPTIONAL.contains(&name) && !enabled.iter().any(|enabled| enabled == name) {
                return Err(wrong(format!("plugin {name} is not enabled (--enable-admission-plugins)")));
            }
            match name {
                "PodSecurity" => {
                    configuration.pod_security = pod_security::Configuration::parse(own).map_err(|why| of_plugin(&why))?
                }
                EVENT_RATE => configuration.event_rate = Some(event_rate::parse(&own).map_err(|why| of_plugin(&why))?),
                POD_NODE_SELECTOR => {
                    configuration.node_selector = node_selector::Configuration::parse(&own).map_err(|why| of_plugin(&why))?;
                }
                POD_TOLERATION_RESTRICTION => {
                    configuration.tolerations =
                        toleration_restriction::Configuration::parse(&own).map_err(|why| of_plugin(&why))?;
                }
                "ResourceQuota" => configuration.limited = resource_quota::parse(&own).map_err(|why| of_plugin(&why))?,
                // What is not acted upon must not look as if it were.
                _ => {
                    let others = OF_OPTIONAL.join(", ");
                    return Err(wrong(format!(
                        "plugin {name:?} takes no configuration here; PodSecurity, ResourceQuota, {others} do"
                    )));
                }
            }
        }
        Ok(configuration)
    }
}

fn parse(path: &Path) -> Result<Value, FileError> {
    let text = file::read(path)?;
    yaml::parse(&text).map(|(value, _)| value).map_err(|error| FileError::new(path, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files() {
        let directory = tempfile::tempdir().unwrap();
        let own = "{apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, exemptions: {usernames: [root]}}";
        std::fs::write(directory.path().join("own.yaml"), own).unwrap();
        let check = |plugins: &str, expected: Result<bool, &str>| {
            let path = directory.path().join("admission.yaml");
            let text = format!("{{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{plugins}]}}");
            std::fs::write(&path, text).unwrap();
            let found =
                Configuration::read(Some(&path), &[]).map(|found| found.pod_security != pod_security::Configuration::default());
            let found = found.map_err(|error| error.to_string().replace(&path.display().to_string(), "file"));
            assert_eq!(found, expected.map_err(str::to_owned), "{plugins}");
        };
        check("", Ok(false));
        check(&format!("{{name: PodSecurity, configuration: {own}}}"), Ok(true));
        check("{name: PodSecurity, path: own.yaml}", Ok(true));
        check(
            "{name: Other}",
            Err(
                "file: plugin \"Other\" takes no configuration here; PodSecurity, ResourceQuota, EventRateLimit, PodNodeSelector, PodTolerationRestriction do",
            ),
        );
        for name in OF_OPTIONAL {
            let why = format!("file: plugin {name} is not enabled (--enable-admission-plugins)");
            check(&format!("{{name: {name}}}"), Err(&why));
        }
        check(
            "{name: PodSecurity, configuration: {kind: Pod}}",
            Err("file: plugin PodSecurity: it is not a PodSecurityConfiguration of pod-security.admission.config.k8s.io/v1"),
        );
        assert!(Configuration::read(Some(&directory.path().join("own.yaml")), &[]).is_err());
        assert!(Configuration::read(Some(&directory.path().join("none")), &[]).is_err());
        assert!(Configuration::read(None, &[]).is_ok());
        let enabled = ["EventRateLimit".to_owned()];
        assert!(matches!(Configuration::read(None, &enabled), Err(Error::Unlimited)));
        let limits = "{apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration, limits: [{type: Server, qps: 1, burst: 2}]}";
        let text = format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{{name: EventRateLimit, configuration: {limits}}}]}}"
        );
        let path = directory.path().join("admission.yaml");
        std::fs::write(&path, text).unwrap();
        assert_eq!(Configuration::read(Some(&path), &enabled).unwrap().event_rate.map(|limits| limits.len()), Some(1));
    }
}

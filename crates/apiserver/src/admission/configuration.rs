//! The file of `--admission-control-config-file`: an AdmissionConfiguration with what plugins are told.

use std::path::Path;

use apimachinery::yaml;
use serde_json::Value;

use super::pod_security;
use crate::file::{self, FileError};

/// What plugins are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    pub(super) pod_security: pod_security::Configuration,
}

impl Configuration {
    /// Reads the file, if there is one, and those that it names.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, FileError> {
        let Some(path) = path else { return Ok(Self::default()) };
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
            match name {
                "PodSecurity" => {
                    let found = pod_security::Configuration::parse(own);
                    configuration.pod_security = found.map_err(|why| wrong(format!("plugin {name}: {why}")))?;
                }
                // What is not acted upon must not look as if it were.
                _ => return Err(wrong(format!("plugin {name:?} takes no configuration here; PodSecurity does"))),
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
                Configuration::read(Some(&path)).map(|found| found.pod_security != pod_security::Configuration::default());
            let found = found.map_err(|error| error.to_string().replace(&path.display().to_string(), "file"));
            assert_eq!(found, expected.map_err(str::to_owned), "{plugins}");
        };
        check("", Ok(false));
        check(&format!("{{name: PodSecurity, configuration: {own}}}"), Ok(true));
        check("{name: PodSecurity, path: own.yaml}", Ok(true));
        check("{name: EventRateLimit}", Err("file: plugin \"EventRateLimit\" takes no configuration here; PodSecurity does"));
        check(
            "{name: PodSecurity, configuration: {kind: Pod}}",
            Err("file: plugin PodSecurity: it is not a PodSecurityConfiguration of pod-security.admission.config.k8s.io/v1"),
        );
        assert!(Configuration::read(Some(&directory.path().join("own.yaml"))).is_err());
        assert!(Configuration::read(Some(&directory.path().join("none"))).is_err());
        assert!(Configuration::read(None).is_ok());
    }
}

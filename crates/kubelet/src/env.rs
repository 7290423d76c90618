//! The environment of a container: services, `envFrom`, `env`.

pub mod file;

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::certificates::v1beta1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, FileKeySelector, Secret, Service};

use crate::expand::{self, TooLong, expand};
use crate::fields::{self, Facts};
use crate::spec::Model;

/// The objects that a pod refers to, as far as they exist.
pub trait Objects {
    /// The ConfigMap of that name in the pod's namespace.
    fn config_map(&self, name: &str) -> Option<std::sync::Arc<ConfigMap>>;
    /// The Secret of that name in the pod's namespace.
    fn secret(&self, name: &str) -> Option<std::sync::Arc<Secret>>;
    /// The cluster's ClusterTrustBundles by name.
    fn trust_bundles(&self) -> std::sync::Arc<BTreeMap<String, ClusterTrustBundle>>;
}

/// Why the environment cannot be made (CreateContainerConfigError).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A ConfigMap or Secret is missing.
    #[error("{kind} \"{name}\" not found")]
    NotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key is missing.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A downward API reference is wrong.
    #[error(transparent)]
    Field(#[from] fields::Error),
    /// More than a program can be given.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// A file of a volume cannot be read.
    #[error("failed to open environment variable file {path:?} in volume {volume:?}: {why}")]
    File {
        /// The volume.
        volume: String,
        /// The file in it.
        path: String,
        /// Why.
        why: String,
    },
    /// A file of a volume does not say what it is to say.
    #[error("environment variable file {path:?} in volume {volume:?}: {error}")]
    Syntax {
        /// The volume.
        volume: String,
        /// The file in it.
        path: String,
        /// What is wrong.
        error: file::Error,
    },
    /// A file of a volume does not have the variable.
    #[error("environment variable key {key:?} not found in file {path:?} in volume {volume:?}")]
    NoVariable {
        /// The volume.
        volume: String,
        /// The file in it.
        path: String,
        /// The variable.
        key: String,
    },
}

/// Texts of files with variables, by volume and path; what of them could not be read, and why: none is a file that is not there.
pub type Files = BTreeMap<(String, String), Result<String, Option<String>>>;

/// The files that a container has variables from.
pub fn files(container: &Container) -> impl Iterator<Item = &FileKeySelector> {
    container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()?.file_key_ref.as_ref())
}

fn from_file(files: &Files, wanted: &FileKeySelector) -> Result<Option<String>, Error> {
    let (volume, path, optional) = (wanted.volume_name.clone(), wanted.path.clone(), wanted.optional == Some(true));
    let text = match files.get(&(volume.clone(), path.clone())) {
        Some(Ok(text)) => text,
        Some(Err(None)) | None if optional => return Ok(None),
        Some(Err(Some(why))) => return Err(Error::File { volume, path, why: why.clone() }),
        Some(Err(None)) | None => return Err(Error::File { volume, path, why: "no such file or directory".to_owned() }),
    };
    match file::value(text, &wanted.key) {
        Err(error) => Err(Error::Syntax { volume, path, error }),
        Ok(None) if !optional => Err(Error::NoVariable { volume, path, key: wanted.key.clone() }),
        Ok(found) => Ok(found),
    }
}

/// An environment and the keys of `envFrom` sources that are no variable names (event InvalidEnvironmentVariableNames).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// In order of definition, each name once.
    pub variables: Vec<(String, String)>,
    /// `(kind, name, keys)`.
    pub skipped: Vec<(&'static str, String, Vec<String>)>,
}

#[derive(Default)]
struct Builder {
    order: Vec<String>,
    values: HashMap<String, String>,
    /// Bytes of all that was set.
    bytes: usize,
}

impl Builder {
    fn set(&mut self, name: String, value: String) -> Result<(), TooLong> {
        let length = name.len() + value.len();
        self.bytes += length;
        if length > expand::LONGEST {
            return Err(TooLong::One);
        }
        if self.bytes > expand::ALL {
            return Err(TooLong::All);
        }
        if !self.values.contains_key(&name) {
            self.order.push(name.clone());
        }
        self.values.insert(name, value);
        Ok(())
    }
}

/// Builds the environment of `container`. `services` are the variables of [`service_variables`].
pub fn build(
    model: &Model,
    container: &Container,
    services: &[(String, String)],
    objects: &dyn Objects,
    files: &Files,
    facts: &Facts,
) -> Result<Environment, Error> {
    let mut skipped = Vec::new();
    let mut own = Builder::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        let (kind, name, data) = if let Some(r) = &source.config_map_ref {
            let data = objects.config_map(&r.name).map(|map| map.data.clone().unwrap_or_default());
            ("ConfigMap", &r.name, require(data, "configmap", &r.name, r.optional)?)
        } else if let Some(r) = &source.secret_ref {
            let data = objects.secret(&r.name).map(|secret| secret_texts(&secret));
            ("Secret", &r.name, require(data, "secret", &r.name, r.optional)?)
        } else {
            continue;
        };
        let mut invalid = Vec::new();
        for (key, value) in data {
            let variable = format!("{prefix}{key}");
            if is_variable_name(&variable) { own.set(variable, value)? } else { invalid.push(key) }
        }
        if !invalid.is_empty() {
            skipped.push((kind, name.clone(), invalid));
        }
    }
    let services: BTreeMap<_, _> = services.iter().cloned().collect();
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(EnvVarSource { file_key_ref: Some(wanted), .. }) => from_file(files, wanted)?,
            Some(source) => from_source(model, container, source, objects, facts)?,
            None => {
                let text = variable.value.as_deref().unwrap_or_default();
                Some(expand(text, |name| own.values.get(name).or_else(|| services.get(name)))?)
            }
        };
        if let Some(value) = value {
            own.set(variable.name.clone(), value)?;
        }
    }
    let mut variables: Vec<_> = services.into_iter().filter(|(name, _)| !own.values.contains_key(name)).collect();
    let Builder { order, mut values, .. } = own;
    variables.extend(order.into_iter().filter_map(|name| values.remove_entry(&name)));
    Ok(Environment { variables, skipped })
}

fn require<T: Default>(data: Option<T>, kind: &'static str, name: &str, optional: Option<bool>) -> Result<T, Error> {
    match data {
        Some(data) => Ok(data),
        None if optional == Some(true) => Ok(T::default()),
        None => Err(Error::NotFound { kind, name: name.to_owned() }),
    }
}

fn secret_texts(secret: &Secret) -> BTreeMap<String, String> {
    secret.data.iter().flatten().map(|(key, bytes)| (key.clone(), text(&bytes.0))).collect()
}

/// A value of a Secret as a variable. What is no UTF-8 does not fit into an OCI configuration, which is JSON: each such byte becomes U+FFFD, as
/// with runtimes whose JSON is Go's. The container starts all the same, as with upstream (kubernetes#139132).
fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

fn from_source(
    model: &Model,
    container: &Container,
    source: &EnvVarSource,
    objects: &dyn Objects,
    facts: &Facts,
) -> Result<Option<String>, Error> {
    let missing = |kind: &'static str, name: &str, key: &str| Error::NoKey {
        kind,
        namespace: model.namespace().to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    if let Some(r) = &source.field_ref {
        Ok(Some(fields::field(model, &r.field_path, facts)?))
    } else if let Some(r) = &source.resource_field_ref {
        Ok(Some(fields::resource(model, Some(container), r, facts)?))
    } else if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional == Some(true);
        match objects.config_map(&r.name) {
            None if optional => Ok(None),
            None => Err(Error::NotFound { kind: "configmap", name: r.name.clone() }),
            Some(map) => match map.data.as_ref().and_then(|data| data.get(&r.key)) {
                None if optional => Ok(None),
                found => found.cloned().map(Some).ok_or_else(|| missing("ConfigMap", &r.name, &r.key)),
            },
        }
    } else if let Some(r) = &source.secret_key_ref {
        let optional = r.optional == Some(true);
        match objects.secret(&r.name) {
            None if optional => Ok(None),
            None => Err(Error::NotFound { kind: "secret", name: r.name.clone() }),
            Some(secret) => match secret.data.as_ref().and_then(|data| data.get(&r.key)) {
                None if optional => Ok(None),
                None => Err(missing("Secret", &r.name, &r.key)),
                Some(bytes) => Ok(Some(text(&bytes.0))),
            },
        }
    } else {
        Ok(None)
    }
}

/// The API's rule for names of environment variables: printable ASCII without `=`.
fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b'=')
}

/// The `NAME_SERVICE_HOST` family of variables: services of the pod's namespace, and the API server's service in any case.
pub fn service_variables<'a>(model: &Model, services: impl IntoIterator<Item = &'a Service>) -> Vec<(String, String)> {
    let links = model.spec().enable_service_links.unwrap_or(true);
    let mut variables = Vec::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let is_master = namespace == "default" && name == "kubernetes";
        let Some(ip) = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) else { continue };
        if (is_master || (links && namespace == model.namespace())) && !matches!(ip, "" | "None") {
            one_service(name, ip, service, &mut variables);
        }
    }
    variables
}

fn one_service(name: &str, ip: &str, service: &Service, variables: &mut Vec<(String, String)>) {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let prefix = upper(name);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let mut add = |name: String, value: String| variables.push((name, value));
    add(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    add(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports.iter().filter(|port| port.name.as_deref().is_some_and(|name| !name.is_empty())) {
        add(format!("{prefix}_SERVICE_PORT_{}", upper(port.name.as_deref().unwrap_or_default())), port.port.to_string());
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            add(format!("{prefix}_PORT"), url.clone());
        }
        let base = format!("{prefix}_PORT_{}_{protocol}", port.port);
        add(base.clone(), url);
        add(format!("{base}_PROTO"), protocol.to_lowercase());
        add(format!("{base}_PORT"), port.port.to_string());
        add(format!("{base}_ADDR"), ip.to_owned());
    }
}

#[cfg(test)]
mod tests;

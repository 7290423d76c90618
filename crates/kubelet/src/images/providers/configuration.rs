//! Which image credential providers there are: files of the kind `CredentialProviderConfig` (`kubelet.config.k8s.io`), read at start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use apimachinery::field::{self, Errors};
use apimachinery::{names, time, yaml};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::images::patterns::Pattern;

/// Versions of the configuration.
const VERSIONS: [&str; 3] = ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1alpha1", "kubelet.config.k8s.io/v1beta1"];
/// Versions in which requests and responses may be; tokens are there in the first only.
const EXCHANGES: [&str; 3] = [
    "credentialprovider.kubelet.k8s.io/v1",
    "credentialprovider.kubelet.k8s.io/v1alpha1",
    "credentialprovider.kubelet.k8s.io/v1beta1",
];
const CACHE_TYPES: [&str; 2] = ["ServiceAccount", "Token"];

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}: no file in it ends in .json, .yaml or .yml", .0.display())]
    Empty(PathBuf),
    #[error("{}: {why}", path.display())]
    Decode { path: PathBuf, why: String },
    #[error("{}: it is no CredentialProviderConfig of {}", .0.display(), VERSIONS.join(", "))]
    Kind(PathBuf),
    #[error("{}: {errors}", path.display())]
    Invalid { path: PathBuf, errors: Errors },
    #[error("{}: the provider {name:?} is there twice, also in {}", path.display(), other.display())]
    Twice { path: PathBuf, name: String, other: PathBuf },
    #[error("the credential provider {}: {why}", program.display())]
    Program { program: PathBuf, why: String },
}

/// What all files say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configuration {
    /// In the order of the files.
    pub providers: Vec<Provider>,
    /// `sha256:` and the digest of the files, as upstream's metric has it; empty without files.
    pub hash: String,
}

/// A plugin, and when it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// What is executed.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Variables of the environment, besides those of this process.
    pub env: Vec<(String, String)>,
    /// In which version it is asked, and has to answer.
    pub api_version: String,
    /// The images that it is asked for.
    pub images: Vec<Pattern>,
    /// How long credentials are kept when it does not say.
    pub lifetime: Duration,
    /// How it is shown who the pod is; none where it is not.
    pub tokens: Option<Tokens>,
}

/// How a plugin is shown tokens of service accounts (KEP-4412).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Whom the tokens are for.
    pub audience: String,
    /// Credentials are kept for the token (and its pod), not for the service account.
    pub per_token: bool,
    /// Pods without a service account get no credentials.
    pub required: bool,
    /// Annotations of the service account without which the plugin is not asked.
    pub required_annotations: Vec<String>,
    /// Annotations that it is shown where they are there.
    pub optional_annotations: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(default)]
    providers: Option<Vec<Entry>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Entry {
    name: String,
    match_images: Option<Vec<String>>,
    default_cache_duration: Option<String>,
    api_version: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    token_attributes: Option<TokenAttributes>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct TokenAttributes {
    service_account_token_audience: String,
    cache_type: String,
    require_service_account: Option<bool>,
    required_service_account_annotation_keys: Option<Vec<String>>,
    optional_service_account_annotation_keys: Option<Vec<String>>,
}

impl Configuration {
    /// Reads a file, or those of a directory that end in `.json`, `.yaml` or `.yml`, in the order of their names. Programs are in `directory`.
    /// Blocking.
    ///
    /// # Errors
    /// One of them cannot be read or makes no sense, or a program is not there. Files and fields are named.
    pub fn read(path: &Path, directory: &Path) -> Result<Self, Error> {
        let (mut providers, mut hash, mut seen) = (Vec::new(), Sha256::new(), BTreeMap::<String, PathBuf>::new());
        for file in files(path)? {
            let bytes = std::fs::read(&file).map_err(|error| Error::Read { path: file.clone(), error })?;
            // The lengths keep apart what is in one file and what is in the next.
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(&bytes);
            for provider in parse(&file, &bytes, directory)? {
                if let Some(other) = seen.insert(provider.name.clone(), file.clone()) {
                    return Err(Error::Twice { path: file, name: provider.name, other });
                }
                providers.push(provider);
            }
        }
        providers.iter().try_for_each(|provider| check_program(&provider.program))?;
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { providers, hash: format!("sha256:{hash}") })
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::Read { path: path.to_owned(), error };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?.path();
        let is_listed = entry.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml");
        if is_listed && !entry.is_dir() {
            found.push(entry);
        }
    }
    found.sort();
    if found.is_empty() { Err(Error::Empty(path.to_owned())) } else { Ok(found) }
}

fn parse(path: &Path, bytes: &[u8], directory: &Path) -> Result<Vec<Provider>, Error> {
    let failed = |why: String| Error::Decode { path: path.to_owned(), why };
    let text = std::str::from_utf8(bytes).map_err(|error| failed(error.to_string()))?;
    let (value, problems) = yaml::parse(text).map_err(|error| failed(error.to_string()))?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(failed(problem));
    }
    let known = value["apiVersion"].as_str().is_some_and(|version| VERSIONS.contains(&version));
    if value["kind"] != "CredentialProviderConfig" || !known {
        return Err(Error::Kind(path.to_owned()));
    }
    let file: File = serde_json::from_value(value).map_err(|error| failed(error.to_string()))?;
    let (mut errors, root) = (Errors::new(), field::Path::new("providers"));
    let entries = file.providers.unwrap_or_default();
    if entries.is_empty() {
        errors.push(field::Error::required(&root, "at least 1 item in plugins is required"));
    }
    let mut seen = BTreeSet::new();
    let mut providers = Vec::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let path = root.index(at);
        if !seen.insert(entry.name.clone()) {
            errors.push(field::Error::duplicate(&path.child("name"), entry.name.as_str()));
        }
        providers.push(provider(&path, entry, directory, &mut errors));
    }
    if errors.is_empty() { Ok(providers) } else { Err(Error::Invalid { path: path.to_owned(), errors }) }
}

/// What an entry says; what is wrong with it goes into `errors`.
fn provider(path: &field::Path, entry: Entry, directory: &Path, errors: &mut Errors) -> Provider {
    let Entry { name, match_images, default_cache_duration, api_version, args, env, token_attributes } = entry;
    check_name(&path.child("name"), &name, errors);
    let of_version = path.child("apiVersion");
    if api_version.is_empty() {
        errors.push(field::Error::required(&of_version, ""));
    } else if !EXCHANGES.contains(&api_version.as_str()) {
        errors.push(field::Error::not_supported(&of_version, api_version.as_str(), &EXCHANGES));
    }
    let (of_images, match_images) = (path.child("matchImages"), match_images.unwrap_or_default());
    if match_images.is_empty() {
        errors.push(field::Error::required(&of_images, "at least 1 item in matchImages is required"));
    }
    let mut images = Vec::new();
    for (at, text) in match_images.into_iter().enumerate() {
        match Pattern::parse(&text) {
            Ok(pattern) => images.push(pattern),
            Err(why) => {
                errors.push(field::Error::invalid(&of_images.index(at), text, format!("match image is invalid: {why}")));
            }
        }
    }
    let lifetime = lifetime(&path.child("defaultCacheDuration"), default_cache_duration, errors);
    let tokens = token_attributes.map(|attributes| tokens(&path.child("tokenAttributes"), attributes, &api_version, errors));
    let env = env.unwrap_or_default().into_iter().map(|variable| (variable.name, variable.value)).collect();
    Provider { program: directory.join(&name), name, args: args.unwrap_or_default(), env, api_version, images, lifetime, tokens }
}

fn check_name(path: &field::Path, name: &str, errors: &mut Errors) {
    let mut refuse = |why: &str| errors.push(field::Error::invalid(path, name, why));
    match name {
        // Upstream takes the directory for the program then, and says so.
        "" => errors.push(field::Error::required(path, "")),
        "." => refuse("provider name cannot be '.'"),
        ".." => refuse("provider name cannot be '..'"),
        name if name.contains('/') => refuse("provider name cannot contain '/'"),
        name if name.contains(' ') => refuse("provider name cannot contain spaces"),
        _ => {}
    }
}

fn lifetime(path: &field::Path, text: Option<String>, errors: &mut Errors) -> Duration {
    let Some(text) = text else {
        errors.push(field::Error::required(path, ""));
        return Duration::ZERO;
    };
    let Some(duration) = time::parse_duration(&text) else {
        errors.push(field::Error::invalid(path, text, "it is no duration, such as 12h or 1m30s"));
        return Duration::ZERO;
    };
    Duration::try_from(duration).unwrap_or_else(|_| {
        errors.push(field::Error::invalid(path, text, "must be greater than or equal to 0"));
        Duration::ZERO
    })
}

fn tokens(path: &field::Path, attributes: TokenAttributes, api_version: &str, errors: &mut Errors) -> Tokens {
    let TokenAttributes { service_account_token_audience: audience, cache_type, require_service_account, .. } = attributes;
    let required_annotations = attributes.required_service_account_annotation_keys.unwrap_or_default();
    let optional_annotations = attributes.optional_service_account_annotation_keys.unwrap_or_default();
    if audience.is_empty() {
        errors.push(field::Error::required(&path.child("serviceAccountTokenAudience"), ""));
    }
    if require_service_account.is_none() {
        errors.push(field::Error::required(&path.child("requireServiceAccount"), ""));
    }
    if api_version != EXCHANGES[0] {
        let why = format!("tokenAttributes is only supported for {} API version", EXCHANGES[0]);
        errors.push(field::Error::forbidden(path, why));
    }
    let (of_required, of_optional) =
        (path.child("requiredServiceAccountAnnotationKeys"), path.child("optionalServiceAccountAnnotationKeys"));
    if require_service_account == Some(false) && !required_annotations.is_empty() {
        let why = "requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set";
        errors.push(field::Error::forbidden(&of_required, why));
    }
    check_keys(&of_required, &required_annotations, errors);
    check_keys(&of_optional, &optional_annotations, errors);
    let both: BTreeSet<&String> = required_annotations.iter().filter(|key| optional_annotations.contains(key)).collect();
    if !both.is_empty() {
        let both: Vec<String> = both.into_iter().cloned().collect();
        errors.push(field::Error::invalid(path, both, "annotation keys cannot be both required and optional"));
    }
    let of_type = path.child("cacheType");
    if cache_type.is_empty() {
        let all = CACHE_TYPES.join(", ");
        let why = format!("cacheType is required to be set when tokenAttributes is specified. Supported values are: {all}");
        errors.push(field::Error::required(&of_type, why));
    } else if !CACHE_TYPES.contains(&cache_type.as_str()) {
        errors.push(field::Error::not_supported(&of_type, cache_type.as_str(), &CACHE_TYPES));
    }
    let required = require_service_account.unwrap_or_default();
    Tokens { audience, per_token: cache_type == "Token", required, required_annotations, optional_annotations }
}

/// Keys are those of annotations, in which case does not count.
fn check_keys(path: &field::Path, keys: &[String], errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for key in keys {
        errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
        if !seen.insert(key) {
            errors.push(field::Error::duplicate(path, key.as_str()));
        }
    }
}

fn check_program(program: &Path) -> Result<(), Error> {
    let failed = |why: String| Error::Program { program: program.to_owned(), why };
    let found = std::fs::metadata(program).map_err(|error| failed(error.to_string()))?;
    match (found.is_file(), found.permissions().mode() & 0o111) {
        (false, _) => Err(failed("it is no file".to_owned())),
        (true, 0) => Err(failed("it is not executable".to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;

//! Credentials for registries by what they are good for: which of them an image is pulled with, and in which order. Pure.

use std::collections::BTreeMap;

use runtime::api::Credentials;

use super::patterns::Pattern;
use super::sources::Source;

/// Docker's own registry, in the configuration that `docker login` writes.
const DOCKER_KEY: &str = "index.docker.io";
/// The same, in the names of images.
const DOCKER: &str = "docker.io";

/// Credentials with their source.
#[derive(Clone)]
pub struct Credential {
    /// User and password.
    pub word: Credentials,
    /// Where they are from.
    pub source: Source,
}

/// Credentials by registry, or by registry and beginning of a path.
#[derive(Default)]
pub struct Keyring(BTreeMap<String, Vec<Credential>>);

impl Keyring {
    /// Adds credentials for what `key` names: `registry.example`, `https://registry.example/v1/`, `*.example/path`. Of several under one key,
    /// those that were added first are tried first.
    pub fn add(&mut self, key: &str, credential: Credential) {
        self.0.entry(normalized(key)).or_default().push(credential);
    }

    /// The credentials for an image of this name, without tag and digest and with its registry; those under more specific keys first, which
    /// are those that come later in the alphabet.
    pub fn lookup(&self, repository: &str) -> Vec<Credential> {
        let fits = |key: &str| Pattern::parse(key).is_ok_and(|pattern| pattern.matches(repository));
        let matching = self.0.iter().rev().filter(|(key, _)| fits(key));
        let found: Vec<Credential> = matching.flat_map(|(_, credentials)| credentials.iter().cloned()).collect();
        if found.is_empty() && repository.strip_prefix(DOCKER).is_some_and(|path| path.starts_with('/')) {
            return self.0.get(DOCKER_KEY).cloned().unwrap_or_default();
        }
        found
    }
}

/// A key without scheme, and without the version of the registry's API that old clients write behind the host.
fn normalized(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = key.find('/').map_or((key, ""), |slash| key.split_at(slash));
    let path = match path {
        "/v1" | "/v2" => "",
        path => {
            path.strip_prefix("/v1").or_else(|| path.strip_prefix("/v2")).filter(|rest| rest.starts_with('/')).unwrap_or(path)
        }
    };
    format!("{host}{}", if path == "/" { "" } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(keys: &[&str], repository: &str, expected: &[usize]) {
        let mut keyring = Keyring::default();
        for (at, key) in keys.iter().enumerate() {
            let word = Credentials { username: at.to_string(), password: String::new() };
            keyring.add(key, Credential { word, source: Source::Node });
        }
        let found: Vec<usize> = keyring.lookup(repository).iter().map(|found| found.word.username.parse().unwrap()).collect();
        assert_eq!(found, expected, "{keys:?} {repository}");
    }

    #[test]
    fn keys_name_registries() {
        check(&["https://index.docker.io/v1/"], "docker.io/library/nginx", &[0]);
        check(&["https://index.docker.io/v1"], "docker.io/library/nginx", &[0]);
        check(&["docker.io", "index.docker.io"], "docker.io/library/nginx", &[0]);
        check(&["index.docker.io"], "docker.io.example/x", &[]);
        check(&["registry.example.com"], "registry.example.com/a/b", &[0]);
        check(&["http://registry.example.com/v2/a"], "registry.example.com/a/b", &[0]);
        check(&["registry.example.com/x"], "registry.example.com/a/b", &[]);
        check(&["registry.example.com/"], "registry.example.com/a/b", &[0]);
        check(&["localhost:5000"], "localhost:5000/a", &[0]);
        check(&["localhost"], "localhost:5000/a", &[]);
        check(&["*.example.com"], "r.example.com/a", &[0]);
        check(&["r io", "other"], "docker.io/library/nginx", &[]);
    }

    /// The API reference of `CredentialProviderResponse`: "Each key in the map can optionally contain a port and a path"; the kubelet tries all
    /// that match, in reverse order of the alphabet. Of `CredentialProviderConfig`: "If providers return overlapping auth keys, the value from
    /// the provider earlier in this list is attempted first".
    #[test]
    fn more_specific_keys_come_first() {
        check(&["r.io", "r.io/a/b", "r.io/a", "*.io"], "r.io/a/b/c", &[1, 2, 0, 3]);
        check(&["r.io", "r.io", "https://r.io/v2/"], "r.io/a", &[0, 1, 2]);
    }
}

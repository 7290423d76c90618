//! The file of `--encryption-provider-config` (`EncryptionConfiguration` of `apiserver.config.k8s.io/v1`), checked as upstream does.

use apimachinery::field::{self, Errors, Path};
use apimachinery::yaml;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::cipher::Cipher;

/// Why a configuration is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is no YAML, or has fields that there are not.
    #[error("{0}")]
    Decode(String),
    /// It is something else.
    #[error("it is not an EncryptionConfiguration of apiserver.config.k8s.io/v1")]
    Kind,
    /// Fields are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Fields(Errors),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Identity>,
    kms: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<NamedKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

/// Which resources a rule is of.
#[derive(Debug, PartialEq, Eq)]
enum Resources {
    All,
    Group(String),
    One(String, String),
}

impl Resources {
    fn parse(text: &str) -> Self {
        match text.split_once('.') {
            Some(("*", "*")) => Self::All,
            Some(("*", group)) => Self::Group(group.to_owned()),
            Some((resource, group)) => Self::One(resource.to_owned(), group.to_owned()),
            None => Self::One(text.to_owned(), String::new()),
        }
    }

    fn matches(&self, resource: &str, group: &str) -> bool {
        match self {
            Self::All => true,
            Self::Group(own) => own == group,
            Self::One(own, of) => own == resource && of == group,
        }
    }

    /// The keys of the store: of all resources, of a group, of a resource.
    fn prefix(&self) -> String {
        let group = |group: &str| if group.is_empty() { "core".to_owned() } else { group.to_owned() };
        match self {
            Self::All => "/registry/".to_owned(),
            Self::Group(own) => format!("/registry/{}/", group(own)),
            Self::One(resource, own) => format!("/registry/{}/{resource}/", group(own)),
        }
    }
}

/// A key of a provider, and what it marks its values with.
pub(super) struct Key {
    pub(super) prefix: Vec<u8>,
    pub(super) cipher: Cipher,
    provider: &'static str,
}

impl Key {
    fn new(provider: &'static str, name: &str, cipher: Cipher) -> Self {
        Self { prefix: format!("k8s:enc:{provider}:v1:{name}:").into_bytes(), cipher, provider }
    }

    /// What the values of all keys of the provider begin with.
    pub(super) fn provider_prefix(&self) -> String {
        format!("k8s:enc:{}:v1:", self.provider)
    }
}

/// How some resources are stored. The first key writes, unless the first provider is `identity`.
pub(super) struct Rule {
    resources: Vec<Resources>,
    keys: Vec<Key>,
    /// Where `identity` stands among the keys.
    identity: Option<usize>,
}

impl Rule {
    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether what is not encrypted can be read.
    pub(super) fn reads_plain(&self) -> bool {
        self.identity.is_some()
    }

    /// The key that encrypts, none when nothing is.
    pub(super) fn writer(&self) -> Option<&Key> {
        self.keys.first().filter(|_| self.identity != Some(0))
    }
}

/// What is encrypted and how.
#[derive(Default)]
pub(super) struct Configuration(Vec<Rule>);

impl Configuration {
    /// Reads a configuration in YAML or JSON.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let (value, problems) = yaml::parse(text).map_err(|error| Invalid::Decode(error.to_string()))?;
        if let Some(problem) = problems.into_iter().next() {
            return Err(Invalid::Decode(problem));
        }
        if value["kind"] != "EncryptionConfiguration" || value["apiVersion"] != "apiserver.config.k8s.io/v1" {
            return Err(Invalid::Kind);
        }
        let file: File = serde_json::from_value(value).map_err(|error| Invalid::Decode(error.to_string()))?;
        debug_assert!(!file.kind.is_empty() && !file.api_version.is_empty(), "both were compared");
        let mut errors = Errors::new();
        let root = Path::new("resources");
        if file.resources.is_empty() {
            errors.push(field::Error::required(&root, "at least one resources is required"));
        }
        let rules = file.resources.into_iter().enumerate().map(|(at, entry)| rule(entry, &root.index(at), &mut errors)).collect();
        if errors.is_empty() { Ok(Self(rules)) } else { Err(Invalid::Fields(errors)) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first rule that names a resource.
    pub(super) fn rule(&self, resource: &str, group: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.resources.iter().any(|one| one.matches(resource, group)))
    }

    /// Beginning and end of the keys that rules speak of.
    pub(super) fn ranges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let prefixes = self.0.iter().flat_map(|rule| &rule.resources).map(Resources::prefix);
        // '0' follows '/' in ASCII.
        let range = |prefix: String| (prefix.clone().into_bytes(), format!("{}0", prefix.trim_end_matches('/')).into_bytes());
        prefixes.map(range).collect()
    }
}

fn rule(entry: Entry, path: &Path, errors: &mut Errors) -> Rule {
    let (names, providers) = (path.child("resources"), path.child("providers"));
    if entry.resources.is_empty() {
        errors.push(field::Error::required(&names, format!("at least one {names} is required")));
    }
    check_overlap(&entry.resources, &names, errors);
    for (at, name) in entry.resources.iter().enumerate() {
        if let Some(why) = wrong_name(name) {
            errors.push(field::Error::invalid(&names.index(at), name.as_str(), why));
        }
    }
    if entry.providers.is_empty() {
        errors.push(field::Error::required(&providers, format!("at least one {providers} is required")));
    }
    let resources = entry.resources.iter().map(|name| Resources::parse(name)).collect();
    let mut rule = Rule { resources, keys: Vec::new(), identity: None };
    for (at, provider) in entry.providers.into_iter().enumerate() {
        add(provider, &providers.index(at), &mut rule, errors);
    }
    rule
}

fn check_overlap(names: &[String], path: &Path, errors: &mut Errors) {
    let parsed: Vec<_> = names.iter().map(|name| Resources::parse(name)).collect();
    let pairs = || parsed.iter().enumerate().flat_map(|(at, one)| parsed[at + 1..].iter().map(move |other| (one, other)));
    if pairs().any(|(one, other)| one == other) {
        errors.push(field::Error::invalid(path, names.to_vec(), "the same resource cannot be specified multiple times"));
    }
    let covers = |one: &Resources, other: &Resources| match (one, other) {
        (Resources::All, other) => *other != Resources::All,
        (Resources::Group(group), Resources::One(_, of)) => group == of,
        _ => false,
    };
    if pairs().any(|(one, other)| covers(one, other) || covers(other, one)) {
        let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
        errors.push(field::Error::invalid(path, names.to_vec(), why));
    }
}

fn wrong_name(name: &str) -> Option<&'static str> {
    if name.chars().any(char::is_uppercase) {
        return Some("resource name should not contain capital letters");
    }
    let (resource, group) = name.split_once('.').unwrap_or((name, ""));
    match (resource, group) {
        _ if name == "*" => Some("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"),
        ("apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations", "") => {
            Some("resources which do not have REST API/s cannot be encrypted")
        }
        (_, "events.k8s.io") => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        ),
        (_, "extensions") => Some("'extensions' group has been removed and cannot be used for encryption"),
        (resource, "*") if resource != "*" => Some("encrypting the same resource across groups is not supported"),
        _ => None,
    }
}

fn add(provider: Provider, path: &Path, rule: &mut Rule, errors: &mut Errors) {
    let Provider { aesgcm, aescbc, secretbox, identity, kms } = provider;
    let given = [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
    match given.into_iter().filter(|given| *given).count() {
        0 => {
            let why = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
            return errors.push(field::Error::invalid(path, "", why));
        }
        1 => {}
        _ => {
            let why = "more than one provider specified in a single element, should split into different list elements";
            return errors.push(field::Error::invalid(path, "", why));
        }
    }
    if kms.is_some() {
        let why = "key management services are not supported: use aesgcm, aescbc or secretbox with a key in this file";
        errors.push(field::Error::forbidden(&path.child("kms"), why));
    }
    if identity.is_some() {
        rule.identity.get_or_insert(rule.keys.len());
    }
    if let Some(keys) = aesgcm {
        let path = path.child("aesgcm").child("keys");
        each(keys, &path, &[16, 32], rule, errors, |name, secret| Some(Key::new("aesgcm", name, Cipher::aes_gcm(secret)?)));
    }
    if let Some(keys) = aescbc {
        let path = path.child("aescbc").child("keys");
        each(keys, &path, &[16, 24, 32], rule, errors, |name, secret| {
            Some(Key::new("aescbc", name, Cipher::AesCbc(secret.into())))
        });
    }
    if let Some(keys) = secretbox {
        let path = path.child("secretbox").child("keys");
        each(keys, &path, &[32], rule, errors, |name, secret| {
            Some(Key::new("secretbox", name, Cipher::Secretbox(Box::new(secret.try_into().ok()?))))
        });
    }
}

/// Adds the keys of a provider that are right. Secrets never stand in messages.
fn each(
    keys: Keys,
    path: &Path,
    lengths: &[usize],
    rule: &mut Rule,
    errors: &mut Errors,
    key: impl Fn(&str, &[u8]) -> Option<Key>,
) {
    if keys.keys.is_empty() {
        errors.push(field::Error::required(path, "at least one keys is required"));
    }
    for (at, NamedKey { name, secret }) in keys.keys.iter().enumerate() {
        let (name_path, secret_path) = (path.index(at).child("name"), path.index(at).child("secret"));
        if name.is_empty() {
            errors.push(field::Error::required(&name_path, "name is a mandatory field for a key"));
        }
        if secret.is_empty() {
            errors.push(field::Error::required(&secret_path, "secret is a mandatory field for a key"));
            continue;
        }
        let Ok(bytes) = STANDARD.decode(secret) else {
            errors.push(field::Error::invalid(&secret_path, "REDACTED", "secrets must be base64 encoded"));
            continue;
        };
        let fits = lengths.contains(&bytes.len());
        match fits.then(|| key(name, &bytes)).flatten() {
            Some(key) => rule.keys.push(key),
            None => {
                let lengths: Vec<_> = lengths.iter().map(ToString::to_string).collect();
                let why =
                    format!("secret is not of the expected length, got {}, expected one of [{}]", bytes.len(), lengths.join(" "));
                errors.push(field::Error::invalid(&secret_path, "REDACTED", why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEAD: &str = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";

    fn parse(resources: &str) -> Result<Configuration, Invalid> {
        Configuration::parse(&format!("{HEAD}resources: {resources}"))
    }

    #[test]
    fn the_first_rule_that_names_a_resource() {
        let key = "keys: [{name: k, secret: c2VjcmV0IGlzIHNlY3VyZQ==}]";
        let configuration = parse(&format!(
            "[{{resources: [events], providers: [{{identity: {{}}}}]}},
              {{resources: [secrets, pandas.awesome.bears.example], providers: [{{aescbc: {{{key}}}}}]}},
              {{resources: ['*.apps'], providers: [{{aesgcm: {{{key}}}}}, {{identity: {{}}}}]}},
              {{resources: ['*.'], providers: [{{identity: {{}}}}, {{aesgcm: {{{key}}}}}]}}]"
        ));
        let configuration = configuration.unwrap();
        let check = |resource: &str, group: &str, writer: Option<Option<&str>>, plain: bool| {
            let rule = configuration.rule(resource, group);
            let prefix = rule.map(|rule| rule.writer().map(|key| String::from_utf8(key.prefix.clone()).unwrap()));
            assert_eq!(prefix.as_ref().map(|prefix| prefix.as_deref()), writer, "{resource}.{group}");
            assert_eq!(rule.is_some_and(Rule::reads_plain), plain, "{resource}.{group}");
        };
        check("events", "", Some(None), true);
        check("secrets", "", Some(Some("k8s:enc:aescbc:v1:k:")), false);
        check("pandas", "awesome.bears.example", Some(Some("k8s:enc:aescbc:v1:k:")), false);
        check("deployments", "apps", Some(Some("k8s:enc:aesgcm:v1:k:")), true);
        check("configmaps", "", Some(None), true);
        check("leases", "coordination.k8s.io", None, false);
        let ranges = configuration.ranges();
        assert!(ranges.contains(&(b"/registry/core/secrets/".to_vec(), b"/registry/core/secrets0".to_vec())));
        assert!(ranges.contains(&(b"/registry/apps/".to_vec(), b"/registry/apps0".to_vec())));
    }

    #[test]
    fn configurations_that_are_wrong() {
        let check = |resources: &str, expected: &str| {
            let why = parse(resources).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(why.contains(expected), "{resources}: {why}");
        };
        let of = |provider: &str| format!("[{{resources: [secrets], providers: [{provider}]}}]");
        let named = |resources: &str| format!("[{{resources: [{resources}], providers: [{{identity: {{}}}}]}}]");
        check("[]", "resources: Required value: at least one resources is required");
        check("[{resources: [secrets]}]", "resources[0].providers: Required value");
        check("[{providers: [{identity: {}}]}]", "resources[0].resources: Required value");
        check(&of("{}"), "resources[0].providers[0]: Invalid value: \"\": provider does not contain any of the expected");
        check(&of("{identity: {}, aesgcm: {keys: []}}"), "more than one provider specified in a single element");
        check(&of("{kms: {name: x}}"), "resources[0].providers[0].kms: Forbidden: key management services are not supported");
        check(
            &of("{aesgcm: {keys: []}}"),
            "resources[0].providers[0].aesgcm.keys: Required value: at least one keys is required",
        );
        check(&of("{aesgcm: {keys: [{secret: YQ==}]}}"), "keys[0].name: Required value: name is a mandatory field for a key");
        check(&of("{aesgcm: {keys: [{name: a}]}}"), "keys[0].secret: Required value: secret is a mandatory field for a key");
        check(&of("{aescbc: {keys: [{name: a, secret: '%'}]}}"), "\"REDACTED\": secrets must be base64 encoded");
        check(
            &of("{secretbox: {keys: [{name: a, secret: YQ==}]}}"),
            "secret is not of the expected length, got 1, expected one of [32]",
        );
        check(&of("{aesgcn: {keys: []}}"), "unknown field `aesgcn`");
        check(
            &named("Secrets"),
            "resources[0].resources[0]: Invalid value: \"Secrets\": resource name should not contain capital",
        );
        check(&named("'*'"), "use '*.' to encrypt all the resources from core API group");
        check(&named("secrets, secrets"), "the same resource cannot be specified multiple times");
        check(&named("secrets, '*.'"), "using overlapping resources");
        check(&named("deployments.apps, '*.*'"), "using overlapping resources");
        check(&named("events.events.k8s.io"), "Use 'events' instead");
        check(&named("secrets.*"), "encrypting the same resource across groups is not supported");
        assert!(parse(&named("deployments.apps, '*.'")).is_ok());
        assert!(matches!(Configuration::parse("kind: Pod"), Err(Invalid::Kind)));
        assert!(matches!(Configuration::parse("{"), Err(Invalid::Decode(_))));
    }
}

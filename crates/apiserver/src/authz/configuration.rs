//! Which authorizers there are and in which order: the flags, or the file of `--authorization-config` (`AuthorizationConfiguration`),
//! checked as upstream does.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::field::{self, Errors, Path};
use apimachinery::{names, yaml};
use cel::{Declaration, Program, Type};
use kinds::expressions::{object, text};
use serde::Deserialize;

/// The versions of the configuration that are read.
const VERSIONS: [&str; 3] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
const TYPES: [&str; 3] = ["Node", "RBAC", "Webhook"];
/// Most match conditions of a webhook.
const CONDITIONS: usize = 64;
/// How long a webhook may take at most.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers are kept where nobody says it (upstream: `SetDefaults_WebhookConfiguration`).
const AUTHORIZED: Duration = Duration::from_secs(300);
const UNAUTHORIZED: Duration = Duration::from_secs(30);

/// Why the configuration of authorization cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is no YAML, or has fields that there are not.
    #[error("{0}")]
    Decode(String),
    /// It is something else.
    #[error("it is not an AuthorizationConfiguration of apiserver.config.k8s.io")]
    Kind,
    /// Fields are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Fields(Errors),
}

/// An authorizer.
#[derive(Debug)]
pub(crate) enum Mode {
    Node,
    Rbac,
    Webhook(Box<WebhookOptions>),
}

/// How a webhook is asked.
#[derive(Debug)]
pub(crate) struct WebhookOptions {
    pub(super) name: String,
    /// The kubeconfig that names it.
    pub(super) file: PathBuf,
    pub(super) version: String,
    pub(super) timeout: Duration,
    /// How long answers are good, None for those that are not kept.
    pub(super) authorized: Option<Duration>,
    pub(super) unauthorized: Option<Duration>,
    /// Whether nobody is let in when it does not answer.
    pub(super) denies_on_failure: bool,
    /// It is asked when all of them hold.
    pub(super) conditions: Vec<(String, Program)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    authorizers: Vec<Authorizer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorizer {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<Webhook>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Webhook {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_unauthorized_requests: Option<bool>,
    timeout: String,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: Connection,
    match_conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Connection {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    expression: String,
}

/// Reads a configuration in YAML or JSON.
pub(super) fn parse(text: &str) -> Result<Vec<Mode>, Invalid> {
    let (value, problems) = yaml::parse(text).map_err(|error| Invalid::Decode(error.to_string()))?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(Invalid::Decode(problem));
    }
    let known = value["apiVersion"].as_str().is_some_and(|version| VERSIONS.contains(&version));
    if value["kind"] != "AuthorizationConfiguration" || !known {
        return Err(Invalid::Kind);
    }
    let file: File = serde_json::from_value(value).map_err(|error| Invalid::Decode(error.to_string()))?;
    let (mut errors, root) = (Errors::new(), Path::new("authorizers"));
    if file.authorizers.is_empty() {
        errors.push(field::Error::required(&root, "at least one authorization mode must be defined"));
    }
    let mut modes = Vec::new();
    for (at, authorizer) in file.authorizers.iter().enumerate() {
        let (path, before) = (root.index(at), &file.authorizers[..at]);
        let kind = authorizer.kind.as_str();
        match kind {
            "" => errors.push(field::Error::required(&path.child("type"), "")),
            kind if !TYPES.contains(&kind) => errors.push(field::Error::not_supported(&path.child("type"), kind, &TYPES)),
            "Node" | "RBAC" if before.iter().any(|other| other.kind == kind) => {
                errors.push(field::Error::duplicate(&path.child("type"), kind));
            }
            _ => {
                check_name(&authorizer.name, before, &path.child("name"), &mut errors);
                modes.extend(mode(authorizer, &path, &mut errors));
            }
        }
    }
    if errors.is_empty() { Ok(modes) } else { Err(Invalid::Fields(errors)) }
}

fn check_name(name: &str, before: &[Authorizer], path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.push(field::Error::required(path, ""));
    } else if before.iter().any(|other| other.name == name) {
        errors.push(field::Error::duplicate(path, name));
    } else {
        for why in names::dns1123_subdomain(name) {
            errors.push(field::Error::invalid(path, name, format!("authorizer name is invalid: {why}")));
        }
    }
}

fn mode(authorizer: &Authorizer, path: &Path, errors: &mut Errors) -> Option<Mode> {
    let hook = path.child("webhook");
    match (authorizer.kind.as_str(), &authorizer.webhook) {
        ("Webhook", Some(hook)) => webhook(&authorizer.name, hook, path, errors).map(|options| Mode::Webhook(Box::new(options))),
        ("Webhook", None) => {
            errors.push(field::Error::required(&hook, "required when type=Webhook"));
            None
        }
        (_, Some(_)) => {
            errors.push(field::Error::invalid(&hook, "non-null", "may only be specified when type=Webhook"));
            None
        }
        ("Node", None) => Some(Mode::Node),
        _ => Some(Mode::Rbac),
    }
}

fn webhook(name: &str, hook: &Webhook, path: &Path, errors: &mut Errors) -> Option<WebhookOptions> {
    let timeout = duration(&hook.timeout, &path.child("timeout"), errors);
    if timeout.is_some_and(|timeout| timeout > TIMEOUT) {
        errors.push(field::Error::invalid(&path.child("timeout"), hook.timeout.as_str(), "must be > 0s and <= 30s"));
    }
    let mut kept = |ttl: &Option<String>, default: Duration, cached: Option<bool>, field: &str| {
        let ttl = match ttl.as_deref().unwrap_or_default() {
            // As upstream's defaults, which cannot tell no time from none given.
            text if text.is_empty() || is_zero(text) => Some(default),
            text => duration(text, &path.child(field), errors),
        };
        ttl.filter(|_| cached != Some(false))
    };
    let authorized = kept(&hook.authorized_ttl, AUTHORIZED, hook.cache_authorized_requests, "authorizedTTL");
    let unauthorized = kept(&hook.unauthorized_ttl, UNAUTHORIZED, hook.cache_unauthorized_requests, "unauthorizedTTL");
    one_of(&hook.subject_access_review_version, &["v1", "v1beta1"], &path.child("subjectAccessReviewVersion"), errors);
    one_of(&hook.failure_policy, &["NoOpinion", "Deny"], &path.child("failurePolicy"), errors);
    let version = path.child("matchConditionSubjectAccessReviewVersion");
    match hook.match_condition_subject_access_review_version.as_str() {
        "" if !hook.match_conditions.is_empty() => {
            errors.push(field::Error::required(&version, "required if match conditions are specified"));
        }
        "" | "v1" => {}
        other => errors.push(field::Error::not_supported(&version, other, &["v1"])),
    }
    let file = connection(&hook.connection_info, &path.child("connectionInfo"), errors);
    let conditions = conditions(&hook.match_conditions, &path.child("matchConditions"), errors);
    Some(WebhookOptions {
        name: name.to_owned(),
        file: file?,
        version: hook.subject_access_review_version.clone(),
        timeout: timeout?,
        authorized,
        unauthorized,
        denies_on_failure: hook.failure_policy == "Deny",
        conditions,
    })
}

fn one_of(value: &str, supported: &[&str], path: &Path, errors: &mut Errors) {
    match value {
        "" => errors.push(field::Error::required(path, "")),
        value if supported.contains(&value) => {}
        value => errors.push(field::Error::not_supported(path, value, supported)),
    }
}

/// A duration that is more than nothing.
fn is_zero(text: &str) -> bool {
    apimachinery::time::parse_duration(text).is_some_and(|found| found.is_zero())
}

fn duration(text: &str, path: &Path, errors: &mut Errors) -> Option<Duration> {
    if text.is_empty() {
        errors.push(field::Error::required(path, ""));
        return None;
    }
    let found = apimachinery::time::parse_duration(text).and_then(|found| Duration::try_from(found).ok());
    let found = found.filter(|duration| !duration.is_zero());
    if found.is_none() {
        errors.push(field::Error::invalid(path, text, "must be > 0s"));
    }
    found
}

fn connection(info: &Connection, path: &Path, errors: &mut Errors) -> Option<PathBuf> {
    let file = path.child("kubeConfigFile");
    match (info.kind.as_str(), &info.kube_config_file) {
        ("KubeConfigFile", Some(found)) if !found.as_os_str().is_empty() => {
            let shown = found.display().to_string();
            if !found.is_absolute() {
                errors.push(field::Error::invalid(&file, shown, "must be an absolute path"));
            } else if !found.is_file() {
                errors.push(field::Error::invalid(&file, shown, "must be a regular file"));
            }
            return Some(found.clone());
        }
        ("KubeConfigFile", _) => errors.push(field::Error::required(&file, "")),
        ("", _) => errors.push(field::Error::required(&path.child("type"), "")),
        // The API server of upstream's asks itself then, which this one would do without end.
        ("InClusterConfig", _) => {
            errors.push(field::Error::forbidden(&path.child("type"), "InClusterConfig is not supported: use KubeConfigFile"));
        }
        (other, _) => {
            errors.push(field::Error::not_supported(&path.child("type"), other, &["InClusterConfig", "KubeConfigFile"]));
        }
    }
    None
}

fn conditions(all: &[Condition], path: &Path, errors: &mut Errors) -> Vec<(String, Program)> {
    if all.len() > CONDITIONS {
        errors.push(field::Error::too_many(path, all.len(), CONDITIONS));
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, condition) in all.iter().enumerate() {
        let (path, source) = (path.index(at).child("expression"), condition.expression.as_str());
        if source.trim().is_empty() {
            errors.push(field::Error::required(&path, ""));
        } else if all[..at].iter().any(|other| other.expression == source) {
            errors.push(field::Error::duplicate(&path, source));
        } else {
            match compile(source) {
                Ok(program) => found.push((source.to_owned(), program)),
                Err(why) => errors.push(field::Error::invalid(&path, source, why)),
            }
        }
    }
    found
}

/// A condition, which says whether something is so; or why it is none.
fn compile(source: &str) -> Result<Program, String> {
    let failed = |error: cel::CompileError| format!("compilation failed: {error}");
    let variables = [("request", request().ty())];
    let program = Program::compile(source, &["request"]).map_err(|_| failed(cel::faults(source, &variables)))?;
    let found = program.check(source, &variables).map_err(failed)?.ty();
    match found {
        Type::Bool => Ok(program),
        found => Err(format!("must evaluate to bool but got {found}")),
    }
}

/// What conditions speak of: the specification of a SubjectAccessReview (`authorization/cel/compile.go`).
fn request() -> Arc<Declaration> {
    let list = || Declaration::list(text());
    let requirement = object("kubernetes.SelectorRequirement", &[("key", text()), ("operator", text()), ("values", list())]);
    let selector =
        |name: &str| object(name, &[("rawSelector", text()), ("requirements", Declaration::list(requirement.clone()))]);
    let texts = ["namespace", "verb", "group", "version", "resource", "subresource", "name"].map(|name| (name, text()));
    let selectors = [
        ("fieldSelector", selector("kubernetes.FieldSelectorAttributes")),
        ("labelSelector", selector("kubernetes.LabelSelectorAttributes")),
    ];
    let resource: Vec<_> = texts.into_iter().chain(selectors).collect();
    object(
        "kubernetes.SubjectAccessReviewSpec",
        &[
            ("resourceAttributes", object("kubernetes.ResourceAttributes", &resource)),
            ("nonResourceAttributes", object("kubernetes.NonResourceAttributes", &[("path", text()), ("verb", text())])),
            ("user", text()),
            ("groups", list()),
            ("extra", Declaration::map(list())),
            ("uid", text()),
        ],
    )
}

/// What the flags say. Their names and defaults are those of kube-apiserver.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--authorization-config`
    pub file: Option<PathBuf>,
    /// `--authorization-mode`
    pub modes: Vec<String>,
    /// `--authorization-webhook-config-file`
    pub webhook: Option<PathBuf>,
    /// `--authorization-webhook-version`
    pub webhook_version: String,
    /// `--authorization-webhook-cache-authorized-ttl`
    pub authorized: Duration,
    /// `--authorization-webhook-cache-unauthorized-ttl`
    pub unauthorized: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            file: None,
            modes: vec!["Node".into(), "RBAC".into()],
            webhook: None,
            webhook_version: "v1beta1".into(),
            authorized: AUTHORIZED,
            unauthorized: UNAUTHORIZED,
        }
    }
}

impl Options {
    /// The authorizers of the flags.
    pub(super) fn modes(&self) -> Result<Vec<Mode>, Invalid> {
        let mode = |mode: &String| match (mode.as_str(), &self.webhook) {
            ("Node", _) => Ok(Mode::Node),
            ("RBAC", _) => Ok(Mode::Rbac),
            ("Webhook", Some(file)) => Ok(Mode::Webhook(Box::new(WebhookOptions {
                name: "default".to_owned(),
                file: file.clone(),
                version: self.webhook_version.clone(),
                timeout: TIMEOUT,
                authorized: Some(self.authorized),
                unauthorized: Some(self.unauthorized),
                denies_on_failure: false,
                conditions: Vec::new(),
            }))),
            ("Webhook", None) => {
                Err(Invalid::Decode("authorization mode Webhook needs --authorization-webhook-config-file".to_owned()))
            }
            (other, _) => Err(Invalid::Decode(format!("authorization mode {other:?} is none of {}", TYPES.join(", ")))),
        };
        self.modes.iter().map(mode).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse_list(authorizers: &str) -> Result<Vec<Mode>, Invalid> {
        parse(&format!(
            "{{apiVersion: apiserver.config.k8s.io/v1, kind: AuthorizationConfiguration, authorizers: [{authorizers}]}}"
        ))
    }

    fn hook(file: &str, rest: &str) -> String {
        format!(
            "{{type: Webhook, name: w, webhook: {{timeout: 3s, authorizedTTL: 5m, unauthorizedTTL: 30s, subjectAccessReviewVersion: v1, failurePolicy: Deny, connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {file}}}{rest}}}}}"
        )
    }

    #[test]
    fn a_chain() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let conditions = ", cacheUnauthorizedRequests: false, matchConditionSubjectAccessReviewVersion: v1, matchConditions: [{expression: 'has(request.resourceAttributes)'}]";
        let chain =
            parse_list(&format!("{}, {{type: Node, name: node}}, {{type: RBAC, name: rbac}}", hook(path, conditions))).unwrap();
        let [Mode::Webhook(options), Mode::Node, Mode::Rbac] = &chain[..] else { panic!("{chain:?}") };
        assert_eq!(
            (options.timeout, options.authorized, options.unauthorized),
            (Duration::from_secs(3), Some(Duration::from_secs(300)), None)
        );
        assert!(options.denies_on_failure && options.conditions.len() == 1 && options.version == "v1");
        for without in
            [("authorizedTTL: 5m, unauthorizedTTL: 30s, ", ""), ("5m, unauthorizedTTL: 30s", "0s, unauthorizedTTL: 0s")]
        {
            let chain = parse_list(&hook(path, "").replace(without.0, without.1)).unwrap();
            let [Mode::Webhook(options)] = &chain[..] else { panic!("{chain:?}") };
            assert_eq!((options.authorized, options.unauthorized), (Some(AUTHORIZED), Some(UNAUTHORIZED)));
        }
        let flags = Options::default().modes().unwrap();
        assert!(matches!(flags[..], [Mode::Node, Mode::Rbac]));
        assert!(Options { modes: vec!["Webhook".into()], ..Options::default() }.modes().is_err());
        assert!(Options { modes: vec!["ABAC".into()], ..Options::default() }.modes().is_err());
    }

    #[test]
    fn configurations_that_are_wrong() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let check = |authorizers: &str, expected: &str| {
            let why = parse_list(authorizers).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(why.contains(expected), "{authorizers}: {why}");
        };
        check("", "authorizers: Required value: at least one authorization mode must be defined");
        check("{name: a}", "authorizers[0].type: Required value");
        check("{type: ABAC, name: a}", "authorizers[0].type: Unsupported value: \"ABAC\"");
        check("{type: Node, name: a}, {type: Node, name: b}", "authorizers[1].type: Duplicate value: \"Node\"");
        check("{type: Node}", "authorizers[0].name: Required value");
        check("{type: Node, name: a}, {type: RBAC, name: a}", "authorizers[1].name: Duplicate value: \"a\"");
        check("{type: Node, name: A}", "authorizers[0].name: Invalid value: \"A\": authorizer name is invalid");
        check("{type: Webhook, name: a}", "authorizers[0].webhook: Required value: required when type=Webhook");
        check("{type: RBAC, name: a, webhook: {}}", "may only be specified when type=Webhook");
        check("{type: Webhook, name: a, webhook: {}}", "authorizers[0].timeout: Required value");
        check("{type: Webhook, name: a, webhook: {colour: red}}", "unknown field `colour`");
        check(&hook(path, "").replace("3s", "31s"), "authorizers[0].timeout: Invalid value: \"31s\": must be > 0s and <= 30s");
        check(&hook(path, "").replace("5m", "-1s"), "authorizers[0].authorizedTTL: Invalid value");
        check(&hook(path, "").replace("Deny", "Allow"), "authorizers[0].failurePolicy: Unsupported value: \"Allow\"");
        check(&hook("a.yaml", ""), "must be an absolute path");
        check(&hook("/none/such", ""), "must be a regular file");
        check(&hook(path, "").replace("type: KubeConfigFile", "type: InClusterConfig"), "InClusterConfig is not supported");
        check(&hook(path, ", matchConditions: [{expression: 'true'}]"), "required if match conditions are specified");
        let conditions = ", matchConditionSubjectAccessReviewVersion: v1, matchConditions: ";
        check(&hook(path, &format!("{conditions}[{{expression: ''}}]")), "matchConditions[0].expression: Required value");
        check(&hook(path, &format!("{conditions}[{{expression: 'a b'}}]")), "compilation failed");
        assert!(matches!(parse("kind: Pod"), Err(Invalid::Kind)));
    }
}

//! The file of `--authentication-config` (`AuthenticationConfiguration`), checked as upstream does.

mod file;

use apimachinery::field::{self, Errors, Path};
use apimachinery::yaml;
use cel::{Program, Type};

use super::Invalid;
use super::jwt::ALGORITHMS;
use super::mapping::{Mapping, Rule, Source};
pub(super) use file::{ClaimRule, File, Issuer, Jwt, Mappings, Prefixed};

/// The versions of the configuration that are read.
const VERSIONS: [&str; 3] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
/// Most issuers.
const ISSUERS: usize = 64;

/// Who may ask without an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anonymous {
    enabled: bool,
    /// The paths where that is so; all when there is none.
    paths: Vec<String>,
}

impl Anonymous {
    /// Everywhere or nowhere.
    pub fn everywhere(enabled: bool) -> Self {
        Self { enabled, paths: Vec::new() }
    }

    /// Whether a path may be asked for.
    pub fn allows(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|one| one == path))
    }
}

/// How the tokens of an issuer are checked.
#[derive(Debug)]
pub(in crate::authn) struct Authenticator {
    pub(super) url: String,
    pub(super) discovery_url: Option<String>,
    /// Certificates, in PEM, that vouch for it; none for those of the system.
    pub(super) authority: Option<String>,
    pub(super) audiences: Vec<String>,
    pub(super) algorithms: Vec<String>,
    pub(super) mapping: Mapping,
}

impl Authenticator {
    /// Where the issuer says what there is to know of it.
    pub(super) fn discovery(&self) -> String {
        let own = || format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/'));
        self.discovery_url.clone().unwrap_or_else(own)
    }
}

/// Who may ask, besides those who are of this cluster.
#[derive(Debug, Default)]
pub struct Configuration {
    pub(in crate::authn) issuers: Vec<Authenticator>,
    /// None when the file does not say.
    pub(in crate::authn) anonymous: Option<Anonymous>,
}

impl Configuration {
    /// Reads a configuration in YAML or JSON. `own` issues the cluster's tokens, and nobody else's.
    pub fn parse(text: &str, own: &[String]) -> Result<Self, Invalid> {
        let (value, problems) = yaml::parse(text).map_err(|error| Invalid::Decode(error.to_string()))?;
        if let Some(problem) = problems.into_iter().next() {
            return Err(Invalid::Decode(problem));
        }
        let known = value["apiVersion"].as_str().is_some_and(|version| VERSIONS.contains(&version));
        if value["kind"] != "AuthenticationConfiguration" || !known {
            return Err(Invalid::Kind);
        }
        let file = serde_json::from_value(value).map_err(|error| Invalid::Decode(error.to_string()))?;
        let all: Vec<_> = ALGORITHMS.iter().map(|algorithm| (*algorithm).to_owned()).collect();
        Self::of(file, &all, own)
    }

    pub(super) fn of(file: File, algorithms: &[String], own: &[String]) -> Result<Self, Invalid> {
        let (mut errors, root) = (Errors::new(), Path::new("jwt"));
        if file.jwt.len() > ISSUERS {
            errors.push(field::Error::too_many(&root, file.jwt.len(), ISSUERS));
        }
        for (at, jwt) in file.jwt.iter().enumerate() {
            let path = root.index(at).child("issuer");
            let before = &file.jwt[..at];
            if before.iter().any(|other| other.issuer.url == jwt.issuer.url) {
                errors.push(field::Error::duplicate(&path.child("url"), jwt.issuer.url.as_str()));
            }
            let discovery = jwt.issuer.discovery_url.as_deref().filter(|url| !url.is_empty());
            if let Some(url) = discovery
                && before.iter().any(|other| other.issuer.discovery_url.as_deref() == Some(url))
            {
                errors.push(field::Error::duplicate(&path.child("discoveryURL"), url));
            }
        }
        let anonymous = file.anonymous.map(|rule| {
            if !rule.enabled && !rule.conditions.is_empty() {
                let why = "enabled should be set to true when conditions are defined";
                errors.push(field::Error::invalid(&Path::new("anonymous.conditions"), "", why));
            }
            Anonymous { enabled: rule.enabled, paths: rule.conditions.into_iter().map(|condition| condition.path).collect() }
        });
        let issuers = file.jwt.into_iter().enumerate();
        let issuers: Vec<_> =
            issuers.filter_map(|(at, jwt)| authenticator(jwt, algorithms, own, &root.index(at), &mut errors)).collect();
        if errors.is_empty() { Ok(Self { issuers, anonymous }) } else { Err(Invalid::Fields(errors)) }
    }
}

fn authenticator(jwt: Jwt, algorithms: &[String], own: &[String], path: &Path, errors: &mut Errors) -> Option<Authenticator> {
    check_issuer(&jwt.issuer, own, &path.child("issuer"), errors);
    let mut compiler = Compiler { errors, email: false, verified: false };
    let (required, claim_rules) = compiler.claim_rules(&jwt.claim_validation_rules, &path.child("claimValidationRules"));
    let mappings = path.child("claimMappings");
    let username = compiler.prefixed(&jwt.claim_mappings.username, &mappings.child("username"), true);
    compiler.email = matches!(&username, Some(Source::Expression(program)) if program.members("claims").contains(&"email"));
    // Whether an address was verified is not a matter of groups.
    let verified = compiler.verified;
    let groups = compiler.prefixed(&jwt.claim_mappings.groups, &mappings.child("groups"), false);
    let uid = compiler.uid(&jwt.claim_mappings.uid, &mappings.child("uid"));
    compiler.verified = verified;
    let extra = compiler.extra(&jwt.claim_mappings.extra, &mappings.child("extra"));
    let user_rules = compiler.user_rules(&jwt.user_validation_rules, &path.child("userValidationRules"));
    if compiler.email && !compiler.verified {
        let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        let path = mappings.child("username").child("expression");
        compiler.wrong(&path, &jwt.claim_mappings.username.expression, why);
    }
    let Issuer { url, discovery_url, certificate_authority, audiences, .. } = jwt.issuer;
    let given = |text: &String| !text.is_empty();
    Some(Authenticator {
        url,
        discovery_url: discovery_url.filter(given),
        authority: Some(certificate_authority).filter(given),
        audiences,
        algorithms: algorithms.to_vec(),
        mapping: Mapping { username: username?, groups, uid, extra, required, claim_rules, user_rules },
    })
}

fn check_issuer(issuer: &Issuer, own: &[String], path: &Path, errors: &mut Errors) {
    let url = path.child("url");
    if issuer.url.is_empty() {
        errors.push(field::Error::required(&url, ""));
    } else {
        if own.contains(&issuer.url) {
            let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
            errors.push(field::Error::invalid(&url, issuer.url.as_str(), why));
        }
        check_url(&issuer.url, &url, errors);
    }
    if let Some(discovery) = issuer.discovery_url.as_deref().filter(|url| !url.is_empty()) {
        let path = path.child("discoveryURL");
        if discovery.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            errors.push(field::Error::invalid(&path, discovery, "discoveryURL must be different from URL"));
        }
        check_url(discovery, &path, errors);
    }
    check_audiences(issuer, path, errors);
    if !issuer.certificate_authority.is_empty() && base::tls::roots(&issuer.certificate_authority).is_err() {
        let why = "data does not contain any valid RSA or ECDSA certificates";
        errors.push(field::Error::invalid(&path.child("certificateAuthority"), "<omitted>", why));
    }
    if !["", "controlplane", "cluster"].contains(&issuer.egress_selector_type.as_str()) {
        let why = "egress selector must be either controlplane or cluster";
        errors.push(field::Error::invalid(&path.child("egressSelectorType"), issuer.egress_selector_type.as_str(), why));
    }
}

fn check_url(url: &str, path: &Path, errors: &mut Errors) {
    let mut wrong = |why: &str| errors.push(field::Error::invalid(path, url, why));
    let (plain, fragment) = url.split_once('#').map_or((url, false), |(plain, fragment)| (plain, !fragment.is_empty()));
    let Ok(uri) = plain.parse::<http::Uri>() else { return wrong("invalid URL") };
    if uri.scheme_str() != Some("https") {
        wrong("URL scheme must be https");
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        wrong("URL must not contain a username or password");
    }
    if uri.query().is_some_and(|query| !query.is_empty()) {
        wrong("URL must not contain a query");
    }
    if fragment {
        wrong("URL must not contain a fragment");
    }
}

fn check_audiences(issuer: &Issuer, path: &Path, errors: &mut Errors) {
    let list = path.child("audiences");
    if issuer.audiences.is_empty() {
        return errors.push(field::Error::required(&list, format!("at least one {list} is required")));
    }
    for (at, audience) in issuer.audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(field::Error::required(&list.index(at), ""));
        }
        if issuer.audiences[..at].contains(audience) {
            errors.push(field::Error::duplicate(&list.index(at), audience.as_str()));
        }
    }
    let policy = issuer.audience_match_policy.as_str();
    let why = match issuer.audiences.len() {
        1 if !policy.is_empty() && policy != "MatchAny" => "audienceMatchPolicy must be empty or MatchAny for single audience",
        2.. if policy != "MatchAny" => "audienceMatchPolicy must be MatchAny for multiple audiences",
        _ => return,
    };
    errors.push(field::Error::invalid(&path.child("audienceMatchPolicy"), policy, why));
}

/// An expression, or why it is none (`authentication/cel/compile.go`).
fn compile(source: &str, variable: &'static str, condition: bool) -> Result<Program, String> {
    let failed = |error: cel::CompileError| format!("compilation failed: {error}");
    let ty = match variable {
        "user" => kinds::expressions::user().ty(),
        // Claims may be anything.
        _ => Type::map(Type::String, Type::Dyn),
    };
    let variables = [(variable, ty)];
    let program = Program::compile(source, &[variable]).map_err(|_| failed(cel::faults(source, &variables)))?;
    let found = program.check(source, &variables).map_err(failed)?.ty();
    if condition && found != Type::Bool { Err("must evaluate to bool".to_owned()) } else { Ok(program) }
}

/// Compiles expressions, and notes what is wrong.
struct Compiler<'a> {
    errors: &'a mut Errors,
    /// Whether the name is made of `claims.email`.
    email: bool,
    /// Whether `claims.email_verified` is looked at.
    verified: bool,
}

impl Compiler<'_> {
    fn wrong(&mut self, path: &Path, value: &str, why: &str) {
        self.errors.push(field::Error::invalid(path, value, why));
    }

    /// An expression over the claims, or over the user that is made of them; a condition is one that says whether something is so.
    fn compile(&mut self, source: &str, variable: &'static str, condition: bool, path: &Path) -> Option<Program> {
        match compile(source, variable, condition) {
            Ok(program) => {
                self.verified |= program.members("claims").contains(&"email_verified");
                Some(program)
            }
            Err(why) => {
                self.wrong(path, source, &why);
                None
            }
        }
    }

    fn prefixed(&mut self, mapping: &Prefixed, path: &Path, required: bool) -> Option<Source> {
        match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
            (false, false) => self.wrong(path, "", "claim and expression can't both be set"),
            (true, true) if required => self.errors.push(field::Error::required(path, "claim or expression is required")),
            (true, true) => {}
            (true, false) => {
                if let Some(prefix) = &mapping.prefix {
                    self.wrong(&path.child("prefix"), prefix, "may not be specified when expression is set");
                }
                let program = self.compile(&mapping.expression, "claims", false, &path.child("expression"));
                return program.map(Source::Expression);
            }
            (false, true) => {
                let Some(prefix) = mapping.prefix.clone() else {
                    let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    self.errors.push(field::Error::required(&path.child("prefix"), why));
                    return None;
                };
                return Some(Source::Claim { claim: mapping.claim.clone(), prefix });
            }
        }
        None
    }

    fn uid(&mut self, mapping: &file::Plain, path: &Path) -> Option<Source> {
        match (mapping.claim.is_empty(), mapping.expression.is_empty()) {
            (false, false) => self.wrong(path, "", "claim and expression can't both be set"),
            (true, true) => {}
            (true, false) => {
                return self.compile(&mapping.expression, "claims", false, &path.child("expression")).map(Source::Expression);
            }
            (false, true) => return Some(Source::Claim { claim: mapping.claim.clone(), prefix: String::new() }),
        }
        None
    }

    fn extra(&mut self, all: &[file::Extra], path: &Path) -> Vec<(String, Program)> {
        let mut found = Vec::new();
        for (at, mapping) in all.iter().enumerate() {
            let (key, path) = (mapping.key.as_str(), path.index(at));
            let domain = key.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty());
            match domain {
                None => self.wrong(&path.child("key"), key, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
                Some((domain, _)) => {
                    let reserved = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
                    if reserved("kubernetes.io") || reserved("k8s.io") {
                        let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                        self.wrong(&path.child("key"), key, why);
                    }
                }
            }
            if key.chars().any(char::is_uppercase) {
                self.wrong(&path.child("key"), key, "must be lowercase");
            }
            if all[..at].iter().any(|other| other.key == mapping.key) {
                self.errors.push(field::Error::duplicate(&path.child("key"), key));
                continue;
            }
            if mapping.value_expression.is_empty() {
                self.errors.push(field::Error::required(&path.child("valueExpression"), ""));
                continue;
            }
            let program = self.compile(&mapping.value_expression, "claims", false, &path.child("valueExpression"));
            found.extend(program.map(|program| (key.to_owned(), program)));
        }
        found
    }

    fn claim_rules(&mut self, rules: &[ClaimRule], path: &Path) -> (Vec<(String, String)>, Vec<Rule>) {
        let (mut required, mut expressions): (Vec<(String, String)>, Vec<Rule>) = Default::default();
        for (at, rule) in rules.iter().enumerate() {
            let path = path.index(at);
            match (rule.claim.is_empty(), rule.expression.is_empty()) {
                (false, false) => self.wrong(&path, &rule.claim, "claim and expression can't both be set"),
                (true, true) => self.errors.push(field::Error::required(&path, "claim or expression is required")),
                (false, true) => {
                    if !rule.message.is_empty() {
                        self.wrong(&path.child("message"), &rule.message, "may not be specified when claim is set");
                    }
                    if required.iter().any(|(claim, _)| *claim == rule.claim) {
                        self.errors.push(field::Error::duplicate(&path.child("claim"), rule.claim.as_str()));
                    }
                    required.push((rule.claim.clone(), rule.required_value.clone()));
                }
                (true, false) => {
                    if !rule.required_value.is_empty() {
                        let why = "may not be specified when expression is set";
                        self.wrong(&path.child("requiredValue"), &rule.required_value, why);
                    }
                    self.rule(&rule.expression, &rule.message, "claims", &path.child("expression"), &mut expressions);
                }
            }
        }
        (required, expressions)
    }

    fn user_rules(&mut self, rules: &[file::UserRule], path: &Path) -> Vec<Rule> {
        let mut found = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            let path = path.index(at).child("expression");
            match rule.expression.as_str() {
                "" => self.errors.push(field::Error::required(&path, "")),
                expression => self.rule(expression, &rule.message, "user", &path, &mut found),
            }
        }
        found
    }

    fn rule(&mut self, source: &str, message: &str, variable: &'static str, path: &Path, rules: &mut Vec<Rule>) {
        if rules.iter().any(|rule| rule.source == source) {
            return self.errors.push(field::Error::duplicate(path, source));
        }
        if let Some(program) = self.compile(source, variable, true, path) {
            rules.push(Rule { program, source: source.to_owned(), message: message.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests;

//! One Ingress, read: its rules, hosts and certificates as the table needs them. Pure.
//!
//! What is refused keeps its place, and nobody is served there: its requests are not for a broader path, which may be another Ingress' and
//! not guarded.

mod size;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use client::Key;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressRule};

use crate::annotations::{self, Problem};
use crate::endpoints::PortRef;
use crate::guard::clients::Verify;
use crate::issuer::{Issuer, Issuers, is_provable};
use crate::paths::{Matcher, PathType};
use crate::patterns::Refused;
use crate::policy::Policy;
use crate::template::Template;
use crate::upstream::{Place, UpstreamKey};

/// An Ingress as the table needs it.
#[derive(Debug)]
pub struct Compiled {
    /// Which.
    pub key: Key,
    /// Seconds of its creation: of two that want the same, the older has it.
    pub created: i64,
    /// What its annotations mean.
    pub policy: Arc<Policy>,
    /// Its paths.
    pub paths: Vec<PathRule>,
    /// What is closed of its hosts in place of its paths, where they are too many.
    pub closed: Vec<ClosedHost>,
    /// Hosts of its rules; without rules that of all requests.
    pub hosts: Vec<String>,
    /// Hosts that are redirected, and how, unless somebody has rules for them.
    pub redirected: Vec<(String, Arc<Policy>)>,
    /// Who answers what no rule matches.
    pub default: Option<Leads>,
    /// Who answers when the back end has no endpoints.
    pub spare: Option<UpstreamKey>,
    /// Hosts with TLS, and the Secret with the certificate of each.
    pub tls: Vec<(String, Option<Key>)>,
    /// Who issues its certificates.
    pub issuer: Option<Issuer>,
    /// Its unique name.
    pub uid: Option<String>,
    /// The Secret with the passwords.
    pub passwords: Option<Key>,
    /// The Secret with the authorities of clients.
    pub authorities: Option<Key>,
    /// Who is asked whether a request may pass.
    pub external: Option<UpstreamKey>,
    /// What of it does not work.
    pub problems: Vec<Problem>,
}

impl Compiled {
    /// The Secrets that it refers to.
    pub fn secrets(&self) -> impl Iterator<Item = &Key> {
        let tls = self.tls.iter().filter_map(|(_, secret)| secret.as_ref());
        tls.chain(&self.passwords).chain(&self.authorities)
    }
}

/// One path of one host.
#[derive(Debug)]
pub struct PathRule {
    /// The host as tables name it, see [`host_name`].
    pub host: String,
    /// The path as it was written.
    pub text: String,
    /// How it is meant.
    pub kind: PathType,
    /// What it matches.
    pub matcher: Matcher,
    /// Where it leads.
    pub leads: Leads,
}

/// Where a path leads.
#[derive(Clone, Debug)]
pub enum Leads {
    /// To this back end.
    To(UpstreamKey),
    /// To nobody: it is refused, and so are its requests.
    Nowhere,
}

impl Leads {
    /// The back end, if there is one.
    pub fn upstream(&self) -> Option<&UpstreamKey> {
        match self {
            Self::To(upstream) => Some(upstream),
            Self::Nowhere => None,
        }
    }
}

/// A host of an Ingress that is too large: requests that begin like all its paths there are refused.
#[derive(Debug, PartialEq, Eq)]
pub struct ClosedHost {
    /// The host as tables name it, see [`host_name`].
    pub host: String,
    /// How they begin, in lower case.
    pub begin: Arc<str>,
    /// The length of the longest path: longer ones of others are theirs.
    pub length: usize,
}

/// A host as tables name it: in small letters; `*.example.com` is `.example.com`, and any host is empty.
pub fn host_name(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    host.strip_prefix('*').map_or_else(|| host.clone(), str::to_owned)
}

/// Reads an Ingress. `domain` is that of the cluster, `issuers` may be asked for certificates.
pub fn compile(ingress: &Ingress, domain: &str, issuers: &Issuers) -> Compiled {
    let key = Key::of(ingress);
    let (mut policy, problems) = annotations::parse(&ingress.metadata.annotations.clone().unwrap_or_default(), key.ns());
    let mut reader = Reader { key, problems };
    let passwords = reader.passwords(&mut policy);
    let authorities = reader.authorities(&mut policy);
    let external = reader.external(&mut policy, domain);
    let policy = Arc::new(policy);
    let spec = ingress.spec.clone().unwrap_or_default();
    let mut default = spec.default_backend.as_ref().map(|backend| reader.leads(&policy, backend));
    let spare = policy.default_backend.as_ref().and_then(|name| reader.spare(&policy, name));
    let mut rules = spec.rules.unwrap_or_default();
    let mut tls = spec.tls.unwrap_or_default();
    let mut closed = Vec::new();
    if let Some(large) = size::too_large(&policy, &rules, &tls) {
        reader.problem("TooLarge", format!("{large}: divide it; requests for its hosts are refused where all its paths lead"));
        closed = size::closed(&policy, &rules);
        default = default.map(|_| Leads::Nowhere);
        (rules, tls) = (Vec::new(), Vec::new());
    }
    let paths: Vec<PathRule> = rules.iter().flat_map(|rule| reader.rule(&policy, rule, default.as_ref())).collect();
    let mut hosts: Vec<String> = rules.iter().flat_map(|rule| names(&policy, rule)).collect();
    hosts.extend(closed.iter().map(|closed| closed.host.clone()));
    if hosts.is_empty() {
        hosts.push(String::new());
    }
    let tls = tls.iter().flat_map(|tls| {
        let secret = tls.secret_name.as_ref().filter(|name| !name.is_empty());
        let secret = secret.map(|name| Key { namespace: reader.key.namespace.clone(), name: name.clone() });
        let named: Vec<String> = tls.hosts.iter().flatten().map(|host| host_name(host)).collect();
        let hosts = if named.is_empty() { hosts.clone() } else { named };
        hosts.into_iter().map(move |host| (host, secret.clone()))
    });
    let tls: Vec<(String, Option<Key>)> = tls.collect();
    let issuer = reader.issuer(ingress, issuers, &tls);
    let named = hosts.iter().filter(|host| policy.www && !host.is_empty() && !host.starts_with('.'));
    let redirected = named.map(|host| (other_name(host), redirection(host))).collect();
    let created = ingress.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second());
    let Reader { key, problems, .. } = reader;
    let uid = ingress.metadata.uid.clone();
    Compiled {
        key,
        created,
        policy,
        paths,
        closed,
        hosts,
        redirected,
        default,
        spare,
        tls,
        issuer,
        uid,
        passwords,
        authorities,
        external,
        problems,
    }
}

/// The host with `www.`, or without it.
fn other_name(host: &str) -> String {
    host.strip_prefix("www.").map_or_else(|| format!("www.{host}"), str::to_owned)
}

/// What holds for requests that belong to a host by another name.
fn redirection(host: &str) -> Arc<Policy> {
    let permanent = Template::parse(&format!("$scheme://{host}$request_uri")).ok();
    let permanent_code = http::StatusCode::PERMANENT_REDIRECT;
    Arc::new(Policy { permanent, permanent_code, ssl_redirect: false, ..Policy::default() })
}

/// The path as it is written; the whole host where nothing is.
fn path_text(path: &HTTPIngressPath) -> &str {
    path.path.as_deref().filter(|text| !text.is_empty()).unwrap_or("/")
}

fn path_type(path: &HTTPIngressPath) -> PathType {
    match path.path_type.as_str() {
        "Exact" => PathType::Exact,
        "Prefix" => PathType::Prefix,
        _ => PathType::ImplementationSpecific,
    }
}

/// The hosts of a rule, aliases too.
fn names(policy: &Policy, rule: &IngressRule) -> Vec<String> {
    let aliases = policy.aliases.iter().map(|alias| host_name(alias));
    std::iter::once(host_name(rule.host.as_deref().unwrap_or_default())).chain(aliases).collect()
}

struct Reader {
    key: Key,
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, reason: &'static str, message: impl Into<String>) {
        self.problems.push(Problem::new(reason, message));
    }

    fn rule(&mut self, policy: &Arc<Policy>, rule: &IngressRule, default: Option<&Leads>) -> Vec<PathRule> {
        let hosts = names(policy, rule);
        let Some(http) = &rule.http else {
            // A rule without paths sends all of its host to the default back end.
            let matcher = Matcher::Prefix(String::new());
            let all = |leads: &Leads, host| PathRule {
                host,
                text: "/".to_owned(),
                kind: PathType::Prefix,
                matcher: matcher.clone(),
                leads: leads.clone(),
            };
            return default.map(|leads| hosts.into_iter().map(|host| all(leads, host)).collect()).unwrap_or_default();
        };
        let mut paths = Vec::new();
        for path in &http.paths {
            let (text, kind, matcher, leads) = self.path(policy, path);
            for host in &hosts {
                let (host, text, matcher, leads) = (host.clone(), text.clone(), matcher.clone(), leads.clone());
                paths.push(PathRule { host, text, kind, matcher, leads });
            }
        }
        paths
    }

    fn path(&mut self, policy: &Policy, path: &HTTPIngressPath) -> (String, PathType, Matcher, Leads) {
        let (text, kind) = (path_text(path).to_owned(), path_type(path));
        match Matcher::new(&text, kind, policy.has_patterns(), self.key.ns()) {
            Ok(matcher) => (text, kind, matcher, self.leads(policy, &path.backend)),
            Err(refused) => {
                let reason = match &refused {
                    Refused::NoRoom => annotations::NO_ROOM,
                    Refused::Wrong(_) => "InvalidPath",
                };
                self.problem(reason, format!("requests that path {text:?} may match are refused: {refused}"));
                let matcher = Matcher::closed(&text);
                (text, kind, matcher, Leads::Nowhere)
            }
        }
    }

    /// Where what is for a back end leads.
    fn leads(&mut self, policy: &Policy, backend: &IngressBackend) -> Leads {
        self.upstream(policy, backend).map_or(Leads::Nowhere, Leads::To)
    }

    fn upstream(&mut self, policy: &Policy, backend: &IngressBackend) -> Option<UpstreamKey> {
        let Some(service) = &backend.service else {
            self.problem(
                "UnsupportedBackend",
                "back ends other than Services are not supported; requests for this one are refused",
            );
            return None;
        };
        let port = service.port.as_ref();
        let number = port.and_then(|port| port.number).and_then(|number| u16::try_from(number).ok());
        let port = number.map(PortRef::Number).or_else(|| Some(PortRef::Name(port?.name.clone()?)));
        let Some(port) = port else {
            let text = format!("back end {} has neither number nor name of a port; requests for it are refused", service.name);
            self.problem("UnsupportedBackend", text);
            return None;
        };
        let place = Place::Service(Key { namespace: self.key.namespace.clone(), name: service.name.clone() }, port);
        let tls_name = policy.tls_name.clone().filter(|_| policy.tls_send_name);
        Some(UpstreamKey { place, protocol: policy.protocol, tls_name, trust: None })
    }

    /// The Service that stands in: by `name` or `name:port`, port 80 when it says none.
    fn spare(&mut self, policy: &Policy, text: &str) -> Option<UpstreamKey> {
        let (name, port) = text.split_once(':').unwrap_or((text, "80"));
        let port = port.parse().map_or_else(|_| PortRef::Name(port.to_owned()), PortRef::Number);
        let place = Place::Service(Key { namespace: self.key.namespace.clone(), name: name.to_owned() }, port);
        Some(UpstreamKey { place, protocol: policy.protocol, tls_name: None, trust: None })
    }

    /// The Secret with passwords. Without one nobody may pass.
    fn passwords(&mut self, policy: &mut Policy) -> Option<Key> {
        if !policy.basic.enabled {
            return None;
        }
        let namespace = self.key.ns().to_owned();
        let secret = policy.basic.secret.clone().unwrap_or_default();
        let (place, name) = secret.split_once('/').unwrap_or((&namespace, &secret));
        if name.is_empty() || place != namespace {
            policy.closed = true;
            self.problem(
                "InvalidAnnotation",
                "auth-type basic needs an auth-secret in the Ingress's namespace; requests are refused until it has one",
            );
            return None;
        }
        Some(Key::namespaced(place, name))
    }

    /// The Secret with the authorities whose certificates clients have to show. Without one nobody may pass.
    fn authorities(&mut self, policy: &mut Policy) -> Option<Key> {
        let wants = policy.clients.verify != Verify::default() || policy.clients.subject.is_some();
        let Some(secret) = policy.clients.secret.clone() else {
            if wants && policy.clients.verify != Verify::Off {
                policy.closed = true;
                self.problem(
                    "InvalidAnnotation",
                    "client certificates need an auth-tls-secret; requests are refused until there is one",
                );
            }
            return None;
        };
        let namespace = self.key.ns().to_owned();
        let (place, name) = secret.split_once('/').unwrap_or((&namespace, &secret));
        if name.is_empty() || place != namespace {
            policy.closed = true;
            self.problem(
                "InvalidAnnotation",
                "auth-tls-secret has to be in the Ingress's namespace; requests are refused until it is",
            );
            return None;
        }
        Some(Key::namespaced(place, name))
    }

    /// Who issues the certificates of the Ingress; what cannot be issued is told.
    fn issuer(&mut self, ingress: &Ingress, issuers: &Issuers, tls: &[(String, Option<Key>)]) -> Option<Issuer> {
        let issuer = match issuers.named(ingress.metadata.annotations.as_ref()) {
            Ok(issuer) => issuer?,
            Err(wrong) => {
                self.problem(wrong.reason(), format!("{wrong}; no certificate is asked for"));
                return None;
            }
        };
        if !tls.iter().any(|(_, secret)| secret.is_some()) {
            self.problem("CertificateNotIssued", "there is no secretName in spec.tls where a certificate could be kept");
        }
        for (host, _) in tls.iter().filter(|(host, secret)| secret.is_some() && !is_provable(host)) {
            let host = if host.is_empty() { "any host".to_owned() } else { format!("*{host}") };
            self.problem("CertificateNotIssued", format!("no certificate for {host}: only single names can be proved over HTTP"));
        }
        Some(issuer)
    }

    /// Who is asked by the external authentication.
    fn external(&mut self, policy: &mut Policy, domain: &str) -> Option<UpstreamKey> {
        // The host is the same for all requests: variables stand behind it.
        let url = policy.external.url.as_ref()?.to_string();
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let tls = scheme == "https";
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, if tls { "443" } else { "80" }));
        let Some(port) = port.parse().ok().filter(|_| !host.is_empty() && !authority.contains(['$', '@'])) else {
            policy.closed = true;
            self.problem("InvalidAnnotation", "auth-url needs a fixed host; requests are refused until it has one");
            return None;
        };
        let place = service_of(host, domain).map_or_else(
            || Place::Name { name: host.to_owned(), port, namespace: self.key.ns().to_owned() },
            |service| Place::Service(service, PortRef::Number(port)),
        );
        let protocol = Some(if tls { crate::policy::Protocol::Https } else { crate::policy::Protocol::Http });
        Some(UpstreamKey { place, protocol, tls_name: tls.then(|| host.to_owned()), trust: None })
    }
}

/// The Service that a name of the cluster domain means: `NAME.NAMESPACE.svc`, with the domain or without.
fn service_of(host: &str, domain: &str) -> Option<Key> {
    let short = host.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).unwrap_or(host);
    let (name, namespace) = short.strip_suffix(".svc")?.split_once('.')?;
    (!namespace.contains('.')).then(|| Key::namespaced(namespace, name))
}

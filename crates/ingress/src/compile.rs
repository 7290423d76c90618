//! One Ingress, read: its rules, hosts and certificates as the table needs them. Pure.

use std::sync::Arc;

use client::Key;
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressRule, IngressTLS};

use crate::annotations::{self, Problem};
use crate::endpoints::PortRef;
use crate::guard::clients::Verify;
use crate::issuer::{Issuer, Issuers, is_provable};
use crate::paths::{Matcher, PathType};
use crate::patterns::Refused;
use crate::policy::Policy;
use crate::template::Template;
use crate::upstream::{Place, UpstreamKey};

/// Paths of all hosts, and hosts with a certificate, that an Ingress may come to.
const MOST: usize = 20_000;

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
    /// Hosts of its rules; without rules that of all requests.
    pub hosts: Vec<String>,
    /// Hosts that are redirected, and how, unless somebody has rules for them.
    pub redirected: Vec<(String, Arc<Policy>)>,
    /// Who answers what no rule matches.
    pub default: Option<UpstreamKey>,
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
    pub upstream: UpstreamKey,
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
    let mut default = spec.default_backend.as_ref().and_then(|backend| reader.upstream(&policy, backend));
    let spare = policy.default_backend.as_ref().and_then(|name| reader.spare(&policy, name));
    let mut rules = spec.rules.unwrap_or_default();
    let mut tls = spec.tls.unwrap_or_default();
    let count = too_much(&policy, &rules, &tls);
    if let Some(count) = count {
        reader.problem(
            "TooLarge",
            format!("it comes to {count} paths and certificates of hosts, an Ingress may have {MOST}: divide it"),
        );
        (rules, tls, default) = (Vec::new(), Vec::new(), None);
    }
    let paths: Vec<PathRule> = rules.iter().flat_map(|rule| reader.rule(&policy, rule, default.as_ref())).collect();
    let mut hosts: Vec<String> = rules.iter().flat_map(|rule| names(&policy, rule)).collect();
    if rules.is_empty() && count.is_none() {
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

/// What an Ingress comes to, if that is more than one may have: each of its names has each of its paths, and a certificate.
fn too_much(policy: &Policy, rules: &[IngressRule], tls: &[IngressTLS]) -> Option<usize> {
    let names = 1 + policy.aliases.len();
    let paths = |rule: &IngressRule| rule.http.as_ref().map_or(1, |http| http.paths.len());
    let hosts = |tls: &IngressTLS| tls.hosts.as_ref().map_or(0, Vec::len);
    let all = names.saturating_mul(rules.len().max(1));
    let of_paths = rules.iter().map(|rule| names.saturating_mul(paths(rule))).fold(0, usize::saturating_add);
    let of_tls = tls.iter().map(|tls| if hosts(tls) == 0 { all } else { hosts(tls) }).fold(0, usize::saturating_add);
    Some(of_paths.saturating_add(of_tls)).filter(|count| *count > MOST)
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

    fn rule(&mut self, policy: &Arc<Policy>, rule: &IngressRule, default: Option<&UpstreamKey>) -> Vec<PathRule> {
        let hosts = names(policy, rule);
        let Some(http) = &rule.http else {
            // A rule without paths sends all of its host to the default back end.
            let matcher = Matcher::Prefix(String::new());
            let all = |upstream: &UpstreamKey, host| PathRule {
                host,
                text: "/".to_owned(),
                kind: PathType::Prefix,
                matcher: matcher.clone(),
                upstream: upstream.clone(),
            };
            return default.map(|upstream| hosts.into_iter().map(|host| all(upstream, host)).collect()).unwrap_or_default();
        };
        let mut paths = Vec::new();
        for path in &http.paths {
            let Some((text, kind, matcher, upstream)) = self.path(policy, path) else { continue };
            for host in &hosts {
                let (host, text, matcher, upstream) = (host.clone(), text.clone(), matcher.clone(), upstream.clone());
                paths.push(PathRule { host, text, kind, matcher, upstream });
            }
        }
        paths
    }

    fn path(&mut self, policy: &Policy, path: &HTTPIngressPath) -> Option<(String, PathType, Matcher, UpstreamKey)> {
        let upstream = self.upstream(policy, &path.backend)?;
        let text = path.path.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| "/".to_owned());
        let kind = match path.path_type.as_str() {
            "Exact" => PathType::Exact,
            "Prefix" => PathType::Prefix,
            _ => PathType::ImplementationSpecific,
        };
        let pattern = policy.use_regex || policy.rewrite.is_some();
        match Matcher::new(&text, kind, pattern, self.key.ns()) {
            Ok(matcher) => Some((text, kind, matcher, upstream)),
            Err(refused @ Refused::NoRoom) => match Matcher::closed(&text) {
                // Its requests are not for a broader path, which may be another Ingress' and not guarded.
                Ok(matcher) => {
                    self.problem(annotations::NO_ROOM, format!("requests that path {text:?} may match are refused: {refused}"));
                    Some((text, kind, matcher, upstream))
                }
                Err(wrong) => self.left_out(&text, &wrong.kind()),
            },
            Err(Refused::Wrong(wrong)) => self.left_out(&text, &wrong),
        }
    }

    /// Leaves a path out that is no regular expression.
    fn left_out<T>(&mut self, text: &str, why: &dyn std::fmt::Display) -> Option<T> {
        self.problem(
            "InvalidPath",
            format!("path {text:?} is left out: it is no regular expression that can be followed: {why}"),
        );
        None
    }

    fn upstream(&mut self, policy: &Policy, backend: &IngressBackend) -> Option<UpstreamKey> {
        let Some(service) = &backend.service else {
            self.problem("UnsupportedBackend", "back ends other than Services are not supported");
            return None;
        };
        let port = service.port.as_ref();
        let number = port.and_then(|port| port.number).and_then(|number| u16::try_from(number).ok());
        let port = number.map(PortRef::Number).or_else(|| Some(PortRef::Name(port?.name.clone()?)));
        let Some(port) = port else {
            self.problem("UnsupportedBackend", format!("back end {} has neither number nor name of a port", service.name));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn of(annotations: Value, spec: Value) -> Compiled {
        let metadata = json!({"name": "i", "namespace": "a", "annotations": annotations});
        compile(
            &serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
            "cluster.local",
            &Issuers::default(),
        )
    }

    #[test]
    fn hosts_and_certificates() {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let http = json!({"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]});
        let spec = json!({
            "tls": [{"hosts": ["A.example"], "secretName": "s"}, {"secretName": "t"}],
            "rules": [{"host": "a.Example", "http": http}, {"host": "*.b.example", "http": http}, {"http": http}],
        });
        let compiled = of(json!({"nginx.ingress.kubernetes.io/server-alias": "c.example"}), spec);
        let hosts: Vec<&str> = compiled.paths.iter().map(|path| path.host.as_str()).collect();
        assert_eq!(hosts, ["a.example", "c.example", ".b.example", "c.example", "", "c.example"]);
        assert_eq!(compiled.tls[0], ("a.example".to_owned(), Some(Key::namespaced("a", "s"))));
        assert!(compiled.redirected.is_empty());
        assert_eq!((other_name("a.example"), other_name("www.a.example")), ("www.a.example".to_owned(), "a.example".to_owned()));
        assert!(compiled.tls[1..].iter().any(|(host, secret)| host.is_empty() && *secret == Some(Key::namespaced("a", "t"))));
    }

    #[test]
    fn external_authentication() {
        let check = |url: &str, expected: Option<Place>| {
            let compiled = of(json!({"nginx.ingress.kubernetes.io/auth-url": url}), json!({}));
            assert_eq!(compiled.policy.closed, expected.is_none(), "{url}");
            assert_eq!(compiled.external.map(|key| key.place), expected, "{url}");
        };
        let service = |port| Some(Place::Service(Key::namespaced("sso", "auth"), PortRef::Number(port)));
        check("http://auth.sso.svc.cluster.local:4180/oauth2/auth", service(4180));
        check("http://auth.sso.svc/oauth2/auth?u=$request_uri", service(80));
        check("https://login.example/auth", Some(Place::Name { name: "login.example".into(), port: 443, namespace: "a".into() }));
        check("https://$host/auth", None);
        check("https://user@login.example/", None);
    }

    #[test]
    fn issuers_that_are_not_listed_are_told() {
        let check = |issuer: &str, expected: Option<&str>, reasons: &[&str]| {
            let compiled =
                of(json!({"acme.knarr.io/issuer": issuer}), json!({"tls": [{"hosts": ["a.example"], "secretName": "s"}]}));
            assert_eq!(compiled.issuer.map(|issuer| issuer.url).as_deref(), expected, "{issuer}");
            assert_eq!(compiled.problems.iter().map(|problem| problem.reason).collect::<Vec<_>>(), reasons, "{issuer}");
        };
        check("letsencrypt", Some("https://acme-v02.api.letsencrypt.org/directory"), &[]);
        check("https://10.43.0.1/", None, &["IssuerNotAllowed"]);
    }

    /// Each name has each path, and entries without hosts have all of them: a small manifest must not become gigabytes.
    #[test]
    fn what_an_ingress_comes_to_is_bounded() {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let path = |number: usize| json!({"path": format!("/{number}"), "pathType": "Prefix", "backend": backend});
        let rule = |count: usize| json!({"host": "a.example", "http": {"paths": (0..count).map(path).collect::<Vec<_>>()}});
        let aliases: Vec<String> = (0..199).map(|number| format!("a{number}.example")).collect();
        let aliases = json!({"nginx.ingress.kubernetes.io/server-alias": aliases.join(",")});
        let check = |spec: Value, expected: Option<usize>| {
            let compiled = of(aliases.clone(), spec);
            match expected {
                Some(count) => assert_eq!(compiled.paths.len() + compiled.tls.len(), count),
                None => {
                    assert_eq!(compiled.problems[0].reason, "TooLarge");
                    assert!(compiled.paths.is_empty() && compiled.hosts.is_empty() && compiled.default.is_none());
                }
            }
        };
        check(json!({"rules": [rule(100)]}), Some(20_000));
        check(json!({"rules": [rule(101)], "defaultBackend": backend}), None);
        check(json!({"rules": [rule(1)], "tls": vec![json!({}); 99]}), Some(20_000));
        check(json!({"rules": [rule(1)], "tls": vec![json!({}); 100]}), None);
    }

    #[test]
    fn what_does_not_work_is_told() {
        let check = |annotations: Value, spec: Value, reason: &str, closed: bool| {
            let compiled = of(annotations, spec);
            assert_eq!((compiled.problems[0].reason, compiled.policy.closed), (reason, closed), "{:?}", compiled.problems);
        };
        let resource = json!({"resource": {"kind": "Bucket", "name": "b"}});
        check(json!({}), json!({"defaultBackend": resource}), "UnsupportedBackend", false);
        let backend = json!({"service": {"name": "web", "port": {"name": "http"}}});
        let paths = json!({"paths": [{"path": "/(", "pathType": "ImplementationSpecific", "backend": backend}]});
        let regex = json!({"nginx.ingress.kubernetes.io/use-regex": "true"});
        check(regex, json!({"rules": [{"http": paths}]}), "InvalidPath", false);
        let basic = |secret: &str| json!({"nginx.ingress.kubernetes.io/auth-type": "basic", "nginx.ingress.kubernetes.io/auth-secret": secret});
        check(basic("other/passwords"), json!({}), "InvalidAnnotation", true);
        assert_eq!(of(basic("passwords"), json!({})).passwords, Some(Key::namespaced("a", "passwords")));
    }
}

//! What an Ingress may come to, and what is closed where it comes to more.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{IngressRule, IngressTLS};

use super::{ClosedHost, host_name, path_text, path_type};
use crate::paths::Matcher;
use crate::policy::Policy;

/// Paths of all hosts, and hosts with a certificate.
const MOST: usize = 20_000;
/// Bytes of the paths of all hosts, and of the hosts of all paths.
const MOST_BYTES: usize = 8 << 20;
/// Bytes of a beginning that is closed.
const BEGINNING: usize = 256;

/// What an Ingress comes to.
#[derive(Debug, thiserror::Error)]
pub(super) enum TooLarge {
    #[error("it comes to {0} paths and certificates of hosts, an Ingress may have {MOST}")]
    Paths(usize),
    #[error("its paths come to {0} bytes with all their hosts, an Ingress may have {MOST_BYTES}")]
    Bytes(usize),
}

/// What an Ingress comes to, if that is more than one may have: each of its names has each of its paths, and a certificate.
pub(super) fn too_large(policy: &Policy, rules: &[IngressRule], tls: &[IngressTLS]) -> Option<TooLarge> {
    let names = 1 + policy.aliases.len();
    let paths = |rule: &IngressRule| rule.http.as_ref().map_or(1, |http| http.paths.len());
    let hosts = |tls: &IngressTLS| tls.hosts.as_ref().map_or(0, Vec::len);
    let all = names.saturating_mul(rules.len().max(1));
    let of_paths = sum(rules.iter().map(|rule| names.saturating_mul(paths(rule))));
    let of_tls = sum(tls.iter().map(|tls| if hosts(tls) == 0 { all } else { hosts(tls) }));
    let count = of_paths.saturating_add(of_tls);
    if count > MOST {
        return Some(TooLarge::Paths(count));
    }
    let of_aliases = sum(policy.aliases.iter().map(String::len));
    let bytes = rules.iter().map(|rule| {
        let own = rule.host.as_ref().map_or(0, String::len).saturating_add(of_aliases);
        let texts = rule.http.iter().flat_map(|http| &http.paths).map(|path| path_text(path).len());
        own.saturating_mul(paths(rule)).saturating_add(names.saturating_mul(sum(texts)))
    });
    Some(sum(bytes)).filter(|bytes| *bytes > MOST_BYTES).map(TooLarge::Bytes)
}

/// What is closed of the hosts of an Ingress that is too large: once for each, whatever its paths are.
pub(super) fn closed(policy: &Policy, rules: &[IngressRule]) -> Vec<ClosedHost> {
    let mut hosts: BTreeMap<String, Beginning> = BTreeMap::new();
    let mut of_all: Option<Beginning> = None;
    for rule in rules {
        let own = Beginning::of(policy, rule);
        of_all = Some(of_all.map_or_else(|| own.clone(), |all| all.and(&own)));
        let host = host_name(rule.host.as_deref().unwrap_or_default());
        hosts.entry(host).and_modify(|known| *known = known.clone().and(&own)).or_insert(own);
    }
    for alias in policy.aliases.iter().filter(|_| !rules.is_empty()) {
        let all = of_all.clone().unwrap_or_default();
        hosts.entry(host_name(alias)).and_modify(|known| *known = known.clone().and(&all)).or_insert(all);
    }
    // Every path begins with a slash; that of all paths is written without it.
    let whole = |begin: Arc<str>| if &*begin == "/" { Arc::default() } else { begin };
    let hosts = hosts.into_iter();
    hosts.map(|(host, Beginning { begin, length })| ClosedHost { host, begin: whole(begin), length }).collect()
}

/// How all paths begin, and how long the longest is.
#[derive(Clone, Default)]
struct Beginning {
    begin: Arc<str>,
    length: usize,
}

impl Beginning {
    fn of(policy: &Policy, rule: &IngressRule) -> Self {
        let paths = rule.http.iter().flat_map(|http| &http.paths);
        let each = paths.map(|path| {
            let begin = Matcher::beginning(path_text(path), path_type(path), policy.has_patterns());
            // They are letters of ASCII.
            Self { begin: begin[..begin.len().min(BEGINNING)].into(), length: path_text(path).len() }
        });
        each.reduce(|all, one| all.and(&one)).unwrap_or(Self { begin: Arc::default(), length: 1 })
    }

    fn and(self, other: &Self) -> Self {
        let same = self.begin.bytes().zip(other.begin.bytes()).take_while(|(one, another)| one == another).count();
        let begin = if same == self.begin.len() { self.begin } else { self.begin[..same].into() };
        Self { begin, length: self.length.max(other.length) }
    }
}

fn sum(numbers: impl Iterator<Item = usize>) -> usize {
    numbers.fold(0, usize::saturating_add)
}

//! What a pod's resolv.conf and hosts file say.

use apimachinery::field::{Error, Errors, Path};
use apimachinery::names;
use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfig, PodSpec};

use crate::rules::{self, list, text};

/// Limits of the C library.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// `dnsConfig`, which `dnsPolicy: None` needs; `path` is that of the spec.
pub(super) fn validate(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("dnsConfig");
    let own = text(&spec.dns_policy) == "None";
    match &spec.dns_config {
        None if own => errors.push(Error::required(&path, "must provide `dnsConfig` when `dnsPolicy` is None")),
        None => {}
        Some(config) if own && list(&config.nameservers).is_empty() => {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(Error::required(&path.child("nameservers"), detail));
        }
        Some(config) => validate_config(config, &path, errors),
    }
}

fn validate_config(config: &PodDNSConfig, path: &Path, errors: &mut Errors) {
    let (servers, searches) = (list(&config.nameservers), list(&config.searches));
    let at = path.child("nameservers");
    if servers.len() > MAX_SERVERS {
        errors.push(Error::invalid(&at, servers.to_vec(), format!("must not have more than {MAX_SERVERS} nameservers")));
    }
    for (index, server) in servers.iter().enumerate() {
        rules::ip(&at.index(index), server, errors);
    }
    let at = path.child("searches");
    if searches.len() > MAX_SEARCHES {
        errors.push(Error::invalid(&at, searches.to_vec(), format!("must not have more than {MAX_SEARCHES} search paths")));
    }
    let characters = searches.iter().map(String::len).sum::<usize>() + searches.len().saturating_sub(1);
    if characters > MAX_SEARCH_CHARACTERS {
        let detail = format!("must not have more than {MAX_SEARCH_CHARACTERS} characters (including spaces) in the search list");
        errors.push(Error::invalid(&at, searches.to_vec(), detail));
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.invalid_each(&at.index(index), search, names::dns1123_subdomain_with_underscore(search));
    }
    for (index, option) in list(&config.options).iter().enumerate() {
        if text(&option.name).is_empty() {
            errors.push(Error::required(&path.child("options").index(index), "must not be empty"));
        }
    }
}

/// Lines of the hosts file.
pub(super) fn validate_aliases(aliases: &[HostAlias], path: &Path, errors: &mut Errors) {
    for (index, alias) in aliases.iter().enumerate() {
        rules::ip(&path.index(index).child("ip"), &alias.ip, errors);
        for (name, hostname) in list(&alias.hostnames).iter().enumerate() {
            rules::dns_subdomain(&path.index(index).child("hostnames").index(name), hostname, errors);
        }
    }
}

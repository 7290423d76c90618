//! The pod's resolv.conf, from its DNS policy, its own DNS configuration and the host's file.

use std::net::IpAddr;

use crate::spec::Model;

/// Limits that resolvers and the API agree on.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The three parts of a resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    /// Name server addresses.
    pub nameservers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options such as `ndots:5`.
    pub options: Vec<String>,
}

/// What the cluster offers.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Addresses of the cluster's DNS.
    pub servers: Vec<IpAddr>,
    /// Such as `cluster.local`.
    pub domain: String,
}

impl Resolv {
    /// Reads a resolv.conf. Later `search` and `options` lines win, as in resolvers.
    pub fn parse(text: &str) -> Self {
        let mut resolv = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolv.nameservers.extend(words.next()),
                Some("search") => {
                    resolv.searches = words.map(|d| if d == "." { d } else { d.trim_end_matches('.').to_owned() }).collect()
                }
                Some("options") => resolv.options = words.collect(),
                _ => {}
            }
        }
        resolv
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

/// The resolv.conf of a pod; the second value says what did not fit (event DNSConfigForming).
pub fn pod_resolv(model: &Model, cluster: &Cluster, host: &Resolv) -> (Resolv, Option<String>) {
    let spec = model.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster_first = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !model.host_network());
    let mut resolv = match policy {
        "None" => Resolv::default(),
        _ if cluster_first && !cluster.servers.is_empty() => cluster_resolv(model.namespace(), cluster, host),
        _ => host.clone(),
    };
    if let Some(config) = &spec.dns_config {
        resolv.nameservers.extend(config.nameservers.iter().flatten().cloned());
        resolv.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            resolv.options.retain(|o| o.split(':').next() != Some(name.as_str()));
            resolv.options.push(match option.value.as_deref().filter(|value| !value.is_empty()) {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    dedup(&mut resolv.nameservers);
    dedup(&mut resolv.searches);
    let warning = fit(&mut resolv);
    (resolv, warning)
}

fn cluster_resolv(namespace: &str, cluster: &Cluster, host: &Resolv) -> Resolv {
    let domain = &cluster.domain;
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
    searches.extend(host.searches.iter().cloned());
    Resolv { nameservers: cluster.servers.iter().map(IpAddr::to_string).collect(), searches, options: vec!["ndots:5".to_owned()] }
}

fn dedup(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|item| seen.insert(item.clone()));
}

fn fit(resolv: &mut Resolv) -> Option<String> {
    let mut warnings = Vec::new();
    if resolv.nameservers.len() > MAX_NAMESERVERS {
        resolv.nameservers.truncate(MAX_NAMESERVERS);
        let kept = resolv.nameservers.join(" ");
        warnings.push(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {kept}"
        ));
    }
    let fits = |searches: &[String]| searches.len() <= MAX_SEARCHES && searches.join(" ").len() <= MAX_SEARCH_CHARS;
    if !fits(&resolv.searches) {
        while !fits(&resolv.searches) {
            resolv.searches.pop();
        }
        let kept = resolv.searches.join(" ");
        warnings.push(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {kept}"
        ));
    }
    (!warnings.is_empty()).then(|| warnings.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    #[track_caller]
    fn check(spec: Value, expected: &str) {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
        let model = Model::new(Arc::new(serde_json::from_value(pod).unwrap()));
        let cluster = Cluster { servers: vec!["10.43.0.10".parse().unwrap()], domain: "cluster.local".to_owned() };
        let host = Resolv::parse("nameserver 9.9.9.9\nsearch corp.example.\noptions rotate\n");
        assert_eq!(pod_resolv(&model, &cluster, &host).0.text(), expected);
    }

    #[test]
    fn policies() {
        let first =
            "search n.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.43.0.10\noptions ndots:5\n";
        let host = "search corp.example\nnameserver 9.9.9.9\noptions rotate\n";
        check(json!({"containers": []}), first);
        check(json!({"containers": [], "dnsPolicy": "Default"}), host);
        check(json!({"containers": [], "hostNetwork": true}), host);
        check(json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), first);
        let own = json!({"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        check(
            json!({"containers": [], "dnsPolicy": "None", "dnsConfig": own}),
            "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
        );
    }

    #[test]
    fn too_many_servers_are_cut_with_a_warning() {
        let mut resolv = Resolv { nameservers: (1..=4).map(|n| format!("10.0.0.{n}")).collect(), ..Default::default() };
        assert!(fit(&mut resolv).unwrap().ends_with("10.0.0.1 10.0.0.2 10.0.0.3"));
        assert_eq!(fit(&mut resolv), None);
    }
}

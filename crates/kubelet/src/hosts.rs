//! The pod's host name and its /etc/hosts.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::HostAlias;

use crate::spec::Model;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HOST_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";

/// Longest name of a pod's host: one label of a name in DNS.
const MAX_HOSTNAME: usize = 63;
/// Longest host name that Linux takes (`__NEW_UTS_LEN`).
const MAX_FULL_NAME: usize = 64;

/// The full name of a pod that is to be its host's is longer than Linux takes; in upstream's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to construct FQDN from pod hostname and cluster domain, FQDN {0} is too long ({most} characters is the max, {asked} \
     characters requested)", most = MAX_FULL_NAME, asked = .0.len()
)]
pub struct LongName(String);

/// Host name and domain of a pod; the domain is empty without `spec.subdomain`.
pub fn names(model: &Model, cluster_domain: &str) -> (String, String) {
    let spec = model.spec();
    if let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let mut hostname = spec.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| model.name().to_owned());
    if hostname.len() > MAX_HOSTNAME {
        hostname.truncate(MAX_HOSTNAME);
        hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
    }
    let domain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    (hostname, domain.map(|sub| format!("{sub}.{}.svc.{cluster_domain}", model.namespace())).unwrap_or_default())
}

/// What `hostname` prints in the pod: the host's name on the host network, the full name with `setHostnameAsFQDN`.
///
/// # Errors
/// The full name is too long for a host. It is not cut: it would be another's.
pub fn kernel_hostname(model: &Model, cluster_domain: &str, node_hostname: &str) -> Result<String, LongName> {
    let (hostname, domain) = names(model, cluster_domain);
    if model.host_network() && model.spec().hostname_override.is_none() {
        Ok(node_hostname.to_owned())
    } else if model.spec().set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        let full = format!("{hostname}.{domain}");
        if full.len() > MAX_FULL_NAME { Err(LongName(full)) } else { Ok(full) }
    } else {
        Ok(hostname)
    }
}

/// Whether the kubelet writes this pod's /etc/hosts for containers that mount nothing there.
pub fn managed_text(model: &Model, cluster_domain: &str, pod_ips: &[IpAddr], host_file: &str) -> String {
    let (hostname, domain) = names(model, cluster_domain);
    let mut text = if model.host_network() {
        format!("{HOST_HEADER}{host_file}")
    } else {
        let mut text = format!(
            "{HEADER}127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
        );
        for ip in pod_ips {
            match domain.as_str() {
                "" => text.push_str(&format!("{ip}\t{hostname}\n")),
                domain => text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
            }
        }
        text
    };
    aliases(&mut text, model.spec().host_aliases.as_deref().unwrap_or_default());
    text
}

fn aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn model(spec: Value) -> Model {
        let pod = json!({"metadata": {"name": "web-0", "namespace": "n"}, "spec": spec});
        Model::new(Arc::new(serde_json::from_value(pod).unwrap()))
    }

    #[track_caller]
    fn check(spec: Value, hostname: &str, last_line: &str) {
        let model = model(spec);
        assert_eq!(kernel_hostname(&model, "cluster.local", "node").as_deref(), Ok(hostname));
        let text = managed_text(&model, "cluster.local", &["10.0.0.5".parse().unwrap()], "127.0.0.1 localhost\n");
        assert_eq!(text.lines().last(), Some(last_line));
    }

    /// Upstream's e2e test "a pod configured with setHostnameAsFQDN ... should not start if the FQDN is longer than 64 characters".
    #[test]
    fn a_full_name_that_is_too_long_is_no_host_name() {
        let check = |length: usize, is_whole: bool, more: Value| {
            // With `.s.n.svc.cluster.local`, which has 22 characters.
            let mut spec =
                json!({"containers": [], "subdomain": "s", "setHostnameAsFQDN": is_whole, "hostname": "h".repeat(length - 22)});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            kernel_hostname(&model(spec), "cluster.local", "node").map(|name| name.len()).map_err(|error| error.to_string())
        };
        assert_eq!(check(64, true, json!({})), Ok(64));
        let words = format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {}.s.n.svc.cluster.local is too long \
             (64 characters is the max, 65 characters requested)",
            "h".repeat(43)
        );
        assert_eq!(check(65, true, json!({})), Err(words));
        assert_eq!(check(65, false, json!({})), Ok(43));
        assert_eq!(check(65, true, json!({"hostNetwork": true})), Ok(4));
        assert_eq!(check(65, true, json!({"hostnameOverride": "o"})), Ok(1));
    }

    #[test]
    fn names_and_file() {
        check(json!({"containers": []}), "web-0", "10.0.0.5\tweb-0");
        let sub = "10.0.0.5\th.s.n.svc.cluster.local\th";
        check(json!({"containers": [], "hostname": "h", "subdomain": "s"}), "h", sub);
        check(
            json!({"containers": [], "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}),
            "h.s.n.svc.cluster.local",
            sub,
        );
        check(json!({"containers": [], "hostNetwork": true}), "node", "127.0.0.1 localhost");
        check(json!({"containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}), "web-0", "1.2.3.4\ta\tb");
    }
}

//! Options of a node, that of a server or an agent's.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use k8s_openapi::api::core::v1::Taint;

use super::{ImageGc, Pressure, Protocols, Shutdown, bytes, duration, key_value};

/// What is said of a node, wherever it runs.
#[derive(Args, Clone)]
pub(crate) struct Node {
    /// The whole command line, for `/flagz`.
    #[arg(skip)]
    pub(crate) flags: base::zpages::Flags,
    /// The node's name; the host name by default.
    #[arg(long)]
    pub(crate) node_name: Option<String>,
    /// The node's address, or one of each family; those of the default routes by default.
    #[arg(long = "node-ip", value_delimiter = ',')]
    pub(crate) node_ips: Vec<IpAddr>,
    /// Port of the kubelet.
    #[arg(long, default_value_t = 10250)]
    pub(crate) kubelet_port: u16,
    /// Port at which load balancers are told whether the node should get connections, as by kube-proxy (/healthz, /livez); 0 is none.
    #[arg(long, default_value_t = 10256)]
    pub(crate) proxy_health_port: u16,
    /// Port of 127.0.0.1 at which the machine is told the mode and the metrics of the service proxy, as by kube-proxy (/proxyMode, /metrics); 0 is none.
    #[arg(long, default_value_t = 10249)]
    pub(crate) proxy_metrics_port: u16,
    /// Socket of a runtime of the Container Runtime Interface that runs the pods in place of the built-in one, such as
    /// unix:///run/containerd/containerd.sock; its pods are connected by network plugins (--pod-network cni).
    #[arg(long, value_name = "SOCKET")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// File of mirrors of image registries, and of how to talk to them (YAML: mirrors.NAME.endpoint, configs.HOST.{http,auth,tls}; docs/registries.md).
    #[arg(long)]
    pub(crate) registries: Option<PathBuf>,
    /// Labels of the node.
    #[arg(long = "label", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Taints that the node registers with: KEY=VALUE:EFFECT or KEY:EFFECT.
    #[arg(long = "taint", value_parser = taint)]
    pub(crate) taints: Vec<Taint>,
    /// Most pods on the node.
    #[arg(long, default_value_t = 110)]
    pub(crate) max_pods: u32,
    /// Most processes and threads of one pod, so that none takes those of the node; 0 is no limit. Each thread counts.
    #[arg(long, default_value_t = 4096)]
    pub(crate) pod_max_pids: u32,
    /// Unsafe sysctls that pods of the node may set, such as net.core.somaxconn or kernel.msg*: only those that a pod has of its own.
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(crate) allowed_unsafe_sysctls: Vec<kubelet::sysctls::Pattern>,
    /// Containers that name no seccomp profile have RuntimeDefault rather than Unconfined.
    #[arg(long)]
    pub(crate) seccomp_default: bool,
    /// The longest delay before a container that ends again and again is started again, from 1s to 300s.
    #[arg(long, value_name = "DURATION", default_value = "300s", value_parser = restart_period)]
    pub(crate) max_container_restart_period: Duration,
    /// Size of a container's log file after which a new one is begun, such as 10Mi.
    #[arg(long, value_name = "QUANTITY", default_value = "10Mi", value_parser = bytes)]
    pub(crate) container_log_max_size: u64,
    /// Log files of a container that are kept, with the one that is written; at least 2.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) container_log_max_files: u32,
    /// Name servers for a domain (a stub domain), which the cluster DNS of the node asks of it in place of others: DOMAIN=ADDRESS or DOMAIN=ADDRESS:PORT, further ones after a comma.
    #[arg(long = "dns-stub-domain", value_name = "DOMAIN=SERVERS", value_parser = stub_domain)]
    pub(crate) dns_stub_domains: Vec<(String, Vec<SocketAddr>)>,
    /// Name servers that the cluster DNS of the node asks of everything else: ADDRESS or ADDRESS:PORT; those of /etc/resolv.conf by default.
    #[arg(long = "dns-upstream", value_name = "SERVER", value_delimiter = ',', value_parser = name_server)]
    pub(crate) dns_upstreams: Vec<SocketAddr>,
    /// Directory of static pods: a pod for each file (YAML or JSON), which runs as long as the file is there, whatever the API says.
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_manifest_path: Option<PathBuf>,
    /// Answer queries of the logs of services (KEP-2258: `/logs/?query=kubelet`), which runs journalctl for who may read nodes/log; off as upstream.
    #[arg(long)]
    pub(crate) enable_system_log_query: bool,
    /// For which images of the node pods have to show credentials: NeverVerify (none), NeverVerifyPreloadedImages (those that were pulled for
    /// pods), NeverVerifyAllowlistedImages (all that are not listed) or AlwaysVerify (all).
    #[arg(long, value_name = "POLICY", default_value = "NeverVerifyPreloadedImages")]
    pub(crate) image_pull_credentials_verification_policy: kubelet::images::access::Policy,
    /// Images that pods use without credentials under NeverVerifyAllowlistedImages: names without tag, or REGISTRY/PATH/*.
    #[arg(long, value_name = "IMAGE", value_delimiter = ',')]
    pub(crate) preloaded_images_verification_allowlist: Vec<String>,
    /// Directory of the configuration of network plugins, for --pod-network cni: the first file (.conflist, .conf, .json) is it.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) cni_conf_dir: PathBuf,
    /// Directories of network plugins.
    #[arg(long, value_name = "DIR", value_delimiter = ',', default_value = "/opt/cni/bin,/usr/lib/cni")]
    pub(crate) cni_bin_dir: Vec<PathBuf>,
    /// Which programs are asked for credentials of which images: a CredentialProviderConfig, or a directory of files with such.
    #[arg(long, value_name = "PATH", requires = "image_credential_provider_bin_dir")]
    image_credential_provider_config: Option<PathBuf>,
    /// Directory of these programs.
    #[arg(long, value_name = "DIR", requires = "image_credential_provider_config")]
    image_credential_provider_bin_dir: Option<PathBuf>,
    /// What of images the node gets from other nodes and gives to them, by its own endpoint (--kubelet-port).
    #[arg(long, value_name = "WHAT", default_value = "all")]
    pub(crate) share_images: ShareImages,
    #[command(flatten)]
    pub(crate) protocols: Protocols,
    #[command(flatten)]
    pub(crate) pressure: Pressure,
    #[command(flatten)]
    pub(crate) image_gc: ImageGc,
    #[command(flatten)]
    pub(crate) shutdown: Shutdown,
}

impl Node {
    /// Where image credential providers are configured, and where their programs are.
    pub(crate) fn credential_providers(&self) -> Option<(PathBuf, PathBuf)> {
        self.image_credential_provider_config.clone().zip(self.image_credential_provider_bin_dir.clone())
    }
}

/// What of images nodes get from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShareImages {
    /// Layers of images that the registry has named, and images by name that were imported on a node and that no registry has.
    All,
    /// Layers only.
    Layers,
    /// Nothing.
    Off,
}

fn restart_period(text: &str) -> Result<Duration, String> {
    let period = duration(text)?;
    if (Duration::from_secs(1)..=kubelet::backoff::MAX).contains(&period) {
        Ok(period)
    } else {
        Err(format!("the period is from 1s to {}s", kubelet::backoff::MAX.as_secs()))
    }
}

/// Port 53 where none is said.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    let bare = |_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    text.parse().or_else(bare).map_err(|_| format!("{text:?} is no address and no ADDRESS:PORT"))
}

fn stub_domain(text: &str) -> Result<(String, Vec<SocketAddr>), String> {
    let (domain, servers) =
        text.split_once('=').ok_or("expected DOMAIN=ADDRESS or DOMAIN=ADDRESS:PORT, further ones after a comma.")?;
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    if let Some(error) = apimachinery::names::dns1123_subdomain(&domain).first() {
        return Err(format!("the domain {domain:?}: {error}"));
    }
    Ok((domain, servers.split(',').map(name_server).collect::<Result<_, _>>()?))
}

fn taint(text: &str) -> Result<Taint, String> {
    let (rest, effect) = text.rsplit_once(':').ok_or("expected KEY=VALUE:EFFECT or KEY:EFFECT")?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err("the effect is one of NoSchedule, PreferNoSchedule, NoExecute".to_owned());
    }
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let value = Some(value.to_owned()).filter(|value| !value.is_empty());
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_periods() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(restart_period(text).ok(), expected.map(Duration::from_secs), "{text}");
        };
        check("1s", Some(1));
        check("5m", Some(300));
        check("0s", None);
        check("301s", None);
        check("often", None);
    }

    #[test]
    fn stub_domains() {
        let check = |text: &str, expected: Option<(&str, &[&str])>| {
            let found = stub_domain(text).ok();
            let expected = expected.map(|(domain, servers)| {
                (domain.to_owned(), servers.iter().map(|server| server.parse().unwrap()).collect::<Vec<SocketAddr>>())
            });
            assert_eq!(found, expected, "{text}");
        };
        check("corp.example=192.0.2.1", Some(("corp.example", &["192.0.2.1:53"])));
        check("Corp.Example.=192.0.2.1:5353,fd00::1", Some(("corp.example", &["192.0.2.1:5353", "[fd00::1]:53"])));
        check("corp.example=[fd00::1]:5353", Some(("corp.example", &["[fd00::1]:5353"])));
        for wrong in ["corp.example", "corp.example=", "=192.0.2.1", "corp.example=ns.example", "a_b=192.0.2.1"] {
            check(wrong, None);
        }
    }

    #[test]
    fn taints() {
        let check = |text: &str, expected: Option<(&str, Option<&str>, &str)>| {
            let found = taint(text).ok();
            assert_eq!(found.as_ref().map(|t| (t.key.as_str(), t.value.as_deref(), t.effect.as_str())), expected, "{text}");
        };
        check("a.b/c=d:NoSchedule", Some(("a.b/c", Some("d"), "NoSchedule")));
        check("a:NoExecute", Some(("a", None, "NoExecute")));
        check("a=:PreferNoSchedule", Some(("a", None, "PreferNoSchedule")));
        check("a=b", None);
        check("a=b:Never", None);
    }
}

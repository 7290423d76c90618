//! The command line.

mod image;
mod pressure;
mod shutdown;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Taint;
use network::hosts::Families;

pub(crate) use self::image::{Form, Image, ImageCommand};
pub(crate) use self::pressure::Pressure;
pub(crate) use self::shutdown::Shutdown;

/// A whole Kubernetes cluster in one process.
#[derive(Parser)]
#[command(name = "knarr", version, about)]
pub(crate) struct Cli {
    /// What is logged: error, warn, info, debug, trace, or TARGET=LEVEL pairs.
    #[arg(long, global = true, default_value = "info")]
    pub(crate) log_level: String,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Cli {
    pub(crate) fn format(&self) -> base::logging::Format {
        match self.log_format {
            LogFormat::Text => base::logging::Format::Text,
            LogFormat::Json => base::logging::Format::Json,
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a cluster on this machine.
    Server(Box<Server>),
    /// Run a node of a cluster whose server is on another machine.
    Agent(Box<Agent>),
    /// Make, list and delete the tokens by which machines join.
    Token(Token),
    /// Have Secrets encrypted where they are stored.
    SecretsEncryption(SecretsEncryption),
    /// Bring images to a node, list, pull and remove them.
    Image(Image),
    /// Run a throw-away cluster on this machine, each node in a network of its own.
    Dev(Dev),
    /// Say what is ready and what is not.
    Status(Status),
    /// Stop the pods of a server that has ended, and remove their network.
    Killall(Killall),
    /// Print the version.
    Version,
}

/// Options of `knarr server`.
#[derive(Args, Clone)]
pub(crate) struct Server {
    /// Where everything is kept.
    #[arg(long, default_value = crate::paths::DEFAULT)]
    pub(crate) data_dir: PathBuf,
    /// Port of the API server.
    #[arg(long, default_value_t = 6443)]
    pub(crate) port: u16,
    /// Address that the API server listens on.
    #[arg(long, default_value = "0.0.0.0")]
    pub(crate) bind_address: IpAddr,
    /// Network of all pods; two of both families, IPv4,IPv6 or the other way round, make a dual-stack cluster.
    #[arg(long = "cluster-cidr", value_delimiter = ',', default_value = "10.42.0.0/16")]
    pub(crate) cluster_cidrs: Vec<IpNet>,
    /// How packets of pods go from node to node, on all nodes of the cluster.
    #[arg(long, value_enum, default_value_t = Backend::Vxlan)]
    pub(crate) pod_network: Backend,
    /// Network of all services; two of both families in a dual-stack cluster. Services have the first family unless they ask for more.
    #[arg(long = "service-cidr", value_delimiter = ',', default_value = "10.43.0.0/16")]
    pub(crate) service_cidrs: Vec<IpNet>,
    /// Addresses of the cluster DNS, at most one of each family; the tenth of each service network by default.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Further names and addresses by which clients reach the API server.
    #[arg(long = "tls-san")]
    pub(crate) tls_san: Vec<String>,
    /// Run no pods on this machine.
    #[arg(long)]
    pub(crate) no_agent: bool,
    /// File of a KubeSchedulerConfiguration: profiles of the scheduler, their plugins, and what these are told.
    #[arg(long)]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// Simulated nodes besides the real one, for tests of scale: what is scheduled to them is reported as running, and does not run.
    #[arg(long, default_value_t = 0)]
    pub(crate) hollow_nodes: usize,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) authentication: Authentication,
    #[command(flatten)]
    pub(crate) authorization: Authorization,
    /// Admission plugins that work besides those that always do: AlwaysPullImages, DenyServiceExternalIPs, EventRateLimit.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) enable_admission_plugins: Vec<String>,
    /// File of an AdmissionConfiguration: what PodSecurity takes for granted, and whom it does not concern; limits of EventRateLimit.
    #[arg(long)]
    pub(crate) admission_control_config_file: Option<PathBuf>,
    /// File of an EncryptionConfiguration: what is stored encrypted, and with which keys. It is followed when it changes. By default
    /// that of `knarr secrets-encryption`, if there is one.
    #[arg(long)]
    pub(crate) encryption_provider_config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) node: Node,
    /// Components that do not run; may be given several times.
    #[arg(long = "disable", value_enum)]
    pub(crate) disabled: Vec<Component>,
    #[command(flatten)]
    pub(crate) ingress: Ingress,
}

/// What is told to the audit. The names are those of kube-apiserver.
#[derive(Args, Clone)]
#[command(group(clap::ArgGroup::new("audit_backend").args(["audit_log_path", "audit_webhook_config_file"]).multiple(true)))]
pub(crate) struct Audit {
    /// File of the audit policy; nothing is audited without one.
    #[arg(long, requires = "audit_backend")]
    pub(crate) audit_policy_file: Option<PathBuf>,
    /// File of the audit log; - for the standard output.
    #[arg(long, requires = "audit_policy_file")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// MiB after which a new file is begun.
    #[arg(long, default_value_t = 100)]
    pub(crate) audit_log_maxsize: u64,
    /// Old files that are kept; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub(crate) audit_log_maxbackup: usize,
    /// Days that old files are kept; 0 for ever.
    #[arg(long, default_value_t = 0)]
    pub(crate) audit_log_maxage: u64,
    /// Kubeconfig of a webhook that is sent audit events.
    #[arg(long, requires = "audit_policy_file")]
    audit_webhook_config_file: Option<PathBuf>,
    /// Events that wait for the webhook; more are lost, and counted.
    #[arg(long, default_value_t = 10_000)]
    audit_webhook_batch_buffer_size: usize,
    /// Most events that the webhook is sent at once.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    audit_webhook_batch_max_size: u32,
    /// How long events wait for others before they are sent.
    #[arg(long, default_value = "30s", value_parser = duration)]
    audit_webhook_batch_max_wait: Duration,
    /// How long to wait before a webhook that has not answered is asked again; longer from time to time.
    #[arg(long, default_value = "10s", value_parser = duration)]
    audit_webhook_initial_backoff: Duration,
}

impl Audit {
    /// None when nothing is audited.
    pub(crate) fn options(&self) -> Option<apiserver::AuditOptions> {
        let (max_size, max_backups, max_age) = (self.audit_log_maxsize, self.audit_log_maxbackup, self.audit_log_maxage);
        let log = self.audit_log_path.clone().map(|path| apiserver::LogOptions { path, max_size, max_backups, max_age });
        let webhook = self.audit_webhook_config_file.clone().map(|file| apiserver::WebhookOptions {
            file,
            buffer: self.audit_webhook_batch_buffer_size,
            batch: self.audit_webhook_batch_max_size as usize,
            wait: self.audit_webhook_batch_max_wait,
            backoff: self.audit_webhook_initial_backoff,
        });
        Some(apiserver::AuditOptions { policy: self.audit_policy_file.clone()?, log, webhook })
    }
}

/// Who may ask besides those who are of this cluster. The names are those of kube-apiserver.
#[derive(Args, Clone)]
pub(crate) struct Authentication {
    /// File of an AuthenticationConfiguration: other issuers of tokens, and who may ask without an identity. It is followed when it
    /// changes.
    #[arg(long, conflicts_with_all = ["oidc_issuer_url", "anonymous_auth"])]
    authentication_config: Option<PathBuf>,
    /// Whether requests without an identity are let in, as system:anonymous.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    anonymous_auth: bool,
    /// URL of an OpenID issuer whose tokens are accepted.
    #[arg(long, requires = "oidc_client_id")]
    oidc_issuer_url: Option<String>,
    /// Audience that tokens of the issuer must be for.
    #[arg(long, requires = "oidc_issuer_url")]
    oidc_client_id: Option<String>,
    /// Claim that is the name of the user.
    #[arg(long, default_value = "sub")]
    oidc_username_claim: String,
    /// What stands before names; - for nothing. The issuer's URL and # by default, unless the claim is email.
    #[arg(long)]
    oidc_username_prefix: Option<String>,
    /// Claim that has the groups of the user.
    #[arg(long)]
    oidc_groups_claim: Option<String>,
    /// What stands before groups.
    #[arg(long, default_value = "")]
    oidc_groups_prefix: String,
    /// Algorithms that tokens may be signed with.
    #[arg(long, default_value = "RS256", value_delimiter = ',')]
    oidc_signing_algs: Vec<String>,
    /// A claim that tokens must have, and its value: KEY=VALUE; may be given several times.
    #[arg(long = "oidc-required-claim", value_parser = key_value)]
    oidc_required_claims: Vec<(String, String)>,
    /// Certificates that vouch for the issuer; those of the system by default.
    #[arg(long)]
    oidc_ca_file: Option<PathBuf>,
    /// Kubeconfig of a webhook that is asked whose a token is (TokenReview).
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the reviews that the webhook is sent: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    authentication_token_webhook_version: String,
    /// How long answers of the webhook are good.
    #[arg(long, default_value = "2m", value_parser = duration)]
    authentication_token_webhook_cache_ttl: Duration,
}

/// Who decides what may be done. The names are those of kube-apiserver.
#[derive(Args, Clone)]
pub(crate) struct Authorization {
    /// File of an AuthorizationConfiguration: authorizers in their order.
    #[arg(long, conflicts_with_all = ["authorization_mode", "authorization_webhook_config_file"])]
    authorization_config: Option<PathBuf>,
    /// Authorizers in their order: Node, RBAC, Webhook.
    #[arg(long, default_values = ["Node", "RBAC"], value_delimiter = ',')]
    authorization_mode: Vec<String>,
    /// Kubeconfig of the webhook of the mode Webhook (SubjectAccessReview).
    #[arg(long)]
    authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the reviews that the webhook is sent: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", value_parser = ["v1", "v1beta1"])]
    authorization_webhook_version: String,
    /// How long it is good that the webhook has allowed something.
    #[arg(long, default_value = "5m", value_parser = duration)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// How long it is good that the webhook has not allowed something.
    #[arg(long, default_value = "30s", value_parser = duration)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
}

impl Authorization {
    pub(crate) fn options(&self) -> apiserver::authz::configuration::Options {
        apiserver::authz::configuration::Options {
            file: self.authorization_config.clone(),
            modes: self.authorization_mode.clone(),
            webhook: self.authorization_webhook_config_file.clone(),
            webhook_version: self.authorization_webhook_version.clone(),
            authorized: self.authorization_webhook_cache_authorized_ttl,
            unauthorized: self.authorization_webhook_cache_unauthorized_ttl,
        }
    }
}

impl Authentication {
    pub(crate) fn options(&self) -> apiserver::authn::Options {
        let oidc = self.oidc_issuer_url.clone().zip(self.oidc_client_id.clone());
        let oidc = oidc.map(|(issuer_url, client_id)| apiserver::authn::oidc::Flags {
            issuer_url,
            client_id,
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            signing_algs: self.oidc_signing_algs.clone(),
            required_claims: self.oidc_required_claims.clone(),
            ca_file: self.oidc_ca_file.clone(),
        });
        let webhook = self.authentication_token_webhook_config_file.clone().map(|file| apiserver::authn::webhook::Options {
            file,
            version: self.authentication_token_webhook_version.clone(),
            ttl: self.authentication_token_webhook_cache_ttl,
        });
        apiserver::authn::Options { anonymous: self.anonymous_auth, file: self.authentication_config.clone(), oidc, webhook }
    }
}

/// Options of `knarr agent`.
#[derive(Args, Clone)]
pub(crate) struct Agent {
    /// Where the server is: https://HOST:PORT.
    #[arg(long)]
    pub(crate) server: String,
    /// File with the token to join with. A machine that has joined needs it only when its certificate has expired.
    #[arg(long)]
    pub(crate) token_file: Option<PathBuf>,
    /// Where everything is kept.
    #[arg(long, default_value = crate::paths::DEFAULT)]
    pub(crate) data_dir: PathBuf,
    /// Address that the kubelet listens on.
    #[arg(long, default_value = "0.0.0.0")]
    pub(crate) bind_address: IpAddr,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// Options of `knarr token`.
#[derive(Args, Clone)]
pub(crate) struct Token {
    /// The server's data directory.
    #[arg(long, default_value = crate::paths::DEFAULT, global = true)]
    pub(crate) data_dir: PathBuf,
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

#[derive(Subcommand, Clone)]
pub(crate) enum TokenCommand {
    /// Make a token and print it.
    Create {
        /// How long it is good, such as 30m or 24h; 0 is for ever.
        #[arg(long, default_value = "24h", value_parser = duration)]
        ttl: Duration,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Print the tokens that there are, without their secrets.
    List,
    /// Make a token worthless. Nodes that have joined with it stay.
    Delete {
        /// The token's id, the six characters before the dot.
        id: String,
    },
}

/// Options of `knarr secrets-encryption`.
#[derive(Args, Clone)]
pub(crate) struct SecretsEncryption {
    /// The server's data directory.
    #[arg(long, default_value = crate::paths::DEFAULT, global = true)]
    pub(crate) data_dir: PathBuf,
    #[command(subcommand)]
    pub(crate) command: EncryptionCommand,
}

#[derive(Subcommand, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncryptionCommand {
    /// Encrypt Secrets from now on, and those that there are.
    Enable,
    /// Store Secrets as they are from now on, and those that there are. Keys are kept.
    Disable,
    /// Make a new key, encrypt all Secrets with it and forget the keys before it.
    Rotate,
    /// Write all Secrets anew, as the configuration has them.
    Reencrypt,
    /// Say whether Secrets are encrypted, with which keys, and whether the server knows.
    Status,
}

/// Where a throw-away cluster is kept when nothing is said.
pub(crate) const DEV_DIRECTORY: &str = "/var/lib/knarr-dev";

/// Options of `knarr dev`.
#[derive(Args, Clone)]
pub(crate) struct Dev {
    /// Where everything of the cluster is kept: a directory of its own, which is removed at the end. Another directory is another cluster.
    #[arg(long, default_value = DEV_DIRECTORY, global = true)]
    pub(crate) data_dir: PathBuf,
    /// How many nodes it has.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=250))]
    pub(crate) nodes: u8,
    /// Which addresses nodes, pods and services have.
    #[arg(long, value_enum, default_value_t = IpFamily::Ipv4)]
    pub(crate) ip_family: IpFamily,
    /// A TCP port of this machine's 127.0.0.1 that nodes reach at theirs, such as that of a registry of images.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) forward: Vec<u16>,
    /// Return when the cluster is ready; `knarr dev stop` ends it.
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(subcommand)]
    pub(crate) command: Option<DevCommand>,
}

/// Families of addresses, as kind names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IpFamily {
    /// IPv4.
    Ipv4,
    /// IPv6, and nothing else.
    Ipv6,
    /// Both, IPv4 first.
    Dual,
}

impl IpFamily {
    pub(crate) fn families(self) -> Families {
        match self {
            Self::Ipv4 => Families::V4,
            Self::Ipv6 => Families::V6,
            Self::Dual => Families::Both,
        }
    }
}

#[derive(Subcommand, Clone)]
pub(crate) enum DevCommand {
    /// End the cluster and remove all of it.
    Stop,
    /// Cut a node off from the others.
    Cut {
        /// The node's name: n1, n2, and so on.
        node: String,
    },
    /// Connect a node again.
    Heal {
        /// The node's name.
        node: String,
    },
    /// Run a command in the network of a node, where addresses of pods and services lead to them.
    Exec {
        /// The node's name.
        node: String,
        /// The command with its arguments; a shell by default.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// What is said of a node, wherever it runs.
#[derive(Args, Clone)]
pub(crate) struct Node {
    /// The node's name; the host name by default.
    #[arg(long)]
    pub(crate) node_name: Option<String>,
    /// The node's address, or one of each family; those of the default routes by default.
    #[arg(long = "node-ip", value_delimiter = ',')]
    pub(crate) node_ips: Vec<IpAddr>,
    /// Port of the kubelet.
    #[arg(long, default_value_t = 10250)]
    pub(crate) kubelet_port: u16,
    /// Mirrors of image registries and how to talk to them (YAML).
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
    /// Directory of static pods: a pod for each file (YAML or JSON), which runs as long as the file is there, whatever the API says.
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_manifest_path: Option<PathBuf>,
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
    pub(crate) pressure: Pressure,
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

/// The ways of packets between nodes, as flannel names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// In packets between nodes, over any network.
    Vxlan,
    /// As they are, by routes: the nodes are on one link, which lets them send with addresses of pods.
    HostGw,
    /// As the network plugins of the nodes have it (--cni-conf-dir).
    Cni,
}

impl Backend {
    pub(crate) fn backend(self) -> network::Backend {
        match self {
            Self::Vxlan => network::Backend::Vxlan,
            Self::HostGw => network::Backend::HostGw,
            Self::Cni => network::Backend::Cni,
        }
    }
}

/// Components that a cluster can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Component {
    /// The way in from outside over HTTP and HTTPS.
    Ingress,
}

/// How ingress serves.
#[derive(Args, Clone)]
pub(crate) struct Ingress {
    /// Port of ingress for plain HTTP.
    #[arg(long = "ingress-http-port", default_value_t = 80)]
    pub(crate) http_port: u16,
    /// Port of ingress for HTTPS.
    #[arg(long = "ingress-https-port", default_value_t = 443)]
    pub(crate) https_port: u16,
    /// Connections to ingress begin with a PROXY protocol header: only behind a load balancer that sends it.
    #[arg(long = "ingress-proxy-protocol")]
    pub(crate) proxy_protocol: bool,
    /// Networks of proxies in front of ingress whose X-Forwarded headers count.
    #[arg(long = "ingress-trusted-proxy")]
    pub(crate) trusted: Vec<IpNet>,
    /// Log each request to ingress.
    #[arg(long = "ingress-access-log")]
    pub(crate) access_log: bool,
    /// URL of an ACME directory, or NAME=URL, that Ingresses and Gateways may name as their issuer beside letsencrypt and letsencrypt-staging.
    #[arg(long = "ingress-acme-issuer", value_name = "NAME=URL")]
    pub(crate) acme_issuers: Vec<ingress::issuer::Listed>,
    /// File with certificates (PEM) by which ACME servers are trusted beside the machine's own.
    #[arg(long = "ingress-acme-ca")]
    pub(crate) acme_ca: Option<PathBuf>,
}

impl Server {
    /// Whether ingress runs: it needs the pod network of this machine.
    pub(crate) fn has_ingress(&self) -> bool {
        !self.no_agent && !self.disabled.contains(&Component::Ingress)
    }
}

/// Options of `knarr status`.
#[derive(Args, Clone)]
pub(crate) struct Status {
    /// The server's data directory.
    #[arg(long, default_value = crate::paths::DEFAULT)]
    pub(crate) data_dir: PathBuf,
    /// Wait until everything is ready.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long to wait, such as 30s or 2m.
    #[arg(long, default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// Options of `knarr killall`.
#[derive(Args, Clone)]
pub(crate) struct Killall {
    /// The server's data directory.
    #[arg(long, default_value = crate::paths::DEFAULT)]
    pub(crate) data_dir: PathBuf,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
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

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number with a unit, such as 30s")?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        _ => Err("the unit is one of ms, s, m, h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text).ok().map(|duration| duration.as_millis()), expected.map(u128::from), "{text}");
        };
        check("30s", Some(30_000));
        check("15", Some(15_000));
        check("250ms", Some(250));
        check("2m", Some(120_000));
        check("1d", None);
        check("s", None);
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

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}

//! The command line.

mod access;
mod certificate;
mod cluster;
mod configuration;
mod dev;
mod flags;
mod image;
mod image_gc;
mod node;
mod pressure;
mod protocols;
mod service_account;
mod shutdown;
mod snapshot;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use apimachinery::quantity::Quantity;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use self::access::{Audit, Authentication, Authorization};
pub(crate) use self::certificate::{Certificate, CertificateCommand, CheckForm};
use self::cluster::Cluster;
pub(crate) use self::cluster::fits_cluster_name;
use self::configuration::OptionsFile;
pub(crate) use self::dev::{DEV_DIRECTORY, Dev, DevCommand};
pub(crate) use self::image::{Form, Image, ImageCommand};
pub(crate) use self::image_gc::ImageGc;
pub(crate) use self::node::{Node, ShareImages};
pub(crate) use self::pressure::Pressure;
use self::protocols::Protocols;
use self::service_account::ServiceAccount;
pub(crate) use self::shutdown::Shutdown;
pub(crate) use self::snapshot::{Snapshot, SnapshotCommand};

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
    /// Reads the command line; ends the program where it cannot be understood.
    pub(crate) fn read(args: Vec<OsString>) -> Self {
        Self::of(args).unwrap_or_else(|error| error.exit())
    }

    /// Reads the command line, and the file of options that it names.
    fn of(args: Vec<OsString>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        command.build();
        let completed = configuration::complete(&command, args)?;
        let mut matches = command.try_get_matches_from_mut(&completed.args).map_err(|error| completed.explain(error))?;
        let flags = flags::all(&command, &matches);
        let mut cli = Self::from_arg_matches_mut(&mut matches)?;
        match &mut cli.command {
            Command::Server(options) => options.node.flags = flags,
            Command::Agent(options) => options.node.flags = flags,
            _ => {}
        }
        Ok(cli)
    }

    /// What completes the command line in a shell.
    pub(crate) fn completion(shell: clap_complete::Shell) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Self::command(), "knarr", &mut script);
        script
    }

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
    /// Check certificates, have new ones, and rotate the cluster's authorities.
    Certificate(Certificate),
    /// Have Secrets encrypted where they are stored.
    SecretsEncryption(SecretsEncryption),
    /// Save the cluster to a file, and restore it from one.
    Snapshot(Snapshot),
    /// Bring images to a node, list, pull and remove them.
    Image(Image),
    /// Run a throw-away cluster on this machine, each node in a network of its own.
    Dev(Dev),
    /// Say what is ready and what is not.
    Status(Status),
    /// Stop the pods of a server or agent that has ended, and remove their network.
    Killall(Killall),
    /// Print the version.
    Version,
    /// Print what completes commands and options in a shell.
    Completion {
        /// The shell: of bash, `source <(knarr completion bash)`.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    Client(ctl::Command),
}

/// Options of `knarr server`.
#[derive(Args, Clone)]
pub(crate) struct Server {
    /// File of options (YAML), by their names, such as `port: 7443` or `tls-san: [a, b]`. The command line counts in its place.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept.
    #[arg(long, default_value = crate::paths::DEFAULT)]
    pub(crate) data_dir: PathBuf,
    /// What all objects and their recent history may take in the store, such as 2Gi: beyond it nothing new is taken, since all of it is in
    /// memory, too. By default an eighth of the machine's memory, at least 128Mi and at most 8Gi.
    #[arg(long, value_name = "QUANTITY", value_parser = storage_quota)]
    pub(crate) storage_quota: Option<u64>,
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
    /// File of a KubeSchedulerConfiguration: profiles of the scheduler, their plugins, what these are told, and extenders.
    #[arg(long)]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// Simulated nodes besides the real one, for tests of scale: what is scheduled to them is reported as running, and does not run.
    #[arg(long, default_value_t = 0)]
    pub(crate) hollow_nodes: usize,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    #[command(flatten)]
    pub(crate) service_account: ServiceAccount,
    #[command(flatten)]
    pub(crate) audit: Audit,
    #[command(flatten)]
    pub(crate) authentication: Authentication,
    #[command(flatten)]
    pub(crate) authorization: Authorization,
    /// Admission plugins that work besides those that always do: AlwaysPullImages, DenyServiceExternalIPs, EventRateLimit,
    /// ExtendedResourceToleration, LimitPodHardAntiAffinityTopology, NamespaceAutoProvision, OwnerReferencesPermissionEnforcement,
    /// PodNodeSelector, PodTolerationRestriction.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) enable_admission_plugins: Vec<String>,
    /// File of an AdmissionConfiguration: what PodSecurity takes for granted, and whom it does not concern; limits of EventRateLimit;
    /// selectors and tolerations of PodNodeSelector and PodTolerationRestriction; what ResourceQuota lets nobody have without a quota.
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

/// Options of `knarr agent`.
#[derive(Args, Clone)]
pub(crate) struct Agent {
    /// File of options (YAML), by their names, such as `server: https://HOST:6443`. The command line counts in its place.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
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
    #[command(flatten)]
    file: OptionsFile,
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
    #[command(flatten)]
    file: OptionsFile,
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

/// The ways of packets between nodes, as flannel names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// In packets between nodes, over any network.
    Vxlan,
    /// As they are, by routes: the nodes are on one link, which lets them send with addresses of pods.
    HostGw,
    /// Encrypted in packets between nodes, over any network: nodes need a kernel with WireGuard.
    #[value(name = "wireguard")]
    WireGuard,
    /// As the network plugins of the nodes have it (--cni-conf-dir).
    Cni,
}

impl Backend {
    pub(crate) fn backend(self) -> network::Backend {
        match self {
            Self::Vxlan => network::Backend::Vxlan,
            Self::HostGw => network::Backend::HostGw,
            Self::WireGuard => network::Backend::WireGuard,
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
    #[command(flatten)]
    file: OptionsFile,
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
    /// The data directory of the server or agent.
    #[arg(long, default_value = crate::paths::DEFAULT)]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    file: OptionsFile,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Bytes, written as a quantity.
fn bytes(text: &str) -> Result<u64, String> {
    let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
    let bytes = quantity.as_exact_i64().and_then(|bytes| u64::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "expected a number of bytes, such as 2Gi".to_owned())
}

/// The least that the store may take: a cluster's own objects, with their history.
const LEAST_QUOTA: u64 = 16 << 20;

fn storage_quota(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        too_little if too_little < LEAST_QUOTA => Err("a cluster's own objects need 16Mi".to_owned()),
        enough => Ok(enough),
    }
}

/// A duration as Go writes it, which is how upstream's options have it, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let written = || Duration::try_from(apimachinery::time::parse_duration(text)?).ok();
    seconds.or_else(written).ok_or_else(|| "expected a duration, such as 30s or 1h30m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text).ok(), expected, "{text}");
        check("2Gi", Some(2 << 30));
        check("1000", Some(1000));
        check("0", None);
        check("-1", None);
        check("1500m", None);
        check("much", None);
        assert!(storage_quota("1").is_err() && storage_quota("15Mi").is_err());
        assert_eq!(storage_quota("16Mi"), Ok(16 << 20));
    }

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(duration(text).ok().map(|duration| duration.as_millis()), expected.map(u128::from), "{text}");
        };
        check("30s", Some(30_000));
        check("15", Some(15_000));
        check("250ms", Some(250));
        check("2m", Some(120_000));
        check("1h0m0s", Some(3_600_000));
        check("1m30.5s", Some(90_500));
        check("-1s", None);
        check("1d", None);
        check("s", None);
        check("", None);
    }

    #[test]
    fn the_client_looks_where_servers_keep_their_data() {
        assert_eq!(ctl::DATA_DIR, crate::paths::DEFAULT);
    }

    #[test]
    fn shells_are_completed() {
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8_lossy(&Cli::completion(*shell)).into_owned();
            assert!(["rollout", "secrets-encryption", "field-selector"].iter().all(|word| script.contains(word)), "{shell}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}

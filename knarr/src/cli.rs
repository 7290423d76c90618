//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

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
    /// The node's name; the host name by default.
    #[arg(long)]
    pub(crate) node_name: Option<String>,
    /// The node's address; that of the default route by default.
    #[arg(long)]
    pub(crate) node_ip: Option<IpAddr>,
    /// Port of the kubelet.
    #[arg(long, default_value_t = 10250)]
    pub(crate) kubelet_port: u16,
    /// Network of all pods.
    #[arg(long, default_value = "10.42.0.0/16")]
    pub(crate) cluster_cidr: IpNet,
    /// Network of all services.
    #[arg(long, default_value = "10.43.0.0/16")]
    pub(crate) service_cidr: IpNet,
    /// Address of the cluster DNS; the tenth of the service network by default.
    #[arg(long)]
    pub(crate) cluster_dns: Option<IpAddr>,
    /// Domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Further names and addresses by which clients reach the API server.
    #[arg(long = "tls-san")]
    pub(crate) tls_san: Vec<String>,
    /// Mirrors of image registries and how to talk to them (YAML).
    #[arg(long)]
    pub(crate) registries: Option<PathBuf>,
    /// Run no pods on this machine.
    #[arg(long)]
    pub(crate) no_agent: bool,
    /// Labels of the node.
    #[arg(long = "label", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Most pods on the node.
    #[arg(long, default_value_t = 110)]
    pub(crate) max_pods: u32,
    /// Most processes and threads of one pod, so that none takes those of the node; 0 is no limit. Each thread counts.
    #[arg(long, default_value_t = 4096)]
    pub(crate) pod_max_pids: u32,
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

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let number: u64 = number.parse().map_err(|_| "expected a number with a unit, such as 30s")?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
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
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}

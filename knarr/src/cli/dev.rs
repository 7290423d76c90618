//! Options of `knarr dev`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use network::hosts::Families;

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
    /// Which programs nodes ask for credentials of which images: a CredentialProviderConfig, or a directory of files with such.
    #[arg(long, value_name = "PATH", requires = "image_credential_provider_bin_dir")]
    pub(crate) image_credential_provider_config: Option<PathBuf>,
    /// Directory of these programs.
    #[arg(long, value_name = "DIR", requires = "image_credential_provider_config")]
    pub(crate) image_credential_provider_bin_dir: Option<PathBuf>,
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

impl Dev {
    /// The options that its nodes are given as they are.
    pub(crate) fn of_nodes(&self) -> Vec<OsString> {
        let all = [
            ("--image-credential-provider-config", &self.image_credential_provider_config),
            ("--image-credential-provider-bin-dir", &self.image_credential_provider_bin_dir),
        ];
        let given = all.into_iter().filter_map(|(name, path)| Some([OsString::from(name), path.clone()?.into_os_string()]));
        given.flatten().collect()
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

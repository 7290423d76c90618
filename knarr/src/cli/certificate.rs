//! Options of `knarr certificate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::configuration::OptionsFile;

/// Options of `knarr certificate`.
#[derive(Args, Clone)]
pub(crate) struct Certificate {
    /// The data directory of the server, or for check and rotate also of an agent.
    #[arg(long, global = true, default_value = crate::paths::DEFAULT)]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    file: OptionsFile,
    #[command(subcommand)]
    pub(crate) command: CertificateCommand,
}

#[derive(Subcommand, Clone)]
pub(crate) enum CertificateCommand {
    /// Say what there is of certificates and authorities, and what needs attention; the exit code is 1 if something does: it has expired,
    /// or ends within 30 days and nobody renews it by itself.
    Check {
        /// The form.
        #[arg(short, long, value_enum, default_value_t = CheckForm::Text)]
        output: CheckForm,
    },
    /// Have new certificates of the same authorities now, and a new kubeconfig of the administrator. Those before stay good until they end.
    Rotate,
    /// Make new authorities and a new key of ServiceAccounts' tokens. Those before them are trusted, too, until --finish.
    RotateCa {
        /// End the trust in the authorities and the key of before: what they have issued is worth nothing then.
        #[arg(long)]
        finish: bool,
        /// End it also where nodes, or tokens of pods, have not followed yet: they are shut out.
        #[arg(long, requires = "finish")]
        force: bool,
    },
}

/// How a report looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckForm {
    /// For people.
    Text,
    /// For programs.
    Json,
}

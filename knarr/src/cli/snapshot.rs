//! Options of `knarr snapshot`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::configuration::OptionsFile;

/// Options of `knarr snapshot`.
#[derive(Args, Clone)]
pub(crate) struct Snapshot {
    /// The server's data directory.
    #[arg(long, global = true, default_value = crate::paths::DEFAULT)]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    file: OptionsFile,
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

#[derive(Subcommand, Clone)]
pub(crate) enum SnapshotCommand {
    /// Write all objects of the cluster and its keys to a file, while the server runs or when it does not. Who has the file has the
    /// cluster: it holds every Secret and the key of the authority.
    Save {
        /// The file. What it was before is replaced when the snapshot is whole.
        file: PathBuf,
    },
    /// Make a data directory without a store one of the cluster of a snapshot. The server that is then started there has the objects of that time;
    /// nodes that had joined find it again.
    Restore {
        /// The snapshot.
        file: PathBuf,
    },
    /// Check that a snapshot is whole, and say what it is of.
    Status {
        /// The snapshot.
        file: PathBuf,
    },
}

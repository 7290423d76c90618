//! Options of `knarr image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::configuration::OptionsFile;

/// Options of `knarr image`.
#[derive(Args, Clone)]
pub(crate) struct Image {
    /// The data directory of the server or agent whose images these are, or of a throw-away cluster, all of whose nodes it is then. By
    /// default that of a server, and where none runs that of `knarr dev`.
    #[arg(long, global = true)]
    pub(crate) data_dir: Option<PathBuf>,
    #[command(flatten)]
    file: OptionsFile,
    /// Nodes of a throw-away cluster that are meant, such as n1,n2; all by default.
    #[arg(long = "node", global = true, value_delimiter = ',')]
    pub(crate) nodes: Vec<String>,
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Subcommand, Clone)]
pub(crate) enum ImageCommand {
    /// Bring the images of an archive to the node: an OCI layout or what `docker save` writes, compressed or not.
    Import {
        /// The archive; - for the standard input.
        file: PathBuf,
        /// A name for the image, besides those in the archive.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Write images into an archive, which is an OCI layout and what `docker load` reads.
    Export {
        /// Names or identifiers.
        #[arg(required = true)]
        images: Vec<String>,
        /// The archive; - for the standard output.
        #[arg(short, long)]
        output: PathBuf,
    },
    /// List the images of the node, and the pods that use them.
    List {
        /// The form.
        #[arg(short, long, value_enum, default_value_t = Form::Table)]
        output: Form,
    },
    /// Pull an image from its registry, by the node's configuration of registries.
    Pull {
        /// Its name.
        image: String,
        /// USER:PASSWORD for the registry, - for a line of the standard input. All pods of the node may use the image then.
        #[arg(long, value_name = "USER:PASSWORD", value_parser = credentials)]
        creds: Option<(String, String)>,
    },
    /// Take names away from images, and remove those that have no other name. What pods use stays.
    Rm {
        /// Names or identifiers.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove images without a name that no pod uses.
    Prune {
        /// And those with one.
        #[arg(long)]
        all: bool,
    },
}

/// How a list looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn credentials(text: &str) -> Result<(String, String), String> {
    let mut line = String::new();
    let text = match text {
        "-" => std::io::stdin()
            .read_line(&mut line)
            .map(|_| line.trim_end_matches(['\r', '\n']))
            .map_err(|error| error.to_string())?,
        text => text,
    };
    let (user, password) = text.split_once(':').ok_or("expected USER:PASSWORD")?;
    Ok((user.to_owned(), password.to_owned()))
}

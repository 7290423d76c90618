//! `knarr image`: the images of nodes on this machine.

mod archive;
mod table;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base::tasks::Tasks;
use futures::future::join_all;

use crate::cli::{DEV_DIRECTORY, Form, Image, ImageCommand};
use crate::images::client::{Missing, Node};
use crate::images::{Entry, Event};
use crate::paths::{DEFAULT, Paths, spelled};
use crate::{dev, process};
use table::{name, size};

/// Runs one of them against the nodes that are meant.
pub(crate) fn run(options: &Image) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (tasks, _failures) = Tasks::root();
    let nodes = nodes(options, &tasks)?;
    runtime.block_on(async {
        match &options.command {
            ImageCommand::Import { file, tag } => import(&nodes, file, tag.as_deref()).await,
            ImageCommand::Export { images, output } => export(&nodes, images, output).await,
            ImageCommand::List { output } => list(&nodes, *output).await,
            ImageCommand::Pull { image, creds } => pull(&nodes, image, creds.as_ref()).await,
            ImageCommand::Rm { images } => rm(&nodes, images).await,
            ImageCommand::Prune { all } => removed(&nodes, join_all(nodes.iter().map(|node| node.prune(*all))).await),
        }
    })
}

/// The nodes of the data directory: one, or those of a throw-away cluster.
fn nodes(options: &Image, tasks: &Tasks) -> Result<Vec<Node>> {
    let directory = match &options.data_dir {
        Some(directory) => spelled(directory)?,
        None => {
            let (own, dev) = (PathBuf::from(DEFAULT), PathBuf::from(DEV_DIRECTORY));
            if is_in_use(&own) || dev::data_dirs(&dev)?.is_none() { own } else { dev }
        }
    };
    let node = |name: String, directory: &Path| Node { name, socket: Paths::new(directory).images(), tasks: tasks.clone() };
    let Some(all) = dev::data_dirs(&directory)? else {
        if !options.nodes.is_empty() {
            bail!("--node: no throw-away cluster is in {}", directory.display());
        }
        let name = std::fs::read_to_string(Paths::new(&directory).node_name()).unwrap_or_default();
        return Ok(vec![node(name.trim().to_owned(), &directory)]);
    };
    let all: BTreeMap<String, PathBuf> = all.into_iter().collect();
    if let Some(unknown) = options.nodes.iter().find(|name| !all.contains_key(*name)) {
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        bail!("there is no node {unknown:?}: they are {}", names.join(", "));
    }
    let meant = all.iter().filter(|(name, _)| options.nodes.is_empty() || options.nodes.contains(name));
    Ok(meant.map(|(name, directory)| node(name.clone(), directory)).collect())
}

/// Whether a server or an agent works in the directory.
fn is_in_use(directory: &Path) -> bool {
    process::is_locked(&Paths::new(directory).lock()).unwrap_or(false)
}

/// Has `show` print what each node has answered, and makes one error of those that have failed.
fn each<T>(nodes: &[Node], results: Vec<Result<T>>, mut show: impl FnMut(&str, T)) -> Result<()> {
    let mut failures = Vec::new();
    for (node, result) in nodes.iter().zip(results) {
        match result {
            Ok(answer) => show(&prefix(nodes, node), answer),
            Err(error) => failures.push(format!("{}{error:#}", prefix(nodes, node))),
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("; ")) }
}

/// What lines of a node begin with where there are several.
fn prefix(nodes: &[Node], node: &Node) -> String {
    if nodes.len() > 1 { format!("{}: ", node.name) } else { String::new() }
}

async fn import(nodes: &[Node], file: &Path, tag: Option<&str>) -> Result<()> {
    let (readers, mut copies) = archive::copies(nodes.len());
    let importing = nodes.iter().zip(readers).map(|(node, archive)| node.import(archive, tag));
    let (read, results) = futures::join!(archive::read(file, &mut copies), join_all(importing));
    read.with_context(|| file.display().to_string())?;
    each(nodes, results, |prefix, images| {
        for image in images {
            println!("{prefix}imported {} ({})", name(&image), image.id);
            if image.repo_tags.is_empty() {
                eprintln!("{prefix}{} has no name: give it one with --tag", image.id);
            }
        }
    })
}

/// Writes the archive from the first node that has all of the images.
async fn export(nodes: &[Node], images: &[String], output: &Path) -> Result<()> {
    let mut missing = None;
    for node in nodes {
        match node.export(images).await {
            Ok(body) => return archive::write(body, output).await,
            Err(error) if error.is::<Missing>() => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    missing.map_or(Ok(()), Err)
}

async fn list(nodes: &[Node], form: Form) -> Result<()> {
    let mut all: Vec<(String, Entry)> = Vec::new();
    let results = join_all(nodes.iter().map(Node::list)).await;
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let mut names = names.into_iter();
    let listed = each(nodes, results.into_iter().collect(), |_, entries| {
        let name = names.next().unwrap_or_default();
        all.extend(entries.into_iter().map(|entry| (name.to_owned(), entry)));
    });
    match form {
        Form::Table => print!("{}", table::table(&all, nodes.len() > 1)),
        Form::Json => println!("{}", serde_json::to_string_pretty(&table::document(&all))?),
    }
    listed
}

async fn pull(nodes: &[Node], image: &str, credentials: Option<&(String, String)>) -> Result<()> {
    let is_shown = std::io::stderr().is_terminal() && nodes.len() == 1;
    let pulling = nodes.iter().map(|node| {
        let mut layers = BTreeMap::new();
        node.pull(image, credentials.cloned(), move |event| {
            let Event::Progress { layer, done, size: of, ready } = event else { return };
            layers.insert(layer.clone(), (*done, *of));
            if *ready {
                eprintln!("{}layer {layer} is here ({})", prefix(nodes, node), size(*of));
            }
            if is_shown {
                let (done, of) = layers.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
                eprint!("{} of {}  \r", size(done), size(of));
                let _ = std::io::stderr().flush();
            }
        })
    });
    let results = join_all(pulling).await;
    each(nodes, results, |prefix, image| println!("{prefix}pulled {} ({})", name(&image), image.id))
}

/// Removes one image after the other, also when one has to stay. An image need not be on all of several nodes.
async fn rm(nodes: &[Node], images: &[String]) -> Result<()> {
    let is_missing = |result: &Result<Vec<Entry>>| result.as_ref().is_err_and(|error| error.is::<Missing>());
    let mut failures = Vec::new();
    for image in images {
        let mut results = join_all(nodes.iter().map(|node| node.remove(image))).await;
        if !results.iter().all(is_missing) {
            results.iter_mut().filter(|result| is_missing(result)).for_each(|result| *result = Ok(Vec::new()));
        }
        failures.extend(removed(nodes, results).err().map(|error| error.to_string()));
    }
    if failures.is_empty() { Ok(()) } else { bail!(failures.join("; ")) }
}

/// Tells what is gone.
fn removed(nodes: &[Node], results: Vec<Result<Vec<Entry>>>) -> Result<()> {
    each(nodes, results, |prefix, images| {
        images.iter().for_each(|image| println!("{prefix}removed {} ({})", name(image), size(image.size)));
    })
}

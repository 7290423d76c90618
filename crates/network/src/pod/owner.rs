//! Whose pod network a network namespace has.
//!
//! Bridge, table and device have the same names on every node, so two nodes in one network namespace would take each other's. The bridge
//! therefore bears the directory of its node as its alias: the record is where the thing is, and ends with it. The directory is locked by
//! the node that runs. Who finds another's record leaves everything as it is, unless nothing can be lost: that node has gone, and no
//! sandbox of it is left. The same holds for a record of the own directory that was made before the directory: it was another cluster's.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::rtnl::Links;
use super::{Error, IpamError, Options, nodes, open_links};
use crate::nft::table;

/// Held while somebody looks whose the network is and takes it.
const TURN: &str = "/run/knarr-network.lock";
/// IFALIASZ is 256, with the terminating zero.
const ALIAS: usize = 255;

/// Where leases are kept.
pub(super) fn leases(directory: &Path) -> PathBuf {
    directory.join("leases")
}

/// A node's hold of its directory, by which others see that it runs.
pub(super) struct Held(#[allow(dead_code, reason = "the lock ends with it")] Flock<File>);

/// Whose the network of this namespace is, as a node sees it that wants it.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nobody's, or its own.
    Free,
    /// It was that of the node of this directory, which has left nothing that would be missed.
    Abandoned,
    /// It is that of the node of this directory.
    Taken(PathBuf),
}

/// Takes the network of this namespace for the node of the options, and makes the bridge with `make`.
pub(super) fn claim(
    options: &Options,
    links: &mut Links,
    make: impl FnOnce(&mut Links) -> Result<(), Error>,
) -> Result<Held, Error> {
    let _turn = turn()?;
    let held = hold(&options.directory)?;
    if is_forgotten(options, links)? {
        tracing::info!("removing the network that an earlier cluster of this directory has left");
        remove(options, links)?;
    }
    match look(options, links)? {
        Found::Taken(directory) => return Err(Error::Taken { bridge: options.bridge.clone(), directory }),
        Found::Abandoned => {
            tracing::info!("removing the network that a node of another directory has left");
            remove(options, links)?;
        }
        Found::Free => {}
    }
    make(links)?;
    links.set_alias(&options.bridge, &record(&options.directory))?;
    Ok(held)
}

/// Whether the node of the options may have the network of this namespace; changes nothing.
pub fn check(options: &Options) -> Result<(), Error> {
    let _turn = turn()?;
    match look(options, &mut open_links()?)? {
        Found::Taken(directory) => Err(Error::Taken { bridge: options.bridge.clone(), directory }),
        Found::Abandoned | Found::Free => Ok(()),
    }
}

/// Removes the network of the options' node, and its leases. Another's stays, and its directory is returned.
pub(super) fn release(options: &Options) -> Result<Option<PathBuf>, Error> {
    let _turn = turn()?;
    let _held = if options.directory.exists() { Some(hold(&options.directory)?) } else { None };
    let mut links = open_links()?;
    let other = match look(options, &mut links)? {
        Found::Free => {
            remove(options, &mut links)?;
            None
        }
        // What nobody misses is taken away by who wants its place.
        Found::Abandoned => None,
        Found::Taken(directory) => Some(directory),
    };
    let leases = leases(&options.directory);
    match base::trees::remove(&leases) {
        Err(source) => Err(IpamError::File { path: leases, source }.into()),
        Ok(()) => Ok(other),
    }
}

/// Deletes the bridge, the veth pairs on it, what leads to other nodes, and the table.
fn remove(options: &Options, links: &mut Links) -> Result<(), Error> {
    table::delete(&options.table)?;
    let all = links.links()?;
    if let Some(bridge) = all.iter().find(|link| link.name == options.bridge) {
        for port in all.iter().filter(|link| link.master == Some(bridge.index)) {
            links.delete(&port.name)?;
        }
    }
    for shaper in all.iter().filter(|link| link.name.starts_with(super::devices::SHAPERS)) {
        links.delete(&shaper.name)?;
    }
    links.delete(&options.bridge)?;
    nodes::remove(options, links)
}

fn look(options: &Options, links: &mut Links) -> Result<Found, Error> {
    // A bridge without a record is of a version before there were any.
    let Some(alias) = links.link(&options.bridge)?.and_then(|bridge| bridge.alias) else { return Ok(Found::Free) };
    if alias == record(&options.directory) {
        return Ok(Found::Free);
    }
    let directory = PathBuf::from(alias);
    Ok(if is_missed(&directory) { Found::Taken(directory) } else { Found::Abandoned })
}

/// Whether the bridge is of a cluster that had the directory before: the directory knows of no sandbox, while the bridge has ports. Its pods
/// would be taken for the node's.
fn is_forgotten(options: &Options, links: &mut Links) -> Result<bool, Error> {
    let Some(bridge) = links.link(&options.bridge)? else { return Ok(false) };
    if has_leases(&options.directory) {
        return Ok(false);
    }
    let is_own = bridge.alias.is_none_or(|alias| alias == record(&options.directory));
    Ok(is_own && links.links()?.iter().any(|link| link.master == Some(bridge.index)))
}

/// Whether a node runs with this directory, or has left sandboxes that may still be connected.
fn is_missed(directory: &Path) -> bool {
    directory.exists() && (matches!(hold(directory), Err(Error::InUse(_))) || has_leases(directory))
}

fn has_leases(directory: &Path) -> bool {
    let entries = fs::read_dir(leases(directory)).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.path().extension().is_some_and(|extension| extension == "lease"))
}

/// The alias of a bridge of the node of this directory.
fn record(directory: &Path) -> String {
    let text = directory.to_string_lossy();
    text[..text.floor_char_boundary(ALIAS)].to_owned()
}

fn hold(directory: &Path) -> Result<Held, Error> {
    let path = directory.join("lock");
    let file = File::create(&path).map_err(file_error(&path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Held(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(Error::InUse(directory.to_owned())),
        Err((_, errno)) => Err(file_error(&path)(errno.into())),
    }
}

fn turn() -> Result<Held, Error> {
    let path = Path::new(TURN);
    let file = File::create(path).map_err(file_error(path))?;
    Flock::lock(file, FlockArg::LockExclusive).map(Held).map_err(|(_, errno)| file_error(path)(errno.into()))
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| IpamError::File { path, source }.into()
}

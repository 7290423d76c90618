//! Drivers, and device plugins and drivers of claimed devices too, make themselves known by sockets in the directory `plugins_registry`, at which they or a sidecar of theirs
//! answer (the kubelet's plugin registration, v1); when the socket goes, so does the driver.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::directory::Followed;
use base::tasks::OnFailure;
use csi::Driver;
use csi::dra::{DRA, Plugin, Version};
use csi::registration::{self as protocol, PluginInfo};
use grpc::Endpoint;
use grpc::Error as Rpc;
use tokio_util::sync::CancellationToken;

use super::{announce, count, mount};
use crate::claims::{connection, health, slices};
use crate::context::Context;
use crate::devices;

/// Delay before a failed registration is tried again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(120));
/// Delay before a directory is read again that cannot be read.
const AGAIN: Duration = Duration::from_secs(5);

/// Why a plugin is not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("plugin type {0:?} is not supported by this kubelet")]
    Kind(String),
    #[error("the plugin has no name")]
    Nameless,
    #[error("none of the versions {0:?} is supported: this kubelet speaks CSI 1.x")]
    Version(Vec<String>),
    #[error("none of the versions {0:?} is supported: this kubelet speaks v1.DRAPlugin and v1beta1.DRAPlugin")]
    Interface(Vec<String>),
    #[error("the driver says no name for this node")]
    NodeId,
    #[error(transparent)]
    Rpc(#[from] Rpc),
    #[error(transparent)]
    Announce(#[from] announce::Error),
    #[error(transparent)]
    Devices(#[from] devices::Refused),
}

/// A socket with what tells a new one of the same name from the one before: file systems give the number of a file that is removed to the next one
/// that is made, so that the time of its making belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Socket {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Not all file systems know it.
    made: Option<SystemTime>,
}

/// A plugin that has been taken.
enum Registered {
    /// A storage driver by its name.
    Driver(String),
    /// A device plugin by its resource, with its number.
    Devices(String, u64),
    /// A driver of claimed devices by its name.
    Claims(String, Plugin),
}

impl Registered {
    /// Whether both are under the same name among the same.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Driver(name), Self::Driver(other))
            | (Self::Devices(name, _), Self::Devices(other, _))
            | (Self::Claims(name, _), Self::Claims(other, _)) => name == other,
            _ => false,
        }
    }
}

/// Follows the sockets in the directory.
pub async fn run(cx: Arc<Context>) -> Result<(), io::Error> {
    let directory = cx.options.data_dir.join("plugins_registry");
    for path in [&directory, &cx.options.data_dir.join("plugins")] {
        tokio::fs::create_dir_all(path).await?;
        tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o750)).await?;
    }
    let mut delay = RETRY.0;
    while let Err(error) = announce::exists(&cx).await {
        tracing::warn!(%error, "the node has no CSINode object yet");
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
    cx.tasks.spawn_until_cancelled("slices of drivers", OnFailure::Log, slices::withdraw_forgotten(cx.clone()));
    let mut changes = Followed::new(&directory);
    let mut followed = Sockets::default();
    loop {
        match sockets(&directory) {
            Ok(found) => {
                for (path, number, token) in followed.settle(found, &cx.tasks.token()) {
                    let task = follow(cx.clone(), path, number, token);
                    cx.tasks.spawn_until_cancelled("driver", OnFailure::Log, task);
                }
                changes.changed().await;
            }
            // Nothing is known of any plugin: they stay as they are.
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "sockets of plugins cannot be found");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// The sockets that are followed.
#[derive(Default)]
struct Sockets {
    followed: BTreeMap<Socket, CancellationToken>,
    /// How many there have been: their numbers.
    serials: u64,
}

impl Sockets {
    /// Ends what is followed of sockets that are gone. Gives those that are new, with their numbers and what ends each.
    fn settle(&mut self, found: BTreeSet<Socket>, parent: &CancellationToken) -> Vec<(PathBuf, u64, CancellationToken)> {
        self.followed.retain(|socket, token| {
            let stays = found.contains(socket);
            if !stays {
                token.cancel();
            }
            stays
        });
        let mut new = Vec::new();
        for socket in found {
            if !self.followed.contains_key(&socket) {
                self.serials += 1;
                let token = parent.child_token();
                new.push((socket.path.clone(), self.serials, token.clone()));
                self.followed.insert(socket, token);
            }
        }
        new
    }
}

/// The sockets in a directory; none where there is no such directory.
fn sockets(directory: &Path) -> io::Result<BTreeSet<Socket>> {
    let Some(entries) = there(std::fs::read_dir(directory))? else { return Ok(BTreeSet::new()) };
    let mut found = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        if let Some(metadata) = there(entry.metadata())?.filter(|metadata| metadata.file_type().is_socket()) {
            let made = metadata.created().ok();
            found.insert(Socket { path: entry.path(), device: metadata.dev(), inode: metadata.ino(), made });
        }
    }
    Ok(found)
}

/// What has gone meanwhile is no error.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Registers the plugin of a socket, and forgets it when the socket is gone.
async fn follow(cx: Arc<Context>, socket: PathBuf, number: u64, gone: CancellationToken) -> Result<(), std::convert::Infallible> {
    let mut enlisted = None;
    if register_until_told(&cx, &socket, number, &mut enlisted, &gone).await
        && let Some(registered) = &enlisted
    {
        gone.run_until_cancelled(keep(&cx, registered, number)).await;
        gone.cancelled().await;
    }
    // At the end of this process the plugin stays: the next one finds its socket.
    if let Some(registered) = enlisted.filter(|_| !cx.tasks.token().is_cancelled()) {
        end(&cx, registered, number).await;
    }
    Ok(())
}

/// Tries to register a plugin until it has been told what came of that, or its socket is gone; whether it is taken. What it is enlisted as is there
/// as soon as it is: also if it cannot be told. No attempt is broken off, since it would not be known how far it came.
async fn register_until_told(
    cx: &Arc<Context>,
    socket: &Path,
    number: u64,
    enlisted: &mut Option<Registered>,
    gone: &CancellationToken,
) -> bool {
    let endpoint = Endpoint::new(&socket.display().to_string());
    let mut delay = RETRY.0;
    loop {
        match register(cx, &endpoint, number, enlisted).await {
            Ok(is_taken) => return is_taken,
            Err(error) => tracing::warn!(socket = %socket.display(), %error, "cannot register a plugin yet"),
        }
        if gone.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
            return false;
        }
        delay = (delay * 2).min(RETRY.1);
    }
}

/// What goes on for as long as a plugin is there.
async fn keep(cx: &Arc<Context>, registered: &Registered, number: u64) {
    match registered {
        Registered::Driver(name) => {
            tracing::info!(driver = name, "registered a driver");
            tokio::join!(mount::keep_unstaging(cx, name), count::keep(cx, name));
        }
        Registered::Claims(name, plugin) => {
            tokio::join!(connection::follow(cx, name, plugin, number), health::follow(cx, name, plugin, number));
        }
        Registered::Devices(..) => {}
    }
}

/// The plugin is gone.
async fn end(cx: &Arc<Context>, registered: Registered, number: u64) {
    match registered {
        Registered::Driver(name) => forget(cx, &name, number).await,
        Registered::Devices(name, serial) => devices::detach(cx, &name, serial),
        Registered::Claims(name, _) => {
            tracing::info!(driver = name, "a plugin of a driver of claimed devices is gone");
            if cx.claims.remove(&name, number) {
                slices::withdraw_later(cx, &name);
            }
        }
    }
}

async fn forget(cx: &Context, name: &str, number: u64) {
    let _one = cx.drivers.registering.lock().await;
    if cx.drivers.remove(name, number) {
        tracing::info!(driver = name, "the driver is gone");
        if let Err(error) = announce::withdraw(cx, name).await {
            tracing::warn!(driver = name, %error, "the driver is still in the CSINode object");
        }
    }
}

/// Asks the plugin who it is, and tells it what came of that: whether it is taken. Who is neither taken nor told that is an error.
async fn register(cx: &Arc<Context>, socket: &Endpoint, number: u64, enlisted: &mut Option<Registered>) -> Result<bool, Error> {
    let info = protocol::info(socket).await?;
    let outcome = match check(&info) {
        Ok(()) => enlist(cx, socket, number, &info).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(registered) => {
            // It may be something else than at the last attempt.
            if let Some(before) =
                enlisted.replace(registered).filter(|before| enlisted.as_ref().is_some_and(|now| !now.is(before)))
            {
                end(cx, before, number).await;
            }
            protocol::notify(socket, Ok(())).await?;
            Ok(true)
        }
        Err(error) => {
            let text = error.to_string();
            let told = protocol::notify(socket, Err(&text)).await;
            match error {
                Error::Kind(_) | Error::Version(_) | Error::Interface(_) | Error::Nameless | Error::Devices(_)
                    if told.is_ok() =>
                {
                    tracing::warn!(plugin = info.name, error = text, "a plugin is refused");
                    Ok(false)
                }
                error => Err(error),
            }
        }
    }
}

fn check(info: &PluginInfo) -> Result<(), Error> {
    let speaks = |version: &String| version.trim_start_matches('v').split('.').next() == Some("1");
    match info.kind.as_str() {
        protocol::CSI | protocol::DEVICES | DRA if info.name.is_empty() => Err(Error::Nameless),
        protocol::CSI if !info.supported_versions.iter().any(speaks) => Err(Error::Version(info.supported_versions.clone())),
        DRA if Version::best(info.supported_versions.iter().map(String::as_str)).is_none() => {
            Err(Error::Interface(info.supported_versions.clone()))
        }
        protocol::CSI | protocol::DEVICES | DRA => Ok(()),
        other => Err(Error::Kind(other.to_owned())),
    }
}

async fn enlist(cx: &Arc<Context>, socket: &Endpoint, number: u64, info: &PluginInfo) -> Result<Registered, Error> {
    let endpoint = if info.endpoint.is_empty() { socket.clone() } else { Endpoint::new(&info.endpoint) };
    if info.kind == protocol::DEVICES {
        let versions = info.supported_versions.iter().map(String::as_str);
        return Ok(Registered::Devices(info.name.clone(), devices::attach(cx, &info.name, versions, endpoint)?));
    }
    let versions = info.supported_versions.iter().map(String::as_str);
    if let Some(version) = Version::best(versions).filter(|_| info.kind == DRA) {
        let plugin = Plugin::new(endpoint, version);
        if cx.claims.insert(&info.name, plugin.clone(), number) {
            slices::withdraw_later(cx, &info.name);
        }
        tracing::info!(driver = info.name, "registered a driver of claimed devices");
        return Ok(Registered::Claims(info.name.clone(), plugin));
    }
    let driver = Driver::new(endpoint);
    let about = driver.info().await?;
    if about.node_id.is_empty() {
        return Err(Error::NodeId);
    }
    let _one = cx.drivers.registering.lock().await;
    announce::announce(cx, &info.name, &about).await?;
    cx.drivers.insert(&info.name, driver, number);
    Ok(Registered::Driver(info.name.clone()))
}

#[cfg(test)]
mod tests;

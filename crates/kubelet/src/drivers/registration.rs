//! Drivers, and device plugins and drivers of claimed devices too, make themselves known by sockets in the directory `plugins_registry`, at which they or a sidecar of theirs
//! answer (the kubelet's plugin registration, v1); when the socket goes, so does the driver.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::directory::Followed;
use base::tasks::OnFailure;
use csi::Driver;
use csi::dra::{DRA, Plugin, Version};
use csi::registration::{self as protocol, PluginInfo};
use grpc::Endpoint;
use grpc::Error as Rpc;
use tokio_util::sync::CancellationToken;

use super::{announce, count, mount};
use crate::claims::{health, slices};
use crate::context::Context;
use crate::devices;

/// Delay before a failed registration is tried again, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(120));

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

/// A plugin that has been taken.
enum Registered {
    /// A storage driver by its name.
    Driver(String),
    /// A device plugin by its resource, with its number.
    Devices(String, u64),
    /// A driver of claimed devices by its name.
    Claims(String, Plugin),
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
    cx.tasks.spawn_until_cancelled("slices of drivers", OnFailure::Log, slices::withdraw(cx.clone(), None));
    let mut changes = Followed::new(&directory);
    let mut followed: BTreeMap<(PathBuf, u64), CancellationToken> = BTreeMap::new();
    loop {
        let found = sockets(&directory).unwrap_or_else(|error| {
            tracing::warn!(directory = %directory.display(), %error, "sockets of plugins cannot be found");
            Vec::new()
        });
        followed.retain(|socket, token| {
            let stays = found.contains(socket);
            if !stays {
                token.cancel();
            }
            stays
        });
        for socket in found {
            let (path, number) = socket.clone();
            followed.entry(socket).or_insert_with(|| {
                let token = cx.tasks.token().child_token();
                let task = follow(cx.clone(), path, number, token.clone());
                cx.tasks.spawn_until_cancelled("driver", OnFailure::Log, task);
                token
            });
        }
        changes.changed().await;
    }
}

/// The sockets with what tells a new one of the same name from the one before.
fn sockets(directory: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let entries = std::fs::read_dir(directory)?.flatten();
    let socket = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().ok().filter(|metadata| metadata.file_type().is_socket())?;
        Some((entry.path(), metadata.ino()))
    };
    Ok(entries.filter_map(socket).collect())
}

/// Registers the plugin of a socket, and forgets it when the socket is gone.
async fn follow(cx: Arc<Context>, socket: PathBuf, number: u64, gone: CancellationToken) -> Result<(), std::convert::Infallible> {
    let endpoint = Endpoint::new(&socket.display().to_string());
    let mut delay = RETRY.0;
    let registered = loop {
        match register(&cx, &endpoint, number).await {
            Ok(Some(registered)) => break registered,
            Ok(None) => return Ok(()),
            Err(error) => tracing::warn!(socket = %socket.display(), %error, "cannot register a plugin yet"),
        }
        tokio::select! {
            () = gone.cancelled() => return Ok(()),
            () = tokio::time::sleep(delay) => delay = (delay * 2).min(RETRY.1),
        }
    };
    if let Registered::Driver(name) = &registered {
        tracing::info!(driver = name, "registered a driver");
        let kept = async { tokio::join!(mount::keep_unstaging(&cx, name), count::keep(&cx, name)) };
        gone.run_until_cancelled(kept).await;
    }
    if let Registered::Claims(name, plugin) = &registered {
        gone.run_until_cancelled(health::follow(&cx, name, plugin)).await;
    }
    gone.cancelled().await;
    // At the end of this process the plugin stays: the next one finds its socket.
    if !cx.tasks.token().is_cancelled() {
        match registered {
            Registered::Driver(name) => forget(&cx, &name, number).await,
            Registered::Devices(name, serial) => devices::detach(&cx, &name, serial),
            Registered::Claims(name, _) => {
                if cx.claims.remove(&name, number) {
                    tracing::info!(driver = name, "the driver is gone");
                    cx.tasks.spawn_until_cancelled(
                        "slices of a driver",
                        OnFailure::Log,
                        slices::withdraw(cx.clone(), Some(name)),
                    );
                }
            }
        }
    }
    Ok(())
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

/// Asks the plugin who it is, and tells it what came of that. None is a plugin that has been told that it is not taken.
async fn register(cx: &Arc<Context>, socket: &Endpoint, number: u64) -> Result<Option<Registered>, Error> {
    let info = protocol::info(socket).await?;
    let checked = check(&info);
    let outcome = match checked {
        Ok(()) => enlist(cx, socket, number, &info).await,
        Err(error) => Err(error),
    };
    match outcome {
        Ok(registered) => {
            protocol::notify(socket, Ok(())).await?;
            Ok(Some(registered))
        }
        Err(error) => {
            let text = error.to_string();
            let told = protocol::notify(socket, Err(&text)).await;
            match error {
                Error::Kind(_) | Error::Version(_) | Error::Interface(_) | Error::Nameless | Error::Devices(_)
                    if told.is_ok() =>
                {
                    tracing::warn!(plugin = info.name, error = text, "a plugin is refused");
                    Ok(None)
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
        cx.claims.insert(&info.name, plugin.clone(), number);
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
mod tests {
    use super::*;

    #[test]
    fn plugins_that_are_taken() {
        let check = |kind: &str, name: &str, versions: &[&str], expected: Option<&str>| {
            let supported_versions = versions.iter().map(|version| (*version).to_owned()).collect();
            let info = PluginInfo { kind: kind.to_owned(), name: name.to_owned(), endpoint: String::new(), supported_versions };
            assert_eq!(check(&info).err().map(|error| error.to_string()).as_deref(), expected);
        };
        check("CSIPlugin", "d", &["1.0.0"], None);
        check("CSIPlugin", "d", &["0.3.0", "v1.12.0"], None);
        let versions = "none of the versions [\"0.3.0\", \"10.0.0\"] is supported: this kubelet speaks CSI 1.x";
        check("CSIPlugin", "d", &["0.3.0", "10.0.0"], Some(versions));
        check("DRAPlugin", "d", &["v1.DRAPlugin"], None);
        let versions = "none of the versions [\"1.0.0\"] is supported: this kubelet speaks v1.DRAPlugin and v1beta1.DRAPlugin";
        check("DRAPlugin", "d", &["1.0.0"], Some(versions));
        check("OtherPlugin", "d", &["1.0.0"], Some("plugin type \"OtherPlugin\" is not supported by this kubelet"));
        check("DevicePlugin", "example.com/berth", &["v1beta1"], None);
        check("CSIPlugin", "", &["1.0.0"], Some("the plugin has no name"));
    }

    #[test]
    fn only_sockets_are_plugins() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file.sock"), "").unwrap();
        let path = directory.path().join("d-reg.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = sockets(directory.path()).unwrap();
        assert_eq!(found.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), [path]);
    }
}

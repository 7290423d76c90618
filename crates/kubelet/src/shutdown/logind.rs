//! systemd's login manager, which says that the machine is about to shut down and waits for those who have asked for that
//! (org.freedesktop.login1(5), "Inhibitor Locks").

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use base::files::{self, Outlives};
use futures::StreamExt;
use zbus::proxy::{CacheProperties, OwnerChangedStream, Proxy, SignalStream};
use zbus::{Connection, connection};

const SERVICE: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the login manager reads for how long it may be held up: the file has upstream's name, so that the newer one of two kubelets says it.
const SETTINGS: &str = "/etc/systemd/logind.conf.d/99-kubelet.conf";

/// Why the login manager does not do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bus says so.
    #[error(transparent)]
    Bus(#[from] zbus::Error),
    /// Its settings cannot be written.
    #[error("{SETTINGS}: {0}")]
    Settings(io::Error),
}

impl Error {
    /// Whether there is no bus on this machine.
    pub fn is_absence(&self) -> bool {
        let Self::Bus(zbus::Error::Connection(error, _)) = self else { return false };
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    }
}

/// What the login manager tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The machine is about to shut down, or will not after all.
    ShutsDown(bool),
    /// The login manager has begun, also again.
    Begun,
}

/// The login manager. What it tells is lost by nobody from [`Self::connect`] on.
pub struct Logind {
    manager: Proxy<'static>,
    shutdowns: SignalStream<'static>,
    owners: OwnerChangedStream<'static>,
}

impl Logind {
    /// Connects to the system's bus, which the environment variable `DBUS_SYSTEM_BUS_ADDRESS` may name.
    ///
    /// # Errors
    /// There is no bus, or it does not answer.
    pub async fn connect() -> Result<Self, Error> {
        let bus = connection::Builder::system().method_timeout(PATIENCE).build().await?;
        let manager = proxy(&bus, SERVICE, PATH, MANAGER).await?;
        let owners = manager.receive_owner_changed().await?;
        let shutdowns = manager.receive_signal("PrepareForShutdown").await?;
        Ok(Self { manager, shutdowns, owners })
    }

    /// What happens next; none when the bus is gone. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            tokio::select! {
                signal = self.shutdowns.next() => {
                    // A signal without the word says nothing.
                    if let Ok(begins) = signal?.body().deserialize::<bool>() {
                        return Some(News::ShutsDown(begins));
                    }
                }
                owner = self.owners.next() => {
                    if owner?.is_some() {
                        return Some(News::Begun);
                    }
                }
            }
        }
    }

    /// Whether the machine is shutting down.
    ///
    /// # Errors
    /// The login manager does not say.
    pub async fn is_shutting_down(&self) -> Result<bool, Error> {
        Ok(self.manager.get_property("PreparingForShutdown").await?)
    }

    /// Holds the machine's shutdown back until what is returned is dropped, for no longer than the login manager lets.
    ///
    /// # Errors
    /// It does not let.
    pub async fn inhibit(&self) -> Result<OwnedFd, Error> {
        let asked = ("shutdown", "knarr", "pods are ended in their order", "delay");
        let lock: zbus::wire::OwnedFd = self.manager.call("Inhibit", &asked).await?;
        Ok(lock.into())
    }

    /// For how long a shutdown can be held back.
    ///
    /// # Errors
    /// The login manager does not say.
    pub async fn longest_delay(&self) -> Result<Duration, Error> {
        Ok(Duration::from_micros(self.manager.get_property("InhibitDelayMaxUSec").await?))
    }

    /// Has the login manager let itself be held up for `delay` at least; what it says of that then.
    ///
    /// # Errors
    /// It does not answer, or its settings cannot be written.
    pub async fn allow(&self, delay: Duration) -> Result<Duration, Error> {
        let known = self.longest_delay().await?;
        if known >= delay {
            return Ok(known);
        }
        let text = settings(delay);
        let write = move || files::replace(Path::new(SETTINGS), text.as_bytes(), Outlives::Machine);
        let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(error.into()));
        written.map_err(Error::Settings)?;
        // It reads them again on SIGHUP.
        let systemd = proxy(
            self.manager.connection(),
            "org.freedesktop.systemd1",
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager",
        );
        let () = systemd.await?.call("KillUnit", &("systemd-logind.service", "all", libc::SIGHUP)).await?;
        self.longest_delay().await
    }
}

async fn proxy(
    bus: &Connection,
    service: &'static str,
    path: &'static str,
    interface: &'static str,
) -> Result<Proxy<'static>, zbus::Error> {
    let builder = zbus::proxy::Builder::new(bus).destination(service).path(path).interface(interface);
    builder.cache_properties(CacheProperties::No).build().await
}

/// logind.conf(5)
fn settings(delay: Duration) -> String {
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    format!("# Written by knarr for --shutdown-grace-period.\n[Login]\nInhibitDelayMaxSec={seconds}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// logind.conf(5): "InhibitDelayMaxSec= Controls the maximum time a system shutdown or sleep request is delayed due to an inhibitor lock".
    #[test]
    fn settings_have_whole_seconds() {
        let check = |delay: Duration, expected: &str| {
            assert!(settings(delay).ends_with(&format!("\n[Login]\nInhibitDelayMaxSec={expected}\n")), "{delay:?}");
        };
        check(Duration::from_secs(30), "30");
        check(Duration::from_millis(1500), "2");
    }
}

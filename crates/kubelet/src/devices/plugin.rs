//! One plugin: what it registers as, and its list of devices as long as it goes on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base::tasks::OnFailure;
use csi::devices::{Plugin, VERSION};
use grpc::Endpoint;
use grpc::Error as Rpc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inventory::{Connected, TooLong, TooMany};
use crate::context::Context;

/// Delay before a plugin is asked again whose list has ended, doubling up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the devices of a plugin that is gone are counted, though not given (upstream's `endpointStopGracePeriod`).
const GRACE: Duration = Duration::from_secs(300);

/// Why a plugin is not taken, in upstream's words.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("requested API version {0:?} is not supported by kubelet. Supported version is [{VERSION:?}]")]
    Version(String),
    #[error("the ResourceName {0:?} is invalid")]
    Resource(String),
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// Why a list has ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the plugin has ended its list")]
    ByPlugin,
    #[error(transparent)]
    Rpc(#[from] Rpc),
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// Follows the plugin of a resource at `endpoint`, in the place of the one before it; gives its number.
///
/// # Errors
/// It is not taken.
pub fn attach<'a>(
    cx: &Arc<Context>,
    name: &str,
    versions: impl IntoIterator<Item = &'a str>,
    endpoint: Endpoint,
) -> Result<u64, Refused> {
    let versions: Vec<&str> = versions.into_iter().collect();
    if !versions.contains(&VERSION) {
        return Err(Refused::Version(versions.join(", ")));
    }
    if !pods::resources::is_extended(name) || !apimachinery::names::qualified_name(name).is_empty() {
        return Err(Refused::Resource(name.to_owned()));
    }
    let token = cx.tasks.token().child_token();
    let serial = cx.devices.expect(name, token.clone())?;
    tracing::info!(resource = name, socket = %endpoint.path().display(), "a device plugin has registered");
    let follower = Follower { cx: cx.clone(), name: name.to_owned(), plugin: Plugin::new(endpoint), serial };
    cx.tasks.spawn_until_cancelled("device plugin", OnFailure::Log, follower.run(token));
    Ok(serial)
}

/// The socket is gone by which the plugin of that number had made itself known.
pub fn detach(cx: &Context, name: &str, serial: u64) {
    let mut followed = cx.devices.followed.lock();
    if let Some((_, token)) = followed.get(name).filter(|(number, _)| *number == serial) {
        token.cancel();
        followed.remove(name);
    }
}

struct Follower {
    cx: Arc<Context>,
    name: String,
    plugin: Plugin,
    serial: u64,
}

impl Follower {
    /// Follows the plugin until another one has taken its place, or it has been gone for long.
    async fn run(self, gone: CancellationToken) -> Result<(), Infallible> {
        let (mut delay, mut since) = (RETRY.0, Instant::now());
        loop {
            let watched = gone.run_until_cancelled(self.watch()).await;
            if !self.cx.devices.inventory.lock().disconnect(&self.name, self.serial) {
                return Ok(());
            }
            self.tell();
            let Some((has_begun, why)) = watched else { break };
            tracing::warn!(resource = self.name, error = %why, "a device plugin does not say what it has any more");
            if has_begun {
                (delay, since) = (RETRY.0, Instant::now());
            }
            if since.elapsed() + delay > GRACE {
                break;
            }
            if gone.run_until_cancelled(tokio::time::sleep(delay)).await.is_some() {
                delay = (delay * 2).min(RETRY.1);
            }
        }
        tokio::time::sleep_until(since + GRACE).await;
        if self.cx.devices.inventory.lock().forget(&self.name, self.serial) {
            tracing::warn!(resource = self.name, "a device plugin is gone, and its devices with it");
            self.tell();
        }
        Ok(())
    }

    /// The node and the pods tell the API of the devices.
    fn tell(&self) {
        self.cx.node_changed.notify_one();
        self.cx.devices.news.send_replace(());
    }

    /// Reads the plugin's list until that ends; says why it did, and whether there was one.
    async fn watch(&self) -> (bool, Ended) {
        let mut has_begun = false;
        match self.read(&mut has_begun).await {
            Ok(()) => (has_begun, Ended::ByPlugin),
            Err(error) => (has_begun, error),
        }
    }

    async fn read(&self, has_begun: &mut bool) -> Result<(), Ended> {
        let devices = &self.cx.devices;
        let options = self.plugin.options().await?;
        let mut lists = self.plugin.list_and_watch().await?;
        let connected = Connected { plugin: self.plugin.clone(), options };
        devices.inventory.lock().connect(&self.name, self.serial, connected);
        while let Some(list) = lists.next().await? {
            let is_news = devices.inventory.lock().report(&self.name, self.serial, list.devices)?;
            if is_news {
                self.tell();
            }
            // That there is such a resource is known from then on, also to the next kubelet.
            if !std::mem::replace(has_begun, true)
                && let Err(error) = devices.save().await
            {
                tracing::warn!(resource = self.name, %error, "a resource of a device plugin is not written down");
            }
        }
        Ok(())
    }
}

//! Whether the plugin of a driver is there: a connection is held for as long as it is registered. A process that is killed leaves its socket's file,
//! from which nothing is to be seen.

use std::sync::Arc;
use std::time::Duration;

use csi::dra::Plugin;
use tokio::time::Instant;

use super::slices;
use crate::context::Context;

/// Delay before it is connected to again, doubling up to the second value: soon enough that a plugin that is replaced is known to be there before
/// its driver's slices are withdrawn.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// Follows whether a plugin is there, for ever.
pub async fn follow(cx: &Arc<Context>, driver: &str, plugin: &Plugin, socket: u64) {
    let mut delay = RETRY.0;
    loop {
        match plugin.hold().await {
            Ok(ended) => {
                tell(cx, driver, socket, true);
                let since = Instant::now();
                ended.await;
                tell(cx, driver, socket, false);
                tracing::debug!(driver, "the connection to a driver of claimed devices has ended");
                if since.elapsed() > RETRY.1 {
                    delay = RETRY.0;
                }
            }
            Err(error) => tracing::debug!(driver, %error, "a driver of claimed devices is not there"),
        }
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(RETRY.1);
    }
}

fn tell(cx: &Arc<Context>, driver: &str, socket: u64, is_connected: bool) {
    if cx.claims.connected(driver, socket, is_connected) {
        slices::withdraw_later(cx, driver);
    }
}

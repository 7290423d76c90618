//! How many volumes of a driver the node can have changes (network interfaces take from the same budget). The driver is asked again as often as
//! its CSIDriver object says, and when a volume could not be attached for want of room (KEP-4876).

use std::time::Duration;

use super::{announce, mount};
use crate::context::Context;

/// Least time between two questions, whatever else happens: what the API takes as a period, too.
const LEAST: Duration = Duration::from_secs(10);

/// Keeps the count of a driver in the node's CSINode object, for ever.
pub async fn keep(cx: &Context, name: &str) {
    let mut full = cx.drivers.full.subscribe();
    loop {
        let period = match mount::policy(cx, name).await {
            Ok(policy) => policy.recount,
            Err(error) => {
                tracing::debug!(driver = name, error, "how often a driver is asked for its count is not known");
                Some(LEAST)
            }
        };
        let due = async {
            match period {
                Some(period) => tokio::time::sleep(period.max(LEAST)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            changed = full.changed() => if changed.is_err() { return },
        }
        if let Err(error) = recount(cx, name).await {
            tracing::warn!(driver = name, error, "the driver's count of volumes is as it was");
        }
        // Many pods may fail for the same.
        tokio::time::sleep(LEAST).await;
    }
}

async fn recount(cx: &Context, name: &str) -> Result<(), String> {
    let info = cx.drivers.find(name)?.info().await.map_err(|error| error.to_string())?;
    announce::recount(cx, name, &info).await.map_err(|error| error.to_string())
}

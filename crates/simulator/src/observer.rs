//! A watch that is held against the history of commits: nothing is left out, told twice or out of order, whatever breaks off.

use std::convert::Infallible;
use std::sync::Arc;

use client::Client;
use client::watch::{Event, Watch};
use futures::StreamExt;
use serde_json::Value;

use crate::audit::Auditor;

/// Follows all pods, for ever.
pub(crate) async fn observe(client: Client, auditor: Arc<Auditor>) -> Result<(), Infallible> {
    let mut events = std::pin::pin!(Watch::new(client, "/api/v1/pods", "").encoded());
    let mut last = None;
    while let Some(event) = events.next().await {
        match event {
            // All objects come; what was deleted meanwhile does not.
            Ok(Event::Init | Event::InitApply(_) | Event::InitDone(_)) => last = None,
            Ok(Event::Apply(object) | Event::Delete(object)) => {
                let object: Value = serde_json::from_slice(&object).unwrap_or_default();
                let revision = object["metadata"]["resourceVersion"].as_str().and_then(|version| version.parse().ok());
                auditor.watched(last, revision.unwrap_or(0));
                last = revision;
            }
            Err(_) => {}
        }
    }
    Ok(())
}

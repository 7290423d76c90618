//! What there is of pods when the kubelet starts.

use std::collections::HashMap;

use crate::context::Context;
use crate::pod::found::Found;

/// What the runtime holds, by pod.
pub(super) async fn inventory(cx: &Context) -> Result<HashMap<String, Found>, runtime::api::Error> {
    let runtime = cx.runtime();
    let (sandboxes, containers, past) =
        tokio::try_join!(runtime.sandboxes(), runtime.containers(None), runtime.past_containers())?;
    let pods: HashMap<String, String> = sandboxes.iter().map(|sandbox| (sandbox.id.clone(), sandbox.pod.uid.clone())).collect();
    let mut found: HashMap<String, Found> = HashMap::new();
    for sandbox in sandboxes {
        found.entry(sandbox.pod.uid.clone()).or_default().sandboxes.push(sandbox);
    }
    for container in containers {
        if let Some(uid) = pods.get(&container.sandbox) {
            found.entry(uid.clone()).or_default().containers.push(container);
        }
    }
    for (uid, container) in past {
        found.entry(uid).or_default().containers.push(container);
    }
    Ok(found)
}

//! What other API servers need to know of this one: the ConfigMap `extension-apiserver-authentication` in kube-system.

use apimachinery::{Reason, Status};
use registry::Registry;
use serde_json::{Value, json};

use super::FRONT_PROXY;
use crate::bootstrap::context;

pub(super) const NAMESPACE: &str = "kube-system";
pub(super) const NAME: &str = "extension-apiserver-authentication";

/// The data: whose client certificates are good, and how the user of a forwarded request is told.
fn data(clients: &str, front_proxy: &str) -> Value {
    json!({
        "client-ca-file": clients,
        "requestheader-allowed-names": format!("[\"{FRONT_PROXY}\"]"),
        "requestheader-client-ca-file": front_proxy,
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
        "requestheader-username-headers": "[\"X-Remote-User\"]",
    })
}

/// Writes it, unless it stands there already.
pub(super) async fn publish(registry: &Registry, clients: &str, front_proxy: &str) -> Result<(), Status> {
    let maps = registry.resource("", "v1", "configmaps").ok_or_else(|| Status::internal("configmaps are not served"))?;
    let data = data(clients, front_proxy);
    match registry.get(&maps, NAMESPACE, NAME, None).await {
        Ok(entry) => {
            let mut map = entry.value();
            if map["data"] == data {
                return Ok(());
            }
            map["data"] = data;
            registry.update(&context(), &maps, "", NAMESPACE, NAME, map).await.map(drop)
        }
        Err(status) if status.is(Reason::NotFound) => {
            let mut map = json!({"metadata": {"name": NAME}, "data": data});
            maps.decode(&context(), "", &mut map)?;
            registry.create(&context(), &maps, NAMESPACE, None, map).await.map(drop)
        }
        Err(status) => Err(status),
    }
}

//! APIs of other servers, as they stand in the catalog.

use std::sync::Arc;

use serde_json::Value;

use crate::Registry;

/// A group version that another server serves (APIService with a service): an entry of the catalog whose backend is remote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub service: String,
    /// Port of the service.
    pub port: u16,
    /// Certificates, in PEM, of which one vouches for the server; none for those of the system.
    pub ca_bundle: Option<String>,
    /// The server's certificate is not looked at.
    pub unverified: bool,
    /// Where the group stands among others: higher ones come first.
    pub group_priority: i64,
    /// Where the version stands among those of its group.
    pub version_priority: i64,
    /// Whether it answers.
    pub available: bool,
    /// Whether `resources` is what it said when it was asked last.
    pub current: bool,
    /// Its resources, an `APIResourceList`, as it told them last; none before it has answered.
    pub resources: Option<Arc<Value>>,
    /// What it adds to the OpenAPI document of version 2.
    pub openapi: Option<Arc<Value>>,
}

impl Registry {
    /// Serves these APIs of other servers, and no others.
    pub async fn set_remotes(&self, remotes: Vec<Arc<Remote>>) {
        let _changes = self.epoch.lock().await;
        let catalog = self.catalog();
        if !catalog.remotes().eq(remotes.iter()) {
            self.publish(catalog.with_remotes(remotes));
        }
    }
}

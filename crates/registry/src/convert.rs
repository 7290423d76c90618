//! Conversion by somebody else: the versions of a custom resource whose definition names a webhook.

use apimachinery::Status;
use async_trait::async_trait;
use serde_json::Value;

/// Makes objects of one version of a kind objects of another.
#[async_trait]
pub trait Converter: Send + Sync {
    /// The objects in the version `api_version`, in the same order.
    ///
    /// # Errors
    /// One of them cannot be had.
    async fn convert(&self, objects: Vec<Value>, api_version: &str) -> Result<Vec<Value>, Status>;
}

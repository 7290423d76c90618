//! Writes of whose answer nothing is read but the metadata: a pod takes longer to decode than all else that a client does for it.

use kube::api::{Patch, PatchParams, PostParams};
use kube::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::names::segment;
use crate::{Api, metadata, resource_version};

/// What is read of an object that was written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Brief {
    /// The name, which the API may have made.
    pub name: String,
    resource_version: Option<String>,
}

impl Brief {
    /// The version of the write, to be compared.
    pub fn version(&self) -> u64 {
        resource_version::parse(self.resource_version.as_deref())
    }
}

/// Creates an object from its JSON.
pub async fn create<K>(api: &Api<K>, json: Vec<u8>) -> Result<Brief> {
    let created = api.answer(api.request().create(&PostParams::default(), json)).await?;
    metadata::of(created.as_bytes()).map_err(Error::SerdeError)
}

/// Patches the status of an object.
pub async fn patch_status<K>(api: &Api<K>, name: &str, patch: &Patch<impl Serialize>) -> Result<()> {
    api.answer(api.request().patch_subresource("status", &segment(name)?, &PatchParams::default(), patch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{DeleteParams, Preconditions};
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

    #[tokio::test]
    async fn objects_are_written_and_named() {
        let fake = Fake::default();
        let api: Api<ConfigMap> = Api::namespaced(fake.client(), "a");
        let body = |name: &str| json!({"metadata": {"generateName": name}}).to_string().into_bytes();
        let (first, second) = (create(&api, body("m-")).await.unwrap(), create(&api, body("m-")).await.unwrap());
        assert!(first.name.starts_with("m-") && first.name != second.name && first.version() < second.version());
        let patch = Patch::Merge(json!({"status": {"phase": "Bound"}}));
        let code = |result: Result<()>| match result {
            Err(Error::Api(status)) => status.code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(patch_status(&api, "none", &patch).await), 404);
        patch_status(&api, &first.name, &patch).await.unwrap();
        let other = Preconditions { uid: Some("other".to_owned()), resource_version: None };
        assert_eq!(code(api.delete(&first.name, &DeleteParams::default().preconditions(other)).await), 409);
        api.delete(&first.name, &DeleteParams::default()).await.unwrap();
        assert_eq!(code(api.delete(&first.name, &DeleteParams::default()).await), 404);
    }
}

//! Where credentials for images are from, as it is remembered of the images that they have pulled (KEP-2535).

use serde::{Deserialize, Serialize};

/// Where credentials are from, which decides who may use an image that they have pulled (KEP-2535).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The node itself.
    Node,
    /// A secret of the pod.
    Secret(PullSecret),
    /// A plugin that was shown a token of the pod's service account (KEP-4412).
    ServiceAccount(PullServiceAccount),
}

/// A secret by which an image was pulled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullSecret {
    /// UID of the object.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Digest of the credentials that it had.
    pub credential_hash: String,
}

impl PullSecret {
    pub(super) fn is_same_object(&self, other: &Self) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

/// A service account for which a credential provider has given the credentials that an image was pulled with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullServiceAccount {
    /// UID of the object.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

//! What containers, pods and images are called.

use std::collections::BTreeMap;

use prost::Message;

/// Which container of a pod one is.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Counts the containers of that name in a sandbox, from 0.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

/// Which pod a sandbox is of.
#[derive(Clone, PartialEq, Message)]
pub struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// Counts the sandboxes of a pod, from 0.
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// An image.
#[derive(Clone, PartialEq, Message)]
pub struct ImageSpec {
    /// Its reference or identifier.
    #[prost(string, tag = "1")]
    pub image: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub annotations: BTreeMap<String, String>,
    /// As the pod has it.
    #[prost(string, tag = "18")]
    pub user_specified_image: String,
    #[prost(string, tag = "19")]
    pub runtime_handler: String,
    #[prost(string, tag = "20")]
    pub image_ref: String,
}

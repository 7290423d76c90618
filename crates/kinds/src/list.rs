//! The list of kinds. Everything that enumerates kinds starts here.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::{apps, authentication, authorization, coordination, discovery, node, rbac, scheduling};

use crate::events_v1::EventsV1;
use crate::strategy::Strategy;
use crate::typed::{Kind, Typed};

const fn kind<K: Kind>() -> &'static dyn Strategy {
    const { &Typed::<K>::new() }
}

/// Every built-in kind.
pub static KINDS: &[&dyn Strategy] = &[
    kind::<core::Namespace>(),
    kind::<core::Node>(),
    kind::<core::Pod>(),
    kind::<core::Service>(),
    kind::<core::ReplicationController>(),
    kind::<core::PodTemplate>(),
    kind::<core::Endpoints>(),
    kind::<core::ConfigMap>(),
    kind::<core::Secret>(),
    kind::<core::ServiceAccount>(),
    kind::<core::Event>(),
    &EventsV1,
    kind::<apps::v1::Deployment>(),
    kind::<apps::v1::ReplicaSet>(),
    kind::<apps::v1::ControllerRevision>(),
    kind::<authentication::v1::TokenReview>(),
    kind::<authentication::v1::SelfSubjectReview>(),
    kind::<authorization::v1::SubjectAccessReview>(),
    kind::<authorization::v1::SelfSubjectAccessReview>(),
    kind::<authorization::v1::LocalSubjectAccessReview>(),
    kind::<authorization::v1::SelfSubjectRulesReview>(),
    kind::<coordination::v1::Lease>(),
    kind::<discovery::v1::EndpointSlice>(),
    kind::<node::v1::RuntimeClass>(),
    kind::<rbac::v1::Role>(),
    kind::<rbac::v1::RoleBinding>(),
    kind::<rbac::v1::ClusterRole>(),
    kind::<rbac::v1::ClusterRoleBinding>(),
    kind::<scheduling::v1::PriorityClass>(),
];

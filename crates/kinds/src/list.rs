//! The list of kinds. Everything that enumerates kinds starts here.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::{
    admissionregistration, apps, authentication, authorization, autoscaling, batch, certificates, coordination, discovery,
    flowcontrol, networking, node, policy, rbac, resource, scheduling, storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration;

use crate::autoscaling::HorizontalPodAutoscalerV1;
use crate::events::EventsV1;
use crate::metrics::{NodeMetrics, PodMetrics};
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
    kind::<core::Binding>(),
    kind::<core::Service>(),
    kind::<core::ReplicationController>(),
    kind::<core::PodTemplate>(),
    kind::<core::Endpoints>(),
    kind::<core::ConfigMap>(),
    kind::<core::Secret>(),
    kind::<core::ServiceAccount>(),
    kind::<core::LimitRange>(),
    kind::<core::ResourceQuota>(),
    kind::<core::Event>(),
    &EventsV1,
    kind::<core::PersistentVolume>(),
    kind::<core::PersistentVolumeClaim>(),
    kind::<core::ComponentStatus>(),
    kind::<admissionregistration::v1::MutatingAdmissionPolicy>(),
    kind::<admissionregistration::v1::MutatingAdmissionPolicyBinding>(),
    kind::<admissionregistration::v1::MutatingWebhookConfiguration>(),
    kind::<admissionregistration::v1::ValidatingAdmissionPolicy>(),
    kind::<admissionregistration::v1::ValidatingAdmissionPolicyBinding>(),
    kind::<admissionregistration::v1::ValidatingWebhookConfiguration>(),
    kind::<apiextensions::v1::CustomResourceDefinition>(),
    kind::<apiregistration::v1::APIService>(),
    kind::<apps::v1::Deployment>(),
    kind::<apps::v1::ReplicaSet>(),
    kind::<apps::v1::StatefulSet>(),
    kind::<apps::v1::DaemonSet>(),
    kind::<apps::v1::ControllerRevision>(),
    kind::<authentication::v1::TokenReview>(),
    kind::<authentication::v1::SelfSubjectReview>(),
    kind::<authorization::v1::SubjectAccessReview>(),
    kind::<authorization::v1::SelfSubjectAccessReview>(),
    kind::<authorization::v1::LocalSubjectAccessReview>(),
    kind::<authorization::v1::SelfSubjectRulesReview>(),
    kind::<autoscaling::v2::HorizontalPodAutoscaler>(),
    &HorizontalPodAutoscalerV1,
    kind::<batch::v1::Job>(),
    kind::<batch::v1::CronJob>(),
    kind::<certificates::v1::CertificateSigningRequest>(),
    kind::<certificates::v1beta1::ClusterTrustBundle>(),
    kind::<certificates::v1beta1::PodCertificateRequest>(),
    kind::<coordination::v1::Lease>(),
    kind::<discovery::v1::EndpointSlice>(),
    kind::<flowcontrol::v1::FlowSchema>(),
    kind::<flowcontrol::v1::PriorityLevelConfiguration>(),
    kind::<NodeMetrics>(),
    kind::<PodMetrics>(),
    kind::<networking::v1::Ingress>(),
    kind::<networking::v1::IngressClass>(),
    kind::<networking::v1::IPAddress>(),
    kind::<networking::v1::NetworkPolicy>(),
    kind::<networking::v1::ServiceCIDR>(),
    kind::<node::v1::RuntimeClass>(),
    kind::<policy::v1::PodDisruptionBudget>(),
    kind::<rbac::v1::Role>(),
    kind::<rbac::v1::RoleBinding>(),
    kind::<rbac::v1::ClusterRole>(),
    kind::<rbac::v1::ClusterRoleBinding>(),
    kind::<resource::v1::DeviceClass>(),
    kind::<resource::v1::ResourceClaim>(),
    kind::<resource::v1::ResourceClaimTemplate>(),
    kind::<resource::v1::ResourceSlice>(),
    kind::<scheduling::v1::PriorityClass>(),
    kind::<storage::v1::CSIDriver>(),
    kind::<storage::v1::CSINode>(),
    kind::<storage::v1::CSIStorageCapacity>(),
    kind::<storage::v1::StorageClass>(),
    kind::<storage::v1::VolumeAttachment>(),
    kind::<storage::v1::VolumeAttributesClass>(),
];

#[cfg(test)]
mod tests;

//! The types of the API that the program decodes or encodes.

use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Binding, ComponentStatus, ConfigMap, Container, Endpoints, EphemeralContainer, Event, LimitRange, Namespace, Node,
    NodeStatus, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, PodStatus, PodTemplate, PodTemplateSpec,
    ReplicationController, ResourceQuota, ResourceQuotaSpec, ResourceRequirements, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, FlowSchemaSpec, PriorityLevelConfiguration, PriorityLevelConfigurationSpec};
use k8s_openapi::api::networking::v1::{IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use k8s_openapi::api::{authentication, authorization, autoscaling, certificates, events};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

macro_rules! both {
    ($($type:ty),+ $(,)?) => { $(
        crate::decode!($type);
        crate::encode!($type);
    )+ };
}

both! {
    APIService, Binding, CSIDriver, CSINode, CSIStorageCapacity, CertificateSigningRequest, ClusterRole, ClusterRoleBinding,
    ComponentStatus, ConfigMap, Container, ControllerRevision, CronJob, CustomResourceDefinition, DaemonSet, Deployment,
    DeviceClass, EndpointSlice, Endpoints, EphemeralContainer, Event, Eviction, FlowSchema, FlowSchemaSpec,
    HorizontalPodAutoscaler, IPAddress, Ingress, IngressClass, JSONSchemaProps, Job, Lease, LimitRange, MutatingAdmissionPolicy,
    MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, Namespace, NetworkPolicy, Node, NodeStatus, ObjectMeta,
    PersistentVolume, PersistentVolumeClaim, Pod, PodDisruptionBudget, PodSpec, PodStatus, PodTemplate, PodTemplateSpec,
    PriorityClass, PriorityLevelConfiguration, PriorityLevelConfigurationSpec, ReplicaSet, ReplicationController, ResourceClaim,
    ResourceClaimTemplate, ResourceQuota, ResourceQuotaSpec, ResourceRequirements, ResourceSlice, Role, RoleBinding,
    RuntimeClass, Secret, Service, ServiceAccount, ServiceCIDR, StatefulSet, Status, StorageClass, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration, VolumeAttachment, VolumeAttributesClass,
    authentication::v1::SelfSubjectReview, authentication::v1::TokenRequest, authentication::v1::TokenReview,
    authorization::v1::LocalSubjectAccessReview, authorization::v1::SelfSubjectAccessReview,
    authorization::v1::SelfSubjectRulesReview, authorization::v1::SubjectAccessReview, autoscaling::v1::HorizontalPodAutoscaler,
    autoscaling::v1::Scale, certificates::v1beta1::ClusterTrustBundle, certificates::v1beta1::PodCertificateRequest,
    events::v1::Event,
}

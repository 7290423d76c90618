//! The table of the controllers' roles: each is bound to the ServiceAccount of its name in kube-system.

use super::tables::Line;

const READ: &str = "get list watch";
const EVENTS: Line = ("create update patch", "core events.k8s.io", "events");

pub(super) static CONTROLLERS: &[(&str, &[Line])] = &[
    (
        "attachdetach-controller",
        &[
            ("list watch", "core", "persistentvolumes persistentvolumeclaims pods"),
            (READ, "core", "nodes"),
            ("patch update", "core", "nodes/status"),
            EVENTS,
            ("get create delete list watch", "storage.k8s.io", "volumeattachments"),
            (READ, "storage.k8s.io", "csidrivers csinodes"),
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[("escalate get list watch update patch", "rbac.authorization.k8s.io", "clusterroles")],
    ),
    (
        "cronjob-controller",
        &[
            ("get list watch update", "batch", "cronjobs"),
            ("get list watch create update delete patch", "batch", "jobs"),
            ("update", "batch", "cronjobs/status cronjobs/finalizers"),
            ("list watch delete", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            (READ, "extensions apps", "daemonsets"),
            ("update", "extensions apps", "daemonsets/status daemonsets/finalizers"),
            ("list watch", "core", "nodes"),
            ("list watch create delete patch", "core", "pods"),
            ("create", "core", "pods/binding"),
            ("get list watch create delete update patch", "apps", "controllerrevisions"),
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            ("get list watch update", "extensions apps", "deployments"),
            ("update", "extensions apps", "deployments/status deployments/finalizers"),
            ("get list watch create update patch delete", "apps extensions", "replicasets"),
            ("get list watch update", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "device-taint-eviction-controller",
        &[
            ("get list watch delete", "core", "pods"),
            ("patch update", "core", "pods/status"),
            (READ, "resource.k8s.io", "deviceclasses resourceclaims resourceslices"),
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            (READ, "extensions apps", "deployments replicasets"),
            (READ, "core", "replicationcontrollers"),
            (READ, "policy", "poddisruptionbudgets"),
            (READ, "apps", "statefulsets"),
            ("update", "policy", "poddisruptionbudgets/status"),
            ("patch update", "core", "pods/status"),
            ("get", "*", "*/scale"),
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            (READ, "core", "services pods"),
            ("get list watch create update delete", "core", "endpoints"),
            ("create", "core", "endpoints/restricted"),
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            (READ, "core", "services pods nodes"),
            ("update", "core", "services/finalizers"),
            ("get list watch create update delete", "discovery.k8s.io", "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            (READ, "core", "services endpoints"),
            ("update", "core", "services/finalizers endpoints/finalizers"),
            ("get list watch create update delete", "discovery.k8s.io", "endpointslices"),
            EVENTS,
        ],
    ),
    (
        "expand-controller",
        &[
            ("get list watch update patch", "core", "persistentvolumes"),
            ("update patch", "core", "persistentvolumeclaims/status"),
            (READ, "core", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    (
        "ephemeral-volume-controller",
        &[
            (READ, "core", "pods"),
            ("update", "core", "pods/finalizers"),
            ("get list watch create", "core", "persistentvolumeclaims"),
            EVENTS,
        ],
    ),
    ("generic-garbage-collector", &[("get list watch patch update delete", "*", "*"), EVENTS]),
    (
        "horizontal-pod-autoscaler",
        &[
            (READ, "autoscaling", "horizontalpodautoscalers"),
            ("update", "autoscaling", "horizontalpodautoscalers/status"),
            ("get update", "*", "*/scale"),
            ("list watch", "core metrics.k8s.io", "pods"),
            (READ, "custom.metrics.k8s.io external.metrics.k8s.io", "*"),
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            ("get list watch update patch", "batch", "jobs"),
            ("update", "batch", "jobs/status jobs/finalizers"),
            ("list watch create delete patch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "namespace-controller",
        &[
            ("get list watch delete", "core", "namespaces"),
            ("update", "core", "namespaces/finalize namespaces/status"),
            ("get list watch delete deletecollection", "*", "*"),
        ],
    ),
    (
        "node-controller",
        &[
            ("get list update delete patch watch", "core", "nodes"),
            ("patch update", "core", "nodes/status pods/status"),
            ("list watch get delete", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            ("get list watch update create delete", "core", "persistentvolumes"),
            ("update", "core", "persistentvolumes/status persistentvolumeclaims/status"),
            ("get list watch update", "core", "persistentvolumeclaims"),
            ("get list watch create delete", "core", "pods"),
            (READ, "storage.k8s.io", "storageclasses"),
            ("list watch", "core", "nodes"),
            ("watch", "core", "events"),
            EVENTS,
        ],
    ),
    (
        "pod-garbage-collector",
        &[("list watch delete", "core", "pods"), ("get list watch", "core", "nodes"), ("patch", "core", "pods/status")],
    ),
    (
        "replicaset-controller",
        &[
            ("get list watch update", "apps extensions", "replicasets"),
            ("update", "apps extensions", "replicasets/status replicasets/finalizers"),
            ("list watch create delete patch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            ("get list watch update", "core", "replicationcontrollers"),
            ("update", "core", "replicationcontrollers/status replicationcontrollers/finalizers"),
            ("list watch create delete patch", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "resource-claim-controller",
        &[
            (READ, "core", "pods"),
            ("update", "core", "pods/finalizers"),
            ("patch update", "core", "pods/status"),
            ("get list watch create delete", "resource.k8s.io", "resourceclaims"),
            ("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaims/binding"),
            EVENTS,
        ],
    ),
    ("resourcequota-controller", &[("list watch", "*", "*"), ("update", "core", "resourcequotas/status"), EVENTS]),
    ("route-controller", &[("list watch", "core", "nodes"), ("patch", "core", "nodes/status"), EVENTS]),
    // Upstream's works with the rights of the controller manager as a whole.
    ("tokens-controller", &[("update delete", "core", "secrets"), ("get", "core", "serviceaccounts"), EVENTS]),
    ("service-account-controller", &[("create", "core", "serviceaccounts"), EVENTS]),
    (
        "service-controller",
        &[(READ, "core", "services"), ("patch update", "core", "services/status"), ("list watch", "core", "nodes"), EVENTS],
    ),
    // Upstream's API server writes IPAddresses itself, and its controller only reads them.
    (
        "service-cidrs-controller",
        &[
            ("get list watch patch update", "networking.k8s.io", "servicecidrs"),
            ("patch update", "networking.k8s.io", "servicecidrs/finalizers servicecidrs/status"),
            ("get list watch create delete", "networking.k8s.io", "ipaddresses"),
            ("list", "core", "services"),
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            ("list watch", "core", "pods"),
            (READ, "apps", "statefulsets"),
            ("update", "apps", "statefulsets/status statefulsets/finalizers"),
            ("get create delete update patch", "core", "pods"),
            ("get create delete update patch list watch", "apps", "controllerrevisions"),
            ("get create list watch update delete", "core", "persistentvolumeclaims"),
            ("update", "core", "pods/finalizers"),
            EVENTS,
        ],
    ),
    ("ttl-controller", &[("update patch list watch", "core", "nodes"), EVENTS]),
    ("ttl-after-finished-controller", &[("get list watch delete", "batch", "jobs"), EVENTS]),
    (
        "certificate-controller",
        &[
            ("get list watch delete", "certificates.k8s.io", "certificatesigningrequests"),
            ("update", "certificates.k8s.io", "certificatesigningrequests/status certificatesigningrequests/approval"),
            ("approve", "certificates.k8s.io", "signers @ kubernetes.io/kube-apiserver-client-kubelet"),
            (
                "sign",
                "certificates.k8s.io",
                "signers @ kubernetes.io/legacy-unknown kubernetes.io/kubelet-serving kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet",
            ),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            EVENTS,
        ],
    ),
    ("podcertificaterequestcleaner", &[("get list watch delete", "certificates.k8s.io", "podcertificaterequests")]),
    // Upstream has the name of this signer and no signer.
    (
        "pod-certificate-signer",
        &[
            ("get list watch", "certificates.k8s.io", "podcertificaterequests"),
            ("update", "certificates.k8s.io", "podcertificaterequests/status"),
            ("sign", "certificates.k8s.io", "signers @ kubernetes.io/kube-apiserver-client-pod"),
            ("list watch", "core", "pods namespaces"),
            EVENTS,
        ],
    ),
    (
        "pvc-protection-controller",
        &[
            ("get list watch update", "core", "persistentvolumeclaims"),
            ("update", "core", "persistentvolumeclaims/status"),
            ("list watch get", "core", "pods"),
            EVENTS,
        ],
    ),
    (
        "volumeattributesclass-protection-controller",
        &[
            (READ, "core", "persistentvolumeclaims persistentvolumes"),
            ("get list watch update", "storage.k8s.io", "volumeattributesclasses"),
            EVENTS,
        ],
    ),
    // Upstream's controller of this name does not run unless somebody asks for it, and its role is there all the same.
    (
        "selinux-warning-controller",
        &[(READ, "core", "persistentvolumes persistentvolumeclaims pods"), (READ, "storage.k8s.io", "csidrivers"), EVENTS],
    ),
    ("pv-protection-controller", &[("get list watch update", "core", "persistentvolumes"), EVENTS]),
    ("root-ca-cert-publisher", &[("create update", "core", "configmaps"), EVENTS]),
    (
        "kube-apiserver-serving-clustertrustbundle-publisher",
        &[
            ("attest", "certificates.k8s.io", "signers @ kubernetes.io/kube-apiserver-serving"),
            ("create update delete list watch", "certificates.k8s.io", "clustertrustbundles"),
            EVENTS,
        ],
    ),
    (
        "legacy-service-account-token-cleaner",
        &[
            ("get", "core", "configmaps @ kube-apiserver-legacy-service-account-token-tracking"),
            ("patch delete", "core", "secrets"),
        ],
    ),
    (
        "validatingadmissionpolicy-status-controller",
        &[
            (READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
            ("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
            EVENTS,
        ],
    ),
];

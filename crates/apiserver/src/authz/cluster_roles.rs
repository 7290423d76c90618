//! The table of default roles.

use super::tables::{Line, Role};

const READ: &str = "get list watch";
const WRITE: &str = "create update patch delete deletecollection";
const ALL: &str = "create delete deletecollection get list patch update watch";
const EVENTS: Line = ("create update patch", "core events.k8s.io", "events");

const fn plain(name: &'static str, lines: &'static [Line]) -> Role {
    Role { name, into: &[], aggregates: None, lines }
}

pub(super) static ROLES: &[Role] = &[
    plain("cluster-admin", &[("*", "*", "*"), ("*", "", "*URL")]),
    plain(
        "system:discovery",
        &[("get", "", "/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*")],
    ),
    plain("system:public-info-viewer", &[("get", "", "/livez /readyz /healthz /version /version/")]),
    plain(
        "system:monitoring",
        &[
            ("get", "", "/metrics /metrics/slis /livez /readyz /healthz /livez/* /readyz/* /healthz/* /flagz /statusz"),
            ("get", "core", "nodes/metrics"),
        ],
    ),
    plain(
        "system:basic-user",
        &[
            ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    plain(
        "system:service-account-issuer-discovery",
        &[("get", "", "/.well-known/openid-configuration /openid/v1/jwks /.well-known/openid-configuration/ /openid/v1/jwks/")],
    ),
    Role { name: "admin", into: &[], aggregates: Some("admin"), lines: &[] },
    Role { name: "edit", into: &["admin"], aggregates: Some("edit"), lines: &[] },
    Role { name: "view", into: &["edit"], aggregates: Some("view"), lines: &[] },
    Role {
        name: "system:aggregate-to-admin",
        into: &["admin"],
        aggregates: None,
        lines: &[
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            (ALL, "rbac.authorization.k8s.io", "roles rolebindings"),
        ],
    },
    Role {
        name: "system:aggregate-to-edit",
        into: &["edit"],
        aggregates: None,
        lines: &[
            (READ, "core", "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
            ("impersonate", "core", "serviceaccounts"),
            (WRITE, "core", "pods pods/attach pods/proxy pods/exec pods/portforward"),
            ("create", "core", "pods/eviction"),
            (
                WRITE,
                "core",
                "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy persistentvolumeclaims configmaps secrets",
            ),
            (WRITE, "core events.k8s.io", "events"),
            ("create", "core", "serviceaccounts/token"),
            (
                WRITE,
                "apps",
                "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets replicasets/scale",
            ),
            (WRITE, "autoscaling", "horizontalpodautoscalers"),
            (WRITE, "batch", "jobs cronjobs"),
            (
                WRITE,
                "extensions",
                "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale replicationcontrollers/scale networkpolicies",
            ),
            (WRITE, "policy", "poddisruptionbudgets"),
            (WRITE, "networking.k8s.io", "networkpolicies ingresses"),
            (ALL, "coordination.k8s.io", "leases"),
            (WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
        ],
    },
    Role {
        name: "system:aggregate-to-view",
        into: &["view"],
        aggregates: None,
        lines: &[
            (
                READ,
                "core",
                "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps",
            ),
            (
                READ,
                "core",
                "limitranges resourcequotas bindings pods/status resourcequotas/status namespaces/status replicationcontrollers/status pods/log",
            ),
            (READ, "core", "namespaces"),
            (READ, "core events.k8s.io", "events"),
            (READ, "discovery.k8s.io", "endpointslices"),
            (
                READ,
                "apps",
                "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale",
            ),
            (READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            (READ, "batch", "jobs cronjobs cronjobs/status jobs/status"),
            (
                READ,
                "extensions",
                "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies",
            ),
            (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            (READ, "networking.k8s.io", "networkpolicies ingresses ingresses/status"),
            (READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
        ],
    },
    // The role that comes with metrics-server, whose API is part of this server.
    Role {
        name: "system:aggregated-metrics-reader",
        into: &["admin", "edit", "view"],
        aggregates: None,
        lines: &[(READ, "metrics.k8s.io", "pods nodes")],
    },
    plain("system:heapster", &[(READ, "core", "events pods nodes namespaces"), (READ, "extensions", "deployments")]),
    plain(
        "system:node",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews localsubjectaccessreviews"),
            (READ, "core", "services"),
            ("create get list watch", "core", "nodes"),
            ("update patch", "core", "nodes/status nodes"),
            EVENTS,
            (READ, "core", "pods"),
            ("create delete", "core", "pods"),
            ("update patch", "core", "pods/status"),
            ("create", "core", "pods/eviction"),
            (READ, "core", "secrets configmaps"),
            ("get", "core", "persistentvolumeclaims persistentvolumes"),
            ("get", "core", "endpoints"),
            ("create get list watch", "certificates.k8s.io", "certificatesigningrequests podcertificaterequests"),
            (READ, "certificates.k8s.io", "clustertrustbundles"),
            ("create delete get patch update", "coordination.k8s.io", "leases"),
            ("get", "storage.k8s.io", "volumeattachments"),
            ("create", "core", "serviceaccounts/token"),
            ("get patch update", "core", "persistentvolumeclaims/status"),
            (READ, "storage.k8s.io", "csidrivers"),
            ("create delete get patch update", "storage.k8s.io", "csinodes"),
            (READ, "node.k8s.io", "runtimeclasses"),
            ("get", "resource.k8s.io", "resourceclaims"),
            ("deletecollection", "resource.k8s.io", "resourceslices"),
            ("get", "core", "serviceaccounts"),
        ],
    ),
    plain("system:node-problem-detector", &[("get", "core", "nodes"), ("patch", "core", "nodes/status"), EVENTS]),
    plain(
        "system:kubelet-api-admin",
        &[
            ("get list watch proxy", "core", "nodes"),
            ("*", "core", "nodes/proxy nodes/metrics nodes/stats nodes/log nodes/configz nodes/healthz nodes/pods"),
        ],
    ),
    plain("system:node-bootstrapper", &[("create get list watch", "certificates.k8s.io", "certificatesigningrequests")]),
    plain(
        "system:auth-delegator",
        &[("create", "authentication.k8s.io", "tokenreviews"), ("create", "authorization.k8s.io", "subjectaccessreviews")],
    ),
    plain("system:cluster-trust-bundle-discovery", &[(READ, "certificates.k8s.io", "clustertrustbundles")]),
    plain("system:kube-aggregator", &[(READ, "core", "services endpoints")]),
    plain(
        "system:kube-controller-manager",
        &[
            EVENTS,
            ("create", "coordination.k8s.io", "leases"),
            ("get update", "coordination.k8s.io", "leases @ kube-controller-manager"),
            ("create", "core", "secrets serviceaccounts"),
            ("delete", "core", "secrets"),
            ("get", "core", "namespaces secrets serviceaccounts configmaps"),
            ("update", "core", "secrets serviceaccounts"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            ("list watch", "*", "*"),
            ("create", "core", "serviceaccounts/token"),
        ],
    ),
    plain(
        "system:kube-scheduler",
        &[
            EVENTS,
            ("create", "coordination.k8s.io", "leases"),
            ("get update list watch", "coordination.k8s.io", "leases @ kube-scheduler"),
            (ALL, "coordination.k8s.io", "leasecandidates"),
            (READ, "core", "nodes"),
            ("delete get list watch", "core", "pods"),
            ("create", "core", "bindings pods/binding"),
            ("patch update", "core", "pods/status"),
            (READ, "core", "replicationcontrollers services"),
            (READ, "apps extensions", "replicasets"),
            (READ, "apps", "statefulsets"),
            (READ, "policy", "poddisruptionbudgets"),
            (READ, "core", "persistentvolumeclaims persistentvolumes"),
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
            (READ, "storage.k8s.io", "csinodes csidrivers csistoragecapacities volumeattachments"),
            (READ, "core", "namespaces"),
            (READ, "resource.k8s.io", "deviceclasses resourceclaims resourceclaims/status resourceslices"),
            ("patch update", "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaims/binding"),
            ("update", "core", "pods/finalizers"),
            ("create delete", "resource.k8s.io", "resourceclaims"),
        ],
    ),
    plain("system:kube-dns", &[("list watch", "core", "endpoints services")]),
    plain(
        "system:coredns",
        &[("list watch", "core", "endpoints services pods namespaces"), ("list watch", "discovery.k8s.io", "endpointslices")],
    ),
    plain(
        "system:persistent-volume-provisioner",
        &[
            ("create delete get list watch", "core", "persistentvolumes"),
            ("get list update watch", "core", "persistentvolumeclaims"),
            (READ, "storage.k8s.io", "storageclasses"),
            ("watch", "core", "events"),
            EVENTS,
        ],
    ),
    plain(
        "system:volume-scheduler",
        &[
            ("get list patch update watch", "core", "persistentvolumes persistentvolumeclaims"),
            (READ, "storage.k8s.io", "storageclasses"),
        ],
    ),
    plain(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")],
    ),
    plain(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[("approve", "certificates.k8s.io", "signers @ kubernetes.io/legacy-unknown")],
    ),
    plain(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[("approve", "certificates.k8s.io", "signers @ kubernetes.io/kubelet-serving")],
    ),
    plain(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[("approve", "certificates.k8s.io", "signers @ kubernetes.io/kube-apiserver-client")],
    ),
    plain(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[("approve", "certificates.k8s.io", "signers @ kubernetes.io/kube-apiserver-client-kubelet")],
    ),
    plain(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")],
    ),
    plain(
        "system:node-proxier",
        &[
            ("list watch", "core", "services endpoints"),
            (READ, "core", "nodes"),
            EVENTS,
            ("list watch", "discovery.k8s.io", "endpointslices"),
            ("list watch", "networking.k8s.io", "servicecidrs"),
        ],
    ),
    // Upstream leaves policies to network plugins, which bring their own role: ours.
    plain(
        "knarr:network-policies",
        &[
            ("list watch", "core", "pods namespaces"),
            ("list watch", "networking.k8s.io", "networkpolicies"),
            // Policies of the cluster, where they are installed.
            ("list watch", "apiextensions.k8s.io", "customresourcedefinitions"),
            (
                "list watch",
                "policy.networking.k8s.io",
                "clusternetworkpolicies adminnetworkpolicies baselineadminnetworkpolicies",
            ),
        ],
    ),
];

/// Name, role, subjects.
pub(super) static BINDINGS: &[(&str, &str, &str)] = &[
    ("cluster-admin", "cluster-admin", "g:system:masters"),
    ("system:monitoring", "system:monitoring", "g:system:monitoring"),
    ("system:discovery", "system:discovery", "g:system:authenticated"),
    ("system:basic-user", "system:basic-user", "g:system:authenticated"),
    ("system:public-info-viewer", "system:public-info-viewer", "g:system:authenticated g:system:unauthenticated"),
    ("system:node-proxier", "system:node-proxier", "u:system:kube-proxy"),
    ("knarr:network-policies", "knarr:network-policies", "u:system:kube-proxy"),
    ("system:kube-controller-manager", "system:kube-controller-manager", "u:system:kube-controller-manager"),
    ("system:kube-dns", "system:kube-dns", "s:kube-system/kube-dns"),
    ("system:coredns", "system:coredns", "s:kube-system/coredns"),
    ("system:kube-scheduler", "system:kube-scheduler", "u:system:kube-scheduler"),
    ("system:volume-scheduler", "system:volume-scheduler", "u:system:kube-scheduler"),
    // Nodes have the Node authorizer; upstream keeps the binding, without subjects, from before that.
    ("system:node", "system:node", ""),
    ("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", "g:system:serviceaccounts"),
    ("system:cluster-trust-bundle-discovery", "system:cluster-trust-bundle-discovery", "g:system:serviceaccounts"),
];

/// Namespace, name, lines, subjects of the binding of the same name.
pub(super) static NAMESPACE_ROLES: &[(&str, &str, &[Line], &str)] = &[
    (
        "kube-system",
        "extension-apiserver-authentication-reader",
        &[("get list watch", "core", "configmaps @ extension-apiserver-authentication")],
        "",
    ),
    (
        "kube-system",
        "system:controller:token-cleaner",
        &[("get list watch delete", "core", "secrets"), EVENTS],
        "s:kube-system/token-cleaner",
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        &[("create get list update watch", "coordination.k8s.io", "leases leasecandidates")],
        "u:system:kube-controller-manager s:kube-system/kube-controller-manager s:kube-system/leader-election-controller",
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        &[("create get list update watch", "coordination.k8s.io", "leases leasecandidates")],
        "u:system:kube-scheduler s:kube-system/kube-scheduler",
    ),
    (
        "kube-system",
        "system:controller:bootstrap-signer",
        &[("get list watch", "core", "secrets")],
        "s:kube-system/bootstrap-signer",
    ),
    (
        "kube-system",
        "system:controller:cloud-provider",
        &[("create get list watch", "core", "configmaps")],
        "s:kube-system/cloud-provider",
    ),
    (
        "kube-public",
        "system:controller:bootstrap-signer",
        &[("get list watch", "core", "configmaps"), ("update", "core", "configmaps @ cluster-info"), EVENTS],
        "s:kube-system/bootstrap-signer",
    ),
];

/// Namespace, name, role, subjects of further bindings there.
pub(super) static NAMESPACE_BINDINGS: &[(&str, &str, &str, &str)] = &[(
    "kube-system",
    "system::extension-apiserver-authentication-reader",
    "extension-apiserver-authentication-reader",
    "u:system:kube-controller-manager u:system:kube-scheduler",
)];

//! A cluster in memory for tests of controllers.

use std::sync::Arc;

use base::readiness::Readiness;
use base::tasks::{Failures, Tasks};
use client::Api;
use client::Informers;
use client::fake::Fake;
use client::kube::api::PostParams;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Clock, Controller, Options};

/// An object from JSON.
pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("test object")
}

/// An API in memory with the named controllers running on it.
pub(crate) struct World {
    pub(crate) fake: Fake,
    pub(crate) tasks: Tasks,
    pub(crate) readiness: Readiness,
    pub(crate) clock: Clock,
    _failures: Failures,
}

impl World {
    pub(crate) fn new() -> Self {
        let fake = Fake::default();
        for (group, version, plural, kind, namespaced) in [
            ("", "v1", "pods", "Pod", true),
            ("", "v1", "secrets", "Secret", true),
            ("", "v1", "serviceaccounts", "ServiceAccount", true),
            ("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false),
            ("certificates.k8s.io", "v1beta1", "clustertrustbundles", "ClusterTrustBundle", false),
            ("certificates.k8s.io", "v1beta1", "podcertificaterequests", "PodCertificateRequest", true),
            ("", "v1", "configmaps", "ConfigMap", true),
            ("", "v1", "namespaces", "Namespace", false),
            ("", "v1", "persistentvolumes", "PersistentVolume", false),
            ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
            ("", "v1", "services", "Service", true),
            ("", "v1", "nodes", "Node", false),
            ("", "v1", "replicationcontrollers", "ReplicationController", true),
            ("networking.k8s.io", "v1", "ipaddresses", "IPAddress", false),
            ("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", false),
            ("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim", true),
            ("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", false),
            ("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate", true),
            ("storage.k8s.io", "v1", "storageclasses", "StorageClass", false),
            ("storage.k8s.io", "v1", "volumeattributesclasses", "VolumeAttributesClass", false),
            ("storage.k8s.io", "v1", "csidrivers", "CSIDriver", false),
            ("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", false),
            ("apps", "v1", "controllerrevisions", "ControllerRevision", true),
            ("apps", "v1", "daemonsets", "DaemonSet", true),
            ("apps", "v1", "statefulsets", "StatefulSet", true),
            ("apps", "v1", "deployments", "Deployment", true),
            ("apps", "v1", "replicasets", "ReplicaSet", true),
            ("batch", "v1", "jobs", "Job", true),
            ("batch", "v1", "cronjobs", "CronJob", true),
        ] {
            fake.serve(group, version, plural, kind, namespaced);
        }
        let (tasks, failures) = Tasks::root();
        Self { fake, tasks, readiness: Readiness::default(), clock: Clock::system(), _failures: failures }
    }

    pub(crate) fn options(&self) -> Options {
        let fake = self.fake.clone();
        Options {
            informers: Informers::new(self.fake.client(), self.tasks.clone()),
            clients: Arc::new(move |_| fake.client()),
            root_ca: "PEM".to_owned(),
            sign_kept: Arc::new(|of| Ok(format!("{}/{} {} {}", of.namespace, of.secret, of.account, of.uid))),
            authority: Arc::new(base::tls::Authority::in_memory("ca").expect("an authority")),
            reserved: crate::Reserved::default(),
            cluster_cidrs: ["10.42.0.0/16", "fd42::/48"]
                .map(|text| text.parse::<ipnet::IpNet>().expect("a network").into())
                .into(),
            finished_pods: None,
            node_ports: [(8472, "UDP".to_owned())].into(),
            clock: self.clock.clone(),
        }
    }

    /// Starts the controllers of these names.
    pub(crate) fn start(&self, names: &[&str]) {
        self.start_with(&self.options(), names);
    }

    /// The same with other options.
    pub(crate) fn start_with(&self, options: &Options, names: &[&str]) {
        let entries: Vec<_> = crate::CONTROLLERS.iter().filter(|entry| names.contains(&entry.name)).collect();
        let parts = self.readiness.gate("controllers").parts(entries.iter().map(|entry| entry.name));
        for (entry, part) in entries.into_iter().zip(parts) {
            (entry.start)(options, crate::Start { tasks: &self.tasks, ready: part });
        }
    }

    /// Starts a controller that was made with these options.
    pub(crate) fn launch<C: Controller>(&self, options: &Options, controller: C) {
        let ready = self.readiness.gate("controllers").parts([C::NAME]).remove(0);
        crate::launch(controller, options, crate::Start { tasks: &self.tasks, ready });
    }

    /// Puts in a pod of nobody that waits for its node, or has the one that is given.
    pub(crate) fn put_waiting(&self, name: &str, node: Option<&str>) {
        self.fake.put::<Pod>(&object(json!({
            "metadata": {"namespace": "a", "name": name, "uid": name}, "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Pending"},
        })));
    }

    /// Returns when the owner of this name was told that no pods are made while so many wait.
    pub(crate) async fn until_paused(&self, owner: &str, waiting: usize) {
        let why = format!("no more pods are made while {waiting} of the namespace have no node");
        let told = |event: &Event| {
            let about = event.involved_object.name.as_deref() == Some(owner);
            about && (event.reason.as_deref(), event.message.as_deref()) == (Some("CreationPaused"), Some(&why))
        };
        self.fake.until::<Event>(|events| events.iter().any(told)).await;
    }
}

/// Stands in for kubelets: every pod becomes ready.
pub(crate) async fn make_pods_ready(world: &World) {
    run_pods(world, |pod| {
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        (!crate::pods::is_ready(pod)).then(|| json!({"phase": "Running", "conditions": ready}))
    })
    .await;
}

/// Stands in for kubelets: every pod gets the status that `status` has for it.
pub(crate) async fn run_pods(world: &World, status: impl Fn(&Pod) -> Option<Value>) {
    let mut changes = world.options().informers.of::<Pod>().changes();
    loop {
        let Some(pod) = changes.next().await.new else { continue };
        let Some(status) = status(&pod) else { continue };
        let pod = Pod { status: Some(object(status)), ..pod.as_ref().clone() };
        let api: Api<Pod> = Api::namespaced(world.fake.client(), crate::meta::namespace(&pod));
        // A conflict or a deleted pod: the next change tells.
        let _ = api.replace_status(crate::meta::name(&pod), &PostParams::default(), &pod).await;
    }
}

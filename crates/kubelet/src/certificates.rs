//! Certificates of pods (KEP-4317): a projected volume has a key that is made here, and a certificate for it that a signer issues.
//!
//! | module | what |
//! |---|---|
//! | [`credential`] | the life of one certificate, pure |
//! | [`request`] | what a request says, and what became of it, pure |
//! | [`pod`] | asks for what a pod's volumes need, and waits for the answers |
//!
//! Nothing of it is kept: keys are in memory and in the pods' volumes (which are in memory, too), and a kubelet that starts asks anew.

pub mod credential;
pub mod pod;
pub mod request;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use base::tasks::{OnFailure, Tasks};
use client::{Changes, Informer, Informers};
use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;
use k8s_openapi::api::core::v1::PodCertificateProjection;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::spec::Model;
use crate::volumes::used;

/// Where a certificate is in a pod: the volume, and which of its sources.
pub type Place = (String, usize);

/// The sources of certificates in the volumes that a pod's containers use.
pub fn sources(model: &Model) -> impl Iterator<Item = (Place, &PodCertificateProjection)> {
    used::volumes(model).flat_map(|volume| {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten().enumerate());
        sources.filter_map(|(index, source)| Some(((volume.name.clone(), index), source.pod_certificate.as_ref()?)))
    })
}

/// The requests of a node. They are followed once a pod needs them.
pub struct Certificates {
    informers: Informers,
    tasks: Tasks,
    node: String,
    requests: OnceLock<Informer<PodCertificateRequest>>,
    /// Who is told that something has become of a pod's requests, by its UID.
    pods: Arc<Mutex<HashMap<String, watch::Sender<()>>>>,
}

impl Certificates {
    /// Of the node with this name.
    pub fn new(informers: Informers, tasks: Tasks, node: &str) -> Self {
        Self { informers, tasks, node: node.to_owned(), requests: OnceLock::new(), pods: Arc::default() }
    }

    /// Changes whenever something has become of a request of this pod.
    pub fn changes(&self, uid: &str) -> watch::Receiver<()> {
        let mut pods = self.pods.lock();
        pods.retain(|_, sender| !sender.is_closed());
        pods.entry(uid.to_owned()).or_default().subscribe()
    }

    /// The requests of the node's pods.
    fn requests(&self) -> &Informer<PodCertificateRequest> {
        self.requests.get_or_init(|| {
            let requests = self.informers.of_selected(&format!("spec.nodeName={}", self.node));
            let tell = tell(requests.changes(), self.pods.clone());
            self.tasks.spawn_until_cancelled("certificates of pods", OnFailure::Shutdown, tell);
            requests
        })
    }
}

/// Tells pods that something has become of their requests, for ever.
async fn tell(
    mut changes: Changes<PodCertificateRequest>,
    pods: Arc<Mutex<HashMap<String, watch::Sender<()>>>>,
) -> Result<(), Infallible> {
    loop {
        let change = changes.next().await;
        let Some(request) = change.object() else { continue };
        if let Some(sender) = pods.lock().get(&request.spec.pod_uid) {
            sender.send_replace(());
        }
    }
}

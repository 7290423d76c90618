//! StorageObjectInUseProtection: claims, volumes and classes of attributes get the finalizer that keeps them as long as they are used.

use apimachinery::{Status, meta};
use async_trait::async_trait;
use registry::{Admission, Operation, Request};

use super::is;

/// Groups and resources, and the finalizer of each, which a controller takes away again.
const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub(super) struct StorageObjectInUseProtection;

fn finalizer(a: &Request<'_>) -> Option<&'static str> {
    FINALIZERS.iter().find(|(group, plural, _)| is(a, group, plural)).map(|(.., finalizer)| *finalizer)
}

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, a: &Request<'_>) -> bool {
        a.operation == Operation::Create && a.subresource.is_empty() && finalizer(a).is_some()
    }

    async fn mutate(&self, a: &mut Request<'_>) -> Result<(), Status> {
        if let Some(finalizer) = finalizer(a)
            && let Some(object) = a.object_mut()
        {
            meta::add_finalizer(object, finalizer);
        }
        Ok(())
    }
}
